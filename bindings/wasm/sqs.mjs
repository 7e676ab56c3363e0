// The codec in WebAssembly: from logits to counts and bytes, and back. `make wasm`
// compiles it. Structs are those of csrc/sqs.h, with pointers of four bytes.
const ALL = 2 ** 32 - 1; // sets no limit on tokens
const KEEP = { top_k: (k) => [Math.min(k, ALL), 0], threshold: (beta) => [ALL, beta] };
const CODING = { bitpack: 0, enumerative: 1, entropy: 2 }, F32 = 1;
const PARTS = ["counts", "arrangement", "class", "ids", "padding"];

// wasm: the bytes of sqs.wasm. Returns the classes Codec and Prior.
export async function load(wasm) {
  const core = (await WebAssembly.instantiate(wasm)).instance.exports;
  let top = core.__heap_base.value;

  function take(bytes) { // allocates memory, which `giving` frees
    const at = (top + 15) & ~15, lacking = at + bytes - core.memory.buffer.byteLength;
    if (lacking > 0) core.memory.grow((lacking + 65535) >> 16);
    top = at + bytes;
    return at;
  }
  function giving(call) {
    const mark = top;
    try {
      return call();
    } finally {
      top = mark;
    }
  }
  const view = (type) => (at, n) => new type(core.memory.buffer, at, n);
  const words = view(Uint32Array), bytes = view(Uint8Array), doubles = view(Float64Array);
  function put(array) {
    const at = take(array.byteLength);
    bytes(at, array.byteLength).set(new Uint8Array(array.buffer, array.byteOffset,
                                                   array.byteLength));
    return at;
  }
  // Copies an array argument of n values, or of any length, to memory. Its tag names the
  // type even if it is from another realm, such as a frame.
  function putGiven(name, array, type, n = array?.length) {
    if (array?.[Symbol.toStringTag] !== type) {
      const got = array?.constructor?.name ?? typeof array;
      throw new TypeError(`${name} must be a ${type}, got ${got}`);
    }
    if (array.length !== n)
      throw new RangeError(`${name} must have ${n} values, got ${array.length}`);
    return put(array);
  }
  const record = (...values) => put(Uint32Array.from(values));
  function check(status) {
    if (status === 0) return;
    const at = core.sqs_status_text(status), all = new Uint8Array(core.memory.buffer);
    throw new Error(new TextDecoder().decode(all.subarray(at, all.indexOf(0, at))));
  }

  class Prior {
    // file: Uint8Array, the bytes of a .sqsprior.
    constructor(file) {
      const at = putGiven("file", file, "Uint8Array");
      const memory = take(core.sqs_prior_memory(at, file.length)), to = take(4);
      check(core.sqs_load_prior(at, file.length, memory, to));
      this.at = words(to, 1)[0];
    }
  }

  class Codec {
    // coding: a name of CODING; prior: a Prior or null.
    constructor(vocabSize, resolution = 100, coding = "entropy", prior = null) {
      this.vocabSize = vocabSize;
      this.room = 4 * Math.min(vocabSize, resolution); // bytes for the largest support
      this.codec = record(vocabSize, resolution, CODING[coding] ?? -1, prior?.at ?? 0);
      check(core.sqs_check_codec(this.codec));
    }
    // logits: Float32Array; keep: [name of KEEP, parameter]. Returns the support's ids,
    // ascending, and their counts.
    quantize(logits, keep = ["top_k", 64], temperature = 1) {
      return giving(() => {
        const [rows, rule] = this.row(logits, keep), k = take(4);
        const ids = take(this.room), counts = take(this.room);
        const to = record(ids, counts, k, 0);
        const scratch = take(core.sqs_quantize_scratch(this.codec));
        check(core.sqs_quantize_logits(this.codec, rows, temperature, rule, scratch, to, 0));
        return this.taken(ids, counts, k);
      });
    }
    // Takes the result of quantize or decode: two Uint32Array of the same length. Returns
    // a Uint8Array.
    encode({ tokenIds, counts }) {
      return giving(() => {
        const ids = putGiven("tokenIds", tokenIds, "Uint32Array"), n = tokenIds.length;
        const of = putGiven("counts", counts, "Uint32Array", n);
        const bound = core.sqs_encode_bound(this.codec, n);
        const data = take(bound), size = take(4);
        check(core.sqs_encode(this.codec, ids, of, n, data, bound, size));
        return bytes(data, words(size, 1)[0]).slice();
      });
    }
    // packet: Uint8Array. Returns the ids, ascending, and their counts.
    decode(packet) {
      return giving(() => {
        const data = putGiven("packet", packet, "Uint8Array"), k = take(4);
        const most = this.room / 4, ids = take(this.room), counts = take(this.room);
        check(core.sqs_decode(this.codec, data, packet.length, most, ids, counts, k));
        return this.taken(ids, counts, k);
      });
    }
    // Returns the bits that each of PARTS takes in an "entropy" packet of this codec.
    parts(packet) {
      this.decode(packet);
      return giving(() => {
        const data = put(packet), bits = take(8 * PARTS.length);
        const ids = take(this.room), counts = take(this.room);
        core.sqs_parts(this.codec, data, packet.length, ids, counts, bits);
        const found = doubles(bits, PARTS.length);
        return Object.fromEntries(PARTS.map((name, i) => [name, found[i]]));
      });
    }
    row(logits, [name, value]) {
      const at = putGiven("logits", logits, "Float32Array", this.vocabSize);
      const [most, least] = KEEP[name]?.(value) ?? [0, 0], rule = record(most, 0, 0, 0);
      doubles(rule + 8, 1)[0] = least;
      return [record(at, F32, 0, 1, this.vocabSize, this.vocabSize), rule];
    }
    taken(ids, counts, k) {
      const n = words(k, 1)[0];
      return { tokenIds: words(ids, n).slice(), counts: words(counts, n).slice() };
    }
  }
  return { Codec, Prior };
}
