"""The entropy coding in Numba.

The functions follow ``csrc/entropy.c`` and the headers it includes, and explain
only what is different; the reasons are there. All integers are int64, which none
of them outgrows, as Numba turns a uint64 and an int64 into a float64.
"""

from __future__ import annotations

import numpy as np

from sqs_codec._errors import Status
from sqs_codec._format import (
    MAX_ENTROPY_SURVIVORS,
    MAX_ROUND,
    MEMORY_TOKENS,
    VARIABLE,
)
from sqs_codec._model import ID_WEIGHTS, SPLIT_CHANCES
from sqs_codec._numba_jit import entry, inlined, jit, leaf

OK = int(Status.OK)
TRUNCATED = int(Status.TRUNCATED)
TRAILING_BYTES = int(Status.TRAILING_BYTES)
PADDING = int(Status.PADDING)
ROUND_SUPPORT = int(Status.ROUND_SUPPORT)

# fixed.h

UNIT = 1 << 32  # of logarithms, which is one bit
POWER_BITS = 31
LOG2 = np.rint(np.log2(1 + np.arange(1025) / 1024) * 2**32).astype(np.int64)
EXP2 = np.rint(np.exp2(-np.arange(257) / 256) * 2**31).astype(np.int64)


@jit
def float_bits(x):
    """Return the bits of a positive integer as a float64, exact below 2^53."""
    return np.float64(x).view(np.int64)


@jit
def floor_log2(x):
    return (float_bits(x) >> 52) - 1023


@entry
def log2(x):
    double = float_bits(x)
    i = double >> 42 & 1023
    past = double >> 20 & (1 << 22) - 1
    whole = (double >> 52) - 1023
    return (whole << 32) + LOG2[i] + ((LOG2[i + 1] - LOG2[i]) * past >> 22)


def tabled_log2(x):
    """Return what `log2` does of an integer below 2048, without compiling it."""
    bits = x.bit_length() - 1
    return (bits << 32) + int(LOG2[(x << 10 >> bits) - 1024])


@entry
def exp2(t):
    i = t >> 24 & 255
    past = t & (1 << 24) - 1
    return EXP2[i] - ((EXP2[i] - EXP2[i + 1]) * past >> 24) >> min(t >> 32, 63)


# coder.h: a coder is an array and the packet, which its functions take together

# A plain integer is a type of its own, to compile for once more.
ZERO, ONE = np.int64(0), np.int64(1)

WRITE, READ, METER = np.arange(3)
MODE, STATUS, SHIFTS, RANGE, LOW, COST, SURVIVORS = range(7)
CODE = LOW  # when reading

CODER_BITS = 56
LEAST_BITS = CODER_BITS - 8


@jit
def new_coder(mode):
    coder = np.zeros(7, np.int64)
    coder[MODE] = mode
    coder[RANGE] = 1 << CODER_BITS
    return coder


@leaf
def byte_at(packet, at):
    return np.int64(packet[at]) if at < packet.size else 0


@jit
def new_reader(packet):
    coder = new_coder(READ)
    for i in range(CODER_BITS // 8):
        coder[CODE] = coder[CODE] << 8 | byte_at(packet, i)
    return coder


@leaf
def carry(coder, packet):
    at = coder[SHIFTS] - 1
    while packet[at] == 255:
        packet[at] = 0
        at -= 1
    packet[at] += np.uint8(1)


@leaf
def narrow(coder, packet, start, width):
    if coder[MODE] == READ:
        coder[CODE] -= start
        while width <= 1 << LEAST_BITS:
            following = byte_at(packet, coder[SHIFTS] + CODER_BITS // 8)
            coder[CODE] = coder[CODE] << 8 | following
            width <<= 8
            coder[SHIFTS] += 1
    else:
        low = coder[LOW] + start
        if low >> CODER_BITS:
            carry(coder, packet)
        while width <= 1 << LEAST_BITS:
            packet[coder[SHIFTS]] = low >> LEAST_BITS & 255
            low <<= 8
            width <<= 8
            coder[SHIFTS] += 1
        coder[LOW] = low & (1 << CODER_BITS) - 1
    coder[RANGE] = width


@leaf
def going(coder, packet):
    if coder[MODE] == READ and coder[STATUS] == OK and coder[SHIFTS] >= packet.size:
        coder[STATUS] = TRUNCATED
    return coder[STATUS] == OK


# What a bit costs, by its chance in 256.
BIT_COSTS = np.array([0] + [8 * UNIT - tabled_log2(x) for x in range(1, 257)])


@inlined
def code_bit(coder, packet, chance, bit):
    if coder[MODE] == METER:
        coder[COST] += BIT_COSTS[chance if bit else 256 - chance]
        return bit
    if not going(coder, packet):
        return False
    zeros = (coder[RANGE] >> 8) * (256 - chance)
    if coder[MODE] == READ:
        bit = coder[CODE] >= zeros
    if bit:
        narrow(coder, packet, zeros, coder[RANGE] - zeros)
    else:
        narrow(coder, packet, ZERO, zeros)
    return bit


@leaf
def take(coder, packet, unit, below, width, last):
    """Narrow to a share of the units; the last value takes what rounding leaves."""
    start = unit * below
    narrow(coder, packet, start, coder[RANGE] - start if last else unit * width)


@leaf
def code_uniform(coder, packet, n, value):
    if not going(coder, packet):
        return 0
    unit = coder[RANGE] // n
    if coder[MODE] == READ:
        value = min(coder[CODE] // unit, n - 1)
    take(coder, packet, unit, value, ONE, value + 1 == n)
    return value


@jit
def finish_writing(coder, packet):
    """Return the packet, which has been longer till now."""
    last = coder[LOW] + (1 << LEAST_BITS) - 1
    if last >> CODER_BITS:
        carry(coder, packet)
    packet[coder[SHIFTS]] = last >> LEAST_BITS & 255
    return packet[: coder[SHIFTS] + 1].copy()


@leaf
def finish_reading(coder, packet):
    """Return a status."""
    if coder[STATUS] != OK:
        return coder[STATUS]
    if packet.size != coder[SHIFTS] + 1:
        return TRAILING_BYTES if packet.size > coder[SHIFTS] else TRUNCATED
    return PADDING if coder[CODE] >> LEAST_BITS else OK


# entropy.c: resolutions

EVEN = np.int64(128)
MAX_EXPONENT = 16
FIRST_HOME = 1 << 6
ONE_TOKEN_CHANCE = np.int64(64)


@leaf
def code_exponent(coder, packet, home, exponent):
    if code_bit(coder, packet, ONE_TOKEN_CHANCE, exponent == 0):
        return 0
    if not code_bit(coder, packet, EVEN, exponent != home):
        return home
    up = home == 1
    if 1 < home < MAX_EXPONENT:
        up = code_bit(coder, packet, EVEN, exponent > home)
    step = 1 if up else -1
    at = home + step
    while 1 < at < MAX_EXPONENT and code_bit(coder, packet, EVEN, exponent != at):
        at += step
    return at


@leaf
def code_resolution(coder, packet, home, resolution):
    """Code a power of two; `home` is the last above 1, or 0 if there was none."""
    log = floor_log2(home if home else FIRST_HOME)
    return 1 << code_exponent(coder, packet, log, floor_log2(resolution))


# entropy.c: counts

CHANCES = np.array(SPLIT_CHANCES, np.int64)
FULL_DEPTH = 3
TOP_DEPTH = 8
SIZE_CLASSES = 4
RATIO_CLASSES = 7


@leaf
def code_count(coder, packet, low, high, left, count):
    if low == high:
        return low
    size = floor_log2(high)
    ratio = floor_log2(left) - size
    ratio -= high << ratio > left  # now it is floor_log2(left // high)
    chances = CHANCES[
        (min(size, SIZE_CLASSES) - 1) * RATIO_CLASSES + min(ratio, RATIO_CLASSES - 1)
    ]
    node = 1
    depth = 0
    while low < high:
        middle = (low + high) // 2
        chance = EVEN
        if depth < FULL_DEPTH:
            chance = chances[node - 1]
        elif depth < TOP_DEPTH and node == (2 << depth) - 1:
            chance = chances[(1 << FULL_DEPTH) - 1 + depth - FULL_DEPTH]
        bit = code_bit(coder, packet, chance, count > middle)
        if bit:
            low = middle + 1
        else:
            high = middle
        node = 2 * node + bit
        depth += 1
    return low


@leaf
def code_partition(coder, packet, vocab_size, resolution, parts):
    """Code counts in descending order and return how many they are."""
    n = 0
    left = resolution
    limit = resolution
    while left > 0 and coder[STATUS] == OK:
        low = (left - 1) // (vocab_size - n) + 1
        limit = code_count(coder, packet, low, min(limit, left), left, parts[n])
        parts[n] = limit
        left -= limit
        n += 1
    return n


@jit
def find_runs(parts):
    """Return the different counts of a partition, ascending, and how often each."""
    values = np.empty(parts.size, np.int64)
    sizes = np.empty(parts.size, np.int64)
    n = 0
    for part in parts[::-1]:
        if n == 0 or values[n - 1] != part:
            values[n] = part
            sizes[n] = 0
            n += 1
        sizes[n - 1] += 1
    return values[:n], sizes[:n]


@leaf
def code_run(coder, packet, values, sizes, last, total, count):
    """Code which of the runs up to the last one that isn't empty has a count."""
    if not going(coder, packet):
        return last
    unit = coder[RANGE] // total
    reading = coder[MODE] == READ
    target = coder[CODE] // unit if reading else 0
    before = 0
    g = 0
    while g < last and (before + sizes[g] <= target if reading else values[g] != count):
        before += sizes[g]
        g += 1
    take(coder, packet, unit, before, sizes[g], g == last)
    return g


@jit
def code_arrangement(coder, packet, parts, counts):
    values, sizes = find_runs(parts)
    alive = values.size
    last = alive - 1
    for i in range(parts.size):
        g = last
        if alive > 1:
            total = parts.size - i
            g = code_run(coder, packet, values, sizes, last, total, counts[i])
        if coder[STATUS] != OK:
            return
        counts[i] = values[g]
        sizes[g] -= 1
        if sizes[g] == 0:
            alive -= 1
            while alive and sizes[last] == 0:
                last -= 1


# entropy.c: sets

ID_EDGES = np.array(
    [0] + [e << b for b in range(4, 19) for e in (2, 3)] + [1 << 20], np.int64
)
ID_WEIGHT = np.array([*ID_WEIGHTS, 1], np.int64)  # 2**20 has a bucket as well
ID_STARTS = np.cumsum(np.append(0, np.diff(ID_EDGES) * ID_WEIGHTS))
FIRST_BUCKET_BITS = 5


@leaf
def count_below(ids, x):
    low = 0
    high = ids.size
    while low < high:
        middle = (low + high) // 2
        if ids[middle] < x:
            low = middle + 1
        else:
            high = middle
    return low


@jit
def id_bucket(x):
    # The exponent and the topmost bit behind the leading one.
    halves = float_bits(max(x, 1)) >> 51
    return max(halves - 2 * (1023 + FIRST_BUCKET_BITS) + 1, 0)


@jit
def id_position(x):
    bucket = id_bucket(x)
    return ID_STARTS[bucket] + ID_WEIGHT[bucket] * (x - ID_EDGES[bucket])


@jit
def id_at(position):
    """Return the id where the ids below weigh as much, rounded down."""
    bucket = max(count_below(ID_STARTS, position + 1) - 1, 0)
    return ID_EDGES[bucket] + (position - ID_STARTS[bucket]) // ID_WEIGHT[bucket]


# A model of a set: the ids in memory, what those before each weigh on top, what
# everything weighs, and whether the set is one where all are equally likely,
# whose members, of 0 .. whole / 2 - 1, weigh 2 each.


@jit
def uniform_model(size):
    return np.empty(0, np.int64), np.zeros(1, np.int64), 2 * size, np.bool_(True)


@jit
def id_model(vocab_size, memory):
    size = memory[SIZE]
    ids = memory[HEAD : HEAD + size]
    weights = memory[HEAD + MEMORY_TOKENS : HEAD + MEMORY_TOKENS + size]
    whole = id_position(vocab_size)
    recent = np.zeros(size + 1, np.int64)
    if size:
        seen = memory[SEEN]
        unit = whole * seen // (seen + 8) // weights.sum()
        for i in range(size):
            recent[i + 1] = recent[i] + unit * weights[i]
    return ids, recent, whole + recent[size], np.bool_(False)


@leaf
def rest(model, x, left):
    ids, recent, whole, uniform = model
    if uniform:
        return whole - 2 * x - (left - 1)
    return whole - id_position(x) - recent[count_below(ids, x)]


@leaf
def rest_at(model, weight, left):
    """Return the last x of about that rest or more."""
    ids, recent, whole, uniform = model
    if uniform:
        return (whole - (left - 1) - weight) // 2
    low = 0
    high = ids.size
    while low < high:
        middle = (low + high) // 2
        if whole - id_position(ids[middle]) - recent[middle] >= weight:
            low = middle + 1
        else:
            high = middle
    x = id_at(whole - recent[low] - weight)
    return max(x, ids[low - 1]) if low else x


@leaf
def chance_below(model, log_start, left, end, scale, x):
    t = left * (log_start - log2(rest(model, x, left)))
    return (1 << POWER_BITS) - ((exp2(t) * scale >> POWER_BITS) + end - x)


@leaf
def guess_member(model, log_start, left, start, end, scale, target):
    """Solve chance_below(x) = target, but for rounding."""
    log_scale = log2(scale)
    x = start
    for _ in range(2):  # as end - x counts little
        chance = max((1 << POWER_BITS) - target - (end - x), 1)
        log = max(log_start - max(log_scale - log2(chance), 0) // left, 0)
        whole = (log >> 32) + 1
        weight = exp2((whole << 32) - log) << 1 >> (POWER_BITS + 1 - whole)
        x = min(max(rest_at(model, weight, left), start), end - 1)
    return x


@leaf
def find_member(model, log_start, left, start, end, scale, target):
    """Return the last x with chance_below(x) <= target, and that of x and x + 1.

    The latter is not to be used if x + 1 = end.
    """
    low = start
    high = end
    at_low = 0
    at_high = 0
    x = guess_member(model, log_start, left, start, end, scale, target)
    step = 1
    while True:
        chance = chance_below(model, log_start, left, end, scale, x)
        if chance <= target:
            low = x
            at_low = chance
            x += step
        else:
            high = x
            at_high = chance
            x -= step
        if high - low == 1:
            return low, at_low, at_high
        if not low < x < high:
            x = (low + high) // 2
        step *= 2


@leaf
def code_member(coder, packet, model, left, start, end, x):
    """Code the least of the members to come, which is one of start .. end - 1."""
    if not going(coder, packet):
        return start
    unit = coder[RANGE] >> POWER_BITS
    scale = (1 << POWER_BITS) - (end - start)
    log_start = log2(rest(model, start, left))
    at_high = 0
    if coder[MODE] == READ:
        target = coder[CODE] // unit
        x, at_low, at_high = find_member(
            model, log_start, left, start, end, scale, target
        )
    else:
        at_low = chance_below(model, log_start, left, end, scale, x)
        if x + 1 < end:
            at_high = chance_below(model, log_start, left, end, scale, x + 1)
    low = unit * at_low
    high = unit * at_high if x + 1 < end else coder[RANGE]
    narrow(coder, packet, low, high - low)
    return x


@leaf
def code_set(coder, packet, model, size, members):
    start = ZERO
    for i in range(members.size):
        left = members.size - i
        end = size - left + 1
        x = start
        if end - start > 1:
            x = code_member(coder, packet, model, left, start, end, members[i])
        if coder[STATUS] != OK:
            return
        members[i] = x
        start = x + 1


@leaf
def fill_complement(others, members):
    """Set members to what isn't in others."""
    x = 0
    at = 0
    for i in range(members.size):
        while at < others.size and others[at] == x:
            at += 1
            x += 1
        members[i] = x
        x += 1


@jit
def code_uniform_set(coder, packet, size, members):
    if 2 * members.size <= size:
        code_set(coder, packet, uniform_model(size), size, members)
        return
    others = np.empty(size - members.size, np.int64)
    if coder[MODE] == WRITE:
        fill_complement(members, others)
    code_set(coder, packet, uniform_model(size), size, others)
    if coder[STATUS] == OK:
        fill_complement(others, members)


# entropy.c: memory, an array of uint32 for callers and of int64 here

MEMORY_SUPPORT = 256
NEW_WEIGHT = 1024
LEAST_WEIGHT = 32
MOST_SEEN = 255
SIZE, SEEN, HOME = range(3)
HEAD = 3


@jit
def no_memory():
    """Return what is as good as an empty one that learns nothing."""
    return np.zeros(HEAD, np.int64)


@leaf
def merge(memory, ids, new_ids, new_weights):
    """Let a memory fade, add a support, and return how many tokens there are."""
    size = memory[SIZE]
    n = 0
    i = 0
    for j in range(ids.size + 1):
        end = ids[j] if j < ids.size else 1 << 32
        weight = NEW_WEIGHT
        while i < size and memory[HEAD + i] <= end:
            old = memory[HEAD + MEMORY_TOKENS + i]
            old -= old >> 5
            if memory[HEAD + i] == end:
                weight += old
            elif old >= LEAST_WEIGHT:
                new_ids[n] = memory[HEAD + i]
                new_weights[n] = old
                n += 1
            i += 1
        if j < ids.size:
            new_ids[n] = end
            new_weights[n] = weight
            n += 1
    return n


@jit
def learn(memory, ids):
    if ids.size > MEMORY_SUPPORT:
        return
    memory[SEEN] = min(memory[SEEN] + 1, MOST_SEEN)
    new_ids = np.empty(MEMORY_TOKENS + MEMORY_SUPPORT, np.int64)
    new_weights = np.empty(MEMORY_TOKENS + MEMORY_SUPPORT, np.int64)
    n = merge(memory, ids, new_ids, new_weights)
    least = LEAST_WEIGHT
    while n > MEMORY_TOKENS:
        least *= 2
        kept = 0
        for i in range(n):
            if new_weights[i] >= least:
                new_ids[kept] = new_ids[i]
                new_weights[kept] = new_weights[i]
                kept += 1
        n = kept
    memory[SIZE] = n
    for i in range(n):
        memory[HEAD + i] = new_ids[i]
        memory[HEAD + MEMORY_TOKENS + i] = new_weights[i]


# entropy.c: costs

UNIFORM_CHANCE = np.int64(16)
UNIFORM_COST = 4 * UNIT  # a bit of that chance
# 8 - log2(240), which is 8 - (7 + log2(1 + 896 / 1024)).
MODEL_COST = int(UNIT - LOG2[896])
SMALL_STEP = UNIT // 16
LOG2_OF_LOG2_E = 2271034279


@leaf
def stirling(n, log):
    return ((2 * n + 1) * log >> 1) - n * 6196328019 + 5694044581 + 516360668 // n


# For what most supports and resolutions ask.
LOG2_FACTORIALS = np.array(
    [0, 0] + [stirling.py_func(n, tabled_log2(n)) for n in range(2, 257)], np.int64
)


@leaf
def log2_factorial(n):
    if n < LOG2_FACTORIALS.size:
        return LOG2_FACTORIALS[n]
    return stirling(n, log2(n))


@jit
def log2_binomial(n, k):
    return log2_factorial(n) - log2_factorial(k) - log2_factorial(n - k)


@jit
def counts_costs(vocab_size, resolution, parts):
    """Return what counts cost by the model and what uniformly."""
    coder = new_coder(METER)
    code_partition(coder, np.empty(0, np.uint8), vocab_size, resolution, parts)
    k = parts.size
    model = MODEL_COST + coder[COST] + log2_factorial(k)
    for size in find_runs(parts)[1]:
        model -= log2_factorial(size)
    uniform = log2(min(vocab_size, resolution)) + log2_binomial(resolution - 1, k - 1)
    return model, UNIFORM_COST + uniform


@leaf
def member_cost(fall, step):
    """Return about what a chance of 2^-fall - 2^-(fall + step) costs."""
    if step < SMALL_STEP:
        cost = fall + 32 * UNIT - log2(max(step, 1)) + step // 2 + LOG2_OF_LOG2_E
    else:
        cost = fall + POWER_BITS * UNIT - log2((1 << POWER_BITS) - exp2(step))
    if cost < 24 * UNIT:
        return cost
    return POWER_BITS * UNIT - log2(exp2(fall) - exp2(fall + step) + 1)


REST_SHOWS = 16 * UNIT


@leaf
def ids_costs(vocab_size, model, ids):
    """Return what ids cost by the model and what uniformly, and if that is rough."""
    cost = MODEL_COST
    rough = False
    log_start = log2(rest(model, ZERO, ZERO))
    for i in range(ids.size):
        left = ids.size - i
        log_x = log2(rest(model, ids[i], left))
        fall = left * (log_start - log_x)
        if ids[i] == vocab_size - left:
            cost += member_cost(fall, 64 * UNIT)
            rough = fall > REST_SHOWS
            break
        log_start = log2(rest(model, ids[i] + 1, left))
        cost += member_cost(fall, left * (log_x - log_start))
    return cost, UNIFORM_COST + log2_binomial(vocab_size, ids.size), rough


@leaf
def sort_descending(values):
    """Shell's sort: short, and quick on few values and on many."""
    gap = 1
    while 3 * gap < values.size:
        gap = 3 * gap + 1
    while gap:
        for i in range(gap, values.size):
            value = values[i]
            at = i
            while at >= gap and values[at - gap] < value:
                values[at] = values[at - gap]
                at -= gap
            values[at] = value
        gap //= 3


@jit
def descending(counts):
    parts = counts.astype(np.int64)
    sort_descending(parts)
    return parts


@jit
def entropy_cost(ids, counts, vocab_size, resolution):
    """Return what ids and counts cost alone, in 2^-32 bits, and if that is close."""
    model = id_model(vocab_size, no_memory())
    a, uniform_a = counts_costs(vocab_size, resolution, descending(counts))
    b, uniform_b, rough = ids_costs(vocab_size, model, ids.astype(np.int64))
    close = a <= uniform_a and b <= uniform_b and not rough
    return min(a, uniform_a) + min(b, uniform_b), close


@jit
def distribution_cost(ids, counts, vocab_size, resolution):
    """Return what ids and counts cost alone, in units of 2^-32 bits."""
    return entropy_cost(ids, counts, vocab_size, resolution)[0]


# message.c: distributions

SMALL = 128
SPARSE = 4


@leaf
def admit(coder, k):
    """Count a distribution's survivors, and say whether to go on with it."""
    coder[SURVIVORS] += k
    if coder[STATUS] == OK and coder[SURVIVORS] > MAX_ENTROPY_SURVIVORS:
        coder[STATUS] = ROUND_SUPPORT
    return coder[STATUS] == OK


@jit
def code_counts(coder, packet, vocab_size, resolution, counts, parts, uniform):
    """Code the counts and return them; those given are only read if writing.

    Parts are the counts in descending order if writing, and otherwise room.
    """
    if not code_bit(coder, packet, UNIFORM_CHANCE, uniform):
        k = code_partition(coder, packet, vocab_size, resolution, parts)
        if not admit(coder, k):
            return np.empty(0, np.int64)
        if coder[MODE] == READ:
            counts = np.empty(k, np.int64)
        code_arrangement(coder, packet, parts[:k], counts)
        return counts
    most = min(vocab_size, resolution)
    k = code_uniform(coder, packet, most, counts.size - 1) + 1
    if not admit(coder, k):
        return np.empty(0, np.int64)
    places = np.empty(k - 1, np.int64)
    if coder[MODE] == WRITE:
        before = ZERO
        for i in range(k - 1):
            before += counts[i]
            places[i] = before - 1
    code_uniform_set(coder, packet, resolution - 1, places)
    if coder[MODE] == READ:
        counts = np.empty(k, np.int64)
        start = 0
        for i in range(k - 1):
            counts[i] = places[i] + 1 - start
            start = places[i] + 1
        counts[k - 1] = resolution - start
    return counts


@jit
def code_ids(coder, packet, vocab_size, model, ids, uniform):
    if code_bit(coder, packet, UNIFORM_CHANCE, uniform):
        code_uniform_set(coder, packet, vocab_size, ids)
    elif coder[STATUS] == OK:
        code_set(coder, packet, model, vocab_size, ids)


@jit
def code_distribution(coder, packet, vocab_size, resolution, memory, ids, counts):
    """Code a distribution and return its ids and counts, which are given if writing."""
    writing = coder[MODE] == WRITE
    if resolution == VARIABLE:
        total = counts.sum() if writing else 1
        resolution = code_resolution(coder, packet, memory[HOME], total)
        if resolution > 1:
            memory[HOME] = resolution
    model = id_model(vocab_size, memory)
    uniform_counts = False
    uniform_ids = False
    if writing:
        parts = descending(counts)
        by_model, uniformly = counts_costs(vocab_size, resolution, parts)
        uniform_counts = uniformly < by_model
        by_model, uniformly, _ = ids_costs(vocab_size, model, ids)
        uniform_ids = uniformly < by_model
    else:
        parts = np.empty(min(vocab_size, resolution), np.int64)
    counts = code_counts(
        coder, packet, vocab_size, resolution, counts, parts, uniform_counts
    )
    if not writing:
        ids = np.empty(counts.size, np.int64)
    code_ids(coder, packet, vocab_size, model, ids, uniform_ids)
    return ids, counts


@jit
def encode_bound(length, survivors):
    """Return a size that no packet exceeds.

    A distribution takes two modes (at most 4 bits each), an exponent (18), a size
    (16), a position (16) and whether another follows (2); a survivor its id (31),
    16 splits of its count (8 each) and its place among the counts (16); and the
    coder has 7 bytes in hand. The rest is for what rounding takes.
    """
    return 16 + 16 * length + 24 * survivors


@leaf
def bits_spent(coder):
    # Its lower bits are below what log2 looks at, and above what a float64 holds.
    narrowed = LEAST_BITS * UNIT - log2(coder[RANGE] >> (CODER_BITS - LEAST_BITS))
    return 8 * coder[SHIFTS] + (narrowed + UNIT - 1) // UNIT


@entry
def encode(vocab_size, resolution, ids, counts):
    """Return the packet and its bits before padding."""
    coder = new_coder(WRITE)
    packet = np.empty(encode_bound(1, ids.size), np.uint8)
    code_distribution(
        coder,
        packet,
        vocab_size,
        resolution,
        no_memory(),
        ids.astype(np.int64),
        counts.astype(np.int64),
    )
    spent = bits_spent(coder)
    return finish_writing(coder, packet), spent


@entry
def bits(vocab_size, resolution, ids, counts):
    if ids.size <= min(SMALL, vocab_size // SPARSE):
        coder = new_coder(METER)
        total = counts.astype(np.int64).sum()
        if resolution == VARIABLE:
            code_resolution(coder, np.empty(0, np.uint8), 0, total)
        cost, close = entropy_cost(ids, counts, vocab_size, total)
        if close:
            return (coder[COST] + cost + UNIT - 1) // UNIT
    return encode(vocab_size, resolution, ids, counts)[1]


@entry
def decode(packet, vocab_size, resolution):
    """Return a status, the ids and the counts."""
    packet = packet.copy()  # as the functions are compiled for one that is written
    coder = new_reader(packet)
    none = np.empty(0, np.int64)
    ids, counts = code_distribution(
        coder, packet, vocab_size, resolution, no_memory(), none, none
    )
    status = finish_reading(coder, packet)
    return status, ids.astype(np.uint32), counts.astype(np.uint32)


# message.c: rounds

MORE_CHANCE = np.int64(192)
FIRST_ROOM = 1024  # of a round's survivors


@leaf
def code_position(coder, packet, counts, position):
    if not going(coder, packet):
        return 0
    unit = coder[RANGE] // counts.sum()
    reading = coder[MODE] == READ
    target = coder[CODE] // unit if reading else 0
    last = counts.size - 1
    before = 0
    i = 0
    while i < last and (before + counts[i] <= target if reading else i < position):
        before += counts[i]
        i += 1
    take(coder, packet, unit, before, counts[i], i == last)
    return i


@leaf
def code_more(coder, packet, length, more):
    """Code whether a message goes on after `length` items."""
    return length < MAX_ROUND and code_bit(coder, packet, MORE_CHANCE, more)


@entry
def encode_round(vocab_size, resolution, ids, counts, survivors, positions, memory):
    """Return the packet; the memory, uint32, becomes what it is after the round."""
    coder = new_coder(WRITE)
    packet = np.empty(encode_bound(survivors.size, ids.size), np.uint8)
    known = memory.astype(np.int64)
    start = 0
    for i in range(survivors.size):
        end = start + np.int64(survivors[i])
        these_ids = ids[start:end].astype(np.int64)
        these = counts[start:end].astype(np.int64)
        code_distribution(
            coder,
            packet,
            vocab_size,
            resolution,
            known,
            these_ids,
            these,
        )
        code_position(coder, packet, these, np.int64(positions[i]))
        learn(known, these_ids)
        code_more(coder, packet, i + 1, i + 1 < survivors.size)
        start = end
    copy_values(known, memory, ZERO)
    return finish_writing(coder, packet)


@leaf
def copy_values(values, to, at):
    # To assign to a slice takes much longer to compile.
    for i in range(values.size):
        to[at + i] = values[i]


@jit
def with_room(values, used, n):
    """Return the array or a larger copy, so that n values more have room."""
    if used + n <= values.size:
        return values
    larger = np.empty(max(2 * values.size, used + n), np.uint32)
    copy_values(values[:used], larger, ZERO)
    return larger


@entry
def decode_round(packet, vocab_size, resolution, memory):
    """Return a status, ids, counts, survivors and positions.

    If OK, the memory becomes what it is after the round.
    """
    packet = packet.copy()
    coder = new_reader(packet)
    known = memory.astype(np.int64)
    none = np.empty(0, np.int64)
    all_ids = np.empty(FIRST_ROOM, np.uint32)
    all_counts = np.empty(FIRST_ROOM, np.uint32)
    survivors = np.empty(MAX_ROUND, np.int64)
    positions = np.empty(MAX_ROUND, np.int64)
    used = ZERO
    length = 0
    while True:
        ids, counts = code_distribution(
            coder,
            packet,
            vocab_size,
            resolution,
            known,
            none,
            none,
        )
        positions[length] = code_position(coder, packet, counts, ZERO)
        if coder[STATUS] != OK:
            break
        learn(known, ids)
        end = used + ids.size
        all_ids = with_room(all_ids, used, ids.size)
        all_counts = with_room(all_counts, used, ids.size)
        copy_values(ids, all_ids, used)
        copy_values(counts, all_counts, used)
        used = end
        survivors[length] = ids.size
        length += 1
        if not code_more(coder, packet, length, False):
            break
    status = finish_reading(coder, packet)
    if status == OK:
        copy_values(known, memory, ZERO)
    return (
        status,
        all_ids[:used],
        all_counts[:used],
        survivors[:length],
        positions[:length],
    )


# message.c: tokens


@jit
def code_token(coder, packet, vocab_size, token):
    found = np.full(1, token, np.int64)
    code_set(coder, packet, id_model(vocab_size, no_memory()), vocab_size, found)
    return found[0]


@entry
def encode_tokens(vocab_size, resolution, tokens, counts, resolutions):
    coder = new_coder(WRITE)
    packet = np.empty(encode_bound(tokens.size, tokens.size), np.uint8)
    home = 0
    for i in range(tokens.size):
        most = np.int64(resolutions[i])
        if resolution == VARIABLE:
            code_resolution(coder, packet, home, most)
            home = most if most > 1 else home
        code_token(coder, packet, vocab_size, np.int64(tokens[i]))
        code_count(coder, packet, 1, most, most, np.int64(counts[i]))
        code_more(coder, packet, i + 1, i + 1 < tokens.size)
    return finish_writing(coder, packet)


@entry
def decode_tokens(packet, vocab_size, resolution, tokens, counts, resolutions):
    """Return a status and how many tokens there are."""
    packet = packet.copy()
    coder = new_reader(packet)
    length = 0
    most = resolution
    home = 0
    while True:
        if resolution == VARIABLE:
            most = code_resolution(coder, packet, home, 1)
            home = most if most > 1 else home
        tokens[length] = code_token(coder, packet, vocab_size, 0)
        counts[length] = code_count(coder, packet, 1, most, most, 1)
        resolutions[length] = most
        length += 1
        if not code_more(coder, packet, length, False):
            break
    return finish_reading(coder, packet), length
