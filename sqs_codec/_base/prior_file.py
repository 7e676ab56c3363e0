"""The file format of a prior, specified in `docs/format.md`.

"sqsprior"  8 bytes
version     1 byte, 1
C           1 byte: the number of classes, 1 to 32
V           4 bytes, little-endian: the size of the vocabulary
chances     C + 1 rows of C bytes: each class's likelihood at the start, and
after a distribution of each class
weights     C rows of 256 bytes: the code of each kind's weight
kinds       V bytes: the kind of each id
check       4 bytes, little-endian: the CRC-32 of everything before
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqs_codec._base.format import MAX_PRIOR_CLASSES, MAX_VOCAB, MIN_VOCAB

MAGIC = b"sqsprior"
VERSION = 1
HEADER = len(MAGIC) + 6
CHECK = 4
KINDS = 256

CODES_PER_OCTAVE = 8

CODE_WEIGHTS = np.array([((8 + b % 8) << b // 8) // 8 for b in range(256)], np.int64)
"""The weight of each code; neighbors differ by an eighth of an octave or less."""

MOST_WEIGHT = 1 << 31
"""Limit on the sum of all ids' weights in a class."""


def _size(classes: int, vocab_size: int) -> int:
    return HEADER + (classes + 1) * classes + classes * KINDS + vocab_size + CHECK


MOST_BYTES = _size(MAX_PRIOR_CLASSES, MAX_VOCAB)


class Tables(NamedTuple):
    """The contents of a file."""

    chances: NDArray[np.uint8]  # [C + 1, C]
    weights: NDArray[np.uint8]  # codes [C, 256]
    kinds: NDArray[np.uint8]  # [V]

    @classmethod
    def read(cls, data: bytes) -> Tables:
        """Check a file's bytes and return their tables as views.

        Errors begin with "it", the file.
        """
        _check_frame(data)
        tables = cls.view(data)
        tables._check()
        return tables

    @classmethod
    def view(cls, data: bytes) -> Tables:
        """Return the tables of a valid file, as views."""
        classes = data[9]
        body = np.frombuffer(data, np.uint8)[HEADER:-CHECK]
        ends = (classes + 1) * classes, (classes + 1 + KINDS) * classes
        chances, weights, kinds = np.split(body, ends)
        chances = chances.reshape(classes + 1, classes)
        return cls(chances, weights.reshape(classes, KINDS), kinds)

    def write(self) -> bytes:
        header = MAGIC + bytes([VERSION, len(self.weights)])
        parts = header, len(self.kinds).to_bytes(4, "little"), *map(bytes, self)
        data = b"".join(parts)
        return data + zlib.crc32(data).to_bytes(CHECK, "little")

    def weigh(self, c: int = 0) -> NDArray[np.int64]:
        """Return each id's weight in a class, [V]."""
        weights: NDArray[np.int64] = CODE_WEIGHTS[self.weights[c]][self.kinds]
        return weights

    def whole_weights(self) -> NDArray[np.int64]:
        """Return the sum of all ids' weights in each class, [C]."""
        ids = np.bincount(self.kinds, minlength=KINDS)
        sums: NDArray[np.int64] = CODE_WEIGHTS[self.weights] @ ids
        return sums

    def with_tail(self) -> Tables:
        """Return tables with one more id, whose weight is the largest in each class."""
        # The id gets the first unused kind. If there is none, the ids of the lightest
        # kind join the most similar kind, at the lower of both weights. All weights are
        # halved, so that the sum stays within the limit.
        codes = np.maximum(self.weights, CODES_PER_OCTAVE) - CODES_PER_OCTAVE
        kinds, ids = self.kinds, np.bincount(self.kinds, minlength=KINDS)
        kind = ids.argmin()
        if ids[kind]:
            kind = (ids * CODE_WEIGHTS[codes[0]]).argmin()
            apart = np.abs(codes.T - codes[:, kind].astype(np.int64)).sum(1)
            apart[kind] = apart.max() + 1
            like = apart.argmin()
            codes[:, like] = codes[:, [kind, like]].min(1)
            kinds = np.where(kinds == kind, np.uint8(like), kinds)
        codes[:, kind] = codes[:, np.unique(kinds)].max(1)
        return Tables(self.chances, codes, np.append(kinds, np.uint8(kind)))

    def _check(self) -> None:
        if not self.chances.all():
            row, column = np.argwhere(self.chances == 0)[0]
            raise ValueError(f"chances[{row}][{column}] is 0; all must be at least 1")
        sums = self.whole_weights()
        if sums.max() > MOST_WEIGHT:
            c = int(sums.argmax())
            raise ValueError(
                f"the weights of class {c} sum to {sums[c]}; at most 2^31 is allowed"
            )


def _check_frame(data: bytes) -> None:
    """Check the header, as far as the data reaches, then the size and the CRC."""
    if not MAGIC.startswith(data[:8]):
        raise ValueError(f"it does not begin with {MAGIC.decode()!r}")
    if len(data) > 8 and data[8] != VERSION:
        raise ValueError(
            f"its version is {data[8]}, but this release reads version {VERSION}"
        )
    if len(data) > 9 and not 1 <= data[9] <= MAX_PRIOR_CLASSES:
        raise ValueError(
            f"it has {data[9]} classes; 1 to {MAX_PRIOR_CLASSES} are allowed"
        )
    vocab_size = int.from_bytes(data[10:HEADER], "little")
    if len(data) >= HEADER and not MIN_VOCAB <= vocab_size <= MAX_VOCAB:
        raise ValueError(
            f"its vocabulary has {vocab_size} ids; {MIN_VOCAB} to {MAX_VOCAB} are "
            "allowed"
        )
    if len(data) < HEADER:
        raise ValueError(f"it ends inside its header, after {len(data)} bytes")
    expected = _size(data[9], int.from_bytes(data[10:HEADER], "little"))
    if len(data) != expected:
        size = len(data) if len(data) <= MOST_BYTES else f"over {MOST_BYTES}"
        raise ValueError(f"it should have {expected} bytes, but has {size}")
    if zlib.crc32(data[:-CHECK]) != int.from_bytes(data[-CHECK:], "little"):
        raise ValueError("its CRC-32 doesn't match: the file is damaged")
