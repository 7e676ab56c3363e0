// Holds sqs.mjs to the golden vectors, and says how long a packet takes.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { Codec } from "./sqs.mjs";

const load = async (name) => {
  const url = new URL(`../../tests/vectors/${name}.json`, import.meta.url);
  return JSON.parse(await readFile(url)).cases;
};

// The rows of distributions.json, by the formula that it gives.
function logits({ vocab_size: n, seed, slope }) {
  return Float32Array.from({ length: n }, (_, i) => {
    const r = (7919 * i + 104729 * seed) % 4093;
    return Math.floor((r * r) / 1024) / 1024 - slope * (32 - Math.clz32(i));
  });
}

let passed = 0;
for (const one of await load("distributions")) {
  for (const [coding, packet] of Object.entries(one.packets)) {
    const codec = new Codec(one.vocab_size, one.resolution, coding);
    const data = codec.encode(logits(one), one.keep, one.temperature);
    assert.equal(Buffer.from(data).toString("hex"), packet);
    const { tokenIds, counts } = codec.decode(data);
    assert.deepEqual([...tokenIds], one.token_ids);
    assert.deepEqual([...counts], one.counts);
    passed++;
  }
}
for (const one of await load("malformed")) {
  if (one.kind !== "distribution" || one.prior) continue;
  const codec = new Codec(one.vocab_size, one.resolution, one.coding);
  assert.throws(() => codec.decode(Buffer.from(one.packet, "hex")));
  passed++;
}

assert.throws(() => new Codec(4, 100, "no coding"));
assert.throws(() => new Codec(4).encode(new Float32Array(4), ["no rule", 1]));
passed += 2;

const codec = new Codec(49152);
const row = logits({ vocab_size: 49152, seed: 1, slope: 1 });
const times = [];
for (let i = 0; i < 200; i++) {
  const start = performance.now();
  codec.encode(row, ["top_k", 64], 0.7);
  times.push(performance.now() - start);
}
const median = times.sort((a, b) => a - b)[100];
console.log(`${(1000 * median).toFixed(0)} µs from 49152 logits to bytes`);
console.log(`${passed} passed, 0 failed`);
