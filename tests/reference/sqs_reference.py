"""The codec once more, to be read rather than run fast.

Nothing of ``sqs_codec`` is imported here. Where the C core is clever, this file
is obvious: supports are ranked with `math.comb`, bits are characters of a
string, selection is a sort. Golden vectors come from here, and every backend
has to agree with it to the last bit.

The one thing that isn't obvious is the arithmetic of the softmax, as that is
part of the definition: which operations, in which precision, in which order.
NumPy's elementwise float32 arithmetic is IEEE arithmetic, so it serves for
that; nothing else of NumPy does.
"""

import math
from fractions import Fraction
from itertools import accumulate, pairwise

import numpy as np

from tests.reference import BrokenRuleError, entropy

MAX_VOCAB = 1 << 20

MAX_ENUMERATIVE_SUPPORT = 1024
MAX_ENUMERATIVE_SQUARES = 8 << 20
LANES = 16
LN2 = Fraction("0.693147180559945309417232121458176568075500134360255")


# Softmax


def coefficients(degree):
    """Return those of 2**f by Taylor, the highest first, each rounded once."""
    return [float(LN2**k / math.factorial(k)) for k in range(degree, -1, -1)]


TAYLOR_F32 = [np.float32(c) for c in coefficients(7)]
TAYLOR_F64 = coefficients(13)


def exp2_f32(t):
    """2**t for a float32 array t <= 0, in single precision."""
    rounder = np.float32(1.5 * 2**23)
    t = np.maximum(t, np.float32(-200))
    n = (t + rounder) - rounder
    f = t - n
    p = np.zeros_like(t)
    for c in TAYLOR_F32:
        p = p * f + c
    result = np.ldexp(p, n.astype(np.int32))
    return np.where(t >= np.float32(-100), result, np.float32(0))


def exp2_f64(t):
    """2**t for a float t <= 0, in double precision."""
    if not t >= -1000.0:
        return 0.0
    n = (t + 1.5 * 2**52) - 1.5 * 2**52
    f = t - n
    p = 0.0
    for c in TAYLOR_F64:
        p = p * f + c
    return math.ldexp(p, int(n))


def striped_sum(values):
    """Sum in 16 interleaved lanes, then fold the lanes in halves."""
    lanes = [0.0] * LANES
    for i, value in enumerate(values):
        lanes[i % LANES] += value
    half = LANES // 2
    while half:
        lanes = [lanes[i] + lanes[i + half] for i in range(half)]
        half //= 2
    return lanes[0]


def unnormalised_softmax(row, temperature):
    """Probabilities up to a common factor, as floats; decide thresholds."""
    scale = np.float32(
        min(1 / math.log(2) / temperature, float(np.finfo(np.float32).max))
    )
    with np.errstate(over="ignore", invalid="ignore"):
        differences = (row - row.max()).astype(np.float32)
        return [float(e) for e in exp2_f32(differences * scale)]


def softmax_weights(row, kept, temperature):
    """Probabilities up to a common factor, more exactly; decide counts."""
    top = float(row.max())
    with np.errstate(over="ignore"):
        t = np.float64(temperature)
        scaled = [float((np.float64(row[i]) - top) / t) for i in kept]
        return [exp2_f64(x * (1 / math.log(2))) for x in scaled]


# Sparsify


def limits(rule, parameter):
    """Return the two numbers of a rule: the most tokens, and the least probability."""
    return {"top_k": (parameter, 0.0), "threshold": (MAX_VOCAB, parameter)}[rule]


def sparsify(values, unnormalised, most, least):
    """Return the ids kept, ascending. `values` rank the tokens."""
    ranked = sorted(range(len(values)), key=lambda i: (-float(values[i]), i))
    kept = range(len(values))
    if least > 0:
        level, best = least * striped_sum(unnormalised), ranked[0]
        kept = [i for i, p in enumerate(unnormalised) if p >= level or i == best]
    return kept if len(kept) <= most else sorted(ranked[:most])


# Lattice


def lattice(weights, resolution):
    """Reznik's nearest type; ties in favor of the earlier weight."""
    total = striped_sum(weights)
    exact = [resolution * (w / total) for w in weights]
    counts = [int(y + 0.5) for y in exact]
    excess = sum(counts) - resolution
    errors = [b - y for b, y in zip(counts, exact, strict=True)]
    if excess > 0:
        for i in sorted(range(len(counts)), key=lambda i: (-errors[i], -i))[:excess]:
            counts[i] -= 1
    else:
        for i in sorted(range(len(counts)), key=lambda i: (errors[i], i))[:-excess]:
            counts[i] += 1
    return counts


# Quantize


def quantize_logits(row, temperature, most, least, resolution):
    """Return (ids, counts, dropped mass) of a float16/32/64 array."""
    row = row.astype(np.float32) if row.dtype == np.float16 else row
    if temperature == 0:
        return [int(np.argmax(row))], [resolution], 0.0
    masked = np.isneginf(row)
    unnormalised = unnormalised_softmax(row, temperature)
    kept = [i for i in sparsify(row, unnormalised, most, least) if not masked[i]]
    weights = softmax_weights(row, kept, temperature)
    mass = dropped_mass(unnormalised, kept)
    return *survivors(kept, lattice(weights, resolution)), mass


def quantize_probs(row, most, least, resolution):
    """Return (ids, counts, dropped mass) of a float16/32/64 array."""
    probs = [float(p) for p in row]
    kept = [i for i in sparsify(probs, probs, most, least) if probs[i] > 0]
    counts = lattice([probs[i] for i in kept], resolution)
    return *survivors(kept, counts), dropped_mass(probs, kept)


def whole_weights(row, temperature):
    """Unnormalised probabilities in units of 2**-42, ties to even."""
    return [round(w * 2**42) for w in unnormalised_softmax(row, temperature)]


def quantize_unbiased(row, temperature, resolution, number):
    """Return (ids, counts) of a float16/32/64 array and a number of 64 bits."""
    row = row.astype(np.float32) if row.dtype == np.float16 else row
    if temperature == 0:
        return [int(np.argmax(row))], [resolution]
    ends = [*accumulate(whole_weights(row, temperature))]
    start = number * ends[-1] >> 64
    up_to = [(resolution * end + start) // ends[-1] for end in ends]
    return survivors(range(row.size), [b - a for a, b in pairwise([0, *up_to])])


def survivors(kept, counts):
    """Return the ids and counts of the tokens with a nonzero count."""
    pairs = [(i, b) for i, b in zip(kept, counts, strict=True) if b > 0]
    return [i for i, _ in pairs], [b for _, b in pairs]


def dropped_mass(unnormalised, kept):
    """Return the share of the probability that isn't kept."""
    inside = set(kept)
    total = striped_sum(unnormalised)
    kept_total = striped_sum(
        [t if i in inside else 0.0 for i, t in enumerate(unnormalised)]
    )
    return max(0.0, total - kept_total) / total


# Ranks


def rank_set(elements):
    """The combinatorial number of an ascending set."""
    return sum(math.comb(c, i) for i, c in enumerate(elements, 1))


def unrank_set(rank, n, k):
    """The ascending k-subset of range(n) with that number."""
    elements = []
    for i in range(k, 0, -1):
        low, high = i - 1, n  # comb(low, i) <= rank < comb(high, i)
        while high - low > 1:
            middle = (low + high) // 2
            if math.comb(middle, i) <= rank:
                low = middle
            else:
                high = middle
        elements.append(low)
        rank -= math.comb(low, i)
        n = low
    return elements[::-1]


# Packets


def field(value, width):
    """The value in that many bits, the most significant first."""
    return format(value, f"0{width}b") if width else ""


def max_survivors(vocab_size, resolution, coding):
    """The largest support that a packet can hold."""
    most = min(vocab_size, resolution)
    return min(most, MAX_ENUMERATIVE_SUPPORT) if coding == "enumerative" else most


def distribution_bits(ids, counts, vocab_size, resolution, coding):
    """The fields of one distribution, as a string of 0 and 1."""
    k = len(ids)
    most = max_survivors(vocab_size, resolution, coding)
    assert k <= most
    bits = field(k - 1, (most - 1).bit_length())
    if coding == "bitpack":
        bits += "".join(field(i, (vocab_size - 1).bit_length()) for i in ids)
        width = (resolution - k).bit_length()
        return bits + "".join(field(b - 1, width) for b in counts[:-1])
    compositions = math.comb(resolution - 1, k - 1)
    rank = rank_set(ids) * compositions + rank_set(entropy.cuts(counts))
    size = math.comb(vocab_size, k) * compositions
    return bits + field(rank, (size - 1).bit_length())


def pack(bits):
    """Pad with zeros to whole bytes."""
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def token_bits(counts, coding):
    """The most bits that a token drawn from the distribution takes in a round."""
    if coding == "entropy":  # the least n with min(counts) / resolution >= 2**-n
        return ((sum(counts) - 1) // min(counts)).bit_length()
    return (len(counts) - 1).bit_length()


def encode(ids, counts, vocab_size, resolution, coding, prior=None):
    """The packet of one distribution."""
    if coding == "entropy":
        return entropy.encode(ids, counts, vocab_size, resolution, prior)
    return pack(distribution_bits(ids, counts, vocab_size, resolution, coding))


def encode_round(distributions, tokens, vocab_size, resolution, coding, prior=None):
    """The packet of a round; distributions are pairs (ids, counts)."""
    if coding == "entropy":
        return entropy.encode_round(
            distributions, tokens, vocab_size, resolution, prior
        )
    bits = field(len(tokens) - 1, 8)
    for (ids, counts), token in zip(distributions, tokens, strict=True):
        bits += distribution_bits(ids, counts, vocab_size, resolution, coding)
        bits += field(ids.index(token), (len(ids) - 1).bit_length())
    return pack(bits)


class Reader:
    """Takes fields off a packet."""

    def __init__(self, packet):
        self.bits = "".join(format(byte, "08b") for byte in packet)

    def need(self, width):
        """Raise an error unless this many bits are left."""
        if width > len(self.bits):
            raise BrokenRuleError("TRUNCATED")

    def take(self, width):
        """Read a field."""
        self.need(width)
        value, self.bits = self.bits[:width], self.bits[width:]
        return int(value, 2) if width else 0

    def end(self):
        """Insist that only padding is left."""
        if len(self.bits) >= 8:
            raise BrokenRuleError("TRAILING_BYTES")
        if "1" in self.bits:
            raise BrokenRuleError("PADDING")


def read_distribution(reader, vocab_size, resolution, coding, squares=0):
    """Return (ids, counts). `squares` are those of a round's earlier supports."""
    most = max_survivors(vocab_size, resolution, coding)
    k = reader.take((most - 1).bit_length()) + 1
    if k > most:
        raise BrokenRuleError("SUPPORT_SIZE")
    if coding == "enumerative" and squares + k * k > MAX_ENUMERATIVE_SQUARES:
        raise BrokenRuleError("ROUND_SUPPORT")
    if coding == "enumerative":
        compositions = math.comb(resolution - 1, k - 1)
        size = math.comb(vocab_size, k) * compositions
        rank = reader.take((size - 1).bit_length())
        if rank >= size:
            raise BrokenRuleError("RANK")
        ids = unrank_set(rank // compositions, vocab_size, k)
        places = unrank_set(rank % compositions, resolution - 1, k - 1)
        return ids, entropy.uncut(places, resolution)
    id_width = (vocab_size - 1).bit_length()
    count_width = (resolution - k).bit_length()
    reader.need(k * id_width + (k - 1) * count_width)
    ids = []
    for _ in range(k):
        ids.append(reader.take(id_width))
        if ids[-1] >= vocab_size:
            raise BrokenRuleError("TOKEN_ID")
        if len(ids) > 1 and ids[-1] <= ids[-2]:
            raise BrokenRuleError("TOKEN_ORDER")
    counts, left = [], resolution
    for _ in range(k - 1):
        counts.append(reader.take(count_width) + 1)
        if counts[-1] >= left:
            raise BrokenRuleError("COUNTS")
        left -= counts[-1]
    return ids, [*counts, left]


def decode(packet, vocab_size, resolution, coding, prior=None):
    """Return (ids, counts) of the packet of one distribution."""
    if coding == "entropy":
        return entropy.decode(packet, vocab_size, resolution, prior)
    reader = Reader(packet)
    distribution = read_distribution(reader, vocab_size, resolution, coding)
    reader.end()
    return distribution


def decode_round(packet, vocab_size, resolution, coding, prior=None):
    """Return ([(ids, counts), ...], tokens)."""
    if coding == "entropy":
        return entropy.decode_round(packet, vocab_size, resolution, prior)
    reader = Reader(packet)
    distributions, tokens, squares = [], [], 0
    for _ in range(reader.take(8) + 1):
        ids, counts = read_distribution(reader, vocab_size, resolution, coding, squares)
        position = reader.take((len(ids) - 1).bit_length())
        if position >= len(ids):
            raise BrokenRuleError("TOKEN_POSITION")
        squares += len(ids) ** 2
        distributions.append((ids, counts))
        tokens.append(ids[position])
    reader.end()
    return distributions, tokens
