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
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference import sqs_reference as ref

VECTORS = Path(__file__).parents[1] / "vectors"

LOGITS = (
    "r = (7919 * i + 104729 * seed) mod 4093; "
    "logits[i] = float32((r * r // 1024) / 1024), i = 0 .. vocab_size - 1"
)

HOW_TO = (
    "Made by tests/reference/make_vectors.py. Bytes are hexadecimal, floats that "
    "matter to the last bit are C99 hexadecimal. "
)


def formula_logits(vocab_size: int, seed: int) -> np.ndarray:
    """The inputs of the vectors; exact in float32."""
    r = (7919 * np.arange(vocab_size, dtype=np.int64) + 104729 * seed) % 4093
    return ((r * r // 1024) / 1024).astype(np.float32)


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


def distributions() -> dict[str, Any]:
    """Logits to counts to packets, in both codings."""
    cases = []
    for seed, (vocab_size, resolution, rule, parameter, temperature) in enumerate(
        CASES
    ):
        ids, counts, dropped = ref.quantize_logits(
            formula_logits(vocab_size, seed), temperature, rule, parameter, resolution
        )
        packets = {
            coding: ref.encode(ids, counts, vocab_size, resolution, coding).hex()
            for coding in ("bitpack", "enumerative")
        }
        cases.append(
            {
                "seed": seed,
                "vocab_size": vocab_size,
                "resolution": resolution,
                "keep": [rule, parameter],
                "temperature": temperature,
                "token_ids": ids,
                "counts": counts,
                "dropped_mass": dropped.hex(),
                "packets": packets,
            }
        )
    return {
        "about": HOW_TO + "quantize the logits with `keep` at `temperature`: the "
        "result must be token_ids, counts and dropped_mass, and its packets those "
        "given; each packet must decode to the same.",
        "logits": LOGITS,
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
        for coding in ("bitpack", "enumerative"):
            drafted, tokens = [], []
            for seed in range(length):
                ids, counts, _ = ref.quantize_logits(
                    formula_logits(vocab_size, seed), 1.0, ref.TOP_K, 32, resolution
                )
                drafted.append((ids, counts))
                tokens.append(ids[seed % len(ids)])
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
    return {
        "about": HOW_TO + "decoding each packet as its `kind` must fail for breaking "
        "`rule`, a status of csrc/sqs.h.",
        "cases": cases,
    }


FILES = {
    "distributions.json": distributions,
    "rounds.json": rounds,
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
