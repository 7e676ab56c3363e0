"""What a prior takes of the time to encode and decode.

    python -m benchmarks.speed.priors     # a minute, one core

Distributions of the shipped rows (K = 64, l = 100) are encoded, decoded and priced, one
after the other, with a codec that has the model's prior and with one that has none. The
two take turns, so that what else the machine does hits both. The times are medians, of
calls from Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from rich.console import Console

import sqs_codec as sqs
from benchmarks.sources import SHIPPED, shipped
from benchmarks.tables import about, about_line, table

TEMPERATURES = (0.3, 0.7, 1.0)
KEEP, RESOLUTION = sqs.TopK(64), 100
ROWS = 300
REPEATS = 40

Call = Callable[[Any], object]


def distributions(model: str, temperature: float) -> Iterator[sqs.SparseDistribution]:
    """Yield distributions of some of the rows."""
    source = shipped(model)
    codec = sqs.Codec(source.vocab_size, RESOLUTION)
    rows = [(s, i) for s in source.sessions for i in range(len(s))]
    for session, i in rows[:: max(1, len(rows) // ROWS)]:
        yield codec.quantize(session.draft[i], KEEP, temperature=temperature)


def microseconds(call: Call, given: list[Any]) -> float:
    """Return the mean time of a call."""
    start = time.perf_counter()
    for one in given:
        call(one)
    return 1e6 * (time.perf_counter() - start) / len(given)


def measure(model: str, temperature: float) -> tuple[float, np.ndarray]:
    """Return the mean support, and medians [2, 3]: without and with; each call."""
    qs = list(distributions(model, temperature))
    prior = sqs.Prior.builtin(model)
    calls: list[list[tuple[Call, list[Any]]]] = []
    for one in (None, prior):
        codec = sqs.Codec(qs[0].vocab_size, RESOLUTION, prior=one)
        packets = [codec.encode(q) for q in qs]
        calls.append([(codec.encode, qs), (codec.decode, packets), (codec.bits, qs)])
    times = [
        [[microseconds(*call) for call in both] for both in calls]
        for _ in range(REPEATS)
    ]
    return float(np.mean([len(q.token_ids) for q in qs])), np.median(times, 0)


def main() -> None:
    """Print a line for each model and temperature."""
    began = time.monotonic()
    made = table(
        "Microseconds without a prior, with it, and their ratio",
        *("", "T", "k", "encode", "", "", "decode", "", "", "bits", "", ""),
    )
    for model in SHIPPED:
        for temperature in TEMPERATURES:
            k, (without, with_prior) = measure(model, temperature)
            cells = [f"{temperature:g}", f"{k:.1f}"]
            for a, b in zip(without, with_prior, strict=True):
                cells += [f"{a:.2f}", f"{b:.2f}", f"{b / a:.2f}"]
            made.add_row(model, *cells)
    Console().print(made)
    print(about_line(about() | {"seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main()
