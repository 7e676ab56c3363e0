// Decodes the packets of tests/vectors: the checks that its README marks D. Prints what it
// has checked, file by file, and exits 1 at the first case that fails.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Codec, Stream } from './decoder.mjs';

const inEachCoding = (check) => (vector) => {
  const packets = Object.entries(vector.packets);
  for (const [coding, packet] of packets) check(codecOf({ ...vector, coding }), fromHex(packet), vector);
  return packets.length;
};

// Each checks one case and returns how many packets that has.
const CHECKS = {
  'tokens.json': inEachCoding((codec, bytes, { tokens, counts }) => {
    assert.deepEqual(codec.decode('tokens', bytes), { ids: tokens, counts });
  }),
  'shapes.json': inEachCoding((codec, bytes, vector) => checkOne(codec, bytes, shape(vector))),
  'distributions.json': inEachCoding((codec, bytes, vector) => checkOne(codec, bytes, plain(vector))),
  'rounds.json': inEachCoding((codec, bytes, { distributions, tokens }) => {
    assert.deepEqual(codec.decode('round', bytes), { distributions: distributions.map(plain), tokens });
  }),
  'streams.json': checkStream,
  'malformed.json': (vector) => {
    expectRefusal(vector.rule, () => codecOf(vector).decode(vector.kind, fromHex(vector.packet)));
    return 1;
  },
};

/** Decodes a distribution for a receiver with just room for it; one with less must refuse it. */
function checkOne(codec, bytes, expected) {
  const decode = (survivorLimit) => new Codec({ ...codec, survivorLimit }).decode('distribution', bytes);
  assert.deepEqual(decode(expected.ids.length), expected);
  expectRefusal('NO_SPACE', () => decode(expected.ids.length - 1));
}

function checkStream(vector) {
  const stream = new Stream(codecOf({ ...vector, coding: 'entropy' }));
  for (const { distributions, tokens, packet } of vector.packets) {
    const [head, ...round] = fromHex(packet);
    for (let other = 1; head !== 0 && other < 256; other++) {
      if (other !== head) expectRefusal('HEAD', () => stream.decode([other, ...round]));
    }
    expectRefusal('TRAILING_BYTES', () => stream.decode([head, ...round, 0])); // and learns nothing
    const expected = distributions.map((index) => plain(vector.distributions[index]));
    assert.deepEqual(stream.decode([head, ...round]), { distributions: expected, tokens });
  }
  return vector.packets.length;
}

const codecOf = ({ vocab_size: vocabSize, ...rest }) => new Codec({ vocabSize, ...rest });
const fromHex = (packet) => [...Buffer.from(packet, 'hex')];
const plain = ({ token_ids, counts }) => ({ ids: token_ids, counts });
const expectRefusal = (rule, decode) => assert.throws(decode, { message: rule });
const upTo = (n) => Array.from({ length: n }, (_, i) => i);

function shape({ seed, k, last_ids, vocab_size, resolution }) {
  const ids = last_ids ? upTo(vocab_size).slice(-k) : formulaSet(k, vocab_size, seed);
  const cuts = [0, ...formulaSet(k - 1, resolution - 1, seed).map((y) => y + 1), resolution];
  return { ids, counts: upTo(k).map((i) => cuts[i + 1] - cuts[i]) };
}

/** set(k, n, seed) of shapes.json. */
function formulaSet(k, n, seed) {
  const r = (i) => (7919 * i + 104729 * seed) % 4093;
  return upTo(n).sort((i, j) => r(i) - r(j) || i - j).slice(0, k).sort((i, j) => i - j);
}

for (const [file, check] of Object.entries(CHECKS)) {
  const { cases } = JSON.parse(readFileSync(new URL(`../vectors/${file}`, import.meta.url)));
  let packets = 0;
  cases.forEach((vector, i) => {
    try {
      packets += check(vector);
    } catch (error) {
      console.error(`${file}, case ${i}: ${error.message}`);
      process.exit(1);
    }
  });
  console.log(`${file}: ${packets} packets`);
}
