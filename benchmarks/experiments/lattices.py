"""The codec's lattice against other ways to round, at equal distortion.

Every row is sparsified and rounded in each way at each of its settings. The measures
are TV(q, q^) over the whole vocabulary, the acceptance rate sum min(p, q^), and bits.
All ways give counts that sum to l, a point of Reznik's lattice; the codec encodes it.
`Row.send <benchmarks.schemes.Row>` is the codec's own, nearest in L2 to the
renormalized probabilities. `largest_remainder` is the nearest without a zero, and
`least_variation` the nearest in TV to the whole q.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

import sqs_codec as sqs
from benchmarks.experiments.equal_loss import compare
from benchmarks.experiments.estimate import shown
from benchmarks.experiments.experiment import Check, Options, Records, grouped
from benchmarks.experiments.models import load
from benchmarks.experiments.traces import traces
from benchmarks.schemes import Row, Rule, Sent, codec
from benchmarks.tables import dim, table
from sqs_codec.theory import quantizer_tv_bound

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Setting = tuple[Rule, int]
Make = Callable[[Floats, int], Integers]

TITLE = "Lattices: Reznik's point against others at equal distortion"
ALONE = False

REZNIK, REMAINDER, VARIATION = "Reznik", "largest remainder", "least TV"

TEMPERATURES = 0.7, 1.0
RESOLUTIONS = tuple(round(2 ** (i / 2)) for i in range(7, 23))
"""A range that contains the compared losses."""

STEPS, KEEP = (0.3, 0.45, 0.6, 0.8), sqs.TopK(64)
"""Thresholds of the keep rule, in units of 1/l, and another rule."""

ROWS, QUICK_ROWS = 12, 4
"""Rows per completion, evenly spaced because neighbors are similar."""

PROMPTS = {"gemma3": 30}
"""Completions of models with slow rows."""

LOSSES = {"tv": {0.7: 0.05, 1.0: 0.15}, "acceptance": {0.7: 0.02, 1.0: 0.05}}
"""The losses at which bits are compared, by temperature."""

ROUNDING = 1e-9
"""The rounding error of a sum of probabilities in float64."""


def sweep(quick: bool) -> list[Setting]:
    """Return the compared rules and resolutions."""
    resolutions, steps = RESOLUTIONS[:: 3 if quick else 1], STEPS[:: 2 if quick else 1]
    found = [(sqs.Threshold(s / r), r) for r in resolutions for s in steps]
    return [*found, *((KEEP, r) for r in resolutions)]


def _counted(make: Make, row: Row, keep: Rule, resolution: int) -> Sent:
    """Send the counts that a function returns for the kept tokens."""
    most = resolution if make is largest_remainder else row.q.size
    ids, probs = row.top(min(row.kept(keep), most))
    counts = make(probs, resolution)
    order = np.argsort(ids)
    order = order[counts[order] > 0]
    q = sqs.SparseDistribution(ids[order], counts[order], row.q.size)
    return Sent(q, len(ids), row.judge(q.token_ids, q.probs))


def largest_remainder(probs: Floats, resolution: int) -> Integers:
    """Return the nearest lattice point in L2 without zeros.

    The counts [K] are at least 1 and sum to the resolution, which is at least K. The
    probabilities [K] of the kept tokens are renormalized. Each step changes the squared
    error by the smallest amount, and the error is convex in each count.

    >>> largest_remainder(np.array([0.9, 0.09, 0.01]), 10)
    array([8, 1, 1])
    """
    scaled = resolution * probs / probs.sum()
    counts = np.maximum(1, np.floor(scaled)).astype(np.int64)
    return _settled(counts, scaled, resolution)


def least_variation(probs: Floats, resolution: int) -> Integers:
    r"""Return a lattice point with the least total variation to the whole distribution.

    The counts [K] sum to the resolution l; the probabilities [K] of the kept tokens
    aren't renormalized. Each unit at x gains 1/l up to floor(l q(x)) units, then the
    rest of q(x), then nothing. A token's gains never increase, so taking the largest
    gain l times is optimal. If much was dropped, units without a gain go where the
    renormalized probabilities are largest above the counts.

    >>> least_variation(np.array([0.55, 0.28, 0.12]), 10)
    array([6, 3, 1])
    >>> least_variation(np.array([0.5, 0.1]), 10)  # 0.4 was dropped
    array([8, 2])
    """
    scaled = resolution * probs
    counts = np.floor(scaled).astype(np.int64)
    fractions = scaled - counts
    left = resolution - int(counts.sum())
    order = np.argsort(-fractions, kind="stable")[:left]
    counts[order[fractions[order] > 0]] += 1
    return _settled(counts, scaled / probs.sum(), resolution)


def _settled(counts: Integers, scaled: Floats, resolution: int) -> Integers:
    """Change counts until they sum to l, each time with the least squared error.

    Units are added at the largest remainders, or taken at the smallest from counts
    above 1.
    """
    left = resolution - int(counts.sum())
    sign = 1 if left > 0 else -1
    errors = sign * (counts - scaled)
    for _ in range(abs(left)):
        least = np.argmin(errors if left > 0 else np.where(counts > 1, errors, np.inf))
        counts[least] += sign
        errors[least] += 1
    return counts


MAKERS: dict[str, Callable[[Row, Rule, int], Sent]] = {
    REZNIK: Row.send,
    REMAINDER: partial(_counted, largest_remainder),
    VARIATION: partial(_counted, least_variation),
}


def measure_prompt(
    rows: Iterable[Row], prior: sqs.Prior | None, settings: list[Setting]
) -> dict[str, Any]:
    """Measure the rows of a prompt.

    "sums" has TV, acceptance and bits [settings, 3] by way. "bound" is the largest
    `bound_share`, "excess" the largest excess of `VARIATION`'s TV over Reznik's.
    """
    sums = {way: np.zeros((len(settings), 3)) for way in MAKERS}
    made = {"rows": 0, "draft_acceptance": 0.0, "bound": 0.0, "excess": -1.0}
    for row in rows:
        made["rows"] += 1
        made["draft_acceptance"] += float(np.minimum(row.p, row.q).sum())
        for place, (keep, resolution) in enumerate(settings):
            sent = {way: make(row, keep, resolution) for way, make in MAKERS.items()}
            one = codec(row.q.size, resolution, "entropy", prior)
            for way, found in sent.items():
                loss = found.loss
                sums[way][place] += loss.tv, loss.acceptance, one.bits(found.q)
            more = sent[VARIATION].loss.tv - sent[REZNIK].loss.tv
            made["bound"] = max(made["bound"], bound_share(row, sent[REZNIK]))
            made["excess"] = max(made["excess"], more)
    return {**made, "sums": {way: x.round(6).tolist() for way, x in sums.items()}}


def bound_share(row: Row, sent: Sent) -> float:
    """Return TV(q renormalized, q^) of Reznik's point, relative to K/(4 l)."""
    ids, probs = row.top(sent.kept)
    dense = dict(zip(sent.q.token_ids.tolist(), sent.q.probs.tolist(), strict=True))
    rounded = np.array([dense.get(i, 0.0) for i in ids.tolist()])
    tv = 0.5 * np.abs(rounded - probs / probs.sum()).sum()
    return float(tv) / quantizer_tv_bound(sent.kept, sent.q.resolution)


def places(options: Options) -> list[tuple[str, float]]:
    """Return the models and temperatures of the completions."""
    return options.places(TEMPERATURES, TEMPERATURES[:1])


def measure(options: Options, model: str, temperature: float) -> Records:
    """Measure rows of a model's completions, with a record for each completion."""
    models = load(options, model)
    settings = sweep(options.quick)
    most = QUICK_ROWS if options.quick else ROWS
    found = []
    for trace in traces(options, model, temperature, prompts=PROMPTS.get(model)):
        chosen = np.linspace(0, len(trace) - 1, min(most, len(trace))).round()
        at = chosen.astype(int)
        pairs = zip(trace.draft[at], trace.target[at], strict=True)
        rows = (Row(*pair, temperature) for pair in pairs)
        found.append(measure_prompt(rows, models.prior, settings))
    half = np.random.default_rng(options.seed).permutation(np.arange(len(found)) % 2)
    cell = {"model": model, "temperature": temperature}
    halves = zip(half.tolist(), found, strict=True)
    return [{**cell, "half": mine, **prompt} for mine, prompt in halves]


def summary(records: Records, options: Options) -> dict[str, Any]:
    """Return ratios at equal loss, and the checked bounds, by model."""
    cells = []
    for (model, temperature), of_cell in grouped(records, "model", "temperature"):
        cell: dict[str, Any] = {"model": model, "temperature": temperature}
        for name in ("bound", "excess"):
            cell[name] = max(record[name] for record in of_cell)
        for against, losses in LOSSES.items():
            found = compare(of_cell, against, losses[temperature], options.seed)
            cell[against] = found
        cells.append(cell)
    return {"cells": cells}


def checks(summary: dict[str, Any]) -> list[Check]:
    """Return the two bounds."""
    cells = summary["cells"]
    bound, excess = (max(cell[name] for cell in cells) for name in ("bound", "excess"))
    claim = "TV(q renormalized, q^) <= K/(4 l) for Reznik's lattice"
    other = "no point of the lattice has less TV than the one found"
    return [
        Check(claim, bound <= 1 + ROUNDING, f"at most {bound:.4f} of the bound"),
        Check(other, excess <= ROUNDING, f"above Reznik's: {excess:.1e}"),
    ]


def tables(summary: dict[str, Any]) -> Iterator[Table | Text]:
    """Yield ratios at equal TV and at equal acceptance."""
    for (temperature,), cells in grouped(summary["cells"], "temperature"):
        for against, losses in LOSSES.items():
            title = f"Bits at a loss of {against} of {losses[temperature]:g}"
            made = table(title, f"T = {temperature:g}", *(c["model"] for c in cells))
            for way in MAKERS:
                form = ".0f" if way == REZNIK else ".2f"
                points = [cell[against][way] for cell in cells]
                made.add_row(way, *(shown(p, form) if p else "-" for p in points))
            yield made
    yield dim(
        "Bits per distribution of Reznik's point, and the others' ratios to it, with "
        "95 % intervals; with the model's prior, if there is one."
    )
