"""Compare C on each instruction set, Numba and the reference; and with float64.

    python -m benchmarks.identity                    the campaign, some minutes
    python -m benchmarks.identity --random 1000 --real 20        a taste of it

Real drafts (``tests/data/drafts.npz``, each at T = 0.3, 0.7 and 1.0) and random
awkward logits go through the implementations, which have to agree on token ids,
counts, dropped mass, bits and packets: in turn of every coding, with a
resolution or a rule for it, with and without ``bits_per_tv``. The real ones are
also sent as a stream of rounds and as tokens alone. The counts of the real drafts
are compared with Reznik's algorithm on NumPy's softmax in float64 as well.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Sequence
from itertools import islice

import numpy as np
from tqdm import tqdm

import sqs_codec as sqs
from benchmarks.drafts import VOCAB_SIZE, load_drafts
from sqs_codec import _native, _numba
from sqs_codec._backend import Core
from sqs_codec._format import MEMORY_WORDS, Coding
from tests.kit import (
    independent_counts,
    random_keep,
    random_logits,
    reference_quantize,
    wire_resolution,
)
from tests.reference import entropy
from tests.reference import sqs_reference as reference

TEMPERATURES = (0.3, 0.7, 1.0)
ROUND = 4
"""Distributions in a round of the streams."""

WAYS = (
    ("enumerative", 100, 0.0),
    ("entropy", 100, 0.0),
    ("entropy", 0, 0.0),
    ("bitpack", 100, 0.0),
    ("entropy", 100, 1000.0),
    ("entropy", 0, 1000.0),
)
"""Coding, resolution (0: by a rule) and bits_per_tv, in turn."""


ISAS = [isa for isa in _native.ISAS.values() if _native.lib.sqs_find_isa(isa)]
"""Those that this machine has."""


def cores(codec: sqs.Codec) -> list[Core]:
    """Return what each backend makes of a codec."""
    rule = codec.resolution
    arguments = (
        codec.vocab_size,
        wire_resolution(codec),
        Coding[codec.coding.upper()],
        rule.error if isinstance(rule, sqs.Resolution) else 0.0,
    )
    return [
        _numba.Core(*arguments),
        *(_native.Core(*arguments, isa=isa) for isa in ISAS),
    ]


def differs(
    row: np.ndarray,
    keep: sqs.Keep,
    temperature: float,
    vocab_size: int,
    coding: str,
    resolution: int,
    bits_per_tv: float,
) -> bool:
    """Say whether the implementations disagree on a distribution."""
    codec = sqs.Codec(vocab_size, resolution or sqs.Resolution(), coding)
    ids, counts, dropped = reference_quantize(
        row, keep, temperature, codec, bits_per_tv
    )
    packet = None
    if len(ids) <= codec.max_support:
        packet = reference.encode(ids, counts, vocab_size, resolution, coding)
    bits = set()
    for core in cores(codec):
        options = row[None], temperature, keep, bits_per_tv
        status, _, [(core_ids, core_counts)], masses = core.quantize_logits(
            *options, True
        )
        got = status, core_ids.tolist(), core_counts.tolist(), masses
        if got != (0, ids, counts, [dropped]):
            return True
        if packet is None:
            continue
        if core.encode_logits(*options, False)[2] != [packet]:
            return True
        bits.add(core.bits(core_ids, core_counts))
        if core.encode(core_ids, core_counts) != packet:
            return True
        status, core_ids, core_counts = core.decode(packet)
        if (status, core_ids.tolist(), core_counts.tolist()) != (0, ids, counts):
            return True
    return len(bits) > 1


class Streams:
    """A stream of rounds, and tokens alone, in each implementation."""

    def __init__(self, codec: sqs.Codec) -> None:
        self.codec = codec
        self.cores = cores(codec)
        self.memories = np.zeros((2, len(self.cores), MEMORY_WORDS), np.uint32)
        self.memory = entropy.Memory()

    def differ(self, drafted: Sequence[sqs.SparseDistribution]) -> bool:
        """Say whether they disagree on the packets of the next round."""
        common = self.codec.vocab_size, wire_resolution(self.codec)
        pairs = [(q.token_ids.tolist(), q.counts.tolist()) for q in drafted]
        places = [i % len(ids) for i, (ids, _) in enumerate(pairs)]
        tokens = [
            (ids[at], counts[at], sum(counts))
            for at, (ids, counts) in zip(places, pairs, strict=True)
        ]
        drawn = [token for token, _, _ in tokens]
        given = sqs.Round(drafted, drawn)._arrays
        packet = entropy.encode_round(pairs, drawn, *common, self.memory)
        alone = entropy.encode_tokens(tokens, *common)
        columns = [np.array(column, np.uint32) for column in zip(*tokens, strict=True)]
        for core, writing, reading in zip(self.cores, *self.memories, strict=True):
            sent = core.encode_round(*given, writing)
            status, *found = core.decode_round(packet, reading)
            if sent != packet or status or not all(map(np.array_equal, found, given)):
                return True
            if core.encode_tokens(*columns) != alone:
                return True
            status, *columns_found = core.decode_tokens(alone)
            if status or not np.array_equal(columns, columns_found):
                return True
        return False


def main() -> int:
    """Run the campaign; the exit status says whether all agreed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--random", type=int, default=100_000, help="random rows")
    parser.add_argument("--real", type=int, default=10_000, help="real rows at most")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(
        f"{platform.machine()}, Python {platform.python_version()}, "
        f"seed {options.seed}, Numba and {len(ISAS)} instruction sets"
    )
    start = time.perf_counter()

    codec, keep = sqs.Codec(VOCAB_SIZE), sqs.TopK(64)
    real = different = same_point = rounds = 0
    ties = []
    streams = [Streams(codec), Streams(sqs.Codec(VOCAB_SIZE, sqs.Resolution()))]
    recent: list[np.ndarray] = []
    drafts = load_drafts()
    rows = min(options.real, len(drafts))
    bar = tqdm(islice(drafts.rows(), rows), "real", rows, disable=None)
    for number, row in enumerate(bar):
        for i, temperature in enumerate(TEMPERATURES):
            real += 1
            way = WAYS[(number + 2 * i) % len(WAYS)]
            different += differs(row, keep, temperature, VOCAB_SIZE, *way)
            q = codec.quantize(row, keep, temperature)
            counts, margin = independent_counts(row, 64, temperature, 100)
            if np.array_equal(q.to_dense(np.float64), counts / 100):
                same_point += 1
            else:
                ties.append(margin)
        recent.append(row)
        if len(recent) == ROUND:
            for stream in streams:
                rounds += 1
                different += stream.differ(
                    [stream.codec.quantize(r, keep, 0.7) for r in recent]
                )
            recent.clear()

    rng = np.random.default_rng(options.seed)
    for i in tqdm(range(options.random), "random", disable=None):
        vocab_size = int(rng.choice([2, 3, 15, 16, 17, 33, 64, 65, 200]))
        resolution = int(rng.choice([1, 2, 3, 100, 1000, 1 << 16]))
        temperature = float(rng.choice([0, 1e-40, 0.3, 0.7, 1.0, 5.0]))
        row, rule = random_logits(rng, vocab_size), random_keep(rng)
        coding, given, price = WAYS[i % len(WAYS)]
        way = (coding, given and resolution, price)
        different += differs(row, rule, temperature, vocab_size, *way)

    print(
        f"{real} real and {options.random} random distributions and {rounds} rounds "
        f"of the real ones: {different} differ"
    )
    print(f"lattice point as in float64: {same_point} of {real} real distributions")
    for margin in ties:
        print(f"  another point: two errors lay within {margin:.1e} of a tie")
    print(f"{time.perf_counter() - start:.0f} s")
    return 1 if different or same_point < 0.999 * real else 0


if __name__ == "__main__":
    sys.exit(main())
