"""Make the golden vectors in ``tests/vectors`` with the reference.

    python -m tests.reference.make_vectors          check the files (the default)
    python -m tests.reference.make_vectors --write  make them anew

Vectors change only when the format does: then write them, read the diff, and
commit them with the change to ``docs/format.md``, the reference, C and Numba.
``tests/vectors/README.md`` says what the files hold.
"""

import argparse
import base64
import json
import math
import re
import struct
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from functools import cache, partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference import BrokenRuleError, entropy, gumbel
from tests.reference import prior as prior_files
from tests.reference import sqs_reference as ref
from tests.reference.prior import Prior
from tests.reference.sqs_reference import striped_sum
from tests.reference.verify import block_sums, residual, verify

VECTORS = Path(__file__).parents[1] / "vectors"

ABOUT = "Made by tests/reference/make_vectors.py; README.md says how to read this."

LOGITS = (
    "r = (7919 * i + 104729 * seed) mod 4093; logits[i] = "
    "float32((r * r // 1024) / 1024 - slope * bits(i)), i = 0 .. vocab_size - 1, where "
    "bits(i) is how many binary digits i has, none for 0"
)

SETS = (
    "set(k, n, seed) is the k numbers i of 0 .. n - 1 with the least r = "
    "(7919 * i + 104729 * seed) mod 4093, of equal ones the first, in ascending order"
)

ROUNDS = (
    "each k of `supports` stands for a distribution of the ids 0 .. k - 1 with the "
    "counts resolution - k + 1, 1, 1, ..., 1, whose drafted token is 0"
)

CODINGS = ("bitpack", "enumerative", "entropy")

Distribution = tuple[list[int], list[int]]
"""Token ids and their counts."""

Cases = Iterator[dict[str, Any]]


def formula(n: int, seed: int) -> np.ndarray:
    """Numbers in no obvious order."""
    return (7919 * np.arange(n, dtype=np.int64) + 104729 * seed) % 4093


def formula_logits(vocab_size: int, seed: int, slope: int = 0) -> np.ndarray:
    """The inputs of the vectors; exact in float32."""
    r = formula(vocab_size, seed)
    octaves = np.array([i.bit_length() for i in range(vocab_size)])
    return ((r * r // 1024) / 1024 - slope * octaves).astype(np.float32)


def formula_set(k: int, n: int, seed: int) -> list[int]:
    """A set in no obvious order."""
    return np.sort(np.argsort(formula(n, seed), kind="stable")[:k]).tolist()


def formula_counts(k: int, resolution: int, seed: int) -> list[int]:
    """A composition of the resolution in no obvious order."""
    cuts = [cut + 1 for cut in formula_set(k - 1, resolution - 1, seed)]
    return [end - start for start, end in pairwise([0, *cuts, resolution])]


# (vocab_size, resolution, rule, parameter, temperature, slope): sizes at and around
# the widths of lanes and vectors, resolutions at and around powers of two.
CASES = [
    (2, 1, ref.TOP_K, 1, 1.0, 0),
    (2, 2, ref.TOP_K, 2, 1.0, 0),
    (3, 100, ref.TOP_K, 3, 0.7, 0),
    (15, 99, ref.TOP_K, 8, 1.0, 0),
    (16, 100, ref.TOP_K, 16, 2.0, 0),
    (17, 101, ref.TOP_K, 16, 2.0, 0),
    (255, 127, ref.TOP_P, 0.9, 1.0, 0),
    (256, 128, ref.TOP_P, 0.9, 1.0, 0),
    (257, 129, ref.TOP_P, 1.0, 1.0, 0),
    (1000, 100, ref.TOP_K, 64, 0.0, 0),
    (1000, 100, ref.TOP_K, 64, 0.3, 0),
    (1000, 100, ref.THRESHOLD, 1e-3, 0.7, 0),
    (1000, 100, ref.THRESHOLD, -1.0, 1.0, 0),
    (1000, 100, ref.THRESHOLD, 2.0, 1.0, 0),
    (4096, 1000, ref.MIN_P, 0.05, 1.0, 0),
    (4096, 65536, ref.MIN_P, 0.01, 1.0, 0),
    (49152, 100, ref.TOP_K, 64, 0.7, 0),
    (49152, 1000, ref.TOP_K, 64, 1.0, 0),
    (49152, 100, ref.THRESHOLD, 1e-3, 1.0, 0),
    (262144, 100, ref.TOP_K, 100, 5.0, 0),
    (1000, 64, ref.TOP_K, 64, 1.0, 2),
    (49152, 100, ref.TOP_K, 64, 1.0, 1),
    (49152, 1000, ref.TOP_K, 64, 0.7, 2),
]

# (vocab_size, resolution, k): supports and compositions of any density. The last is
# half of all ids: the largest set that isn't coded by what is not in it.
SHAPES = [
    (2, 65536, 2),
    (100, 1000, 60),
    (100, 100, 100),
    (1000, 100, 51),
    (1000, 100, 99),
    (1000, 1001, 501),
    (1000, 2000, 999),
    (1000, 65536, 1000),
    (262144, 50, 30),
    (1048576, 65536, 700),
    (1048576, 65536, 1),
    (33, 31, 29),
    (1000, 100, 8),
    (49152, 100, 3),
    (128, 100, 64),
]


def packets(
    ids: list[int], counts: list[int], vocab_size: int, resolution: int
) -> dict[str, dict[str, Any]]:
    """A distribution's packet and its sizes in every coding."""
    q = ids, counts, vocab_size, resolution
    return {
        key: {coding: size(*q, coding) for coding in CODINGS}
        for key, size in SIZES.items()
    }


def packet_of(ids: list[int], counts: list[int], *codec: Any) -> str:
    return ref.encode(ids, counts, *codec).hex()


def bits_of(
    ids: list[int], counts: list[int], vocab_size: int, resolution: int, coding: str
) -> float:
    """Bits before padding; what the entropy coding spends is no whole number."""
    codec = vocab_size, resolution
    if coding != "entropy":
        return len(ref.distribution_bits(ids, counts, *codec, coding))
    coder = entropy.Writer()
    entropy.code_distribution(coder, *codec, entropy.Memory(), ids, counts)
    return round(coder.bits(), 2)


def token_bits_of(ids: list[int], counts: list[int], *codec: Any) -> int:
    return ref.token_bits(counts, codec[-1])


SIZES: dict[str, Callable[..., Any]] = {
    "packets": packet_of,
    "bits": bits_of,
    "token_bits": token_bits_of,
}


def as_case(ids: list[int], counts: list[int]) -> dict[str, list[int]]:
    return {"token_ids": ids, "counts": counts}


def distributions() -> Cases:
    """Logits to counts to packets, in all codings."""
    for seed, case in enumerate(CASES):
        vocab_size, resolution, rule, parameter, temperature, slope = case
        logits = formula_logits(vocab_size, seed, slope)
        ids, counts, dropped = ref.quantize_logits(
            logits, temperature, rule, parameter, resolution
        )
        yield {
            "seed": seed,
            "slope": slope,
            "vocab_size": vocab_size,
            "resolution": resolution,
            "keep": [rule, parameter],
            "temperature": temperature,
            **as_case(ids, counts),
            "dropped_mass": dropped.hex(),
            **packets(ids, counts, vocab_size, resolution),
        }


def shapes() -> Cases:
    """Distributions such as no language model has."""
    for seed, (vocab_size, resolution, k) in enumerate(SHAPES):
        counts = formula_counts(k, resolution, seed)
        made, last = formula_set(k, vocab_size, seed), [*range(vocab_size)][-k:]
        for ids in [made] if made == last else [made, last]:
            yield {
                "seed": seed,
                "vocab_size": vocab_size,
                "resolution": resolution,
                "k": k,
                "last_ids": ids is last,
                **packets(ids, counts, vocab_size, resolution),
            }


def tightly_coded(items: list[Any], vocab_size: int, resolution: int) -> bool:
    """Whether one more bit of `more` would move the coder on, whatever its value."""
    coder = entropy.Writer()
    entropy.code_round(coder, vocab_size, resolution, items)
    end = coder.shifts
    entropy.code_more(coder, 1, False)
    return coder.shifts > end


ROUND_OF_256 = 293
"""A vocabulary size at which a round of 256 ends so that a decoder that reads one bit
more finds the packet truncated."""


def rounds() -> Cases:
    """Rounds, each of distributions whose number names their token."""
    for vocab_size, resolution, length in [
        (2, 1, 1),
        (1000, 100, 1),
        (1000, 100, 5),
        (49152, 100, 8),
        (ROUND_OF_256, 16, 256),
    ]:
        drafted = [draft(vocab_size, resolution, 32, seed) for seed in range(length)]
        tokens = [ids[seed % len(ids)] for seed, (ids, _) in enumerate(drafted)]
        if length == entropy.MAX_ROUND:
            items = entropy.as_items(drafted, tokens)
            assert tightly_coded(items, vocab_size, resolution)
        codec = vocab_size, resolution
        encode = partial(ref.encode_round, drafted, tokens, *codec)
        yield {
            "vocab_size": vocab_size,
            "resolution": resolution,
            "distributions": [as_case(*q) for q in drafted],
            "tokens": tokens,
            "packets": {coding: encode(coding=coding).hex() for coding in CODINGS},
        }


def draft(
    vocab_size: int, resolution: int, k: int, seed: int, slope: int = 0
) -> Distribution:
    """The k likeliest tokens of the formula's logits."""
    logits = formula_logits(vocab_size, seed, slope)
    return ref.quantize_logits(logits, 1.0, ref.TOP_K, k, resolution)[:2]


Sequence = tuple[int, int, Callable[[int], Distribution], list[int]]
"""Vocabulary size, resolution, how a number makes a distribution, and the numbers."""


def drafts(
    vocab_size: int, resolution: int, k: int, slope: int
) -> tuple[int, int, Callable[[int], Distribution]]:
    """What comes before the numbers of a sequence of drafts."""
    make = partial(draft, vocab_size, resolution, k, slope=slope)
    return vocab_size, resolution, make


def wide(number: int) -> Distribution:
    """Supports of about 256 tokens in a row, with counts of any kind."""
    k = [256, 256, 1, 257, 255][number % 5]
    first = 300 * number
    return [*range(first, first + k)], formula_counts(k, 1000, number)


def sequence_cases() -> Iterator[Sequence]:
    """Yield the sequences, each for something that a memory has to do."""
    # Supports recur.
    sent = [[0, 1], [0, 1, 2], [0], [3], [0, 1, 2, 3]]
    yield *drafts(1000, 100, 32, 2), [*chain(*sent)]
    sent = [[0, 1, 2, 3], [2, 3, 4], [100, 0, 4], [4, 101]]
    yield *drafts(49152, 100, 64, 1), [*chain(*sent)]
    # More than 512 tokens: the least weights make room.
    yield *drafts(4096, 64, 24, 0), [*range(30), *range(20, 60), 0, 59]
    # What 50 to 53 brought fades until it is forgotten.
    sent = [[50, 51, 52, 53], [0, 1, 2, 3] * 40, [50, 0], [51, 1]]
    yield *drafts(300, 16, 8, 1), [*chain(*sent)]
    # Supports that are too large to be remembered.
    yield *drafts(1000, 65536, 400, 0), [0, 0, 1, 0]
    # More than 255 supports: h stays at 255.
    sent = [[*range(5)] * 50, [5, 6, 7, 8], [9, 5], [8], [*range(9)] * 5]
    yield *drafts(300, 16, 8, 1), [*chain(*sent)]
    # 512 tokens, which all stay, then one more; and 257, which don't count.
    sent = [[0, 1], [0], [2], [1, 0, 3], [3, 4, 10, 1], [0, 11, 10]]
    yield 4096, 1000, wide, [*chain(*sent)]


def sequences() -> Cases:
    """Sequences, each with the indices of its distributions."""
    for vocab_size, resolution, make, sent in sequence_cases():
        numbers = sorted(set(sent))
        known = {n: make(n) for n in numbers}
        drawn = [known[n] for n in sent]
        yield {
            "vocab_size": vocab_size,
            "resolution": resolution,
            "distributions": [as_case(*known[n]) for n in numbers],
            "rows": [numbers.index(n) for n in sent],
            "packet": entropy.encode_sequence(drawn, vocab_size, resolution).hex(),
        }


def formula_round(
    supports: list[int], resolution: int
) -> tuple[list[Distribution], list[int]]:
    """A round of distributions that take few bytes, however large they are."""
    drafted = [([*range(k)], [resolution - k + 1] + [1] * (k - 1)) for k in supports]
    return drafted, [0] * len(supports)


def limits() -> Cases:
    """Rounds with as many survivors as the format allows, and not one more."""
    for size, coding, supports in [
        (FULL, "entropy", [FULL] * 16),
        (FULL, "entropy", [FULL] * 15 + [FULL - 1, 1]),
        (1024, "enumerative", [1024] * 8),
    ]:
        drafted = formula_round(supports, size)
        packet = ref.encode_round(*drafted, size, size, coding)
        case = {
            "vocab_size": size,
            "resolution": size,
            "coding": coding,
            "supports": supports,
            "packet": packet.hex(),
        }
        if coding == "entropy":
            sequence = entropy.encode_sequence(drafted[0], size, size)
            case["sequence"] = sequence.hex()
        yield case


def malformed() -> list[dict[str, Any]]:
    """A packet for each rule that a packet can break."""
    cases = []

    def add(
        coding: str, kind: str, rule: str, packet: bytes, v: int = 1000, r: int = 100
    ) -> None:
        case = {"vocab_size": v, "resolution": r, "coding": coding, "kind": kind}
        cases.append(case | {"packet": packet.hex(), "rule": rule})

    field = ref.field
    for coding in ("bitpack", "enumerative"):
        good = ref.distribution_bits([5, 700, 999], [50, 30, 20], 1000, 100, coding)
        packet, tail = ref.pack(good), -len(good) % 8
        add(coding, "distribution", "TRUNCATED", b"")
        add(coding, "distribution", "TRUNCATED", packet[:-1])
        add(coding, "distribution", "TRAILING_BYTES", packet + b"\0")
        assert tail > 0
        both = packet[:-1] + bytes([packet[-1] | 1, 0])
        add(coding, "distribution", "TRAILING_BYTES", both)
        add(coding, "distribution", "PADDING", packet[:-1] + bytes([packet[-1] | 1]))
        add(coding, "distribution", "SUPPORT_SIZE", ref.pack(field(100, 7)) + packet)
        round_bits = field(0, 8) + good
        add(coding, "round", "TRUNCATED", b"")
        add(coding, "round", "TRUNCATED", ref.pack(field(1, 8) + good + "00"))
        add(coding, "round", "TOKEN_POSITION", ref.pack(round_bits + "11"))
        add(coding, "round", "TRAILING_BYTES", ref.pack(round_bits + "00") + b"\0")
    size = math.comb(1000, 3) * math.comb(99, 2)
    rank = field(size, (size - 1).bit_length())
    add("enumerative", "distribution", "RANK", ref.pack(field(2, 7) + rank))
    ids = field(5, 10) + field(700, 10)
    counts = field(49, 7) + field(29, 7)
    # Ids and counts are one field: that it ends too early comes before its values.
    add("bitpack", "distribution", "TRUNCATED", ref.pack(field(2, 7) + ids[:10] + ids))
    short = ref.pack(field(2, 7) + field(1000, 10) + ids)
    add("bitpack", "distribution", "TRUNCATED", short)
    for rule, rest in [
        ("TOKEN_ID", field(1000, 10) + counts),
        ("TOKEN_ORDER", field(700, 10) + counts),
        ("COUNTS", field(999, 10) + field(49, 7) + field(49, 7)),
    ]:
        add("bitpack", "distribution", rule, ref.pack(field(2, 7) + ids + rest))
    # Supports of 1 024 out of 1 024 tokens, whose rank takes no bits: eight of them
    # may share a round, but not with a ninth of one token, whose rank is not read.
    nine = field(8, 8) + 8 * (field(1023, 10) + field(0, 10)) + field(0, 10)
    add("enumerative", "round", "ROUND_SUPPORT", ref.pack(nine), 1024, 1024)

    q = [5, 700, 999], [50, 30, 20]
    for kind, packet in [
        ("distribution", entropy.encode(*q, 1000, 100)),
        ("round", entropy.encode_round([q, q], [5, 700], 1000, 100)),
        ("sequence", entropy.encode_sequence([q, q], 1000, 100)),
    ]:
        add("entropy", kind, "TRUNCATED", b"")
        for rule, bad in other_ends(kind, packet, 1000, 100):
            add("entropy", kind, rule, bad)
    # Here `low` is 0, so that the next packet has a `code` of 2^48 exactly.
    assert entropy.encode([0], [1], 2, 1) == b"\0"
    add("entropy", "distribution", "PADDING", b"\1", 2, 1)
    for rule, packet in over_full_rounds():
        add("entropy", "round", rule, packet, FULL, FULL)
    add("entropy", "sequence", "ROUND_SUPPORT", over_full_sequence(), FULL, FULL)
    add("entropy", "sequence", "TRUNCATED", longer_sequence(q))
    return cases


def other_ends(
    kind: str, packet: bytes, *codec: int, prior: Prior | None = None
) -> Iterator[tuple[str, bytes]]:
    """Yield packets that are good up to their last byte, and the rules they break."""
    yield "TRUNCATED", packet[:-1]
    yield "TRAILING_BYTES", packet + b"\0"
    decode = {
        "distribution": entropy.decode,
        "round": entropy.decode_round,
        "sequence": entropy.decode_sequence,
    }[kind]
    number = int.from_bytes(packet, "big")
    while True:  # the next of that size that only the last byte is wrong with
        number += 1
        other = number.to_bytes(len(packet), "big")
        try:
            decode(other, *codec, prior=prior)
        except BrokenRuleError as error:
            if error.args == ("PADDING",):
                yield "PADDING", other
                return


FULL = 1 << 16
"""Vocabulary and resolution at which sixteen supports may fill a round."""


@cache
def _full_round(survivors: int) -> entropy.Writer:
    if survivors == 0:
        return entropy.Writer()
    k = survivors % FULL or FULL
    coder = full_round(survivors - k)
    counts = write_full(coder, k)
    entropy.code_position(coder, counts, 0)
    entropy.code_more(coder, 1, True)
    return coder


def write_full(coder: entropy.Writer, k: int) -> list[int]:
    """Write the first k of all tokens, and return their counts."""
    counts = [FULL - k + 1] + [1] * (k - 1)
    entropy.code_counts(coder, FULL, FULL, FULL, counts, uniform=False)
    entropy.code_ids(coder, FULL, k, entropy.Memory(), [*range(k)], uniform=k < FULL)
    return counts


def full_round(survivors: int) -> entropy.Writer:
    """A round that goes on after so many survivors, in few bytes.

    Supports of all 65 536 tokens take next to nothing, as their counts are 1 and
    their ids are certain. The last is smaller, and has two counts.
    """
    return copy(_full_round(survivors))


def write_parts(coder: entropy.Writer, parts: list[int]) -> None:
    """Begin a distribution with counts by the model, in descending order."""
    entropy.code_bit(coder, "modes", entropy.UNIFORM_CHANCE, False)
    left, last = FULL, FULL
    for i, part in enumerate(parts):
        low, high = -(-left // (FULL - i)), min(last, left)
        last = entropy.code_part(coder, low, high, left, part)
        left -= last


def over_full_rounds() -> Iterator[tuple[str, bytes]]:
    """Yield rounds that end where the support is known to be too large, or before."""
    most = entropy.MAX_ROUND_SUPPORT
    for survivors, parts in [
        (most, [1]),
        (most, []),  # nothing but the mode need be read
        (most - 1, [40_000]),  # one token is left, but not all of the resolution
        (most - 1, [1]),  # as no other count is larger
        (most - 2, [40_000, 1]),
    ]:
        coder = full_round(survivors)
        write_parts(coder, parts)
        yield "ROUND_SUPPORT", coder.finish()
    coder = full_round(most - 1)
    entropy.code_bit(coder, "modes", entropy.UNIFORM_CHANCE, True)
    entropy.code_uniform(coder, "size", FULL, 1)
    yield "ROUND_SUPPORT", coder.finish()
    # The same two parts where three are allowed: the third is due when the packet
    # is over, if a packet without the last byte can say as much.
    for part in range(40_000, 1, -1):
        coder = full_round(most - 3)
        write_parts(coder, [part, 2])
        number = -(-coder.low >> entropy.CODER_BITS)
        if number << entropy.CODER_BITS < coder.low + coder.range:
            yield "TRUNCATED", number.to_bytes(coder.shifts, "big")
            return


def over_full_sequence() -> bytes:
    """A sequence that ends where its last distribution begins to be too much."""
    coder = entropy.Writer()
    full = entropy.MAX_ROUND_SUPPORT // FULL
    entropy.code_uniform(coder, "length", entropy.MAX_SEQUENCE, full)
    for _ in range(full):
        write_full(coder, FULL)
    entropy.code_bit(coder, "modes", entropy.UNIFORM_CHANCE, False)
    return coder.finish()


def longer_sequence(q: Distribution) -> bytes:
    """As many distributions as can be, of which one is there."""
    coder, most = entropy.Writer(), entropy.MAX_SEQUENCE
    entropy.code_uniform(coder, "length", most, most - 1)
    entropy.code_distribution(coder, 1000, 100, entropy.Memory(), *q)
    return coder.finish()


# Priors

# (vocab_size, resolution, C, first code, codes, survivors): a prior whose codes are
# `codes` ones from the first one on. The weights of the first are as large as they may
# be, those of the third hardly differ, and are so small that ratios round.
PRIORS = [
    (2, 16, 1, 240, 1, 2),
    (100, 100, 1, 0, 100, 20),
    (3, 100, 2, 0, 9, 2),
    (17, 100, 2, 150, 50, 6),
    (1000, 1000, 5, 0, 64, 24),
    (300, 64, 32, 0, 120, 6),
]

WIDE = 6
"""The number of a distribution with more ids than a memory learns, if V allows that."""


def formula_prior(
    vocab_size: int, classes: int, first: int = 0, codes: int = 1
) -> bytes:
    """The file of a prior in no obvious order."""
    return prior_files.pack(
        [(1 + formula(classes, row) % 255).tolist() for row in range(classes + 1)],
        [(first + formula(256, c) % codes).tolist() for c in range(classes)],
        (formula(vocab_size, classes) % 256).tolist(),
    )


def leaning(prior: Prior, resolution: int, most: int, number: int) -> Distribution:
    """A distribution that a class has brought about, but for every eighth."""
    size, c = prior.vocab_size, number % prior.classes
    k = 1 + (number * 5 + most - 1) % most
    if number == WIDE and size > 2 * entropy.MEMORY_SUPPORT:
        k = entropy.MEMORY_SUPPORT + 1
    ids = formula_set(k, size, number)
    if number % 8 != 7:
        some = formula_set(min(16 * k, size), size, number)
        some.sort(key=lambda y: -prior.weights[c][prior.kinds[y]])
        ids = sorted(some[:k])
    return ids, formula_counts(k, resolution, number)


def priors() -> Cases:
    """Priors, and packets of every kind with them."""
    for vocab_size, resolution, classes, first, codes, most in PRIORS:
        file = formula_prior(vocab_size, classes, first, codes)
        prior = prior_files.parse(file)
        known = [
            leaning(prior, resolution, most, number)
            for number in range(max(12, classes + 8))
        ]
        codec = vocab_size, resolution
        yield {
            "vocab_size": vocab_size,
            "resolution": resolution,
            "classes": classes,
            "prior": base64.b64encode(file).decode(),
            "distributions": [as_case(*q) for q in known],
            "packets": [*packets_of(known, *codec, prior)],
        }


def packet_case(kind: str, packet: bytes, **content: Any) -> dict[str, Any]:
    return {"kind": kind, **content, "packet": packet.hex()}


def bad_packets(
    kind: str, packet: bytes, *codec: int, prior: Prior
) -> Iterator[dict[str, Any]]:
    for rule, bad in other_ends(kind, packet, *codec, prior=prior):
        yield packet_case(kind, bad, rule=rule)


def packets_of(
    known: list[Distribution], vocab_size: int, resolution: int, prior: Prior
) -> Iterator[dict[str, Any]]:
    """Yield some distributions each by itself, then all in a round and a sequence."""
    codec, packet = (vocab_size, resolution), b""
    for i in range(8):
        coder = entropy.Writer()
        memory = entropy.Memory()
        entropy.code_distribution(coder, *codec, memory, *known[i], prior=prior)
        packet, bits = coder.finish(), round(coder.bits(), 2)
        yield packet_case("distribution", packet, distributions=[i], bits=bits)
    yield from bad_packets("distribution", packet, *codec, prior=prior)
    tokens = [ids[-1] for ids, _ in known]
    packet = entropy.encode_round(known, tokens, *codec, prior=prior)
    numbers = [*range(len(known))]
    yield packet_case("round", packet, distributions=numbers, tokens=tokens)
    yield from bad_packets("round", packet, *codec, prior=prior)
    packet = entropy.encode_sequence(known, *codec, prior)
    yield packet_case("sequence", packet, distributions=numbers)
    yield from bad_packets("sequence", packet, *codec, prior=prior)


def bad_priors() -> list[dict[str, Any]]:
    """A file for each rule that a prior can break, and some that break two."""
    cases = []

    def add(rule: str, file: bytes) -> None:
        cases.append({"prior": base64.b64encode(file).decode(), "rule": rule})

    good = formula_prior(2, 1, first=240)  # of 278 bytes; sums to 2^31
    add("SIZE", b"")
    for size in (8, 9, 10, 13, 14, 277):
        add("SIZE", good[:size])
    add("SIZE", good + b"\0")
    add("MAGIC", checked(b"sqsPrior" + good[8:]))
    add("MAGIC", b"sqsprios\0")
    for version in (0, 2):
        add("VERSION", checked(changed(good, 8, version)))
    add("VERSION", good[:8] + b"\2\0")
    add("CLASSES", checked(prior_files.pack([b""], [], [0, 0])))
    for header in [(0, 2), (33, 2), (33, 0)]:
        add("CLASSES", struct.pack("<8sBBI", good[:8], 1, *header))
    add("VOCABULARY", checked(prior_files.pack([[1], [1]], [[240] * 256], [0])))
    for header in [(1, 0), (1, 2**20 + 1), (32, 2**32 - 1)]:
        add("VOCABULARY", struct.pack("<8sBBI", good[:8], 1, *header))
    for at in (14, 16, 273, 274, 277):  # each part, and the check itself
        add("CHECK", changed(good, at, good[at] ^ 1))
    add("CHECK", changed(good, 14, 0))
    add("CHANCES", checked(changed(good, 14, 0)))
    add("CHANCES", checked(changed(good, 15, 0)))
    a, b = good[272:274]
    heavier = checked(changed(good, 16 + b, 241))
    add("WEIGHTS", heavier)
    add("CHANCES", checked(changed(heavier, 15, 0)))
    one, other = [240] * 256, [0] * 256
    other[a] = other[b] = 241
    add("WEIGHTS", prior_files.pack([[1, 1]] * 3, [one, other], [a, b]))
    return cases


def changed(file: bytes, at: int, byte: int) -> bytes:
    return file[:at] + bytes([byte]) + file[at + 1 :]


def checked(file: bytes) -> bytes:
    """With the check that belongs to it."""
    return file[:-4] + struct.pack("<I", zlib.crc32(file[:-4]))


# Verdicts

Drafted = list[tuple[list[int], list[int], int]]
"""Token ids, their counts and the drafted token of each position."""

Question = tuple[int, Drafted, list[list[float]], list[float]]
"""Vocabulary size, drafted, target rows and draws."""

LAST_DRAW = 1 - 2**-53


def formula_row(vocab_size: int, seed: int) -> list[float]:
    """Probabilities in no obvious order, some of them 0, that sum to 1 but for 1e-3."""
    r = formula(vocab_size, seed)
    weights = np.where(r % 5 == 0, 0, r * r)
    return [round(w, 5) for w in (weights / weights.sum()).tolist()]


def verdict(question: Question) -> tuple[int, int]:
    _, drafted, target, draws = question
    pairs = [(ids, counts) for ids, counts, _ in drafted]
    return verify(pairs, [x for _, _, x in drafted], target, draws)


def at_edge(question: Question, place: int) -> Iterator[Question]:
    """Yield the question with the two neighbouring draws that differ in the answer.

    They are the draw's own neighbours, as far as the edge may be; so that one unit in
    the last place of any sum before decides about one of them.
    """
    vocab_size, drafted, target, draws = question

    def ask(number: int) -> Question:
        changed = [*draws]
        changed[place] = number / 2**53
        return vocab_size, drafted, target, changed

    low, high = int(draws[place] * 2**53), 2**53 - 1
    first, step = verdict(ask(low)), 1
    while low + step < high:
        if verdict(ask(low + step)) != first:
            high = low + step
        step *= 2
    assert verdict(ask(high)) != first
    while high - low > 1:
        middle = (low + high) // 2
        if verdict(ask(middle)) == first:
            low = middle
        else:
            high = middle
    yield ask(low)
    yield ask(high)


def small_questions() -> Iterator[Question]:
    """Yield what can be followed by hand."""
    even, last = [0.25] * 4, [0.0, 0.5, 0.5, 0.0]
    half: Drafted = [([1, 3], [2, 2], 1)]
    for draw in (0.0, 0.5 - 2**-54, 0.5, LAST_DRAW):  # p / q is 1/2
        yield 4, half, [even, last], [draw, 0.75]
    for draw in (0.0, 0.5 - 2**-54, 0.5, LAST_DRAW):  # 0 and 2 are left, or 1 and 2
        yield 4, half, [even, last], [LAST_DRAW, draw]
        yield 4, half, [even, last], [0.25, draw]
    yield 4, half, [[0.5, 0.0, 0.5, 0.0], last], [0.0, 0.0]  # p is 0, so is the draw
    yield 4, half, [[0.0, 0.5, 0.0, 0.5], last], [LAST_DRAW, LAST_DRAW]  # p is q
    yield 4, half, [[0.0, 0.75, 0.0, 0.25], last], [LAST_DRAW, 0.0]
    yield 4, [([3], [1], 3)], [even, last], [0.25, 0.5]  # a resolution of 1
    three: Drafted = [([0, 2], [3, 1], 0), ([2], [4], 2), ([0, 1, 3], [1, 1, 2], 3)]
    rows = [[0.5, 0.25, 0.25, 0.0], [0.0, 0.25, 0.5, 0.25], [0.125, 0.5, 0.125, 0.25]]
    for draws in [
        [0.5, 0.25, 0.25, 0.0],
        [0.5, 0.25, 0.5, 0.875],
        [0.5, 0.5, 0.5, 0.0],
        [0.75, 0.5, 0.0, 0.0],
    ]:
        yield 4, three, [*rows, last], draws
    # What a row doesn't sum to is normalised away.
    for scale in (0.9995, 1.0005):
        scaled = [p * scale for p in even]
        yield from at_edge((4, half, [scaled, last], [0.25, 0.5]), 0)
        rest: Drafted = [([1, 3], [1, 3], 3)]
        scaled = [p * scale for p in (0.25, 0.5, 0.125, 0.125)]
        yield from at_edge((4, rest, [scaled, last], [0.5, 0.7]), 1)
    for counts in ([3, 2, 2], [5, 1, 1], [6, 2, 5], [11, 3, 9]):
        thirds: Drafted = [([0, 1, 2], counts, 0)]
        rows = [[0.3, 0.3, 0.4], [0.1, 0.2, 0.7]]
        yield from at_edge((3, thirds, rows, [0.25, 0.5]), 0)


def question_without_residual() -> Question:
    """Find a rejection where q is p but for rounding, so that p is drawn from."""
    for seed in range(1, 10_000):
        counts = formula_counts(3, 100, seed)
        row = [b / 100 * (1 + seed % 7 * 1e-4) for b in counts]
        for shift in (-1, 0, 1):
            nudged = [np.nextafter(row[0], row[0] + shift).item(), *row[1:]]
            drafted: Drafted = [([0, 1, 2], counts, 0)]
            question = 3, drafted, [nudged, nudged], [LAST_DRAW, 0.5]
            total = striped_sum(block_sums(nudged))
            rest = residual(nudged, total, [0, 1, 2], counts)
            if verdict(question)[0] == 0 and max(rest) == 0:
                return question
    raise AssertionError("none found")


def large_questions() -> Iterator[Question]:
    """Yield what takes several blocks of 256 values."""
    size = 300
    drafted: Drafted = [([3, 254, 255, 256, 299], [40, 10, 20, 10, 20], 255)]
    target = [formula_row(size, 2), formula_row(size, 1)]
    for draw in (0.0, LAST_DRAW):
        yield size, drafted, target, [LAST_DRAW, draw]
    for draws in ([LAST_DRAW, 0.1], [LAST_DRAW, 0.84], [LAST_DRAW, 0.9], [0.0, 0.9]):
        yield from at_edge((size, drafted, target, draws), 1)
    yield from at_edge((size, drafted, target, [0.0, 0.5]), 0)
    # Nothing but zeros in the first block and at both ends.
    size = 600
    row = [0.0] * 260 + formula_row(330, 3) + [0.0] * 10
    drafted = [([5, 300, 599], [1, 1, 1], 5)]
    for draw in (0.0, LAST_DRAW):
        yield size, drafted, [row, row], [0.5, draw]


def verdicts() -> Cases:
    """Rounds, target rows and draws, and what follows from them."""
    found = question_without_residual()
    for question in (*small_questions(), found, *large_questions()):
        vocab_size, drafted, target, draws = question
        accepted, token = verdict(question)
        yield {
            "vocab_size": vocab_size,
            "distributions": [as_case(ids, counts) for ids, counts, _ in drafted],
            "tokens": [token for _, _, token in drafted],
            "target": target,
            "draws": draws,
            "accepted": accepted,
            "token": token,
        }


PHILOX = (
    # counter, key, words: of the generator's authors, Random123's kat_vectors
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
)  # fmt: skip

# (vocab_size, slope, temperature, most): blocks of 64 and what misses them by one, and
# rows with one likely token and with none.
RACES = (
    *((v, 0, 1.0, 8) for v in (2, 3, 63, 64, 65, 1023, 1024, 1025, 5000)),
    (300, 2, 0.7, 8), (5000, 1, 0.3, 8), (5000, 3, 1.0, 8), (5000, 1, 0.7, 1),
    (65, 1, 0.0, 8), (1000, 0, 1e-40, 4), (1000, 0, 1e-20, 4), (1000, 0, 1e40, 4),
    (49152, 1, 0.7, 8), (49152, 0, 1.5, 8),
)  # fmt: skip


def races() -> Cases:
    """Races of formula rows by keys and positions that look like nothing."""
    for seed, (vocab_size, slope, temperature, most) in enumerate(RACES):
        key = [(0x9E3779B9 * (4 * seed + i + 1)) % 2**32 for i in range(4)]
        position = (0x9E3779B97F4A7C15 * seed) % 2**64
        logits = formula_logits(vocab_size, seed, slope)
        tokens, scores = gumbel.race(logits, temperature, key, position, most)
        yield {
            "seed": seed,
            "slope": slope,
            "vocab_size": vocab_size,
            "temperature": temperature,
            "key": struct.pack("<4I", *key).hex(),
            "position": f"{position:016x}",
            "tokens": tokens,
            "scores": [score.hex() for score in scores],
        }


# (vocab_size, resolution, slope, temperature): vectors and blocks of 256, and what
# misses them by one; weights of less than a unit; many marks on a token, and few.
UNBIASED = (
    *((v, 50, 0, 1.0) for v in (2, 3, 15, 16, 17, 255, 256, 257, 512, 5000)),
    (2, 1, 0, 1.0), (5000, 1, 0, 1.0), (16, 65536, 0, 1.0), (300, 65536, 1, 2.0),
    (300, 7, 2, 0.7), (1000, 100, 3, 0.3), (5000, 4096, 1, 0.7), (5000, 100, 0, 1e-40),
    (5000, 100, 0, 1e40), (300, 100, 1, 0.0), (49152, 50, 1, 1.0),
    (49152, 1024, 0, 1.5),
)  # fmt: skip


def unbiased() -> Cases:
    """Formula rows to counts, by the least number, the largest and one between."""
    for seed, (vocab_size, resolution, slope, temperature) in enumerate(UNBIASED):
        number = (0, 2**64 - 1, (0x9E3779B97F4A7C15 * (seed + 1)) % 2**64)[seed % 3]
        logits = formula_logits(vocab_size, seed, slope)
        found = ref.quantize_unbiased(logits, temperature, resolution, number)
        yield {
            "seed": seed,
            "slope": slope,
            "vocab_size": vocab_size,
            "resolution": resolution,
            "temperature": temperature,
            "number": f"{number:016x}",
            **as_case(*found),
        }


def philox() -> Cases:
    """What the generator's authors say of it."""
    yield from (dict(zip(("counter", "key", "words"), k, strict=True)) for k in PHILOX)


FILES: dict[str, tuple[Callable[[], Iterable[Any]], dict[str, Any]]] = {
    "distributions.json": (distributions, {"logits": LOGITS}),
    "shapes.json": (shapes, {"sets": SETS}),
    "rounds.json": (rounds, {}),
    "sequences.json": (sequences, {}),
    "limits.json": (limits, {"rounds": ROUNDS}),
    "malformed.json": (malformed, {}),
    "priors.json": (priors, {}),
    "bad_priors.json": (bad_priors, {}),
    "verify.json": (verdicts, {}),
    "gumbel.json": (races, {"logits": LOGITS, "philox": [*philox()]}),
    "unbiased.json": (unbiased, {"logits": LOGITS}),
}
"""What makes the cases of each, and what it says besides."""


def render(name: str) -> str:
    """A file as JSON with a line for each value, or list of numbers."""
    make, more = FILES[name]
    text = json.dumps({"about": ABOUT, **more, "cases": [*make()]}, indent=1)
    lists = re.compile(r"\[[^][{}\"]*\]")
    return lists.sub(lambda m: " ".join(m[0].split()), text) + "\n"


def main() -> int:
    """Check or write the files; the exit status says whether they agree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--write", action="store_true", help="make the files anew")
    write = parser.parse_args().write
    stale = []
    for name in FILES:
        text = render(name)
        path = VECTORS / name
        if write:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(name)
    for name in stale:
        print(f"{name} is missing or differs from what the reference makes")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
