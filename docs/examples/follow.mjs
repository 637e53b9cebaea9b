// Follow a service's events without a gap: print each one as a line of JSON. Written from docs/reference/protocol.md.
//
//   npm install zeromq
//   node follow.mjs ADDRESS [--after CURSOR] [--camera NAME] [--key FILE]

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { Dealer, Subscriber } from "zeromq";

const KIND = { REPLAY: 15, EVENTS: 16, CURSOR: 18 };
const LINKS = ["control", "frames", "work", "events", "observations", "preview"];
const HEADER = 92;
const VERSION = 1;
const SILENCE = 2000; // milliseconds until a question is asked again, at first
const LONGEST_SILENCE = 60000;
const DOUBT = 10000; // milliseconds until a partition of a cell is believed to have a new journal
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

// Cells: the cameras of several aggregators fall into partitions by a hash of their names, BLAKE2b (RFC 7693) of 8 bytes

const WORD = (1n << 64n) - 1n;
const START = [
  "6a09e667f3bcc908", "bb67ae8584caa73b", "3c6ef372fe94f82b", "a54ff53a5f1d36f1",
  "510e527fade682d1", "9b05688c2b3e6c1f", "1f83d9abfb41bd6b", "5be0cd19137e2179",
].map((word) => BigInt(`0x${word}`));
const ORDER = [
  "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
  "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0",
].map((row) => [...row].map((digit) => Number.parseInt(digit, 16)));

/** Return a camera's partition, of so many. */
function partitionOf(camera, count) {
  const block = Buffer.alloc(128); // a name is shorter
  const length = block.write(camera, "utf8");
  const words = ORDER[0].map((at) => block.readBigUInt64LE(8 * at));
  const first = START[0] ^ 0x01010008n;
  const v = [first, ...START.slice(1), ...START];
  v[12] ^= BigInt(length);
  v[14] ^= WORD;
  const turn = (word, by) => ((word >> by) | (word << (64n - by))) & WORD;
  const mix = (a, b, c, d, x, y) => {
    for (const [word, ...turns] of [[x, 32n, 24n], [y, 16n, 63n]]) {
      v[a] = (v[a] + v[b] + word) & WORD;
      v[d] = turn(v[d] ^ v[a], turns[0]);
      v[c] = (v[c] + v[d]) & WORD;
      v[b] = turn(v[b] ^ v[c], turns[1]);
    }
  };
  for (let round = 0; round < 12; round += 1) {
    const m = ORDER[round % 10].map((at) => words[at]);
    for (let i = 0; i < 4; i += 1) mix(i, 4 + i, 8 + i, 12 + i, m[2 * i], m[2 * i + 1]);
    for (let i = 0; i < 4; i += 1) mix(i, 4 + ((i + 1) % 4), 8 + ((i + 2) % 4), 12 + ((i + 3) % 4), m[8 + 2 * i], m[9 + 2 * i]);
  }
  const digest = Buffer.alloc(8);
  digest.writeBigUInt64LE(first ^ v[0] ^ v[8]);
  return Number(digest.readBigUInt64BE() % BigInt(count));
}

/** Return the number of a cursor in each partition. */
const numbersOf = (cursor) => cursor.split(",").map((part) => Number(part.split(":").at(-1)));

const cursorOf = (numbers) =>
  numbers.length === 1 ? String(numbers[0]) : numbers.map((number, n) => `${n.toString(16).padStart(2, "0")}:${number}`).join(",");

// Following

/** Yield events after a cursor, from the journal and then as they happen, for ever. */
async function* follow(address, { after, camera, key }) {
  const events = new Subscriber({ ...options(key), receiveHighWaterMark: 10000 });
  events.connect(endpoint(address, "events"));
  events.subscribe(...(camera ? [`${camera}/`, "/"] : [""]));
  const control = new Dealer(options(key));
  control.connect(endpoint(address, "control"));
  const heard = merge({ live: events, answer: control });

  let positions = numbersOf(after); // by partition; one until the aggregator says that there are more
  let known = false; // whether it has said how many there are
  let only = null; // the partition of the camera
  let sequence = null; // of the camera's event before, where only one is followed
  let ticket = BigInt(Date.now());
  let asking = false;
  let silence = SILENCE;
  let asked = 0;
  let doubted = null; // the time since which a partition seems to have a new journal

  const asks = new Map(); // ticket -> the partition that was asked, and the cursor after which
  const next = [0]; // partitions to ask, one after the other
  async function ask(...numbers) {
    next.push(...numbers.filter((number) => !next.includes(number)));
    if (!next.length) return;
    asking = true;
    asked = Date.now();
    ticket += 1n;
    asks.set(ticket, [next[0], positions[next[0]]]);
    const body = { after: positions[next[0]], camera: camera ?? null };
    await control.send(pack(KIND.REPLAY, ticket, positions.length > 1 && known ? { ...body, partition: next[0] } : body));
  }
  function* take(event, number) {
    positions[number] = Number(event.cursor);
    if (Number(event.sequence)) sequence = Number(event.sequence);
    yield camera ? event : { ...event, cursor: cursorOf(positions) };
  }
  function open(numbers) {
    if (positions.length === 1) positions = numbers.map(() => positions[0]);
    if (positions.length !== numbers.length) throw new Error(`the cursor is of another cell: this one has ${numbers.length} partitions`);
    only = camera ? partitionOf(camera, numbers.length) : null;
    next.splice(0, 1, ...(camera ? [only] : numbers.keys()));
    known = true;
  }

  await ask();
  for (;;) {
    // While an answer is awaited, what happens waits in its queue.
    const message = await (asking ? heard(["answer"], asked + silence - Date.now()) : heard(["answer", "live"], 1000));
    if (!message) {
      if (asking) {
        silence = Math.min(2 * silence, LONGEST_SILENCE);
        next.push(next.shift()); // its journal may be the only one that cannot be read
        await ask();
      }
    } else if (message.from === "answer") {
      const answer = unpack(message.parts);
      if (!asks.has(answer.ticket)) continue;
      const [number, from] = asks.get(answer.ticket);
      asks.delete(answer.ticket);
      silence = SILENCE;
      if (answer.kind === KIND.CURSOR) {
        if (!known) open(numbersOf(JSON.parse(answer.payload).cursor));
        await ask();
        continue;
      }
      if (!known && positions.length > 1) throw new Error("the cursor is of a cell, and this aggregator is alone");
      known = true;
      if (answer.time < from) {
        if (positions.length > 1 && Date.now() - (doubted ??= Date.now()) < DOUBT) continue; // ask again later
        if (positions[number] === from) [positions[number], sequence] = [0, null]; // another journal
      } else {
        const texts = answer.payload.length ? answer.payload.toString("utf8").split("\n") : [];
        for (const event of texts.map((text) => JSON.parse(text))) if (Number(event.cursor) > positions[number]) yield* take(event, number);
        positions[number] = Math.max(positions[number], answer.seq);
      }
      doubted = null;
      if (answer.ticket === ticket) {
        asking = false;
        if (positions[number] >= answer.time) next.splice(next.indexOf(number), 1);
        await ask();
      }
    } else {
      const [topic, text] = message.parts.map(String);
      if (topic === "/") {
        const numbers = numbersOf(text);
        const followed = camera ? [only ?? 0] : [...numbers.keys()];
        await ask(...followed.filter((number) => numbers[number] !== positions[number]));
        continue;
      }
      const event = JSON.parse(text);
      const number = positions.length > 1 ? partitionOf(event.source.slice("/cameras/".length), positions.length) : 0;
      const cursor = Number(event.cursor);
      if (cursor <= positions[number]) continue;
      if (cursor === positions[number] + 1 || (camera && Number(event.sequence) === sequence + 1)) yield* take(event, number);
      else await ask(number);
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
for await (const event of follow(positionals[0], values)) {
  console.log(JSON.stringify(event));
}
