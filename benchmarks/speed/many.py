"""Measure the speed of coding many distributions, and compare with zstd.

    python -m benchmarks.speed.many

Data are unbiased counts at T = 1 of SmolLM2's shipped rows to which nothing was fitted.
Several random roundings prevent branch predictors from learning them. Each text is a
sequence. zstd compresses the ids (uint16), counts and sizes (uint8) of all texts of a
rounding as columns, and decompresses to arrays. A file has all texts of a rounding as
one sequence, repeated `COPIES` times.
"""

import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from rich.console import Console
from torch.utils.data import DataLoader

import sqs_codec as sqs
from benchmarks.sources import shipped
from benchmarks.speed.timing import Contestant, interleave, pinned
from benchmarks.tables import command, dim, table
from sqs_codec import distill
from sqs_codec.cli.options import number

RESOLUTION = 50

ROUNDINGS = 8
"""Random roundings per row."""

LEVEL = 3
"""The level of zstd."""

COPIES = 12
"""Copies of each rounding in the file."""

BATCH = 16
"""Sequences per batch of the DataLoader."""


def texts(
    codec: sqs.Codec, rng: np.random.Generator, roundings: int
) -> list[list[sqs.SparseRows]]:
    """Return the rows of each text for each rounding."""
    logits = [
        np.array([session.target[i] for i in range(len(session))])
        for session in shipped().sessions
    ]
    return [
        [codec.quantize_unbiased_rows(rows, rng=rng) for rows in logits]
        for _ in range(roundings)
    ]


def joined(sequences: list[sqs.SparseRows]) -> sqs.SparseRows:
    """Return the rows of all sequences."""
    return sqs.SparseRows.stack([q for rows in sequences for q in rows])


def contestants(
    codec: sqs.Codec, roundings: list[list[sqs.SparseRows]]
) -> tuple[list[Contestant], dict[str, float]]:
    """Return the contestants, and the bytes per row in each form."""
    sequences = [rows for rounding in roundings for rows in rounding]
    rows = joined(sequences)
    distributions, n = list(rows), len(rows)
    narrow = [
        column
        for one in map(joined, roundings)
        for column in (
            one.token_ids.astype(np.uint16),
            one.counts.astype(np.uint8),
            np.diff(one.offsets).astype(np.uint8),
        )
    ]
    squeeze, widen = zstandard.ZstdCompressor(LEVEL), zstandard.ZstdDecompressor()
    packets = codec.encode_rows(rows)
    long = [codec.encode_sequence(text) for text in sequences]
    columns = [squeeze.compress(column.tobytes()) for column in narrow]
    work = {
        "encode, in a loop": lambda: [codec.encode(q) for q in distributions],
        "encode_rows": lambda: codec.encode_rows(rows),
        "encode_rows, threads=2": lambda: codec.encode_rows(rows, threads=2),
        "encode_sequence": lambda: [*map(codec.encode_sequence, sequences)],
        "zstd, compress": lambda: [squeeze.compress(c.tobytes()) for c in narrow],
        "decode, in a loop, and stack": lambda: sqs.SparseRows.stack(
            [codec.decode(packet) for packet in packets]
        ),
        "decode_rows": lambda: codec.decode_rows(packets),
        "decode_rows, threads=2": lambda: codec.decode_rows(packets, threads=2),
        "decode_sequence": lambda: [*map(codec.decode_sequence, long)],
        "zstd, decompress": lambda: [
            np.frombuffer(widen.decompress(c), column.dtype).astype(np.uint32)
            for c, column in zip(columns, narrow, strict=True)
        ],
    }
    forms = {"packets": packets, "sequences": long, "zstd": columns}
    return (
        [Contestant(name, call, n) for name, call in work.items()],
        {form: sum(map(len, data)) / n for form, data in forms.items()},
    )


def read_file(
    codec: sqs.Codec, roundings: list[list[sqs.SparseRows]], path: Path
) -> Contestant:
    """Write a file of sequences; return a contestant that reads it."""
    sequences = [*map(joined, roundings)] * COPIES
    with distill.Writer(path, distill.Header(codec)) as writer:
        for rows in sequences:
            writer.write(np.zeros(len(rows), np.uint32), rows)
    data, n = distill.load(path), sum(map(len, sequences))
    loader: Any = DataLoader(data, BATCH, shuffle=True, collate_fn=distill.collate)
    return Contestant("DataLoader, shuffled", partial(list, loader), n)


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = command("speed.many", __doc__, rounds=1, roundings=1)
    parser.add_argument("--seed", **number(int, 0), default=0)
    parser.add_argument("--rounds", **number(int, 1), default=30)
    parser.set_defaults(roundings=ROUNDINGS)
    args = parser.parse_args(argv)
    rng, prior = np.random.default_rng(args.seed), sqs.Prior.builtin("smollm2")
    codec = sqs.Codec(prior.vocab_size, RESOLUTION, prior=prior)
    roundings = texts(codec, rng, args.roundings)
    with pinned(2) as cores, tempfile.TemporaryDirectory() as folder:
        timed, sizes = contestants(codec, roundings)
        loader = read_file(codec, roundings, Path(folder, "teacher.parquet"))
        both, one = ([x for x in timed if ("=2" in x.name) == n] for n in (True, False))
        times = interleave([*one, loader], args.rounds, rng, time.thread_time_ns)
        times |= interleave(both, args.rounds, rng)
    shown = table("Many at once", "", "µs per row", "rows/s", "cores for 100 000/s")
    for name, timing in times.items():
        micros, threads = timing.median, 2 if "threads" in name else 1
        rate, used = f"{1e6 / micros:,.0f}", f"{threads * micros / 10:.2f}"
        shown.add_row(name, f"{micros:.2f}", rate, used)
    Console().print(
        shown,
        dim(
            f"V = {codec.vocab_size}, l = {RESOLUTION}, {timed[0].calls} rows in "
            f"{sum(map(len, roundings))} sequences; median of {args.rounds} rounds on "
            f"{cores} cores; bytes per row: "
            + ", ".join(f"{form} {size:.1f}" for form, size in sizes.items())
        ),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
