// A decoder of the packets of docs/format.md, version 1. Names follow that page.
// Number is exact for integers up to 2^53; BigInt is for what may be larger, and only that.
import { readFileSync } from 'node:fs';
import { crc32 } from 'node:zlib';

const model = JSON.parse(readFileSync(new URL('../../../csrc/entropy/model.json', import.meta.url)));
const { scalars } = model;
const LIMITS = {
  length: 256, sequence: 2 ** 16, enumerativeSupport: 1024, roundSquares: 2 ** 23, roundSurvivors: 2 ** 20,
  classes: 32, vocabSize: 2 ** 20, weights: 2 ** 31, // of a prior
};

/** A packet or a prior is refused; the message is the rule that it breaks, by its name in the page. */
export class Refused extends Error {}

function refuseIf(broken, rule) {
  if (broken) throw new Refused(rule);
}

/** What both ends agree on, and the receiver's own limit on the survivors of a packet. */
export class Codec {
  constructor({ vocabSize, resolution, coding, prior = null, survivorLimit = Infinity }) {
    Object.assign(this, { vocabSize, resolution, coding, prior, survivorLimit });
    this.maxSupport = Math.min(vocabSize, resolution);
    if (coding === 'enumerative') this.maxSupport = Math.min(this.maxSupport, LIMITS.enumerativeSupport);
    if (coding === 'entropy') this.idWeights = prior ?? new Buckets(vocabSize);
  }

  /**
   * `kind` is 'distribution', for {ids, counts}, 'round', for {distributions, tokens}, or, in `entropy`, 'sequence',
   * for {distributions}.
   */
  decode(kind, bytes) {
    return new (this.coding === 'entropy' ? EntropyPacket : FieldPacket)(this, bytes).decode(kind);
  }
}

/** What the kinds of packet are made of; how to read that is the coding's. */
class Packet {
  constructor(codec) { this.codec = codec; }

  decode(kind) {
    const content = this[kind]();
    this.end();
    return content;
  }

  round() {
    const read = { distributions: [], tokens: [] };
    for (let more = this.first(); more; more = this.more(read.tokens.length)) {
      read.distributions.push(this.distribution());
      read.tokens.push(this.drafted(read.distributions.at(-1)));
    }
    return read;
  }
}

/** `bitpack` and `enumerative`. */
class FieldPacket extends Packet {
  constructor(codec, bytes) {
    super(codec);
    Object.assign(this, { at: 0, survivors: 0, squares: 0 });
    this.bits = Array.from(bytes, (byte) => byte.toString(2).padStart(8, '0')).join('');
  }

  first() { this.length = 1 + this.field(8); return true; }
  more(read) { return read < this.length; }
  drafted({ ids }) { return ids[this.below(ids.length, 'TOKEN_POSITION')]; }

  distribution() {
    const { maxSupport, coding } = this.codec;
    const k = 1 + this.below(maxSupport, 'SUPPORT_SIZE');
    this.squares += k * k; this.survivors += k;
    refuseIf(coding === 'enumerative' && this.squares > LIMITS.roundSquares, 'ROUND_SUPPORT');
    return coding === 'enumerative' ? this.ranked(k) : this.packed(k);
  }

  packed(k) {
    const { vocabSize, resolution } = this.codec;
    const countWidth = width(resolution - k);
    this.require(k * width(vocabSize - 1) + (k - 1) * countWidth);
    refuseIf(this.survivors > this.codec.survivorLimit, 'OVER_LIMIT');
    const ids = [];
    for (let i = 0; i < k; i++) {
      ids.push(this.below(vocabSize, 'TOKEN_ID'));
      refuseIf(ids[i] <= ids[i - 1], 'TOKEN_ORDER');
    }
    const counts = [];
    let left = resolution;
    for (let i = 1; i < k; i++) {
      counts.push(this.field(countWidth) + 1);
      left -= counts.at(-1);
      refuseIf(left <= 0, 'COUNTS');
    }
    return { ids, counts: [...counts, left] };
  }

  ranked(k) {
    const { vocabSize, resolution, survivorLimit } = this.codec;
    refuseIf(this.survivors > survivorLimit, 'OVER_LIMIT');
    const compositions = binomial(resolution - 1, k - 1);
    const N = binomial(vocabSize, k) * compositions;
    const rank = BigInt(`0b0${this.take(N === 1n ? 0 : (N - 1n).toString(2).length)}`);
    refuseIf(rank >= N, 'RANK');
    const ids = subset(rank / compositions, vocabSize, k);
    return { ids, counts: gaps(subset(rank % compositions, resolution - 1, k - 1), resolution) };
  }

  end() {
    const left = this.bits.length - this.at;
    refuseIf(left >= 8, 'TRAILING_BYTES');
    refuseIf(this.field(left) !== 0, 'PADDING');
  }

  require(width) { refuseIf(this.at + width > this.bits.length, 'TRUNCATED'); }
  field(width) { return parseInt(`0${this.take(width)}`, 2); }

  take(width) {
    this.require(width);
    return this.bits.slice(this.at, (this.at += width));
  }

  /** A field of one of 0 … n − 1. */
  below(n, rule) {
    const value = this.field(width(n - 1));
    refuseIf(value >= n, rule);
    return value;
  }
}

const log2Floor = (x) => 31 - Math.clz32(x);
const width = (n) => log2Floor(n) + 1; // w of the page

function binomial(n, k) {
  let c = 1n;
  for (let i = 0; i < k; i++) c = (c * BigInt(n - i)) / BigInt(i + 1);
  return c;
}

/** The k of 0 … n − 1 that have this rank: x walks down from n − 1, and c is always C(x, i). */
function subset(rank, n, k) {
  const members = [];
  let x = n - 1;
  let c = binomial(x, k);
  for (let i = k; i > 0; i--) {
    for (; c > rank; x--) c = (c * BigInt(x - i)) / BigInt(x);
    members.push(x);
    rank -= c;
    if (i > 1) c = (c * BigInt(i)) / BigInt(x--);
  }
  return members.reverse();
}

/** The counts b for y_i = b_1 + … + b_i − 1. */
const gaps = (ys, resolution) => [...ys, resolution - 1].map((y, i) => y - (ys[i - 1] ?? -1));

const CODER_LEAST = 1n << BigInt(scalars.coder_least_bits);

/** The coder of `entropy`. */
class RangeDecoder {
  range = 1n << BigInt(scalars.coder_bits);
  code = 0n;
  s = -7; // until `code` has its first seven bytes

  constructor(bytes) {
    this.bytes = bytes;
    while (this.s < 0) this.shiftCode();
  }

  shiftCode() { this.code = (this.code << 8n) | BigInt(this.bytes[this.s++ + 7] ?? 0); }
  bit(p) { return this.symbol(256, 0, 2, (x) => x * (256 - p)); }

  symbol(W, a, e, c) {
    refuseIf(this.bytes.length <= this.s, 'TRUNCATED');
    const u = this.range / BigInt(W);
    const most = Number(this.code / u); // u·c(x) ≤ code just if c(x) ≤ most
    const x = lastThat((y) => c(y) <= most, a, e);
    const below = u * BigInt(c(x));
    this.code -= below;
    this.range = (x === e - 1 ? this.range : u * BigInt(c(x + 1))) - below;
    for (; this.range <= CODER_LEAST; this.range <<= 8n) this.shiftCode();
    return x;
  }

  end() {
    refuseIf(this.bytes.length < this.s + 1, 'TRUNCATED');
    refuseIf(this.bytes.length > this.s + 1, 'TRAILING_BYTES');
    refuseIf(this.code >= CODER_LEAST, 'PADDING');
  }
}

/** The last of a … e − 1 that holds, where a holds and none holds after one that doesn't. */
function lastThat(holds, a, e) {
  while (e - a > 1) {
    const middle = (a + e) >> 1;
    if (holds(middle)) a = middle;
    else e = middle;
  }
  return a;
}

class EntropyPacket extends Packet {
  constructor(codec, bytes) {
    super(codec);
    this.coder = new RangeDecoder(bytes);
    this.memory = new Memory();
    this.allowed = Math.min(LIMITS.roundSurvivors, codec.survivorLimit);
    this.ruleOfAllowed = codec.survivorLimit < LIMITS.roundSurvivors ? 'OVER_LIMIT' : 'ROUND_SUPPORT';
  }

  end() { this.coder.end(); }
  first() { return true; }
  more(read) { return read < LIMITS.length && this.coder.bit(scalars.more_chance); }
  uniform(n) { return this.coder.symbol(n, 0, n, (x) => x); }
  idSet(k, c) { return readSet(this.coder, k, this.codec.vocabSize, this.memory.weighIds(this.codec.idWeights, c)); }
  admit(k) { refuseIf(k > this.allowed, this.ruleOfAllowed); }

  sequence() {
    const length = 1 + this.uniform(LIMITS.sequence);
    const distributions = [];
    while (distributions.length < length) distributions.push(this.learn(this.distribution()));
    return { distributions };
  }

  learn(q) {
    this.memory = this.memory.learn(q.ids);
    return q;
  }

  distribution() {
    const counts = this.coder.bit(scalars.uniform_chance) ? this.uniformCounts() : this.counts();
    const k = counts.length;
    this.allowed -= k;
    const uniform = this.coder.bit(scalars.uniform_chance);
    const ids = uniform ? uniformSet(this.coder, k, this.codec.vocabSize) : this.idSet(k, this.class());
    return { ids, counts };
  }

  class() {
    const { classes, chances } = this.codec.idWeights;
    if (classes === 1) return 0;
    const below = runningSums(chances[this.memory.last]);
    const c = this.coder.symbol(below[classes], 0, classes, (j) => below[j]);
    this.memory = new Memory({ ...this.memory, last: 1 + c });
    return c;
  }

  drafted(q) {
    const { ids, counts } = this.learn(q);
    const below = runningSums(counts);
    return ids[this.coder.symbol(this.codec.resolution, 0, ids.length, (j) => below[j])];
  }

  uniformCounts() {
    const { maxSupport, resolution } = this.codec;
    const k = 1 + this.uniform(maxSupport);
    this.admit(k);
    return gaps(uniformSet(this.coder, k - 1, resolution - 1), resolution);
  }

  counts() {
    const { vocabSize, resolution } = this.codec;
    const parts = []; // descending
    let r = resolution;
    for (let v = r; r > 0 && v > 1; r -= v) {
      this.admit(parts.length + 1);
      v = this.part(Math.ceil(r / (vocabSize - parts.length)), Math.min(v, r), r);
      parts.push(v);
    }
    this.admit(parts.length + r);
    for (; r > 0; r--) parts.push(1);
    return this.arrange(parts);
  }

  /** Reads which token has which of the parts. */
  arrange(parts) {
    const D = [...new Set(parts)].reverse();
    const below = D.map((part) => parts.length - 1 - parts.lastIndexOf(part));
    const counts = [];
    for (let left = parts.length; left > 0; left--) {
      const j = D.length === 1 ? 0 : this.coder.symbol(left, 0, D.length, (i) => below[i]);
      counts.push(D[j]);
      for (let i = j + 1; i < below.length; i++) below[i]--;
      const lastOfItsKind = below[j] === (below[j + 1] ?? left - 1);
      if (lastOfItsKind) [D, below].forEach((array) => array.splice(j, 1));
    }
    return counts;
  }

  part(a, z, r) {
    const { size_classes, ratio_classes, split_full_depth, split_top_depth } = scalars;
    const size = Math.min(log2Floor(z), size_classes) - 1;
    const ratio = Math.min(log2Floor(Math.floor(r / z)), ratio_classes - 1);
    const row = model.split_chances[ratio_classes * size + ratio];
    for (let d = 0, node = 1; a < z; d++) {
      const onlyOnes = node === 2 ** (d + 1) - 1;
      let p = 128;
      if (d < split_full_depth) p = row[node - 1];
      else if (d < split_top_depth && onlyOnes) p = row[4 + d];
      const m = (a + z) >> 1;
      const bit = this.coder.bit(p);
      if (bit) a = m + 1;
      else z = m;
      node = 2 * node + bit;
    }
    return a;
  }
}

/** 0, v_0, v_0 + v_1, … */
const runningSums = (values, sum = 0) => [0, ...values.map((value) => (sum += value))];

/** n of 0 … N − 1; R(x, n) is what x and all above it weigh with n members to come. */
function readSet(coder, n, N, R) {
  const members = [];
  for (let a = 0; n > 0; n--) {
    const e = N - n + 1;
    const all = log2(R(a, n));
    const c = (x) => {
      const E = power(n * (all - log2(R(x, n)))); // the product is exact: n ≤ 2^16 and λ < 2^37
      const scaled = E - Math.ceil((E * (e - a)) / POWER_ONE); // E·(2^31 − (e − a))/2^31 takes 62 bits
      return POWER_ONE - (scaled + e - x);
    };
    const x = e === a + 1 ? a : coder.symbol(POWER_ONE, a, e, c);
    members.push(x);
    a = x + 1;
  }
  return members;
}

function uniformSet(coder, n, N) {
  if (2 * n <= N) return readSet(coder, n, N, (x, toCome) => 2 * (N - x) - (toCome - 1));
  const others = new Set(uniformSet(coder, N - n, N));
  return Array.from({ length: N }, (_, x) => x).filter((x) => !others.has(x));
}

const LOG_ONE = 2 ** scalars.log_unit;
const POWER_ONE = 2 ** scalars.power_unit;
const knots = (steps, f) => Array.from({ length: steps + 1 }, (_, j) => Math.round(f(j / steps)));
const LOG = knots(2 ** scalars.log_knot_bits, (x) => LOG_ONE * Math.log2(1 + x));
const POWER = knots(2 ** scalars.power_knot_bits, (x) => POWER_ONE * 2 ** -x);

/** The table at f/LOG_ONE of its length, between two knots rounded towards the first. */
function interpolate(table, f) {
  const step = LOG_ONE / (table.length - 1);
  const j = Math.floor(f / step);
  return table[j] + Math.trunc(((table[j + 1] - table[j]) * (f % step)) / step);
}

function log2(x) { // λ of the page
  const i = log2Floor(x);
  return i * LOG_ONE + interpolate(LOG, (x * LOG_ONE) / 2 ** i - LOG_ONE);
}

function power(t) { // E of the page
  const i = Math.floor(t / LOG_ONE);
  return i > 31 ? 0 : Math.floor(interpolate(POWER, t % LOG_ONE) / 2 ** i);
}

/** What ids weigh without a prior. */
class Buckets {
  classes = 1;

  constructor(vocabSize) {
    this.from = [sumsFrom(vocabSize, (y) => {
      const t = log2Floor(y);
      const i = t - scalars.first_bucket_bits;
      return model.id_weights[i < 0 ? 0 : 1 + 2 * i + ((y >> (t - 1)) & 1)];
    })];
  }
}

/** w(x) + … + w(V − 1) for x = 0 … V. */
function sumsFrom(vocabSize, w) {
  const sums = new Float64Array(vocabSize + 1);
  for (let x = vocabSize - 1; x >= 0; x--) sums[x] = sums[x + 1] + w(x);
  return sums;
}

/** What ids weigh by the bytes of a prior's file. */
export class Prior {
  constructor(bytes) {
    const file = new DataView(Uint8Array.from(bytes).buffer);
    const size = bytes.length;
    const header = (rule, end, holds) => refuseIf(size < end || !holds(), size < end ? 'SIZE' : rule);
    header('MAGIC', 8, () => String.fromCharCode(...bytes.slice(0, 8)) === 'sqsprior');
    header('VERSION', 9, () => bytes[8] === 1);
    header('CLASSES', 10, () => bytes[9] >= 1 && bytes[9] <= LIMITS.classes);
    header('VOCABULARY', 14, () => file.getUint32(10, true) >= 2 && file.getUint32(10, true) <= LIMITS.vocabSize);
    this.classes = bytes[9];
    const vocabSize = file.getUint32(10, true);
    let at = 14;
    const row = (n) => bytes.slice(at, (at += n));
    const rows = (many, n) => Array.from({ length: many }, () => row(n));
    this.chances = rows(this.classes + 1, this.classes);
    this.weights = rows(this.classes, 256).map((codes) => codes.map(weightOfCode));
    this.kinds = row(vocabSize);
    refuseIf(size !== at + 4, 'SIZE');
    refuseIf(file.getUint32(at, true) !== crc32(Uint8Array.from(bytes.slice(0, at))), 'CHECK');
    refuseIf(this.chances.flat().includes(0), 'CHANCES');
    this.from = this.weights.map((weights) => sumsFrom(vocabSize, (y) => weights[this.kinds[y]]));
    refuseIf(this.from.some(([A]) => A > LIMITS.weights), 'WEIGHTS');
  }

  /** ratio_c of an id's kind; the products take 63 bits. */
  ratio(c, id) {
    const kind = this.kinds[id];
    const [v, A, v0, A0] = [this.weights[c][kind], this.from[c][0], this.weights[0][kind], this.from[0][0]].map(BigInt);
    const whole = (v0 * A) / 16n;
    return Math.min(64, Math.max(4, Number((v * A0) / (whole || 1n))));
  }
}

const weightOfCode = (b) => Math.floor(((8 + (b % 8)) * 2 ** Math.floor(b / 8)) / 8);

/** h, last and the m of each id; it never changes, but learns into a new one. */
class Memory {
  constructor({ h = 0, last = 0, weights = new Map() } = {}) {
    Object.assign(this, { h, last, weights });
    this.ids = [...weights.keys()].sort((a, b) => a - b);
    this.m = this.ids.map((id) => weights.get(id));
  }

  learn(ids) {
    if (ids.length > scalars.memory_support) return this;
    const weights = new Map();
    for (const [id, m] of this.weights) weights.set(id, m - Math.floor(m / 2 ** scalars.memory_fading));
    for (const id of ids) weights.set(id, (weights.get(id) ?? 0) + scalars.memory_new_weight);
    let least = scalars.memory_least_weight;
    do {
      for (const [id, m] of weights) if (m < least) weights.delete(id);
      least *= 2;
    } while (weights.size > scalars.memory_tokens);
    return new Memory({ h: Math.min(this.h + 1, scalars.memory_most_seen), last: this.last, weights });
  }

  /** R of the ids in class c. */
  weighIds(model, c) {
    const from = model.from[c];
    if (this.ids.length === 0) return (x) => from[x];
    const r = (m, i) => (model.classes === 1 ? m : Math.floor((m * model.ratio(c, this.ids[i])) / 16));
    const below = runningSums(this.m.map(r));
    const B = below.at(-1);
    const U = Math.floor(Math.floor((from[0] * this.h) / (this.h + scalars.memory_delay)) / B);
    return (x) => from[x] + U * (B - below[lastThat((i) => this.ids[i] < x, -1, this.ids.length) + 1]);
  }
}
