// Decodes the packets of tests/vectors: the checks that its README marks D. Prints what it
// has checked, file by file, and exits 1 at the first case that fails.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Codec, Prior } from './decoder.mjs';

const inEachCoding = (check) => (vector) => {
  const decode = ([coding, packet]) => check(codecOf({ ...vector, coding }), fromHex(packet), vector);
  Object.entries(vector.packets).forEach(decode);
};

// Each checks one case.
const CHECKS = {
  'shapes.json': inEachCoding((codec, bytes, vector) => checkOne(codec, bytes, shape(vector))),
  'distributions.json': inEachCoding((codec, bytes, vector) => checkOne(codec, bytes, plain(vector))),
  'rounds.json': inEachCoding((codec, bytes, { distributions, tokens }) =>
    checkOne(codec, bytes, { distributions: distributions.map(plain), tokens }, 'round')),
  'limits.json': (vector) => {
    const round = formulaRound(vector);
    checkOne(codecOf(vector), fromHex(vector.packet), round, 'round');
    if (vector.sequence) checkSequence(codecOf(vector), vector.sequence, round.distributions);
  },
  'sequences.json': ({ distributions, rows, packet, ...rest }) =>
    checkSequence(codecOf({ ...rest, coding: 'entropy' }), packet, rows.map((i) => plain(distributions[i]))),
  'priors.json': checkPrior,
  'bad_priors.json': ({ prior, rule }) => expectRefusal(rule, () => priorOf(prior)),
  'malformed.json': ({ kind, rule, packet, ...rest }) =>
    expectRefusal(rule, () => codecOf(rest).decode(kind, fromHex(packet))),
};

/** Decodes a packet for a receiver with just room for it; one with less must refuse it. */
function checkOne(codec, bytes, expected, kind = 'distribution') {
  const decode = (survivorLimit) => new Codec({ ...codec, survivorLimit }).decode(kind, bytes);
  const survivors = (expected.distributions ?? [expected]).flatMap(({ ids }) => ids).length;
  assert.deepEqual(decode(survivors), expected);
  expectRefusal('OVER_LIMIT', () => decode(survivors - 1));
}

const checkSequence = (codec, packet, distributions) =>
  checkOne(codec, fromHex(packet), { distributions }, 'sequence');

function checkPrior({ prior, distributions: known, packets, ...rest }) {
  const codec = codecOf({ ...rest, coding: 'entropy', prior: priorOf(prior) });
  for (const { kind, rule, packet, distributions, tokens } of packets) {
    const decode = () => codec.decode(kind, fromHex(packet));
    const drafted = distributions?.map((i) => plain(known[i]));
    if (rule) expectRefusal(rule, decode);
    else if (kind === 'distribution') checkOne(codec, fromHex(packet), drafted[0]);
    else if (kind === 'sequence') checkSequence(codec, packet, drafted);
    else assert.deepEqual(decode(), { distributions: drafted, tokens });
  }
}

const priorOf = (base64) => new Prior([...Buffer.from(base64, 'base64')]);
const codecOf = ({ vocab_size: vocabSize, ...rest }) => new Codec({ vocabSize, ...rest });
const fromHex = (packet) => [...Buffer.from(packet, 'hex')];
const plain = (q) => ({ ids: q.token_ids, counts: q.counts });
const expectRefusal = (rule, decode) => assert.throws(decode, { message: rule });
const upTo = (n) => Array.from({ length: n }, (_, i) => i);

function shape({ seed, k, last_ids, vocab_size, resolution }) {
  const ids = last_ids ? upTo(vocab_size).slice(-k) : formulaSet(k, vocab_size, seed);
  const cuts = [0, ...formulaSet(k - 1, resolution - 1, seed).map((y) => y + 1), resolution];
  return { ids, counts: upTo(k).map((i) => cuts[i + 1] - cuts[i]) };
}

function formulaRound({ supports, resolution }) {
  const counts = (k) => upTo(k).map((i) => (i === 0 ? resolution - k + 1 : 1));
  return { distributions: supports.map((k) => ({ ids: upTo(k), counts: counts(k) })), tokens: supports.map(() => 0) };
}

/** set(k, n, seed) of shapes.json. */
function formulaSet(k, n, seed) {
  const r = (i) => (7919 * i + 104729 * seed) % 4093;
  return upTo(n).sort((i, j) => r(i) - r(j) || i - j).slice(0, k).sort((i, j) => i - j);
}

for (const [file, check] of Object.entries(CHECKS)) {
  const { cases } = JSON.parse(readFileSync(new URL(`../../vectors/${file}`, import.meta.url)));
  let packets = 0;
  cases.forEach((vector, i) => {
    try {
      check(vector);
      packets += Object.keys(vector.packets ?? [vector]).length + ('sequence' in vector);
    } catch (error) {
      throw new Error(`${file}, case ${i}`, { cause: error });
    }
  });
  console.log(`${file}: ${packets} checked`);
}
