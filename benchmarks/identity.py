"""Compare C, Numba and the reference, and the lattice point with float64.

    python -m benchmarks.identity                    the campaign, some minutes
    python -m benchmarks.identity --random 1000 --real 20        a taste of it

Real drafts (``tests/data/drafts.npz``, each at T = 0.3, 0.7 and 1.0) and random
awkward logits go through the three implementations, which have to agree on
token ids, counts, dropped mass and packet. The counts of the real drafts are
compared with Reznik's algorithm on NumPy's softmax in float64 as well.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from itertools import islice

import numpy as np
from tqdm import tqdm

import sqs_codec as sqs
from benchmarks.drafts import VOCAB_SIZE, load_drafts
from sqs_codec import _native, _numba
from sqs_codec._format import Coding
from tests.kit import (
    CODINGS,
    independent_counts,
    random_keep,
    random_logits,
    reference_quantize,
)
from tests.reference import sqs_reference as reference

TEMPERATURES = (0.3, 0.7, 1.0)


def differs(
    row: np.ndarray, keep: sqs.Keep, temperature: float, resolution: int, coding: str
) -> bool:
    """Say whether the three implementations disagree on anything."""
    ids, counts, dropped = reference_quantize(row, keep, temperature, resolution)
    packet = None
    if len(ids) <= reference.max_support(row.size, resolution, coding):
        packet = reference.encode(ids, counts, row.size, resolution, coding)
    for backend in (_native, _numba):
        core = backend.Core(row.size, resolution, Coding[coding.upper()])
        status, core_ids, core_counts, core_dropped = core.quantize_logits(
            row, temperature, keep
        )
        got = status, core_ids.tolist(), core_counts.tolist(), core_dropped
        if got != (0, ids, counts, dropped):
            return True
        if packet is not None and core.encode(core_ids, core_counts) != packet:
            return True
    return False


def main() -> int:
    """Run the campaign; the exit status says whether all agreed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--random", type=int, default=100_000, help="random rows")
    parser.add_argument("--real", type=int, default=10_000, help="real rows at most")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, seed", end=" ")
    print(options.seed)
    start = time.perf_counter()

    codec, keep = sqs.Codec(VOCAB_SIZE), sqs.TopK(64)
    real = different = same_point = 0
    ties = []
    drafts = load_drafts()
    rows = min(options.real, len(drafts))
    for row in tqdm(islice(drafts.rows(), rows), "real", rows, disable=None):
        for temperature in TEMPERATURES:
            real += 1
            different += differs(row, keep, temperature, 100, "enumerative")
            q = codec.quantize(row, keep, temperature)
            counts, margin = independent_counts(row, 64, temperature, 100)
            if np.array_equal(q.to_dense(np.float64), counts / 100):
                same_point += 1
            else:
                ties.append(margin)

    rng = np.random.default_rng(options.seed)
    for i in tqdm(range(options.random), "random", disable=None):
        vocab_size = int(rng.choice([2, 3, 15, 16, 17, 33, 64, 65, 200]))
        resolution = int(rng.choice([1, 2, 3, 100, 1000, 1 << 16]))
        temperature = float(rng.choice([0, 1e-40, 0.3, 0.7, 1.0, 5.0]))
        row, rule = random_logits(rng, vocab_size), random_keep(rng)
        different += differs(row, rule, temperature, resolution, CODINGS[i % 2])

    print(f"{real} real and {options.random} random distributions: {different} differ")
    print(f"lattice point as in float64: {same_point} of {real} real distributions")
    for margin in ties:
        print(f"  another point: two errors lay within {margin:.1e} of a tie")
    print(f"{time.perf_counter() - start:.0f} s")
    return 1 if different or same_point < 0.999 * real else 0


if __name__ == "__main__":
    sys.exit(main())
