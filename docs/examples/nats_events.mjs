// Every stored event of a cell, and then those that come, in JavaScript (Node) with NATS' own client. It can be resumed.
//
//   npm install @nats-io/transport-node
//   node nats_events.mjs tls://n1.example.org,n2.example.org --cell site --partitions 16 --seed wall.nk --ca ca.pem
//   node nats_events.mjs nats://127.0.0.1:4222 --after 17
//
// An aggregator alone is the cell `local` with one partition. Each line has the cursor to resume after: the last number
// of each partition that was read. A reader's nkey suffices: it makes no consumer, and writes nothing.

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { connect, createInbox, nkeyAuthenticator } from "@nats-io/transport-node";

const BATCH = 500;
const IDLE = 5000; // milliseconds without an event after which it looks whether one was missed
const PATIENCE = 5000;

/** Reads one partition of the cell. Its events, and its fences, have the numbers 1, 2, 3, ... without a gap. */
class Partition {
  constructor(client, prefix, number, after) {
    this.token = number.toString(16).padStart(2, "0");
    this.after = after;
    this.client = client;
    this.all = `${prefix}.ev.${this.token}.>`;
  }

  /** Yield the stored events after the last one: a "direct get" of batches, see NATS ADR-31. */
  async *stored() {
    for (let more = true; more; ) {
      const inbox = createInbox();
      const answers = this.client.subscribe(inbox, { timeout: PATIENCE });
      const what = { seq: this.after + 1, batch: BATCH, next_by_subj: this.all };
      this.client.publish(`$JS.API.DIRECT.GET.FER_EV_${this.token}`, JSON.stringify(what), { reply: inbox });
      more = false;
      for await (const message of answers) {
        if (!message.headers?.has("Nats-Sequence")) {
          // Status 204: the end of a batch; 404: no more; 503: nothing is stored yet.
          more = Number(message.headers?.get("Nats-Num-Pending") || 0) > 0;
          break;
        }
        const [sequence, subject] = ["Nats-Sequence", "Nats-Subject"].map((name) => message.headers.get(name));
        yield* this.take(Number(sequence), subject, message);
      }
    }
  }

  /** Return the event of a message, unless it is known already or a fence. */
  take(sequence, subject, message) {
    if (sequence <= this.after) return [];
    this.after = sequence;
    return subject.endsWith(".fence") ? [] : [message.json()];
  }
}

/** Yield [cursor, event] for every event after a cursor, for ever. */
async function* follow(client, cell, count, after) {
  const prefix = `fer.${cell}`;
  const numbers = Object.fromEntries(after.includes(":") ? after.split(",").map((part) => part.split(":")) : []);
  const parts = Array.from({ length: count }, (_, number) => {
    const token = number.toString(16).padStart(2, "0");
    return new Partition(client, prefix, number, Number(numbers[token] ?? after));
  });
  const cursor = () => (count > 1 ? parts.map((part) => `${part.token}:${part.after}`).join(",") : `${parts[0].after}`);

  // What the servers have stored; begin to listen first.
  const live = client.subscribe(`${prefix}.live.>`)[Symbol.asyncIterator]();
  let heard = live.next();
  let missed = parts;
  for (;;) {
    for (const part of missed) {
      try {
        for await (const event of part.stored()) yield [cursor(), event];
      } catch {
        // No connection, or a cluster that elects its leader: it is missed once more.
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    }
    let timer;
    const idle = new Promise((resolve) => (timer = setTimeout(resolve, IDLE)));
    const next = await Promise.race([heard, idle]);
    clearTimeout(timer);
    if (!next) {
      missed = parts;
      continue;
    }
    if (next.done) return;
    heard = live.next();
    const message = next.value;
    const part = parts.find(({ token }) => token === message.subject.split(".")[3]);
    const sequence = Number(message.headers.get("Nats-Sequence"));
    missed = sequence > part.after + 1 ? [part] : [];
    if (missed.length) continue;
    for (const event of part.take(sequence, message.headers.get("Nats-Subject"), message)) yield [cursor(), event];
  }
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    cell: { type: "string", default: "local" },
    partitions: { type: "string", default: "1" },
    after: { type: "string", default: "0" },
    seed: { type: "string" },
    ca: { type: "string" },
  },
});
if (positionals.length !== 1) {
  console.error("usage: node nats_events.mjs ADDRESS [--cell NAME] [--partitions N] [--after CURSOR] [--seed FILE] [--ca FILE]");
  process.exit(2);
}
process.stdout.on("error", () => process.exit(0)); // the reader has gone, as with `| head`
const [scheme, hosts] = positionals[0].split("://");
const client = await connect({
  servers: hosts.split(","),
  maxReconnectAttempts: -1,
  ...(scheme === "tls" ? { tls: values.ca ? { caFile: values.ca } : {} } : {}),
  ...(values.seed ? { authenticator: nkeyAuthenticator(Buffer.from(readFileSync(values.seed, "utf8").trim())) } : {}),
});
for await (const [cursor, event] of follow(client, values.cell, Number(values.partitions), values.after)) {
  console.log(cursor, event.time, event.source, event.type, event.data.label ?? "");
}
