"""What the codec's lattice loses against other ways to round, at equal distortion.

Every row is sparsified and rounded in each way at each of its settings; all are judged
by TV(q, q^) over the whole vocabulary, by the acceptance rate sum min(p, q^), and by
bits. All give counts that sum to l, a point of Reznik's lattice, which the codec codes:

* `Row.send <benchmarks.rate.schemes.Row>`, the codec's own, nearest in L2 to the
  renormalised probabilities, with zeros among the counts
* `largest_remainder`, nearest among the points without a zero
* `least_variation`, nearest in TV to q as it is, over the whole vocabulary

The counts of the first two approach q renormalised over what was kept, those of the
third q itself.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

import sqs_codec as sqs
from benchmarks.charts import Panel, estimated
from benchmarks.experiments.equal_loss import Cell, compare
from benchmarks.experiments.estimate import shown
from benchmarks.experiments.experiment import NAMES, Check, Options, Records
from benchmarks.experiments.models import load
from benchmarks.experiments.traces import traces
from benchmarks.rate.schemes import Row, Rule, Sent, codec
from benchmarks.tables import dim, table
from sqs_codec.theory import quantizer_tv_bound

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Setting = tuple[Rule, int]

TITLE = "Lattices: Reznik's point against others at equal distortion"
ALONE = False

REZNIK, REMAINDER, VARIATION = "Reznik", "largest remainder", "least TV"

RESOLUTIONS = {
    0.7: tuple(round(2 ** (i / 2)) for i in range(7, 22)),
    1.0: tuple(round(2 ** (i / 2)) for i in range(9, 23)),
}
"""By temperature, from above the losses that are compared to below them."""

TEMPERATURES = tuple(RESOLUTIONS)

STEPS = (0.3, 0.45, 0.6, 0.8)
"""Thresholds of the keep rule, in units of 1/l."""

KEEP = sqs.TopK(64)
"""Besides thresholds."""

ROWS, QUICK_ROWS = 12, 4
"""Of a text, evenly spaced: neighbours say much the same."""

PROMPTS = {"gemma3": 30}
"""The most texts of a model: a row of 262 144 tokens takes long to make."""

TV_POINTS = ((0.7, 0.02), (0.7, 0.05), (1.0, 0.1), (1.0, 0.15))
ACCEPTANCE_POINTS = ((0.7, 0.01), (0.7, 0.02), (1.0, 0.02), (1.0, 0.05))
"""Temperatures and losses at which bits are compared: the second ones of each
temperature are in the tables."""

ROUNDING = 1e-9
"""What float64 may add to a sum of probabilities."""


def sweep(temperature: float, quick: bool) -> list[Setting]:
    """Return the rules and resolutions of each way."""
    resolutions = RESOLUTIONS[temperature][:: 3 if quick else 1]
    steps = STEPS[:: 2 if quick else 1]
    found = [(sqs.Threshold(s / r), r) for r in resolutions for s in steps]
    return [*found, *((KEEP, r) for r in resolutions)]


def _remainder(row: Row, keep: Rule, resolution: int) -> Sent:
    ids, probs = row.top(min(row.kept(keep), resolution))
    return _counted(row, ids, largest_remainder(probs, resolution))


def _variation(row: Row, keep: Rule, resolution: int) -> Sent:
    ids, probs = row.top(row.kept(keep))
    return _counted(row, ids, least_variation(probs, resolution))


def _counted(row: Row, ids: NDArray[np.uint32], counts: Integers) -> Sent:
    order = np.argsort(ids)
    order = order[counts[order] > 0]
    q = sqs.SparseDistribution(ids[order], counts[order], row.q.size)
    return Sent(q, len(ids), row.judge(q.token_ids, q.probs))


MAKERS: dict[str, Callable[[Row, Rule, int], Sent]] = {
    REZNIK: Row.send,
    REMAINDER: _remainder,
    VARIATION: _variation,
}


def largest_remainder(probs: Floats, resolution: int) -> Integers:
    """Return the lattice point nearest in L2 that leaves every token a count.

    It has counts [K], each at least 1, whose sum is the resolution, which is K or more;
    the probabilities of the tokens kept, [K], are renormalised here.

    Where the counts of 1 given to improbable tokens are too many already, units are
    taken back from others. Each step changes the squared error by the least that it
    can, and the error is convex in every count: the result is the nearest.

    >>> largest_remainder(np.array([0.9, 0.09, 0.01]), 10)
    array([8, 1, 1])
    """
    scaled = resolution * probs / probs.sum()
    counts = np.maximum(1, np.floor(scaled)).astype(np.int64)
    return _settled(counts, scaled, resolution)


def least_variation(probs: Floats, resolution: int) -> Integers:
    r"""Return a lattice point of least total variation to the whole distribution.

    It has counts [K], whose sum is the resolution l; q(x) of the tokens kept, [K],
    isn't renormalised.

    TV(q, b/l) = 1 - sum_x min(q(x), b_x / l), the sum over the tokens kept, as q^ is 0
    elsewhere. A unit more at x gains 1/l up to floor(l q(x)) units, then what is left
    of q(x), then nothing: the gains of a token never rise, so that taking the largest
    gain l times is exact. As the floors sum to l at most, that is: all the floors, then
    a unit each to the largest fractions. Where there are more units than tokens that
    gain by them, which happens if much was dropped, any place is as good for the TV;
    they go where the renormalised probabilities lack them, which is better than
    elsewhere for the acceptance rate.

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
    """Return counts with a sum of l, changed where the squared error grows least.

    Units are given to the largest remainders, one by one, or taken from the smallest
    where a count stays.
    """
    left = resolution - int(counts.sum())
    sign = 1 if left > 0 else -1
    heap = [
        (sign * error, i)
        for i, error in enumerate((counts - scaled).tolist())
        if left > 0 or counts[i] > 1
    ]
    heapq.heapify(heap)
    for _ in range(abs(left)):
        error, at = heap[0]
        counts[at] += sign
        if left > 0 or counts[at] > 1:
            heapq.heapreplace(heap, (error + 1, at))
        else:
            heapq.heappop(heap)
    return counts


@dataclass
class Prompt:
    """Sums over the rows of a prompt."""

    sums: dict[str, Floats]
    """By way, [settings, 4]: TV, acceptance, and bits without a prior and with it."""
    rows: int = 0
    draft_acceptance: float = 0.0
    bound: float = 0.0
    """The largest `bound_share`."""
    excess: float = -1.0
    """How far the TV of `VARIATION` was above Reznik's at most."""


def measure_prompt(
    rows: Iterable[Row], prior: sqs.Prior | None, settings: list[Setting]
) -> Prompt:
    """Measure the rows of a prompt."""
    priors = (None, prior) if prior else (None,)
    found = Prompt({way: np.zeros((len(settings), 4)) for way in MAKERS})
    for row in rows:
        found.rows += 1
        found.draft_acceptance += float(np.minimum(row.p, row.q).sum())
        for place, (keep, resolution) in enumerate(settings):
            tv = {}
            for way, make in MAKERS.items():
                sent = make(row, keep, resolution)
                tv[way] = sent.loss.tv
                sums = found.sums[way][place]
                sums[:2] += sent.loss.tv, sent.loss.acceptance
                sums[2 : 2 + len(priors)] += [
                    codec(row.q.size, resolution, "entropy", one).bits(sent.q)
                    for one in priors
                ]
            found.bound = max(found.bound, bound_share(row, keep, resolution))
            found.excess = max(found.excess, tv[VARIATION] - tv[REZNIK])
    return found


def bound_share(row: Row, keep: Rule, resolution: int) -> float:
    """Return TV(q renormalised, q^) of Reznik's point as a share of K/(4 l)."""
    sent = row.send(keep, resolution)
    ids, probs = row.top(sent.kept)
    dense = dict(zip(sent.q.token_ids.tolist(), sent.q.probs.tolist(), strict=True))
    rounded = np.array([dense.get(i, 0.0) for i in ids.tolist()])
    tv = 0.5 * np.abs(rounded - probs / probs.sum()).sum()
    return float(tv) / quantizer_tv_bound(sent.kept, sent.q.resolution)


def places(options: Options) -> list[tuple[str, float]]:
    """Return the models and temperatures whose texts are read."""
    return options.places(TEMPERATURES, TEMPERATURES[:1])


def measure(options: Options, model: str, temperature: float) -> Records:
    """Measure rows of all texts of a model; a record is of a text."""
    models = load(options, model)
    settings = sweep(temperature, options.quick)
    most = QUICK_ROWS if options.quick else ROWS
    found = []
    for trace in traces(options, model, temperature, prompts=PROMPTS.get(model)):
        chosen = np.linspace(0, len(trace) - 1, min(most, len(trace))).round()
        rows = (
            Row(trace.draft[i], trace.target[i], temperature)
            for i in chosen.astype(int).tolist()
        )
        found.append(measure_prompt(rows, models.prior, settings))
    half = np.random.default_rng(options.seed).permutation(np.arange(len(found)) % 2)
    cell = {"model": model, "temperature": temperature, "prior": bool(models.prior)}
    cell["vocab_size"] = models.vocab_size
    return [
        {**cell, "half": int(mine), **record(prompt)}
        for mine, prompt in zip(half, found, strict=True)
    ]


def record(prompt: Prompt) -> dict[str, Any]:
    """Return a prompt's sums in JSON's types, of six digits."""
    sums = {
        way: [[float(f"{x:.6g}") for x in row] for row in table.tolist()]
        for way, table in prompt.sums.items()
    }
    return {**vars(prompt), "sums": sums}


def summary(records: Records, options: Options) -> dict[str, Any]:
    """Return ratios at equal loss, and what bounds were met, by model."""
    cells: dict[tuple[float, int, str], Records] = {}
    for one in records:
        key = one["temperature"], one["vocab_size"], one["model"]
        cells.setdefault(key, []).append(one)
    return {"cells": [_cell(cells[key], options.seed) for key in sorted(cells)]}


def _cell(records: Records, seed: int) -> dict[str, Any]:
    named = ("model", "vocab_size", "temperature", "prior")
    return {
        **{name: records[0][name] for name in named},
        "prompts": len(records),
        "rows": sum(one["rows"] for one in records),
        "bound": max(one["bound"] for one in records),
        "excess": max(one["excess"] for one in records),
        "tv": _at(records, TV_POINTS, "tv", seed),
        "acceptance": _at(records, ACCEPTANCE_POINTS, "acceptance", seed),
    }


def _at(
    records: Records, points: Iterable[tuple[float, float]], against: str, seed: int
) -> list[dict[str, Any]]:
    """Compare at the losses that are for the temperature of the records."""
    cell = Cell(records, records[0]["prior"])
    return [
        {"loss": loss, "schemes": compare(cell, against, loss, seed)}
        for temperature, loss in points
        if temperature == records[0]["temperature"]
    ]


def checks(summary: dict[str, Any]) -> list[Check]:
    """Return the two bounds."""
    bound = max(cell["bound"] for cell in summary["cells"])
    excess = max(cell["excess"] for cell in summary["cells"])
    return [
        Check(
            "TV(q renormalised, q^) <= K/(4 l) for Reznik's lattice",
            bound <= 1 + ROUNDING,
            f"at most {bound:.4f} of the bound, in every row at every K and l",
        ),
        Check(
            "no point of the lattice has less TV than the one found",
            excess <= ROUNDING,
            f"TV above Reznik's with the same support and l: at most {excess:.1e}",
        ),
    ]


def tables(summary: dict[str, Any]) -> list[Table | Text]:
    """Return ratios at equal TV and at equal acceptance."""
    found: list[Table | Text] = []
    for temperature in sorted({cell["temperature"] for cell in summary["cells"]}):
        cells = [c for c in summary["cells"] if c["temperature"] == temperature]
        found.append(_ratios(cells, "tv", "TV(q, q^)"))
        found.append(_ratios(cells, "acceptance", "a loss of acceptance"))
    note = (
        "Bits of a distribution for Reznik's point, and the ratio of the others to it, "
        "with 95 % intervals; with the model's prior, if there is one."
    )
    return [*found, dim(note)]


def _ratios(cells: list[dict[str, Any]], against: str, name: str) -> Table:
    loss = cells[0][against][-1]["loss"]
    title = f"Bits at {name} of {loss:g}, T = {cells[0]['temperature']:g}"
    made = table(title, "", *(cell["model"] for cell in cells))
    for way in MAKERS:
        digits = 0 if way == REZNIK else 2
        points = [cell[against][-1]["schemes"][way] for cell in cells]
        made.add_row(way, *(_interval(point, digits) for point in points))
    return made


def _interval(found: dict[str, float] | None, digits: int) -> str:
    return shown(found, f".{digits}f") if found else "-"


def chart(summary: dict[str, Any]) -> list[Panel]:
    """Show the bits of other lattice points beside Reznik's."""
    panels = []
    for against, name in (("tv", "TV"), ("acceptance", "acceptance")):
        series = {
            way: [
                estimated(f"{NAMES[cell['model']]}, T = {cell['temperature']:g}", found)
                for cell in summary["cells"]
                if (found := cell[against][-1]["schemes"][way])
            ]
            for way in (REMAINDER, VARIATION)
        }
        panels.append(Panel(f"Bits at equal {name}, over Reznik's", series, beside=1))
    return panels
