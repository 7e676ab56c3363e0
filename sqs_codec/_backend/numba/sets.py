"""Sets as order statistics, as in ``csrc/entropy/sets.c``.

The names are those of ``docs/format.md``. The next member of a set is a symbol with the
values a .. e - 1 and cumulative weights c(x) out of 2^31. They follow from R(x), the
weight of x and all ids above it.
"""

import numpy as np

from sqs_codec._backend.numba import coder as coding
from sqs_codec._backend.numba.fixed import BIT, ONE, exp2, log2
from sqs_codec._backend.numba.ids import UNIFORM, WEIGHTS_BELOW, ids_at, ids_rest
from sqs_codec._backend.numba.jit import jit, leaf
from sqs_codec._backend.numba.model import LOG_UNIT, POWER_UNIT
from sqs_codec._base.errors import Status
from sqs_codec._base.prior_file import MOST_WEIGHT

# A limit of log2(R(x)): a memory adds at most the weight that all ids have in their
# buckets or the prior, and a uniform set has R(x) <= 2 size.
MOST_LOG = 33
assert 2 * max(WEIGHTS_BELOW[-1], MOST_WEIGHT) < 1 << MOST_LOG


@jit
def uniform_model(size):
    """Return the model of a set of equally likely members below `size`."""
    none = np.empty(0, np.int64)
    return none, 2 * size, none, UNIFORM


@leaf
def rest(model, x, n):
    """Return R(x) if n members are left."""
    _, whole, _, row = model
    if row == UNIFORM:
        return whole - 2 * x - (n - 1)
    return ids_rest(model, x)


@leaf
def value_at(model, weight, n):
    _, whole, _, row = model
    if row == UNIFORM:
        return (whole - (n - 1) - weight) // 2
    return ids_at(model, weight)


@leaf
def cumulative(model, log_a, n, e, scale, x):
    """Return c(x), where log_a = log2(R(a)) and scale = 2^31 - (e - a)."""
    t = n * (log_a - log2(rest(model, x, n)))
    return ONE - ((exp2(t) * scale >> POWER_UNIT) + e - x)


@leaf
def power(log):
    whole = (log >> LOG_UNIT) + 1
    fraction = exp2((whole << LOG_UNIT) - log)
    return fraction << (MOST_LOG - POWER_UNIT) >> (MOST_LOG - whole)


@leaf
def guess_member(model, log_a, n, a, e, scale, target):
    log_scale = log2(scale)
    x = a
    for _ in range(2):
        above = max(ONE - target - (e - x), 1)
        log = max(log_a - max(log_scale - log2(above), 0) // n, 0)
        x = min(max(value_at(model, power(log), n), a), e - 1)
    return x


@leaf
def find_member(model, log_a, n, a, e, scale, target):
    low = a
    high = e
    c_low = 0
    c_high = 0
    x = guess_member(model, log_a, n, a, e, scale, target)
    step = 1
    while True:
        c = cumulative(model, log_a, n, e, scale, x)
        if c <= target:
            low = x
            c_low = c
            x += step
        else:
            high = x
            c_high = c
            x -= step
        if high - low == 1:
            return low, c_low, c_high
        if not low < x < high:
            x = (low + high) // 2
        step *= 2


@leaf
def code_member(coder, packet, model, n, a, e, x):
    """Code the smallest of the members left, one of a .. e - 1."""
    if not coding.going(coder, packet):
        return a
    unit = coder[coding.RANGE] >> POWER_UNIT
    scale = ONE - (e - a)
    log_a = log2(rest(model, a, n))
    c_next = 0
    if coder[coding.MODE] == coding.READ:
        target = coder[coding.CODE] // unit
        x, c_x, c_next = find_member(model, log_a, n, a, e, scale, target)
    else:
        c_x = cumulative(model, log_a, n, e, scale, x)
        if x + 1 < e:
            c_next = cumulative(model, log_a, n, e, scale, x + 1)
    start = unit * c_x
    end = unit * c_next if x + 1 < e else coder[coding.RANGE]
    coding.narrow(coder, packet, start, end - start)
    return x


@leaf
def code_set(coder, packet, model, size, members):
    a = coding.ZERO
    for i in range(members.size):
        n = members.size - i
        e = size - n + 1
        x = a
        if e - a > 1:
            x = code_member(coder, packet, model, n, a, e, members[i])
        if coder[coding.STATUS] != Status.OK:
            return
        members[i] = x
        a = x + 1


@leaf
def fill_complement(others, members):
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
    if coder[coding.MODE] == coding.WRITE:
        fill_complement(members, others)
    code_set(coder, packet, uniform_model(size), size, others)
    if coder[coding.STATUS] == Status.OK:
        fill_complement(others, members)


SMALL_STEP = BIT // 16
RARE = 24 * BIT
LOG2_OF_LOG2_E = 2271034279
NO_NEXT = 64 * BIT


@leaf
def member_cost(fall, step, values):
    if step < SMALL_STEP:  # the series of -log2(1 - 2^-step)
        cost = fall + LOG_UNIT * BIT - log2(max(step, 1)) + step // 2 + LOG2_OF_LOG2_E
    else:
        cost = fall + POWER_UNIT * BIT - log2(ONE - exp2(step))
    if cost < RARE:
        return cost
    # Here, rounding and the minimum weight of 1 matter.
    scale = ONE - values
    above = exp2(fall) * scale >> POWER_UNIT
    above_next = exp2(fall + step) * scale >> POWER_UNIT
    return POWER_UNIT * BIT - log2(above - above_next + 1)


# The last value of a symbol also gets the rounding remainder of the range. If its share
# of the weight is below 2^-10, it can be much cheaper than this share.
RARE_LAST = 10 * BIT


@leaf
def cost_of_members(model, size, members):
    cost = 0
    rough = False
    log_a = log2(rest(model, coding.ZERO, coding.ZERO))
    a = coding.ZERO
    for i in range(members.size):
        n = members.size - i
        values = size - n + 1 - a
        log_x = log2(rest(model, members[i], n))
        fall = n * (log_a - log_x)
        if members[i] == size - n:  # the last value; all others follow from it
            cost += member_cost(fall, NO_NEXT, values)
            rough = fall > RARE_LAST
            break
        log_a = log2(rest(model, members[i] + 1, n))
        cost += member_cost(fall, n * (log_x - log_a), values)
        a = members[i] + 1
    return cost, rough
