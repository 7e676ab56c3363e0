"""Fit the entropy model and write it to all files that contain it.

    python -m benchmarks.data.fit_model          check that all files agree
    python -m benchmarks.data.fit_model --write  fit the tables and write the files

``model.json`` is the model: scalars chosen by hand, and tables that are fitted here.
The splits of counts are fitted to the shipped drafts, except every second category of
these (see `held_out`). All reported figures of the coding use the held-out categories.
Fitting means counting how often each bit of a split occurs in each context. The fit
includes unusual resolutions and supports, so that every context occurs.

Without a prior, weights of ids are the mean of the built-in priors. Each of these is
spread evenly within buckets of ids, so that no tokenizer is favored.
"""

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import sqs_codec as sqs
from tests.drafts import VOCAB_SIZE, held_out, load_drafts

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "csrc" / "entropy" / "model.json"

WRITTEN_BY = "benchmarks/data/fit_model.py"

Model = dict[str, Any]
"""The contents of ``model.json``: "scalars", "split_chances" and "id_weights"."""

TEMPERATURES = (0.3, 0.7, 1.0)

SETTINGS = (
    *((16, 16, 2), (32, 32, 2), (100, 64, 1), (256, 64, 2)),
    *((1000, 256, 2), (8192, 384, 2), (65536, 384, 2)),
)
"""Resolution, K, and which rows to take: every first or second."""

PRIORS = ("smollm2", "gemma3", "llama3", "qwen3", "gpt2")

HALF = 128
"""The probability 1/2, in 256ths."""

MAX_BITS = 20
"""Bits of the largest id."""

SHARED = 3
"""Tokenizers that must have a bucket; later ids have the weight of the last bucket."""

LEAST_WEIGHT = 1024
"""The weight of the last bucket. Rounding then changes weights by at most 0.1 %, and
their sum stays below 2**31."""


def node_count(scalars: dict[str, int]) -> int:
    """Return the number of modeled splits of a count."""
    full, top = scalars["split_full_depth"], scalars["split_top_depth"]
    return (1 << full) - 1 + top - full


def splits(
    counts: list[int], scalars: dict[str, int]
) -> Iterator[tuple[int, int, int, bool]]:
    """Yield (class, class, node, bit) for each modeled split of a partition."""
    full_depth = scalars["split_full_depth"]
    left = limit = sum(counts)
    for count in sorted(counts, reverse=True):
        low, high = 1, min(limit, left)
        classes = (
            min(high.bit_length() - 1, scalars["size_classes"]) - 1,
            min((left // high).bit_length(), scalars["ratio_classes"]) - 1,
        )
        node = 1
        for depth in range(scalars["split_top_depth"]):
            if low == high:
                break
            middle = (low + high) // 2
            bit = count > middle
            if depth < full_depth:
                yield *classes, node - 1, bit
            elif node == (2 << depth) - 1:
                yield *classes, (1 << full_depth) - 1 + depth - full_depth, bit
            node = 2 * node + bit
            low, high = (middle + 1, high) if bit else (low, middle)
        left -= count
        limit = count
        if left == 0:
            break


def bucket_edges(first_bits: int) -> list[int]:
    """Return 0, then two edges to an octave from 2**first_bits to 2**20."""
    edges = [0]
    for bits in range(first_bits, MAX_BITS):
        edges += [1 << bits, 3 << (bits - 1)]
    return [*edges, 1 << MAX_BITS]


def fit(scalars: dict[str, int]) -> Model:
    """Count, and turn the counts into tables."""
    drafts = load_drafts()
    rows = np.flatnonzero(~held_out(drafts))
    classes = scalars["size_classes"], scalars["ratio_classes"]
    seen = np.full((*classes, node_count(scalars), 2), 0.4)
    for resolution, k, step in SETTINGS:
        codec = sqs.Codec(VOCAB_SIZE, resolution, "bitpack")
        for index in rows[::step].tolist():
            row = drafts.row(index)
            for temperature in TEMPERATURES:
                q = codec.quantize(row, sqs.TopK(k), temperature=temperature)
                for *context, bit in splits(q.counts.tolist(), scalars):
                    seen[(*context, int(bit))] += 1
    chances = np.rint(256 * seen[..., 1] / seen.sum(-1)).astype(int).clip(1, 255)
    chances[seen.sum(-1) < 1] = HALF  # contexts that don't occur

    return {
        "scalars": scalars,
        "split_chances": chances.reshape(-1, node_count(scalars)).tolist(),
        "id_weights": bucket_weights(scalars),
    }


def bucket_weights(scalars: dict[str, int]) -> list[int]:
    """Return the weight of an id in each bucket.

    It is the mean probability over the built-in priors that have all of its ids.
    """
    edges = bucket_edges(scalars["first_bucket_bits"])
    seen: list[list[float]] = [[] for _ in edges[1:]]
    for name in PRIORS:
        prior = sqs.Prior.builtin(name)
        weights = prior._tables.weigh()
        below = np.append(0, np.cumsum(weights)) / weights.sum()
        for found, low, high in zip(seen, edges, edges[1:], strict=False):
            if high <= prior.vocab_size:
                found.append((below[high] - below[low]) / (high - low))
    means = [float(np.mean(found)) for found in seen if len(found) >= SHARED]
    means += [means[-1]] * (len(seen) - len(means))
    scale = LEAST_WEIGHT / means[-1]
    return [round(mean * scale) for mean in means]


def log_table(scalars: dict[str, int]) -> list[int]:
    """Return log2(1 + i / n) in units of 2**-log_unit, for i = 0 .. n."""
    n = 1 << scalars["log_knot_bits"]
    logs = np.log2(1 + np.arange(n + 1) / n) * 2.0 ** scalars["log_unit"]
    return [round(x) for x in logs.tolist()]


def power_table(scalars: dict[str, int]) -> list[int]:
    """Return 2**(-i / n) in units of 2**-power_unit, for i = 0 .. n."""
    n = 1 << scalars["power_knot_bits"]
    powers = np.exp2(-np.arange(n + 1) / n) * 2.0 ** scalars["power_unit"]
    return [round(x) for x in powers.tolist()]


def lines(values: list[int], width: int = 79) -> str:
    """Break numbers into indented lines."""
    text = textwrap.fill(", ".join(map(str, values)) + ",", width - 4)
    return textwrap.indent(text, "    ")


def as_c_header(model: Model) -> str:
    """Render the scalars, and the tables' declarations."""
    scalars = model["scalars"]
    defines = "\n".join(
        f"#define SQS_{name.upper()} {value}u" for name, value in scalars.items()
    )
    log_knots = 1 << scalars["log_knot_bits"]
    power_knots = 1 << scalars["power_knot_bits"]
    edges = bucket_edges(scalars["first_bucket_bits"])
    return f"""\
/*
 * model.h - entropy coding tables; generated by {WRITTEN_BY}.
 */
#ifndef SQS_MODEL_H
#define SQS_MODEL_H

#include <stdint.h>

{defines}

#define SQS_SPLIT_CONTEXTS {len(model["split_chances"])}u
#define SQS_SPLIT_NODES {node_count(scalars)}u
#define SQS_ID_BUCKETS {len(model["id_weights"])}u
#define SQS_LOG_KNOTS {log_knots}u
#define SQS_POWER_KNOTS {power_knots}u

/* The total weight of all ids below {edges[-1]}. */
#define SQS_ID_TOTAL {np.diff(edges) @ model["id_weights"]}u

/* Chances, in 256ths, that a split of a count goes up: a row for each context,
 * a column for each node. */
extern const uint8_t sqs_split_chances[SQS_SPLIT_CONTEXTS][SQS_SPLIT_NODES];

/* The weight of each id of a bucket. */
extern const uint32_t sqs_id_weights[SQS_ID_BUCKETS];

/* The total weight of all ids below a bucket. */
extern const uint64_t sqs_id_starts[SQS_ID_BUCKETS];

/* log2(1 + i / {log_knots}) in units of 2^-{scalars["log_unit"]}. */
extern const uint64_t sqs_log2_table[SQS_LOG_KNOTS + 1];

/* 2^(-i / {power_knots}) in units of 2^-{scalars["power_unit"]}. */
extern const uint32_t sqs_exp2_table[SQS_POWER_KNOTS + 1];

#endif /* SQS_MODEL_H */
"""


def as_c(model: Model) -> str:
    """Render the tables that the header declares."""
    scalars = model["scalars"]
    chances = "\n".join(
        "    {" + ", ".join(map(str, row)) + "}," for row in model["split_chances"]
    )
    edges = bucket_edges(scalars["first_bucket_bits"])
    starts = np.cumsum([0, *(np.diff(edges) * model["id_weights"])[:-1]])
    powers = lines(power_table(scalars)).replace("2147483648", "2147483648u")
    return f"""\
/*
 * model.c - the tables of model.h; generated by {WRITTEN_BY}.
 */
#include "entropy/model.h"

/* clang-format off */
const uint8_t sqs_split_chances[SQS_SPLIT_CONTEXTS][SQS_SPLIT_NODES] = {{
{chances}
}};

const uint32_t sqs_id_weights[SQS_ID_BUCKETS] = {{
{lines(model["id_weights"])}
}};

const uint64_t sqs_id_starts[SQS_ID_BUCKETS] = {{
{lines(starts.tolist())}
}};

const uint64_t sqs_log2_table[SQS_LOG_KNOTS + 1] = {{
{lines(log_table(scalars))}
}};

const uint32_t sqs_exp2_table[SQS_POWER_KNOTS + 1] = {{
{powers}
}};
"""


def as_python(model: Model) -> str:
    """Render scalars and tables as a module."""
    scalars = "\n".join(
        f"{name.upper()} = {value}" for name, value in model["scalars"].items()
    )
    chances = "\n".join(
        "    (" + ", ".join(map(str, row)) + ")," for row in model["split_chances"]
    )
    about = "The entropy model's scalars and tables; written by {}."
    return f"""\
\"\"\"{about.format(WRITTEN_BY)}\"\"\"

# fmt: off
{scalars}

SPLIT_CHANCES = (
{chances}
)

ID_WEIGHTS = (
{lines(model["id_weights"], 88)}
)
"""


def as_json(model: Model) -> str:
    """Render the model itself, with a line for each row of a table."""
    scalars = ",\n".join(
        f"  {json.dumps(name)}: {value}" for name, value in model["scalars"].items()
    )
    chances = ",\n".join("  " + json.dumps(row) for row in model["split_chances"])
    weights = lines(model["id_weights"], 80).replace("    ", "  ").rstrip(",")
    return f"""\
{{
 "scalars": {{
{scalars}
 }},
 "split_chances": [
{chances}
 ],
 "id_weights": [
{weights}
 ]
}}
"""


FILES: dict[str, Callable[[Model], str]] = {
    "csrc/entropy/model.h": as_c_header,
    "csrc/entropy/model.c": as_c,
    "sqs_codec/_backend/numba/model.py": as_python,
    "csrc/entropy/model.json": as_json,
}
"""The generated files and their contents."""


def stale() -> list[str]:
    """Return the files that differ from ``model.json``."""
    model = json.loads(MODEL.read_text())
    return [
        name
        for name, render in FILES.items()
        if not (ROOT / name).exists() or (ROOT / name).read_text() != render(model)
    ]


def main() -> int:
    """Check or write the files; the exit status says whether they agree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--write", action="store_true", help="fit the tables again")
    if parser.parse_args().write:
        model = fit(json.loads(MODEL.read_text())["scalars"])
        for name, render in FILES.items():
            (ROOT / name).write_text(render(model))
    for name in stale():
        print(f"{name} is missing or holds another model than csrc/entropy/model.json")
    return 1 if stale() else 0


if __name__ == "__main__":
    sys.exit(main())
