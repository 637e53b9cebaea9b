// Follow a service's events without a gap: print each one as a line of JSON. Written from docs/reference/protocol.md.
//
//   npm install zeromq
//   node follow.mjs ADDRESS [--after CURSOR] [--camera NAME] [--key FILE]

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { Dealer, Subscriber } from "zeromq";

const KIND = { REPLAY: 15, EVENTS: 16 };
const LINKS = ["control", "frames", "work", "events", "observations", "preview"];
const HEADER = 92;
const VERSION = 1;
const SILENCE = 2000; // milliseconds until a question is asked again, at first
const LONGEST_SILENCE = 60000;
const MOST_WAITING = 10000; // messages that happen while an answer is awaited

// Messages

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ TABLE[(crc ^ byte) & 0xff];
  return (crc ^ 0xffffffff) >>> 0;
}

/** Return the two parts of a message with a JSON body. */
function pack(kind, ticket, body) {
  const payload = Buffer.from(JSON.stringify(body));
  const header = Buffer.alloc(HEADER);
  header.write("FERS", 0, "ascii");
  header.writeUInt8(VERSION, 4);
  header.writeUInt8(kind, 5);
  header.writeUInt8(1, 7); // the payload's checksum is there
  header.writeBigUInt64BE(ticket, 24);
  header.writeUInt32BE(payload.length, 80);
  header.writeUInt32BE(crc32(payload), 84);
  header.writeUInt32BE(crc32(header.subarray(0, 88)), 88);
  return [header, payload];
}

/** Return what is in a message, or throw. */
function unpack([header, ...parts]) {
  const payload = Buffer.concat(parts);
  const wrong = (what) => new Error(`the aggregator's message has ${what}`);
  if (header.length !== HEADER || header.toString("ascii", 0, 4) !== "FERS") throw wrong("no header");
  if (header.readUInt8(4) !== VERSION) throw wrong(`version ${header.readUInt8(4)}, and this is ${VERSION}`);
  if (header.readUInt32BE(88) !== crc32(header.subarray(0, 88))) throw wrong("a damaged header");
  if (header.readUInt32BE(80) !== payload.length) throw wrong("a payload of another length");
  if (header.readUInt8(7) & 1 && header.readUInt32BE(84) !== crc32(payload)) throw wrong("a damaged payload");
  return {
    kind: header.readUInt8(5),
    seq: Number(header.readBigUInt64BE(16)),
    ticket: header.readBigUInt64BE(24),
    time: Number(header.readBigInt64BE(32)),
    payload,
  };
}

// Addresses and keys

function endpoint(address, link) {
  const tcp = /^(tcp:\/\/.+):(\d+)$/.exec(address);
  return tcp ? `${tcp[1]}:${Number(tcp[2]) + LINKS.indexOf(link)}` : `${address}/${link}`;
}

function options(keyFile) {
  const common = {
    tcpKeepalive: 1,
    tcpKeepaliveIdle: 1,
    tcpKeepaliveInterval: 1,
    tcpMaxRetransmitTimeout: 60000,
    handshakeInterval: 30000,
    reconnectInterval: 50,
    reconnectMaxInterval: 1000,
    linger: 0,
  };
  if (!keyFile) return common;
  const key = JSON.parse(readFileSync(keyFile, "utf8"));
  return { ...common, curvePublicKey: key.public, curveSecretKey: key.secret, curveServerKey: key.server };
}

// Following

/** Yield events after a cursor, from the journal and then as they happen, for ever. */
async function* follow(address, { after, camera, key }) {
  const events = new Subscriber({ ...options(key), receiveHighWaterMark: 10000 });
  events.connect(endpoint(address, "events"));
  events.subscribe(...(camera ? [`${camera}/`, "/"] : [""]));
  const control = new Dealer(options(key));
  control.connect(endpoint(address, "control"));
  const heard = merge({ live: events, answer: control });

  let position = after; // in this version of the protocol a cursor is a number, written as text
  let sequence = null; // of the camera's event before, where only one is followed
  let ticket = BigInt(Date.now());
  let asking = false;
  let silence = SILENCE;
  let asked = 0;

  const asks = new Map(); // ticket -> the cursor after which was asked
  async function ask() {
    asking = true;
    asked = Date.now();
    ticket += 1n;
    asks.set(ticket, position);
    await control.send(pack(KIND.REPLAY, ticket, { after: position, camera: camera ?? null }));
  }
  function* take(event) {
    position = Number(event.cursor);
    if (Number(event.sequence)) sequence = Number(event.sequence);
    yield event;
  }

  await ask();
  for (;;) {
    // While an answer is awaited, what happens waits in its queue.
    const message = await (asking ? heard(["answer"], asked + silence - Date.now()) : heard(["answer", "live"], 1000));
    if (!message) {
      if (asking) {
        silence = Math.min(2 * silence, LONGEST_SILENCE);
        await ask();
      }
    } else if (message.from === "answer") {
      const answer = unpack(message.parts);
      if (answer.kind !== KIND.EVENTS || !asks.has(answer.ticket)) continue;
      const from = asks.get(answer.ticket);
      asks.delete(answer.ticket);
      silence = SILENCE;
      if (answer.time < from) {
        if (position === from) [position, sequence] = [0, null]; // another journal
      } else {
        const texts = answer.payload.length ? answer.payload.toString("utf8").split("\n") : [];
        for (const event of texts.map((text) => JSON.parse(text))) if (Number(event.cursor) > position) yield* take(event);
        position = Math.max(position, answer.seq);
      }
      if (answer.ticket === ticket) asking = false;
      if (position < answer.time && !asking) await ask();
    } else {
      const [topic, text] = message.parts.map(String);
      if (topic === "/") {
        if (Number(text) !== position) await ask();
        continue;
      }
      const event = JSON.parse(text);
      const cursor = Number(event.cursor);
      if (cursor <= position) continue;
      if (cursor === position + 1 || (camera && Number(event.sequence) === sequence + 1)) yield* take(event);
      else await ask();
    }
  }
}

/** Return a function that gives the next message of some of these sockets, or null after some milliseconds. */
function merge(sockets) {
  const queues = Object.fromEntries(Object.keys(sockets).map((name) => [name, []]));
  let wake = () => {};
  for (const [from, socket] of Object.entries(sockets)) {
    (async () => {
      for await (const parts of socket) {
        queues[from].push({ from, parts });
        if (queues[from].length > MOST_WAITING) queues[from].shift(); // it is missing then, and asked for
        wake();
      }
    })();
  }
  return async (names, timeout) => {
    const deadline = Date.now() + timeout;
    for (;;) {
      const found = names.find((name) => queues[name].length);
      if (found) return queues[found].shift();
      const left = deadline - Date.now();
      if (left <= 0) return null;
      let timer;
      await new Promise((resolve) => {
        wake = resolve;
        timer = setTimeout(resolve, left);
      });
      clearTimeout(timer);
    }
  };
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { after: { type: "string", default: "0" }, camera: { type: "string" }, key: { type: "string" } },
});
if (positionals.length !== 1) {
  console.error("usage: node follow.mjs ADDRESS [--after CURSOR] [--camera NAME] [--key FILE]");
  process.exit(2);
}
process.stdout.on("error", () => process.exit(0)); // the reader has gone, as with `| head`
for await (const event of follow(positionals[0], { ...values, after: Number(values.after) })) {
  console.log(JSON.stringify(event));
}
