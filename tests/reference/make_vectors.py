"""Make the golden vectors in ``tests/vectors`` with the reference.

    python -m tests.reference.make_vectors          check the files (the default)
    python -m tests.reference.make_vectors --write  make them anew

Vectors change only when the format does: then write them, read the diff, and
commit them with the change to ``docs/format.md``, the reference, C and Numba.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference import BrokenRuleError, entropy
from tests.reference import sqs_reference as ref

VECTORS = Path(__file__).parents[1] / "vectors"

LOGITS = (
    "r = (7919 * i + 104729 * seed) mod 4093; logits[i] = "
    "float32((r * r // 1024) / 1024 - slope * bits(i)), i = 0 .. vocab_size - 1, where "
    "bits(i) is how many binary digits i has, none for 0; a slope not given is 0"
)

SETS = (
    "set(k, n, seed) is the k numbers i of 0 .. n - 1 with the least r = "
    "(7919 * i + 104729 * seed) mod 4093, of equal ones the first, in ascending order"
)

HOW_TO = (
    "Made by tests/reference/make_vectors.py. Bytes are hexadecimal, floats that "
    "matter to the last bit are C99 hexadecimal. A resolution of 0 is one that each "
    "distribution sends along. "
)

CODINGS = ("bitpack", "enumerative", "entropy")


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


# (vocab_size, resolution, rule, parameter, temperature): sizes at and around
# the widths of lanes and vectors, resolutions at and around powers of two.
CASES = [
    (2, 1, ref.TOP_K, 1, 1.0),
    (2, 2, ref.TOP_K, 2, 1.0),
    (3, 100, ref.TOP_K, 3, 0.7),
    (15, 99, ref.TOP_K, 8, 1.0),
    (16, 100, ref.TOP_K, 16, 2.0),
    (17, 101, ref.TOP_K, 16, 2.0),
    (255, 127, ref.TOP_P, 0.9, 1.0),
    (256, 128, ref.TOP_P, 0.9, 1.0),
    (257, 129, ref.TOP_P, 1.0, 1.0),
    (1000, 100, ref.TOP_K, 64, 0.0),
    (1000, 100, ref.TOP_K, 64, 0.3),
    (1000, 100, ref.THRESHOLD, 1e-3, 0.7),
    (1000, 100, ref.THRESHOLD, -1.0, 1.0),
    (1000, 100, ref.THRESHOLD, 2.0, 1.0),
    (4096, 1000, ref.MIN_P, 0.05, 1.0),
    (4096, 65536, ref.MIN_P, 0.01, 1.0),
    (49152, 100, ref.TOP_K, 64, 0.7),
    (49152, 1000, ref.TOP_K, 64, 1.0),
    (49152, 100, ref.THRESHOLD, 1e-3, 1.0),
    (262144, 100, ref.TOP_K, 100, 5.0),
]

# (vocab_size, resolution, error, bits_per_tv, slope, temperature), keeping 64.
FITS = [
    (2, 0, 0.01, 0.0, 0, 1.0),
    (1000, 0, 0.1, 0.0, 2, 1.0),
    (1000, 0, 0.01, 0.0, 0, 0.7),
    (1000, 0, 0.01, 0.0, 2, 0.0),
    (1000, 0, 0.01, 1000.0, 2, 1.0),
    (49152, 0, 0.01, 0.0, 1, 0.3),
    (49152, 0, 0.01, 3000.0, 1, 1.0),
    (49152, 0, 0.01, 300.0, 1, 1.0),
    (49152, 100, 0.0, 300.0, 1, 1.0),
    (49152, 1000, 0.0, 3000.0, 2, 0.7),
]

# (vocab_size, resolution, k): supports and compositions of any density.
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
]


def packets(
    ids: list[int], counts: list[int], vocab_size: int, resolution: int
) -> dict[str, str]:
    """A distribution's packet in every coding that can hold it."""
    return {
        coding: ref.encode(ids, counts, vocab_size, resolution, coding).hex()
        for coding in (CODINGS if resolution else ("entropy",))
    }


def distributions() -> dict[str, Any]:
    """Logits to counts to packets, in all codings."""
    cases = []
    plain = [(*case, 0.0, 0.0, 0) for case in CASES]
    fitted = [
        (vocab_size, resolution, ref.TOP_K, 64, temperature, error, price, slope)
        for vocab_size, resolution, error, price, slope, temperature in FITS
    ]
    for seed, case in enumerate(plain + fitted):
        vocab_size, resolution, rule, parameter, temperature, error, price, slope = case
        ids, counts, dropped = ref.quantize_logits(
            formula_logits(vocab_size, seed, slope),
            temperature,
            rule,
            parameter,
            resolution,
            error,
            price,
        )
        cases.append(
            {
                "seed": seed,
                "slope": slope,
                "vocab_size": vocab_size,
                "resolution": resolution,
                "error": error,
                "bits_per_tv": price,
                "keep": [rule, parameter],
                "temperature": temperature,
                "token_ids": ids,
                "counts": counts,
                "dropped_mass": dropped.hex(),
                "packets": packets(ids, counts, vocab_size, resolution),
            }
        )
    return {
        "about": HOW_TO + "quantize the logits with `keep` at `temperature`, by the "
        "rule with that `error` if the resolution is 0, and with that `bits_per_tv` "
        "if it isn't 0: the result must be token_ids, counts and dropped_mass, and "
        "its packets those given; each packet must decode to the same.",
        "logits": LOGITS,
        "cases": cases,
    }


def shapes() -> dict[str, Any]:
    """Distributions such as no language model has."""
    cases = []
    for seed, (vocab_size, resolution, k) in enumerate(SHAPES):
        cuts = [0, *(cut + 1 for cut in formula_set(k - 1, resolution - 1, seed))]
        counts = np.diff([*cuts, resolution]).tolist()
        for ids in (formula_set(k, vocab_size, seed), [*range(vocab_size)[-k:]]):
            cases.append(
                {
                    "seed": seed,
                    "vocab_size": vocab_size,
                    "resolution": resolution,
                    "k": k,
                    "last_ids": ids[0] == vocab_size - k,
                    "packets": packets(ids, counts, vocab_size, resolution),
                }
            )
    return {
        "about": HOW_TO + "token_ids are set(k, vocab_size, seed), or the k last ones "
        "if `last_ids`; counts are the distances between 0, the numbers of set(k - 1, "
        "resolution - 1, seed) plus 1 each, and the resolution. Packets must be those "
        "given; each must decode to the same.",
        "sets": SETS,
        "cases": cases,
    }


def rounds() -> dict[str, Any]:
    """Rounds, each of distributions whose position names their token."""
    cases = []
    for vocab_size, resolution, length in [
        (2, 1, 1),
        (1000, 100, 1),
        (1000, 100, 5),
        (49152, 100, 8),
        (300, 16, 256),
    ]:
        for coding in CODINGS:
            drafted, tokens = draft(vocab_size, resolution, 32, range(length))
            packet = ref.encode_round(drafted, tokens, vocab_size, resolution, coding)
            cases.append(
                {
                    "vocab_size": vocab_size,
                    "resolution": resolution,
                    "coding": coding,
                    "length": length,
                    "tokens": tokens,
                    "packet": packet.hex(),
                }
            )
    return {
        "about": HOW_TO + "a round of `length` distributions: that of seed = 0 .. "
        "length - 1 is the logits' at temperature 1 with top_k 32. The round with "
        "these tokens must encode to the packet and decode from it.",
        "logits": LOGITS,
        "cases": cases,
    }


def draft(
    vocab_size: int, resolution: int, k: int, seeds: Iterable[int], slope: int = 0
) -> tuple[list[tuple[list[int], list[int]]], list[int]]:
    """Distributions of the formula, and a token of each."""
    drafted, tokens = [], []
    for seed in seeds:
        ids, counts, _ = ref.quantize_logits(
            formula_logits(vocab_size, seed, slope),
            1.0,
            ref.TOP_K,
            k,
            resolution,
            error=0.02,
        )
        drafted.append((ids, counts))
        tokens.append(ids[seed % len(ids)])
    return drafted, tokens


# (vocab_size, resolution, k, slope) and the seeds of each packet: recurring
# supports, resolutions on the move, more tokens than are remembered, tokens that
# fade until they are forgotten, and supports too large to be remembered.
STREAMS = [
    ((1000, 100, 32, 2), [[0, 1], [0, 1, 2], [0], [3], [0, 1, 2, 3]]),
    ((49152, 0, 64, 1), [range(4), range(2, 5), [100, 0, 4], [4, 101]]),
    ((4096, 64, 24, 0), [range(30), range(20, 60), [0, 59]]),
    ((300, 16, 8, 1), [range(50, 54), [*range(4)] * 40, [50, 0], [51, 1]]),
    ((1000, 65536, 400, 0), [[0], [0], [1, 0]]),
]
RESTARTS = {0, 3}
"""The numbers of packets that are self-contained."""


def streams() -> dict[str, Any]:
    """Streams of rounds."""
    cases = []
    for (vocab_size, resolution, k, slope), seeds_of_packets in STREAMS:
        sent: list[dict[str, Any]] = []
        for number, seeds in enumerate(seeds_of_packets):
            if number in RESTARTS:
                memory = entropy.Memory()
            drafted, tokens = draft(vocab_size, resolution, k, seeds, slope)
            body = entropy.encode_round(drafted, tokens, vocab_size, resolution, memory)
            head = bytes([number])
            if number in RESTARTS:
                head = (number | 1 << 31).to_bytes(4, "big")
            sent.append(
                {"seeds": [*seeds], "tokens": tokens, "packet": (head + body).hex()}
            )
        cases.append(
            {
                "vocab_size": vocab_size,
                "resolution": resolution,
                "k": k,
                "slope": slope,
                "packets": sent,
            }
        )
    return {
        "about": HOW_TO + "a stream of rounds, restarted before the packets whose "
        "first byte says so. A packet's distributions are those of the logits with "
        "its `seeds`, at temperature 1 with top_k `k` and, if the resolution is 0, an "
        "error of 0.02. With these tokens they must encode to the packet and decode "
        "from it.",
        "logits": LOGITS,
        "cases": cases,
    }


def tokens() -> dict[str, Any]:
    """Drafted tokens and their counts alone."""
    cases = []
    for coding in CODINGS:
        for vocab_size, resolution, length in [
            (2, 1, 1),
            (1000, 100, 5),
            (49152, 100, 8),
            (1048576, 65536, 3),
            (49152, 0, 18),
            (100, 7, 256),
        ]:
            if resolution == 0 and coding != "entropy":
                continue
            drafted = []
            for r in formula(length, 0).tolist():
                own = resolution or 1 << r % 17
                drafted.append((r * r % vocab_size, 1 + r % own, own))
            packet = ref.encode_tokens(drafted, vocab_size, resolution, coding)
            ids, counts, resolutions = map(list, zip(*drafted, strict=True))
            cases.append(
                {
                    "vocab_size": vocab_size,
                    "resolution": resolution,
                    "coding": coding,
                    "tokens": ids,
                    "counts": counts,
                    "resolutions": resolutions,
                    "packet": packet.hex(),
                }
            )
    return {
        "about": HOW_TO + "tokens, counts and resolutions must encode to the packet "
        "and decode from it.",
        "cases": cases,
    }


def malformed() -> dict[str, Any]:
    """A packet for each rule that a packet can break."""
    cases = []

    def add(
        coding: str, kind: str, rule: str, packet: bytes, v: int = 1000, r: int = 100
    ) -> None:
        cases.append(
            {
                "vocab_size": v,
                "resolution": r,
                "coding": coding,
                "kind": kind,
                "packet": packet.hex(),
                "rule": rule,
            }
        )

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
        token = field(999, 10) + field(99, 7)
        add(coding, "tokens", "TRUNCATED", b"")
        add(coding, "tokens", "TRUNCATED", ref.pack(field(1, 8) + token))
        for rule, wrong in [
            ("TOKEN_ID", field(1000, 10) + field(99, 7)),
            ("COUNTS", field(999, 10) + field(100, 7)),
        ]:
            add(coding, "tokens", rule, ref.pack(field(0, 8) + wrong))
        add(coding, "tokens", "PADDING", ref.pack(field(0, 8) + token + "1"))
        add(coding, "tokens", "TRAILING_BYTES", ref.pack(field(0, 8) + token) + b"\0")
    size = math.comb(1000, 3) * math.comb(99, 2)
    rank = field(size, (size - 1).bit_length())
    add("enumerative", "distribution", "RANK", ref.pack(field(2, 7) + rank))
    ids = field(5, 10) + field(700, 10)
    counts = field(49, 7) + field(29, 7)
    add(
        "bitpack",
        "distribution",
        "TOKEN_ID",
        ref.pack(field(2, 7) + ids + field(1000, 10) + counts),
    )
    add(
        "bitpack",
        "distribution",
        "TOKEN_ORDER",
        ref.pack(field(2, 7) + ids + field(700, 10) + counts),
    )
    add(
        "bitpack",
        "distribution",
        "COUNTS",
        ref.pack(field(2, 7) + ids + field(999, 10) + field(49, 7) + field(49, 7)),
    )
    # Supports of 1 024 out of 1 024 tokens, whose rank takes no bits: eight of
    # them may share a round.
    nine = field(8, 8) + 9 * (field(1023, 10) + field(0, 10))
    add("enumerative", "round", "ROUND_SUPPORT", ref.pack(nine), 1024, 1024)

    for resolution in (100, 0):
        q = [5, 700, 999], [50, 30, 20] if resolution else [32, 20, 12]
        drafted = [(5, 4, resolution or 8), (999, 1, resolution or 1)]
        for kind, packet in [
            ("distribution", entropy.encode(*q, 1000, resolution)),
            ("round", entropy.encode_round([q, q], [5, 700], 1000, resolution)),
            ("tokens", entropy.encode_tokens(drafted, 1000, resolution)),
        ]:
            add("entropy", kind, "TRUNCATED", b"", r=resolution)
            add("entropy", kind, "TRUNCATED", packet[:-1], r=resolution)
            add("entropy", kind, "TRAILING_BYTES", packet + b"\0", r=resolution)
            wrong = other_ending(kind, packet, 1000, resolution)
            add("entropy", kind, "PADDING", wrong, r=resolution)
    size = 1 << 16
    add("entropy", "round", "ROUND_SUPPORT", dense_round(17), size, size)
    return {
        "about": HOW_TO + "decoding each packet as its `kind` must fail for breaking "
        "`rule`, a status of csrc/sqs.h.",
        "cases": cases,
    }


def other_ending(kind: str, packet: bytes, vocab_size: int, resolution: int) -> bytes:
    """The next packet of that size that only its last byte is wrong with."""
    decode = {
        "distribution": entropy.decode,
        "round": entropy.decode_round,
        "tokens": entropy.decode_tokens,
    }[kind]
    number = int.from_bytes(packet, "big")
    while True:
        number += 1
        other = number.to_bytes(len(packet), "big")
        try:
            decode(other, vocab_size, resolution)
        except BrokenRuleError as error:
            if error.args == ("PADDING",):
                return other


def dense_round(length: int) -> bytes:
    """Distributions of 65 536 out of 65 536 tokens, whose ids take no bits.

    Sixteen of them may share a round; the packet ends within the last.
    """
    coder, size = entropy.Writer(), 1 << 16
    for i in range(length):
        if i > 0:
            entropy.code_bit(coder, entropy.MORE_CHANCE, True)
        entropy.code_bit(coder, entropy.UNIFORM_CHANCE, False)
        entropy.code_count(coder, 1, size, size, 1)  # no token has more
        if i < length - 1:
            entropy.code_bit(coder, entropy.UNIFORM_CHANCE, False)
            entropy.code_uniform(coder, size, 0)  # the position
    return coder.finish()


FILES = {
    "distributions.json": distributions,
    "shapes.json": shapes,
    "rounds.json": rounds,
    "streams.json": streams,
    "tokens.json": tokens,
    "malformed.json": malformed,
}


def main() -> int:
    """Check or write the files; the exit status says whether they agree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--write", action="store_true", help="make the files anew")
    write = parser.parse_args().write
    stale = []
    for name, make in FILES.items():
        text = json.dumps(make(), indent=1) + "\n"
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
