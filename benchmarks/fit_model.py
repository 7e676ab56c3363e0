"""Fit the tables of the entropy coding and write them wherever they are needed.

    python -m benchmarks.fit_model          check that all files hold the same tables
    python -m benchmarks.fit_model --write  fit them anew and write the files

The tables are fitted to the shipped drafts, of which every second category is left
out (see `held_out`): whatever is reported about the coding is reported on those.
Fitting is counting: the split of a count is a bit seen so and so often in its
context, and an id's probability is that of its bucket, spread evenly. Resolutions
and supports far from the default are in the mix, so that no context is unseen.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from benchmarks.drafts import VOCAB_SIZE, Drafts, load_drafts

ROOT = Path(__file__).parents[1]

TEMPERATURES = (0.3, 0.7, 1.0)

SETTINGS = (
    (16, 16, 2),
    (32, 32, 2),
    (100, 64, 1),
    (256, 64, 2),
    (1000, 256, 2),
    (8192, 384, 2),
    (65536, 384, 2),
)
"""Resolution, K, and which rows to take: every first or second."""

ID_SETTING = (100, 64, 1)
"""What the id buckets are counted at."""

CLASSES = (4, 7)  # of the largest count possible, of what remains relative to it
FULL_DEPTH, TOP_DEPTH = 3, 8
NODES = (1 << FULL_DEPTH) - 1 + TOP_DEPTH - FULL_DEPTH
HALF = 128
"""The probability 1/2, in 256ths."""

FIRST_BUCKET = 5  # bits: ids below 32 are one bucket
MAX_BITS = 20
ZIPF = 1.1
"""Exponent by which buckets beyond the fitted vocabulary go on."""

LEAST_WEIGHT = 64
"""Of the last bucket, so that rounding changes no weight by more than 1 %."""


def held_out(drafts: Drafts) -> NDArray[np.bool_]:
    """Say for every row whether its category is kept for reports, bool [N]."""
    names = sorted(set(drafts.category.tolist()))
    return np.isin(drafts.category, names[1::2])


def splits(counts: list[int]) -> Iterator[tuple[int, int, int, bool]]:
    """Yield (class, class, node, bit) for each modelled split of a partition."""
    left = limit = sum(counts)
    for count in sorted(counts, reverse=True):
        low, high = 1, min(limit, left)
        classes = (
            min(high.bit_length() - 1, CLASSES[0]) - 1,
            min((left // high).bit_length(), CLASSES[1]) - 1,
        )
        node = 1
        for depth in range(TOP_DEPTH):
            if low == high:
                break
            middle = (low + high) // 2
            bit = count > middle
            if depth < FULL_DEPTH:
                yield *classes, node - 1, bit
            elif node == (2 << depth) - 1:
                yield *classes, (1 << FULL_DEPTH) - 1 + depth - FULL_DEPTH, bit
            node = 2 * node + bit
            low, high = (middle + 1, high) if bit else (low, middle)
        left -= count
        limit = count
        if left == 0:
            break


def bucket_edges() -> list[int]:
    """Return 0, 32, 48, 64, ... 2**20."""
    edges = [0]
    for bits in range(FIRST_BUCKET, MAX_BITS):
        edges += [1 << bits, 3 << (bits - 1)]
    return [*edges, 1 << MAX_BITS]


def fit() -> dict[str, list]:
    """Count, and turn the counts into tables."""
    drafts = load_drafts()
    rows = np.flatnonzero(~held_out(drafts))
    seen = np.full((*CLASSES, NODES, 2), 0.4)
    ids = []
    for setting in SETTINGS:
        resolution, k, step = setting
        codec = sqs.Codec(VOCAB_SIZE, resolution, "bitpack")
        for index in rows[::step].tolist():
            row = drafts.row(index)
            for temperature in TEMPERATURES:
                q = codec.quantize(row, sqs.TopK(k), temperature)
                for *context, bit in splits(q.counts.tolist()):
                    seen[(*context, int(bit))] += 1
                if setting == ID_SETTING:
                    ids.append(q.token_ids)
    chances = np.rint(256 * seen[..., 1] / seen.sum(-1)).astype(int).clip(1, 255)
    chances[seen.sum(-1) < 1] = HALF  # contexts that don't occur

    edges = bucket_edges()
    inside = edges.index(VOCAB_SIZE)
    found, _ = np.histogram(np.concatenate(ids), edges[: inside + 1])
    weights = ((found + 0.5) / np.diff(edges[: inside + 1])).tolist()
    for low, high in zip(edges[inside - 1 : -2], edges[inside:-1], strict=True):
        weights.append(weights[-1] * (low / high) ** ZIPF)
    scale = LEAST_WEIGHT / weights[-1]
    return {
        "split_chances": chances.reshape(-1, NODES).tolist(),
        "id_weights": [round(w * scale) for w in weights],
    }


def log2_table() -> list[int]:
    """Return log2(1 + i / 1024) in units of 2**-32, for i = 0 .. 1024."""
    return [round(x) for x in (np.log2(1 + np.arange(1025) / 1024) * 2**32).tolist()]


def exp2_table() -> list[int]:
    """Return 2**(-i / 256) in units of 2**-31, for i = 0 .. 256."""
    return [round(x) for x in (np.exp2(-np.arange(257) / 256) * 2**31).tolist()]


def rows(values: list[int], indent: str, width: int = 79) -> str:
    """Break numbers into lines."""
    text = textwrap.fill(", ".join(map(str, values)) + ",", width - len(indent))
    return textwrap.indent(text, indent)


def as_c(model: dict[str, list]) -> str:
    """Render the tables as what ``csrc/model.h`` declares."""
    chances = "\n".join(
        "    {" + ", ".join(map(str, row)) + "}," for row in model["split_chances"]
    )
    starts = np.cumsum([0, *(np.diff(bucket_edges()) * model["id_weights"])[:-1]])
    return f"""\
/*
 * model.c - the tables of model.h; written by benchmarks/fit_model.py.
 */
#include "model.h"

const uint8_t sqs_split_chances[SQS_SPLIT_CONTEXTS][SQS_SPLIT_NODES] = {{
{chances}
}};

const uint32_t sqs_id_weights[SQS_ID_BUCKETS] = {{
{rows(model["id_weights"], "    ")}
}};

const uint64_t sqs_id_starts[SQS_ID_BUCKETS] = {{
{rows(starts.tolist(), "    ")}
}};

const uint64_t sqs_log2_table[SQS_LOG_KNOTS + 1] = {{
{rows(log2_table(), "    ")}
}};

const uint32_t sqs_exp2_table[SQS_POWER_KNOTS + 1] = {{
{rows(exp2_table(), "    ").replace("2147483648", "2147483648u")}
}};
"""


def as_python(model: dict[str, list]) -> str:
    """Render the tables as a module."""
    chances = "\n".join(
        "    (" + ", ".join(map(str, row)) + ")," for row in model["split_chances"]
    )
    return f"""\
\"\"\"The fitted tables of the entropy coding; written by benchmarks/fit_model.py.\"\"\"

# fmt: off
SPLIT_CHANCES = (
{chances}
)

ID_WEIGHTS = (
{rows(model["id_weights"], "    ", 88)}
)
"""


def as_markdown(model: dict[str, list]) -> str:
    """Render the tables as the appendix of ``docs/format.md``."""
    contexts = [
        f"| {c} | {d} | " + " | ".join(map(str, row)) + " |"
        for (c, d), row in zip(np.ndindex(CLASSES), model["split_chances"], strict=True)
    ]
    edges = bucket_edges()
    weights = [
        f"| {low} … {high - 1} | {weight} |"
        for low, high, weight in zip(
            edges, edges[1:], model["id_weights"], strict=False
        )
    ]
    return "\n".join(
        [
            "# Tables of the entropy coding",
            "",
            "Appendix of [format.md](format.md), written by `benchmarks/fit_model.py`",
            "from the shipped drafts.",
            "",
            "## Splits of counts: the chance of 1, in 256ths",
            "",
            "| c | d |" + "".join(f" {node} |" for node in range(NODES)),
            "|" + "---|" * (NODES + 2),
            *contexts,
            "",
            "## Ids: the weight of each id",
            "",
            "| ids | weight |",
            "|---|---|",
            *weights,
            "",
        ]
    )


FILES = {
    "csrc/model.c": as_c,
    "sqs_codec/_model.py": as_python,
    "docs/model.md": as_markdown,
}
"""What is written from the fitted tables, apart from themselves."""

MODEL = ROOT / "tests" / "vectors" / "model.json"


def stale() -> list[str]:
    """Name the files that don't hold the tables of ``tests/vectors/model.json``."""
    model = json.loads(MODEL.read_text())
    return [
        name
        for name, render in FILES.items()
        if not (ROOT / name).exists() or (ROOT / name).read_text() != render(model)
    ]


def main() -> int:
    """Check or write the files; the exit status says whether they agree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--write", action="store_true", help="fit the tables anew")
    if parser.parse_args().write:
        model = fit()
        MODEL.write_text(json.dumps(model, indent=1) + "\n")
        for name, render in FILES.items():
            (ROOT / name).write_text(render(model))
    for name in stale():
        print(f"{name} is missing or holds other tables than tests/vectors/model.json")
    return 1 if stale() else 0


if __name__ == "__main__":
    sys.exit(main())
