"""A second implementation of the cloud's verification of a round.

Accept drafted tokens while draw < p / q; after a rejection draw from the residual
max(0, p - q), and after the last token from p. Which draws lead to which token is part
of the definition to the last bit, so the order of every sum is: a row is summed in
blocks of 256 values, each in 16 interleaved lanes, and a token is found by walking over
blocks, then over the values of one.
"""

from tests.reference.sqs_reference import striped_sum

BLOCK = 256


def block_sums(row):
    """Return the sum of each block."""
    return [striped_sum(row[i : i + BLOCK]) for i in range(0, len(row), BLOCK)]


def plain_sum(values):
    """Sum in order; Python's own compensates for rounding."""
    total = 0.0
    for value in values:
        total += value
    return total


def walk(weights, goal, before=0.0):
    """Find where the running sum exceeds the goal, or else the last weight.

    Return the place, and the running sum before it.
    """
    place, at_place = 0, before
    for i, weight in enumerate(weights):
        if before > goal:
            break
        if weight > 0:
            place, at_place = i, before
        before += weight
    return place, at_place


def draw_token(row, sums, draw):
    """Draw an index of the row in proportion to its values."""
    goal = draw * plain_sum(sums)
    block, before = walk(sums, goal)
    start = block * BLOCK
    return start + walk(row[start : start + BLOCK], goal, before)[0]


def residual(row, total, ids, counts):
    """The residual max(0, p - q) of each token."""
    resolution, rest = sum(counts), list(row)
    for x, b in zip(ids, counts, strict=True):
        rest[x] = max(0.0, row[x] - b / resolution * total)
    return rest


def verify(distributions, tokens, target, draws):
    """Return (accepted, token).

    `distributions` are pairs (ids, counts), `target` a row of probabilities for each
    and one for the token after them; `draws` has as many numbers of [0, 1).
    """
    for i, ((ids, counts), x) in enumerate(zip(distributions, tokens, strict=True)):
        row = target[i]
        sums = block_sums(row)
        total = striped_sum(sums)
        if not draws[i] * counts[ids.index(x)] * total < row[x] * sum(counts):
            rest = residual(row, total, ids, counts)
            rest_sums = block_sums(rest)
            if plain_sum(rest_sums) > 0:
                return i, draw_token(rest, rest_sums, draws[i + 1])
            return i, draw_token(row, sums, draws[i + 1])  # q is p, up to rounding
    return len(tokens), draw_token(target[-1], block_sums(target[-1]), draws[-1])
