"""The entropy coding once more, to be read rather than run fast.

Each model is written once: a coder's ``pick`` takes the value when it writes and
returns it when it reads. The state of the range coder is plain integers of any
size, so that there is no carry to propagate.
"""

from __future__ import annotations

import json
from decimal import Decimal, getcontext
from pathlib import Path

from tests.reference import BrokenRuleError

getcontext().prec = 60

MODEL = json.loads((Path(__file__).parents[1] / "vectors" / "model.json").read_text())
SPLIT_CHANCES = MODEL["split_chances"]
ID_WEIGHTS = MODEL["id_weights"]
ID_EDGES = [0] + [e << b for b in range(4, 19) for e in (2, 3)] + [1 << 20]

UNIFORM_CHANCE = 16  # of the two uniform modes, in 256ths
MORE_CHANCE = 192  # of another distribution in the round, in 256ths
MAX_ROUND = 256
MAX_ROUND_SUPPORT = 1 << 20
MAX_EXPONENT = 16
FIRST_HOME = 6
ONE_TOKEN_CHANCE = 64  # of a resolution of 1, in 256ths
MEMORY_TOKENS = 512
MEMORY_SUPPORT = 256
NEW_WEIGHT = 1024
LEAST_WEIGHT = 32


# Fixed-point logarithms


def rounded(x):
    return int(x.to_integral_value())


LN2 = Decimal(2).ln()
LOG2 = [rounded((1 + Decimal(i) / 1024).ln() / LN2 * 2**32) for i in range(1025)]
EXP2 = [rounded(2**31 * (-Decimal(i) / 256 * LN2).exp()) for i in range(257)]


def log2(x):
    """log2 of an integer 1 .. 2**34, in units of 2**-32, straight between knots."""
    e = x.bit_length() - 1
    f = (x << 32 >> e) - (1 << 32)
    i, d = f >> 22, f & (1 << 22) - 1
    return (e << 32) + LOG2[i] + ((LOG2[i + 1] - LOG2[i]) * d >> 22)


def exp2(t):
    """2**-t in units of 2**-31, t in units of 2**-32."""
    f = t & (1 << 32) - 1
    i, d = f >> 24, f & (1 << 24) - 1
    return EXP2[i] - ((EXP2[i] - EXP2[i + 1]) * d >> 24) >> (t >> 32)


# The range coder


class Writer:
    """Narrows an interval; the packet is a number inside it."""

    def __init__(self):
        self.low, self.range, self.shifts = 0, 1 << 56, 0

    def pick(self, total, first, end, below, value):
        """Write a value of first .. end - 1.

        ``below(x)`` is the share, out of total, of the values less than x; what
        rounding leaves goes to the last value.
        """
        unit = self.range // total
        start = unit * below(value)
        stop = unit * below(value + 1) if value + 1 < end else self.range
        self.low += start
        self.range = stop - start
        while self.range <= 1 << 48:
            self.low <<= 8
            self.range <<= 8
            self.shifts += 1
        return value

    def finish(self):
        """The one packet whose last byte is the first to lie in the interval."""
        last = -(-self.low >> 48)
        return last.to_bytes(self.shifts + 1, "big")


class Reader:
    """Follows the Writer."""

    def __init__(self, packet):
        self.packet = packet
        self.range, self.shifts = 1 << 56, 0
        self.code = int.from_bytes(packet[:1], "big") << 48
        self.code |= int.from_bytes(packet[1:7].ljust(6, b"\0"), "big")

    def pick(self, total, first, end, below, value=None):
        """Read a value of first .. end - 1."""
        unit = self.range // total
        if self.shifts + 1 > len(self.packet):
            raise BrokenRuleError("TRUNCATED")
        target = self.code // unit
        low, high = first, end  # the value is in low .. high - 1
        while high - low > 1:
            middle = (low + high) // 2
            if below(middle) <= target:
                low = middle
            else:
                high = middle
        start = unit * below(low)
        stop = unit * below(low + 1) if low + 1 < end else self.range
        self.code -= start
        self.range = stop - start
        while self.range <= 1 << 48:
            at = self.shifts + 7
            byte = self.packet[at] if at < len(self.packet) else 0
            self.code = self.code << 8 | byte
            self.range <<= 8
            self.shifts += 1
        return low

    def finish(self):
        """Insist that the Writer would have ended so."""
        if len(self.packet) < self.shifts + 1:
            raise BrokenRuleError("TRUNCATED")
        if len(self.packet) > self.shifts + 1:
            raise BrokenRuleError("TRAILING_BYTES")
        if self.code >= 1 << 48:
            raise BrokenRuleError("PADDING")


def code_bit(coder, chance, bit=None):
    """A bit that is 1 with a chance in 256ths."""
    return coder.pick(256, 0, 2, lambda x: x * (256 - chance), bit)


def code_uniform(coder, n, value=None):
    """One of n equally likely values."""
    return coder.pick(n, 0, n, lambda x: x, value)


# Resolution


def code_exponent(coder, home, exponent=None):
    """log2 of the resolution: 0 for one token, else likely the last that wasn't 0."""
    if code_bit(coder, ONE_TOKEN_CHANCE, None if exponent is None else exponent == 0):
        return 0
    if not code_bit(coder, 128, None if exponent is None else exponent != home):
        return home
    up = home == 1
    if 1 < home < MAX_EXPONENT:
        up = code_bit(coder, 128, None if exponent is None else exponent > home)
    at, step = home, 1 if up else -1
    while True:
        at += step
        if at in (1, MAX_EXPONENT):
            return at
        if not code_bit(coder, 128, None if exponent is None else exponent != at):
            return at


# Counts


def code_partition(coder, vocab_size, resolution, counts=None):
    """The counts in descending order."""
    parts, left, limit = [], resolution, resolution
    while left > 0:
        low = -(-left // (vocab_size - len(parts)))
        high = min(limit, left)
        value = None if counts is None else counts[len(parts)]
        limit = code_count(coder, low, high, left, value)
        parts.append(limit)
        left -= limit
    return parts


def code_count(coder, low, high, left, count=None):
    """A count from low to high, by halving."""
    chances = SPLIT_CHANCES[
        (min(high.bit_length() - 1, 4) - 1) * 7
        + min((left // high).bit_length(), 7)
        - 1
    ]
    node, depth = 1, 0
    while low < high:
        middle = (low + high) // 2
        chance = 128
        if depth < 3:
            chance = chances[node - 1]
        elif depth < 8 and node == (2 << depth) - 1:
            chance = chances[4 + depth]
        bit = code_bit(coder, chance, None if count is None else count > middle)
        low, high = (middle + 1, high) if bit else (low, middle)
        node, depth = 2 * node + bit, depth + 1
    return low


def code_arrangement(coder, parts, counts=None):
    """Which token, by ascending id, has which of the counts."""
    values = sorted(set(parts))
    left = [parts.count(value) for value in values]
    arranged = []
    for i in range(len(parts)):
        sums = [sum(left[:g]) for g in range(len(values) + 1)]
        alive = [g for g in range(len(values)) if left[g]]
        g = alive[0]
        if len(alive) > 1:
            g = coder.pick(
                sums[-1],
                0,
                alive[-1] + 1,
                lambda x, sums=sums: sums[x],
                None if counts is None else values.index(counts[i]),
            )
        arranged.append(values[g])
        left[g] -= 1
    return arranged


def code_counts(coder, vocab_size, resolution, allowed, counts=None, uniform=None):
    """The counts of the tokens by ascending id, of which `allowed` may be."""
    if not code_bit(coder, UNIFORM_CHANCE, uniform):
        parts = code_partition(
            coder,
            vocab_size,
            resolution,
            None if counts is None else sorted(counts, reverse=True),
        )
        check_survivors(len(parts), allowed)
        return code_arrangement(coder, parts, counts)
    most = min(vocab_size, resolution)
    k = 1 + code_uniform(coder, most, None if counts is None else len(counts) - 1)
    check_survivors(k, allowed)
    places = None
    if counts is not None:
        places = [sum(counts[: i + 1]) - 1 for i in range(k - 1)]
    places = code_uniform_set(coder, k - 1, resolution - 1, places)
    ends = [place + 1 for place in places] + [resolution]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def check_survivors(k, allowed):
    """Insist, as soon as k is known, that it is allowed."""
    if k > allowed:
        raise BrokenRuleError("ROUND_SUPPORT")


# Sets


def code_set(coder, n, size, rest, members=None):
    """Code n of the integers 0 .. size - 1, ascending.

    ``rest(x, n)`` is what x and all above it weigh when n members are to come.
    Each member is the least of those to come, had they been drawn independently.
    """
    found, start = [], 0
    for i in range(n):
        left = n - i
        end = size - left + 1
        scale = (1 << 31) - (end - start)

        def below(x, start=start, left=left, end=end, scale=scale):
            if x == start:
                return 0
            t = left * (log2(rest(start, left)) - log2(rest(x, left)))
            return (1 << 31) - ((exp2(t) * scale >> 31) + end - x)

        x = start
        if end - start > 1:
            x = coder.pick(
                1 << 31, start, end, below, None if members is None else members[i]
            )
        found.append(x)
        start = x + 1
    return found


def code_uniform_set(coder, n, size, members=None):
    """A set where all are equally likely; of more than half, what isn't in it."""
    if 2 * n > size:
        others = None
        if members is not None:
            others = sorted(set(range(size)) - set(members))
        others = code_uniform_set(coder, size - n, size, others)
        return sorted(set(range(size)) - set(others))
    return code_set(
        coder, n, size, lambda x, left: 2 * (size - x) - (left - 1), members
    )


def id_position(x):
    """What the ids below x weigh in the static model."""
    return sum(
        weight * (min(x, high) - low)
        for weight, low, high in zip(ID_WEIGHTS, ID_EDGES, ID_EDGES[1:], strict=False)
        if low < x
    )


class Memory:
    """Tokens of recent supports and how much they count."""

    def __init__(self):
        self.weights, self.seen, self.home = {}, 0, FIRST_HOME
        self.survivors = 0  # of the current round

    def unit(self, vocab_size):
        """What one unit of weight counts in the mixed model."""
        total = sum(self.weights.values())
        if not total:
            return 0
        return id_position(vocab_size) * self.seen // (self.seen + 8) // total

    def learn(self, ids):
        """Let all fade and add a support, unless it is very large."""
        if len(ids) > MEMORY_SUPPORT:
            return
        self.seen = min(self.seen + 1, 255)
        faded = {x: w - (w >> 5) for x, w in self.weights.items()}
        for x in ids:
            faded[x] = faded.get(x, 0) + NEW_WEIGHT
        least = LEAST_WEIGHT
        self.weights = {x: w for x, w in sorted(faded.items()) if w >= least}
        while len(self.weights) > MEMORY_TOKENS:
            least *= 2
            self.weights = {x: w for x, w in self.weights.items() if w >= least}


def code_ids(coder, vocab_size, k, memory, ids=None, uniform=None):
    """The support."""
    if code_bit(coder, UNIFORM_CHANCE, uniform):
        return code_uniform_set(coder, k, vocab_size, ids)
    rest = id_rest(vocab_size, memory)
    return code_set(coder, k, vocab_size, lambda x, left: rest(x), ids)


def id_rest(vocab_size, memory):
    """The function that says what an id and all above it weigh."""
    unit = memory.unit(vocab_size)
    whole = id_position(vocab_size) + unit * sum(memory.weights.values())

    def rest(x):
        recent = sum(w for y, w in memory.weights.items() if y < x)
        return whole - id_position(x) - unit * recent

    return rest


# Which modes


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


class Meter:
    """A coder that only counts the bits of chances, in units of 2**-32."""

    def __init__(self):
        self.cost = 0

    def pick(self, total, first, end, below, value):
        """Count what a Writer would spend."""
        stop = below(value + 1) if value + 1 < end else total
        self.cost += log2(total) - log2(stop - below(value))
        return value


UNIFORM_COST = log2(256) - log2(UNIFORM_CHANCE)
MODEL_COST = log2(256) - log2(256 - UNIFORM_CHANCE)


def counts_costs(vocab_size, resolution, counts):
    """What the counts cost by the model and, about, what uniformly."""
    meter = Meter()
    code_partition(meter, vocab_size, resolution, sorted(counts, reverse=True))
    k = len(counts)
    model = MODEL_COST + meter.cost + log2_factorial(k)
    for value in set(counts):
        model -= log2_factorial(counts.count(value))
    uniform = log2(min(vocab_size, resolution)) + log2_binomial(resolution - 1, k - 1)
    return model, UNIFORM_COST + uniform


def ids_costs(vocab_size, ids, memory):
    """About what the ids cost by the model and what uniformly."""
    k = len(ids)
    rest = id_rest(vocab_size, memory)
    model, log_start = MODEL_COST, log2(rest(0))
    for i, x in enumerate(ids):
        n, log_x = k - i, log2(rest(x))
        fall = n * (log_start - log_x)
        if x == vocab_size - n:  # the last value takes the rest; others follow it
            model += member_cost(fall, 64 << 32)
            break
        log_start = log2(rest(x + 1))
        model += member_cost(fall, n * (log_x - log_start))
    return model, UNIFORM_COST + log2_binomial(vocab_size, k)


def member_cost(fall, step):
    """About what code_set spends where a chance is 2**-fall - 2**-(fall + step)."""
    if step < 1 << 28:  # -log2(1 - 2**-step) by its series
        cost = fall + (32 << 32) - log2(max(1, step)) + step // 2
        cost += 2271034279  # -log2(ln 2) * 2**32
    else:
        cost = fall + (31 << 32) - log2((1 << 31) - exp2(step))
    if cost < 24 << 32:
        return cost
    return (31 << 32) - log2(exp2(fall) - exp2(fall + step) + 1)


# Packets


def code_distribution(coder, vocab_size, resolution, memory, ids=None, counts=None):
    """A distribution; a resolution of 0 means that it is sent along."""
    uniform_counts = uniform_ids = None
    if resolution == 0:
        exponent = None if counts is None else sum(counts).bit_length() - 1
        exponent = code_exponent(coder, memory.home, exponent)
        memory.home = exponent or memory.home
        resolution = 1 << exponent
    if counts is not None:
        model, uniform = counts_costs(vocab_size, resolution, counts)
        uniform_counts = uniform < model
        model, uniform = ids_costs(vocab_size, ids, memory)
        uniform_ids = uniform < model
    allowed = MAX_ROUND_SUPPORT - memory.survivors
    counts = code_counts(coder, vocab_size, resolution, allowed, counts, uniform_counts)
    memory.survivors += len(counts)
    ids = code_ids(coder, vocab_size, len(counts), memory, ids, uniform_ids)
    return ids, counts


def code_position(coder, counts, position=None):
    """Where the drafted token stands, with the chances it was drawn with."""
    sums = [sum(counts[:i]) for i in range(len(counts))]
    return coder.pick(sum(counts), 0, len(counts), lambda x: sums[x], position)


def encode(ids, counts, vocab_size, resolution):
    """The packet of one distribution."""
    coder = Writer()
    code_distribution(coder, vocab_size, resolution, Memory(), ids, counts)
    return coder.finish()


def decode(packet, vocab_size, resolution):
    """Return (ids, counts) of the packet of one distribution."""
    coder = Reader(packet)
    distribution = code_distribution(coder, vocab_size, resolution, Memory())
    coder.finish()
    return distribution


def encode_round(distributions, tokens, vocab_size, resolution, memory=None):
    """The packet of a round; distributions are pairs (ids, counts)."""
    coder, memory = Writer(), memory or Memory()
    memory.survivors = 0
    for i, (ids, counts) in enumerate(distributions):
        if i > 0:
            code_bit(coder, MORE_CHANCE, True)
        code_distribution(coder, vocab_size, resolution, memory, ids, counts)
        code_position(coder, counts, ids.index(tokens[i]))
        memory.learn(ids)
    if len(tokens) < MAX_ROUND:
        code_bit(coder, MORE_CHANCE, False)
    return coder.finish()


def decode_round(packet, vocab_size, resolution, memory=None):
    """Return ([(ids, counts), ...], tokens)."""
    coder, memory = Reader(packet), memory or Memory()
    memory.survivors = 0
    distributions, tokens = [], []
    while True:
        ids, counts = code_distribution(coder, vocab_size, resolution, memory)
        distributions.append((ids, counts))
        tokens.append(ids[code_position(coder, counts)])
        memory.learn(ids)
        if len(tokens) == MAX_ROUND or not code_bit(coder, MORE_CHANCE):
            break
    coder.finish()
    return distributions, tokens


def code_token(coder, vocab_size, resolution, home, drafted=None):
    """(token, count, resolution) alone."""
    token = count = None
    if drafted is not None:
        token, count = [drafted[0]], drafted[1]
    if resolution == 0:
        sent = None if drafted is None else drafted[2].bit_length() - 1
        resolution = 1 << code_exponent(coder, home, sent)
    rest = id_rest(vocab_size, Memory())
    token = code_set(coder, 1, vocab_size, lambda x, left: rest(x), token)
    count = code_count(coder, 1, resolution, resolution, count)
    return token[0], count, resolution


def encode_tokens(drafted, vocab_size, resolution):
    """The message of tokens and counts; drafted are (token, count, resolution)."""
    coder, home = Writer(), FIRST_HOME
    for i, item in enumerate(drafted):
        if i > 0:
            code_bit(coder, MORE_CHANCE, True)
        code_token(coder, vocab_size, resolution, home, item)
        home = item[2].bit_length() - 1 or home
    if len(drafted) < MAX_ROUND:
        code_bit(coder, MORE_CHANCE, False)
    return coder.finish()


def decode_tokens(packet, vocab_size, resolution):
    """Return a list of (token, count, resolution)."""
    coder, home, drafted = Reader(packet), FIRST_HOME, []
    while True:
        drafted.append(code_token(coder, vocab_size, resolution, home))
        home = drafted[-1][2].bit_length() - 1 or home
        if len(drafted) == MAX_ROUND or not code_bit(coder, MORE_CHANCE):
            break
    coder.finish()
    return drafted
