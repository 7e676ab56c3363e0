// Checks sqs.mjs with the golden vectors, and prints the time for a packet.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { runInNewContext } from "node:vm";
import { load } from "./sqs.mjs";

const read = (path) => readFile(new URL(`../../${path}`, import.meta.url));
const cases = async (name) => JSON.parse(await read(`tests/vectors/${name}.json`)).cases;
const { Codec, Prior } = await load(await read("build/wasm/sqs.wasm"));

// The rows of distributions.json, from the formula given there.
function logits({ vocab_size: n, seed, slope }) {
  return Float32Array.from({ length: n }, (_, i) => {
    const r = (7919 * i + 104729 * seed) % 4093;
    return Math.floor((r * r) / 1024) / 1024 - slope * (32 - Math.clz32(i));
  });
}

let passed = 0;
for (const one of await cases("distributions")) {
  for (const [coding, packet] of Object.entries(one.packets)) {
    const codec = new Codec(one.vocab_size, one.resolution, coding);
    const row = [logits(one), one.keep, one.temperature];
    const q = codec.quantize(...row), data = codec.encode(q);
    assert.equal(Buffer.from(data).toString("hex"), packet);
    for (const { tokenIds, counts } of [q, codec.decode(data)]) {
      assert.deepEqual([...tokenIds], one.token_ids);
      assert.deepEqual([...counts], one.counts);
    }
    passed++;
  }
}
for (const one of await cases("malformed")) {
  if (one.kind !== "distribution" || one.prior) continue;
  const codec = new Codec(one.vocab_size, one.resolution, one.coding);
  assert.throws(() => codec.decode(Buffer.from(one.packet, "hex")));
  passed++;
}

// A long message of the core, in full.
assert.throws(() => new Codec(4, 100, "no coding"), { message: "a field of the codec is out " +
  "of range, or its prior does not fit" });
assert.throws(() => new Codec(4).quantize(new Float32Array(4), ["no rule", 1]));
const codec = new Codec(49152);
const file = await read("sqs_codec/priors/smollm2.sqsprior");
assert.throws(() => new Prior(file.subarray(1)));
assert.throws(() => new Codec(4, 100, "entropy", new Prior(file)));
passed += 4;

// Arrays of other types hold other bytes, and a missing count would be read past the end.
const small = new Codec(4, 100), four = [0, 1, 2, 3], u32 = (...ids) => Uint32Array.from(ids);
const refused = (call, message) => { assert.throws(call, { message }); passed++; };
for (const type of [Array, Float64Array, Int32Array]) {
  const message = `logits must be a Float32Array, got ${type.name}`;
  refused(() => small.quantize(type.from(four)), message);
}
refused(() => small.quantize(), "logits must be a Float32Array, got undefined");
refused(() => small.quantize(new Float32Array(5)), "logits must have 4 values, got 5");
refused(() => small.encode({ tokenIds: [1, 3], counts: u32(60, 40) }),
        "tokenIds must be a Uint32Array, got Array");
refused(() => small.encode({ tokenIds: u32(1, 3), counts: Int32Array.of(60, 40) }),
        "counts must be a Uint32Array, got Int32Array");
refused(() => small.encode({ tokenIds: u32(1, 3), counts: u32(100) }),
        "counts must have 2 values, got 1");
refused(() => small.decode([1, 2]), "packet must be a Uint8Array, got Array");
refused(() => small.parts("ab"), "packet must be a Uint8Array, got String");
refused(() => new Prior(file.buffer), "file must be a Uint8Array, got ArrayBuffer");
// An array of another realm, such as a frame, isn't an instance of this realm's type.
const other = runInNewContext("Float32Array.of(0, 1, 2, 3)");
assert.deepEqual(small.quantize(other), small.quantize(Float32Array.from(four)));
passed++;

const row = logits({ vocab_size: 49152, seed: 1, slope: 1 });
const times = [];
for (let i = 0; i < 200; i++) {
  const start = performance.now();
  codec.encode(codec.quantize(row, ["top_k", 64], 0.7));
  times.push(performance.now() - start);
}
const median = times.sort((a, b) => a - b)[100];
console.log(`${(1000 * median).toFixed(0)} µs from 49152 logits to bytes`);
console.log(`${passed} passed, 0 failed`);
