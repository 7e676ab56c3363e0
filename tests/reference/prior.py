"""A second reader of prior files: their content, and the rule that a bad one breaks.

Names are those of the section "Priors" of ``docs/format.md``.
"""

import struct
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from tests.reference import BrokenRuleError

MAGIC = b"sqsprior"
VERSION = 1
HEADER_SIZE = 14
CHECK_SIZE = 4
KINDS = 256
MAX_CLASSES = 32
MIN_VOCAB, MAX_VOCAB = 2, 1 << 20
MAX_WEIGHT = 1 << 31  # of all ids together
RATIO_UNIT, RATIO_LEAST, RATIO_MOST = 16, 4, 64


def weight_of_code(code):
    """Three bits after the leading one, and an exponent: from 1 to 15 * 2**28."""
    return ((8 + code % 8) << code // 8) // 8


@dataclass(frozen=True, eq=False)
class Prior:
    """The content of a file; `weights` are those of its codes."""

    chances: list[bytes]  # a row for `last` of 0 .. C
    weights: list[list[int]]  # of each class, by kind
    kinds: bytes  # of each id

    @property
    def classes(self):
        """C."""
        return len(self.weights)

    @property
    def vocab_size(self):
        """V."""
        return len(self.kinds)

    @cached_property
    def below(self):
        """The weight of the ids below 0 .. V in each class."""
        return [[0, *accumulate(row[k] for k in self.kinds)] for row in self.weights]

    @cached_property
    def sums(self):
        """A of each class."""
        ids = Counter(self.kinds)
        return [sum(n * row[kind] for kind, n in ids.items()) for row in self.weights]

    def ratio(self, c, kind):
        """How much likelier a kind is in a class than on the whole, in 16ths."""
        here = self.weights[c][kind] * self.sums[0]
        whole = self.weights[0][kind] * self.sums[c] // RATIO_UNIT
        return min(RATIO_MOST, max(RATIO_LEAST, here // max(1, whole)))


def parse(data):
    """Return the Prior of a file; of several broken rules, name the first."""
    check_header(data)
    _, _, classes, vocab_size = struct.unpack_from("<8sBBI", data)
    weights_at = HEADER_SIZE + (classes + 1) * classes
    kinds_at = weights_at + classes * KINDS
    check_at = kinds_at + vocab_size
    check(len(data) == check_at + CHECK_SIZE, "SIZE")
    (found,) = struct.unpack_from("<I", data, check_at)
    check(zlib.crc32(data[:check_at]) == found, "CHECK")
    prior = Prior(
        rows(data[HEADER_SIZE:weights_at], classes),
        [
            [weight_of_code(code) for code in row]
            for row in rows(data[weights_at:kinds_at], KINDS)
        ],
        bytes(data[kinds_at:check_at]),
    )
    check(all(map(all, prior.chances)), "CHANCES")
    check(max(prior.sums) <= MAX_WEIGHT, "WEIGHTS")
    return prior


def check_header(data):
    """Look at each field that is there as a whole, and then for one that isn't."""
    for rule, start, stop, legal in [
        ("MAGIC", 0, 8, lambda field: field == MAGIC),
        ("VERSION", 8, 9, lambda field: field[0] == VERSION),
        ("CLASSES", 9, 10, lambda field: 1 <= field[0] <= MAX_CLASSES),
        ("VOCABULARY", 10, 14, lambda field: MIN_VOCAB <= number(field) <= MAX_VOCAB),
    ]:
        check(len(data) >= stop, "SIZE")
        check(legal(data[start:stop]), rule)


def number(field):
    return int.from_bytes(field, "little")


def rows(data, width):
    return [bytes(data[at : at + width]) for at in range(0, len(data), width)]


def check(holds, rule):
    if not holds:
        raise BrokenRuleError(rule)
