// The codec in WebAssembly, from logits to bytes and back; `make wasm` compiles it.
// Structs are those of csrc/sqs.h, with pointers of four bytes.
import { readFile } from "node:fs/promises";

const file = new URL("../../build/wasm/sqs.wasm", import.meta.url);
const core = (await WebAssembly.instantiate(await readFile(file))).instance.exports;
export const KEEP = { top_k: 0, threshold: 1, top_p: 2, min_p: 3 };
const CODING = { bitpack: 0, enumerative: 1, entropy: 2 }, F32 = 1;
let top = core.__heap_base.value;

function take(bytes) { // of memory; encode and decode give theirs back
  const at = (top + 15) & ~15, lacking = at + bytes - core.memory.buffer.byteLength;
  if (lacking > 0) core.memory.grow((lacking + 65535) >> 16);
  top = at + bytes;
  return at;
}
const words = (at, n) => new Uint32Array(core.memory.buffer, at, n);
const bytes = (at, n) => new Uint8Array(core.memory.buffer, at, n);
const record = (...values) => {
  const at = take(4 * values.length);
  words(at, values.length).set(values);
  return at;
};
function check(status) {
  if (status === 0) return;
  const text = bytes(core.sqs_status_text(status), 100);
  throw new Error(new TextDecoder().decode(text.slice(0, text.indexOf(0))));
}

export class Codec {
  constructor(vocabSize, resolution = 100, coding = "entropy") {
    this.vocabSize = vocabSize;
    this.codec = record(vocabSize, resolution, CODING[coding] ?? -1, 0, 0);
    check(core.sqs_check_codec(this.codec));
  }
  // logits: Float32Array; keep: [name of KEEP, parameter]. Returns Uint8Array.
  encode(logits, keep = ["top_k", 64], temperature = 1) {
    if (logits.length !== this.vocabSize) throw new RangeError("not vocabSize logits");
    const mark = top, rule = record(KEEP[keep[0]] ?? -1, 0, 0, 0);
    new Float64Array(core.memory.buffer, rule + 8, 1)[0] = keep[1];
    const bound = core.sqs_encode_logits_bound(this.codec, rule);
    const values = take(4 * this.vocabSize), data = take(bound), size = take(4);
    const scratch = take(core.sqs_encode_logits_scratch(this.codec));
    const rows = record(values, F32, 1, this.vocabSize);
    const to = record(data, bound, size, 0);
    new Float32Array(core.memory.buffer, values, this.vocabSize).set(logits);
    top = mark;
    check(core.sqs_encode_logits(this.codec, rows, temperature, rule, scratch, to));
    return bytes(data, words(size, 1)[0]).slice();
  }
  // packet: Uint8Array. Returns the ids, ascending, and their counts.
  decode(packet) {
    const mark = top, n = this.vocabSize, data = take(packet.length), k = take(4);
    const ids = take(4 * n), counts = take(4 * n);
    bytes(data, packet.length).set(packet);
    top = mark;
    check(core.sqs_decode(this.codec, data, packet.length, n, ids, counts, k));
    const size = words(k, 1)[0];
    return { tokenIds: words(ids, size).slice(), counts: words(counts, size).slice() };
  }
}
