"""The entropy coding once more, to be read rather than run fast.

Names are those of ``docs/format.md``. Each model is written once: a coder's ``pick``
takes the value when it writes and returns it when it reads. The state of the range
coder is plain integers of any size, so that there is no carry to propagate.

The tables are read from ``csrc/entropy/model.json``. The constants stand here a
second time, under the names that they have there, as a witness of the format.
"""

import json
import math
from collections import Counter
from decimal import Decimal, getcontext
from itertools import accumulate, pairwise
from pathlib import Path

from tests.reference import BrokenRuleError
from tests.reference.prior import RATIO_UNIT

getcontext().prec = 60

MODEL = json.loads(
    (Path(__file__).parents[2] / "csrc" / "entropy" / "model.json").read_text()
)
SPLIT_CHANCES = MODEL["split_chances"]
ID_WEIGHTS = MODEL["id_weights"]

UNIFORM_CHANCE = 16  # of the uniform modes, in 256ths
MORE_CHANCE = 192  # of another distribution in the round, in 256ths
FIRST_BUCKET_BITS = 5
SPLIT_FULL_DEPTH = 3
SPLIT_TOP_DEPTH = 8
SIZE_CLASSES = 4
RATIO_CLASSES = 7
MEMORY_TOKENS = 512
MEMORY_SUPPORT = 256
MEMORY_DELAY = 8
MEMORY_NEW_WEIGHT = 1024
MEMORY_LEAST_WEIGHT = 32
MEMORY_FADING = 5
MEMORY_MOST_SEEN = 255
CLASS_COST_SHIFT = 16  # what an encoder drops of the costs that it compares
CODER_BITS = 56
CODER_LEAST_BITS = 48
LOG_UNIT = 32
LOG_KNOT_BITS = 10
POWER_UNIT = 31
POWER_KNOT_BITS = 8

MAX_ROUND = 256
MAX_SEQUENCE = 1 << 16
MAX_ROUND_SUPPORT = 1 << 20
MAX_VOCAB_BITS = 20

BIT = 1 << LOG_UNIT
EVEN = 128  # the probability of a bit without information
ONE = 1 << POWER_UNIT
LEAST_RANGE = 1 << CODER_LEAST_BITS


# Fixed-point logarithms


def rounded(x):
    return int(x.to_integral_value())


LN2 = Decimal(2).ln()
LOG_KNOTS = [
    rounded((1 + Decimal(j) / (1 << LOG_KNOT_BITS)).ln() / LN2 * BIT)
    for j in range((1 << LOG_KNOT_BITS) + 1)
]
POWER_KNOTS = [
    rounded(ONE * (-Decimal(j) / (1 << POWER_KNOT_BITS) * LN2).exp())
    for j in range((1 << POWER_KNOT_BITS) + 1)
]


def log2(x):
    """λ: log2 of an integer x > 0, in units of 2**-32, straight between knots."""
    i = x.bit_length() - 1
    f = (x << LOG_UNIT >> i) - BIT
    steps = LOG_UNIT - LOG_KNOT_BITS
    j, g = f >> steps, f & (1 << steps) - 1
    return i * BIT + LOG_KNOTS[j] + ((LOG_KNOTS[j + 1] - LOG_KNOTS[j]) * g >> steps)


def exp2(t):
    """E: 2**-t in units of 2**-31, t in units of 2**-32."""
    i, f = t >> LOG_UNIT, t & BIT - 1
    steps = LOG_UNIT - POWER_KNOT_BITS
    j, g = f >> steps, f & (1 << steps) - 1
    return POWER_KNOTS[j] - ((POWER_KNOTS[j] - POWER_KNOTS[j + 1]) * g >> steps) >> i


# The range coder
#
# A symbol has the values a .. e - 1, of which c(x) is the cumulative weight: what
# those below x weigh, out of a total. The label says what a symbol is for, and only
# the meter asks for it.


class Writer:
    """Narrows an interval; the packet is a number inside it."""

    def __init__(self):
        self.low, self.range, self.shifts = 0, 1 << CODER_BITS, 0

    def pick(self, label, total, a, e, c, value):
        """Write a value; the last one takes what rounding leaves."""
        unit = self.range // total
        start = unit * c(value)
        stop = unit * c(value + 1) if value + 1 < e else self.range
        self.low += start
        self.range = stop - start
        while self.range <= LEAST_RANGE:
            self.low <<= 8
            self.range <<= 8
            self.shifts += 1
        return value

    def bits(self):
        """How many have been spent."""
        return CODER_BITS + 8 * self.shifts - math.log2(self.range)

    def finish(self):
        """The packet with the first last byte that lies in the interval."""
        last = -(-self.low >> CODER_LEAST_BITS)
        return last.to_bytes(self.shifts + 1, "big")


class Reader:
    """Follows the Writer; ``code`` is the packet's number less the Writer's low."""

    def __init__(self, packet):
        self.packet, self.shifts = packet, 0
        self.range, self.code = 1 << CODER_BITS, 0
        for at in range(CODER_BITS // 8):
            self.code = self.code << 8 | self.byte(at)

    def byte(self, at):
        """Zeros follow a packet."""
        return self.packet[at] if at < len(self.packet) else 0

    def pick(self, label, total, a, e, c, value=None):
        """Read a value."""
        if self.shifts >= len(self.packet):
            raise BrokenRuleError("TRUNCATED")
        unit = self.range // total
        low, high = a, e  # the value is in low .. high - 1
        while high - low > 1:
            middle = (low + high) // 2
            if unit * c(middle) <= self.code:
                low = middle
            else:
                high = middle
        start = unit * c(low)
        stop = unit * c(low + 1) if low + 1 < e else self.range
        self.code -= start
        self.range = stop - start
        while self.range <= LEAST_RANGE:
            self.code = self.code << 8 | self.byte(self.shifts + CODER_BITS // 8)
            self.range <<= 8
            self.shifts += 1
        return low

    def finish(self):
        """Insist that the Writer would have ended so."""
        if len(self.packet) < self.shifts + 1:
            raise BrokenRuleError("TRUNCATED")
        if len(self.packet) > self.shifts + 1:
            raise BrokenRuleError("TRAILING_BYTES")
        if self.code >= LEAST_RANGE:
            raise BrokenRuleError("PADDING")


class Meter:
    """A coder that only counts bits, by label, in units of 2**-32."""

    def __init__(self):
        self.costs = Counter()

    def pick(self, label, total, a, e, c, value):
        """Count what a Writer would spend if its range were a real number."""
        stop = c(value + 1) if value + 1 < e else total
        self.costs[label] += log2(total) - log2(stop - c(value))
        return value


def code_bit(coder, label, chance, bit=None):
    """A bit that is 1 with a chance in 256ths."""
    return coder.pick(label, 256, 0, 2, lambda x: x * (256 - chance), bit)


def code_uniform(coder, label, n, value=None):
    """One of n equally likely values."""
    return coder.pick(label, n, 0, n, lambda x: x, value)


# Counts


def code_partition(coder, vocab_size, resolution, allowed, counts=None):
    """The counts in descending order, at most `allowed` of them."""
    parts, left, last = [], resolution, resolution
    while left > 0 and last > 1:
        check_survivors(len(parts) + 1, allowed)
        part = None if counts is None else counts[len(parts)]
        low, high = -(-left // (vocab_size - len(parts))), min(last, left)
        last = code_part(coder, low, high, left, part)
        parts.append(last)
        left -= last
    check_survivors(len(parts) + left, allowed)
    return parts + [1] * left


def code_part(coder, a, z, r, count=None):
    """A count from a to z, by halving; r is left for it and all that follow."""
    if a == z:
        return a
    size = min(z.bit_length() - 1, SIZE_CLASSES)
    ratio = min((r // z).bit_length(), RATIO_CLASSES)
    chances = SPLIT_CHANCES[(size - 1) * RATIO_CLASSES + ratio - 1]
    node, depth = 1, 0
    while a < z:
        middle = (a + z) // 2
        chance = EVEN
        if depth < SPLIT_FULL_DEPTH:
            chance = chances[node - 1]
        elif depth < SPLIT_TOP_DEPTH and node == (2 << depth) - 1:
            chance = chances[(1 << SPLIT_FULL_DEPTH) - 1 + depth - SPLIT_FULL_DEPTH]
        up = code_bit(coder, "parts", chance, None if count is None else count > middle)
        a, z = (middle + 1, z) if up else (a, middle)
        node, depth = 2 * node + up, depth + 1
    return a


def code_arrangement(coder, parts, counts=None):
    """The assignment of the counts to the tokens, by ascending id."""
    left = Counter(parts)  # how many tokens are still to get each count
    arranged = []
    for i in range(len(parts)):
        values = sorted(left)
        at = 0
        if len(values) > 1:
            below = [0, *accumulate(left[value] for value in values)]
            place = None if counts is None else values.index(counts[i])
            total, c = below[-1], below.__getitem__
            at = coder.pick("arrangement", total, 0, len(values), c, place)
        count = values[at]
        arranged.append(count)
        left[count] -= 1
        if left[count] == 0:
            del left[count]
    return arranged


def code_counts(coder, vocab_size, resolution, allowed, counts=None, uniform=None):
    """The counts of the tokens by ascending id, at most `allowed` of them."""
    if not code_bit(coder, "modes", UNIFORM_CHANCE, uniform):
        descending = None if counts is None else sorted(counts, reverse=True)
        parts = code_partition(coder, vocab_size, resolution, allowed, descending)
        return code_arrangement(coder, parts, counts)
    most = min(vocab_size, resolution)
    size = None if counts is None else len(counts) - 1
    k = 1 + code_uniform(coder, "size", most, size)
    check_survivors(k, allowed)
    places = None if counts is None else cuts(counts)
    places = code_uniform_set(coder, "composition", k - 1, resolution - 1, places)
    return uncut(places, resolution)


def cuts(counts):
    """Where a composition cuts a row of units: its (k-1)-subset."""
    return [end - 1 for end in accumulate(counts[:-1])]


def uncut(places, resolution):
    """The composition that `cuts` came from."""
    ends = [*(place + 1 for place in places), resolution]
    return [end - start for start, end in pairwise([0, *ends])]


def check_survivors(k, allowed):
    """Insist, as soon as that many are certain, that they are allowed."""
    if k > allowed:
        raise BrokenRuleError("ROUND_SUPPORT")


# Sets


def code_set(coder, label, k, size, rest, members=None):
    """Code k of the integers 0 .. size - 1, ascending.

    ``rest(x, n)`` is R(x), the weight of x and all above, with n members to come.
    Each member is the least of those to come, had they been drawn independently.
    """
    found, a = [], 0
    for n in range(k, 0, -1):
        e = size - n + 1

        def c(x, a=a, e=e, n=n):
            t = n * (log2(rest(a, n)) - log2(rest(x, n)))
            return ONE - ((exp2(t) * (ONE - (e - a)) >> POWER_UNIT) + e - x)

        x = a
        if e - a > 1:
            member = None if members is None else members[len(found)]
            x = coder.pick(label, ONE, a, e, c, member)
        found.append(x)
        a = x + 1
    return found


def code_uniform_set(coder, label, n, size, members=None):
    """A set where all are equally likely; for more than half, its complement."""
    if 2 * n > size:
        others = None
        if members is not None:
            others = sorted(set(range(size)) - set(members))
        others = code_uniform_set(coder, label, size - n, size, others)
        return sorted(set(range(size)) - set(others))
    return code_set(
        coder, label, n, size, lambda x, n: 2 * (size - x) - (n - 1), members
    )


# Ids

ID_EDGES = [
    0,
    *(e << b for b in range(FIRST_BUCKET_BITS - 1, MAX_VOCAB_BITS - 1) for e in (2, 3)),
    1 << MAX_VOCAB_BITS,
]
"""Where the buckets of ID_WEIGHTS begin: two to an octave, after the first."""


def id_position(x, prior=None, c=0):
    """The weight of the ids below x in the prior's class, or in the buckets."""
    if prior is not None:
        return prior.below[c][x]
    return sum(
        weight * (min(x, high) - low)
        for weight, (low, high) in zip(ID_WEIGHTS, pairwise(ID_EDGES), strict=True)
        if low < x
    )


class Memory:
    """Tokens of recent supports and how much they count."""

    def __init__(self):
        self.weights, self.seen = {}, 0  # m of each id; h
        self.last = 0  # 1 + the class of the last distribution that had one

    def learn(self, ids):
        """Let all fade and add a support, unless it is very large."""
        if len(ids) > MEMORY_SUPPORT:
            return
        weights = {x: w - (w >> MEMORY_FADING) for x, w in self.weights.items()}
        for x in ids:
            weights[x] = weights.get(x, 0) + MEMORY_NEW_WEIGHT
        least = MEMORY_LEAST_WEIGHT
        weights = {x: w for x, w in sorted(weights.items()) if w >= least}
        while len(weights) > MEMORY_TOKENS:
            least *= 2
            weights = {x: w for x, w in weights.items() if w >= least}
        self.weights, self.seen = weights, min(self.seen + 1, MEMORY_MOST_SEEN)


def code_ids(coder, vocab_size, k, memory, ids=None, uniform=None, prior=None):
    """The support."""
    if code_bit(coder, "modes", UNIFORM_CHANCE, uniform):
        return code_uniform_set(coder, "uniform ids", k, vocab_size, ids)
    c = code_class(coder, memory, prior, ids)
    rest = id_rest(vocab_size, memory, prior, c)
    return code_set(coder, "ids", k, vocab_size, lambda x, n: rest(x), ids)


def has_classes(prior):
    return prior is not None and prior.classes > 1


def code_class(coder, memory, prior, ids=None):
    """The class of the ids; the next class depends on it."""
    if not has_classes(prior):
        return 0
    row = prior.chances[memory.last]
    below = [0, *accumulate(row)]
    chosen = None if ids is None else choose_class(memory.last, prior, ids)
    c = coder.pick("class", below[-1], 0, len(row), lambda x: below[x], chosen)
    memory.last = 1 + c
    return c


def id_rest(vocab_size, memory, prior=None, c=0):
    """The function that gives the weight of an id and all above it."""
    recent = memory.weights  # r of each id
    if has_classes(prior):
        recent = {
            y: m * prior.ratio(c, prior.kinds[y]) // RATIO_UNIT
            for y, m in recent.items()
        }
    most, total = id_position(vocab_size, prior, c), sum(recent.values())
    unit = most * memory.seen // (memory.seen + MEMORY_DELAY) // total if total else 0
    whole = most + unit * total

    def rest(x):
        below = sum(r for y, r in recent.items() if y < x)
        return whole - id_position(x, prior, c) - unit * below

    return rest


# Which class and modes: an encoder is free in that. This one compares about what
# they cost.


def choose_class(last, prior, ids):
    """The first of the classes with the lowest cost of weights."""
    kinds = Counter(prior.kinds[y] for y in ids)
    row = prior.chances[last]

    def cost(c):
        log_sum = log2(prior.sums[c])
        spent = class_cost(row, c) >> CLASS_COST_SHIFT
        for kind, n in kinds.items():
            spent += n * (log_sum - log2(prior.weights[c][kind]) >> CLASS_COST_SHIFT)
        return spent

    return min(range(prior.classes), key=cost)


def class_cost(row, c):
    return log2(sum(row)) - log2(row[c])


def log2_factorial(n):
    """log2 of n!, in units of 2**-32, by Stirling's series."""
    if n < 2:
        return 0
    return (
        ((2 * n + 1) * log2(n) >> 1)
        - n * 6196328019  # log2(e) * 2**32
        + 5694044581  # log2(2 pi) / 2 * 2**32
        + 516360668 // n  # log2(e) / 12 * 2**32
    )


def log2_binomial(n, k):
    return log2_factorial(n) - log2_factorial(k) - log2_factorial(n - k)


UNIFORM_COST = log2(256) - log2(UNIFORM_CHANCE)
MODEL_COST = log2(256) - log2(256 - UNIFORM_CHANCE)


def counts_costs(vocab_size, resolution, counts):
    """The cost of the counts with the model and, roughly, with uniform coding."""
    k, meter = len(counts), Meter()
    code_partition(meter, vocab_size, resolution, k, sorted(counts, reverse=True))
    model = MODEL_COST + meter.costs.total() + log2_factorial(k)
    for tokens in Counter(counts).values():
        model -= log2_factorial(tokens)
    uniform = log2(min(vocab_size, resolution)) + log2_binomial(resolution - 1, k - 1)
    return model, UNIFORM_COST + uniform


def ids_costs(vocab_size, ids, memory, prior=None):
    """About what the ids cost by the model, with their class, and what uniformly."""
    k, model, c = len(ids), MODEL_COST, 0
    if has_classes(prior):
        c = choose_class(memory.last, prior, ids)
        model += class_cost(prior.chances[memory.last], c)
    rest = id_rest(vocab_size, memory, prior, c)
    log_a, a = log2(rest(0)), 0
    for n, x in zip(range(k, 0, -1), ids, strict=True):
        log_x, values = log2(rest(x)), vocab_size - n + 1 - a
        fall = n * (log_a - log_x)
        if x == vocab_size - n:  # the last value takes the rest; others follow it
            model += member_cost(fall, 64 * BIT, values)
            break
        log_a, a = log2(rest(x + 1)), x + 1
        model += member_cost(fall, n * (log_x - log_a), values)
    return model, UNIFORM_COST + log2_binomial(vocab_size, k)


def member_cost(fall, step, values):
    """About what code_set spends where a chance is 2**-fall - 2**-(fall + step)."""
    if step < BIT // 16:  # -log2(1 - 2**-step) by its series
        cost = fall + 32 * BIT - log2(max(1, step)) + step // 2
        cost += 2271034279  # -log2(ln 2) * 2**32
    else:
        cost = fall + 31 * BIT - log2(ONE - exp2(step))
    if cost < 24 * BIT:
        return cost
    above, above_next = (exp2(t) * (ONE - values) >> 31 for t in (fall, fall + step))
    return 31 * BIT - log2(above - above_next + 1)


# Packets


def code_distribution(
    coder,
    vocab_size,
    resolution,
    memory,
    ids=None,
    counts=None,
    allowed=MAX_ROUND_SUPPORT,
    prior=None,
):
    """The counts first, so that k is known; return (ids, counts)."""
    uniform_counts = uniform_ids = None
    if counts is not None:
        model, uniform = counts_costs(vocab_size, resolution, counts)
        uniform_counts = uniform < model
        model, uniform = ids_costs(vocab_size, ids, memory, prior)
        uniform_ids = uniform < model
    counts = code_counts(coder, vocab_size, resolution, allowed, counts, uniform_counts)
    ids = code_ids(coder, vocab_size, len(counts), memory, ids, uniform_ids, prior)
    return ids, counts


def code_position(coder, counts, position=None):
    """The drafted token, with the probabilities that it was sampled with."""
    below = [0, *accumulate(counts)]
    return coder.pick("token", below[-1], 0, len(counts), lambda x: below[x], position)


def code_next(coder, codec, memory, survivors, ids=None, counts=None):
    """A distribution, which is learnt; earlier ones have `survivors` tokens."""
    vocab_size, resolution, prior = codec
    allowed = MAX_ROUND_SUPPORT - survivors
    ids, counts = code_distribution(
        coder, vocab_size, resolution, memory, ids, counts, allowed, prior
    )
    memory.learn(ids)
    return ids, counts


def code_round(coder, codec, given=None, drawn=None):
    """Distributions and their tokens; return both."""
    memory, found, tokens, survivors = Memory(), [], [], 0
    while True:
        i = len(found)
        ids, counts = code_next(coder, codec, memory, survivors, *at(given, i))
        position = code_position(coder, counts, drawn and ids.index(drawn[i]))
        found.append((ids, counts))
        tokens.append(ids[position])
        survivors += len(ids)
        if not code_more(coder, i + 1, given and i + 1 < len(given)):
            return found, tokens


def code_sequence(coder, codec, given=None):
    """Distributions without tokens, after how many there are; return them."""
    more = None if given is None else len(given) - 1
    length = 1 + code_uniform(coder, "length", MAX_SEQUENCE, more)
    memory, found, survivors = Memory(), [], 0
    for i in range(length):
        found.append(code_next(coder, codec, memory, survivors, *at(given, i)))
        survivors += len(found[-1][0])
    return found


def at(given, i):
    """A distribution to write, or none to read."""
    return given[i] if given else (None, None)


def code_more(coder, items, more=None):
    """Whether another item follows."""
    return items < MAX_ROUND and code_bit(coder, "more", MORE_CHANCE, more)


def encode(ids, counts, vocab_size, resolution, prior=None):
    """The packet of one distribution."""
    coder, codec = Writer(), (vocab_size, resolution)
    code_distribution(coder, *codec, Memory(), ids, counts, prior=prior)
    return coder.finish()


def bits(ids, counts, vocab_size, resolution, prior=None):
    """What a packet of one distribution spends; no integer."""
    coder = Writer()
    code_distribution(coder, vocab_size, resolution, Memory(), ids, counts, prior=prior)
    return coder.bits()


def decode(packet, vocab_size, resolution, prior=None):
    """Return (ids, counts) of the packet of one distribution."""
    coder, codec = Reader(packet), (vocab_size, resolution)
    distribution = code_distribution(coder, *codec, Memory(), prior=prior)
    coder.finish()
    return distribution


def encode_round(distributions, tokens, vocab_size, resolution, prior=None):
    """The packet of a round; distributions are pairs (ids, counts)."""
    coder = Writer()
    code_round(coder, (vocab_size, resolution, prior), distributions, tokens)
    return coder.finish()


def decode_round(packet, vocab_size, resolution, prior=None):
    """Return ([(ids, counts), ...], tokens)."""
    coder = Reader(packet)
    found = code_round(coder, (vocab_size, resolution, prior))
    coder.finish()
    return found


def encode_sequence(distributions, vocab_size, resolution, prior=None):
    """The packet of a sequence; distributions are pairs (ids, counts)."""
    coder = Writer()
    code_sequence(coder, (vocab_size, resolution, prior), distributions)
    return coder.finish()


def decode_sequence(packet, vocab_size, resolution, prior=None):
    """Return [(ids, counts), ...]."""
    coder = Reader(packet)
    found = code_sequence(coder, (vocab_size, resolution, prior))
    coder.finish()
    return found
