"""What the codec's lattice loses against other ways to round, at equal distortion.

Every row is sparsified and rounded by each scheme at each of its settings; all are
judged by TV(q, q^) over the whole vocabulary, by the acceptance rate sum min(p, q^),
and by bits.

**Bits.** Points whose counts sum to l are what the codec codes: `Codec.bits`, with the
model's prior and without one. Other points name their tokens as the codec does:
`set_bits` is the cost of the set alone, which the codec keeps apart from the counts.
Beside it they have `quantizers.Indices`, priced by tables that were learned, for each
setting, from half of the prompts and are used on the other half. That flatters them:
the codec's tables come from other texts and are the same at every setting. So the
codec's own points are priced in that way too (`CONTROL`), which tells what is the
tables' doing from what is the lattice's. `Codec.bits` are whole numbers, half a bit too
many on average, and so the others have half a bit more.

**Vocabularies.** Rows of real models, and rows of the first of them, `stretched` to
other sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

import sqs_codec as sqs
from benchmarks.experiments import quantizers
from benchmarks.experiments.equal_loss import Cell, Curve, compare
from benchmarks.experiments.experiment import Check, Options, Task
from benchmarks.experiments.quantizers import Indices, count_codes, price
from benchmarks.experiments.stretch import FACTS, HEAD, TAILS, facts, stretched
from benchmarks.rate.schemes import Row, codec
from benchmarks.tables import dim, table
from sqs_codec.theory import quantizer_tv_bound

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
Ids = NDArray[np.uint32]
Records = list[dict[str, Any]]

TITLE = "Lattices: Reznik's against others at equal distortion"
ALONE = False

REZNIK, REMAINDER, VARIATION = "Reznik", "largest remainder", "least TV"
UNIFORM, GEOMETRIC = "uniform scalar", "geometric"
CONTROL = "Reznik, learned tables"
"""The points of `REZNIK`, priced as those of the two grids are."""

RESOLUTIONS = {
    0.7: tuple(round(2 ** (i / 2)) for i in range(7, 22)),
    1.0: tuple(round(2 ** (i / 2)) for i in range(9, 23)),
}
"""By temperature, from above the losses that are compared to below them."""

TEMPERATURES = tuple(RESOLUTIONS)
SIZES = (8192, 152_064)
"""V of the stretched rows: that of a small tokenizer, and that of Qwen 2.5."""

STEPS = (0.3, 0.45, 0.6, 0.8)
"""Thresholds of the keep rule and dead zones, in units of 1/l."""

KEEP = sqs.TopK(64)
"""Of the lattices, besides thresholds."""

RATIO_STEPS = (0.2, 0.35, 0.5, 0.7, 1.0, 1.4)
"""Of the geometric grid, in nats: neighbours differ by a factor of 1.2 to 4."""

ROWS, QUICK_ROWS = 12, 4
"""Of a text, evenly spaced: neighbours say much the same."""

PROMPTS = {"gemma3": 30}
"""The most texts of a model: a row of 262 144 tokens takes long to make."""

CURVE = tuple(float(f"{x:.3g}") for x in np.geomspace(0.01, 0.2, 19))
"""TVs at which curves are drawn."""

TV_POINTS = ((0.7, 0.02), (0.7, 0.05), (1.0, 0.1), (1.0, 0.15))
ACCEPTANCE_POINTS = ((0.7, 0.01), (0.7, 0.02), (1.0, 0.02), (1.0, 0.05))
"""Temperatures and losses at which bits are compared: the second ones of each
temperature are in the tables."""

ROUNDING = 1e-9
"""What float64 may add to a sum of probabilities."""

CLOSE = {"top1": 1e-6, "entropy": 0.1, "tail64": 0.005, "tail1024": 0.01}
"""How far the means of stretched rows may be from those of real ones: a tail over fewer
tokens has less entropy."""


@dataclass(frozen=True)
class Setting:
    """A scheme's parameters.

    Attributes
    ----------
    keep : TopK or Threshold
    unit : float
        The resolution l, 1/step of `UNIFORM`, the step of `GEOMETRIC` in nats.
    """

    keep: sqs.TopK | sqs.Threshold
    unit: float


@dataclass(frozen=True)
class Point:
    """What a scheme makes of a row.

    Attributes
    ----------
    ids : ndarray of uint32 [k]
    probs : ndarray of float64 [k]
        q^ of them.
    q : SparseDistribution or None
        The same, where the codec is to code it.
    indices : Indices or None
        Where it isn't: what has to be said beside the set of ids.
    """

    ids: Ids
    probs: Floats
    q: sqs.SparseDistribution | None = None
    indices: Indices | None = None


def sweeps(temperature: float, quick: bool) -> dict[str, list[Setting]]:
    """Return the settings of each scheme."""
    resolutions = RESOLUTIONS[temperature][:: 3 if quick else 1]
    every = 2 if quick else 1
    steps = [
        Setting(sqs.Threshold(s / r), r) for r in resolutions for s in STEPS[::every]
    ]
    ratios = [
        Setting(sqs.Threshold(0.6 / r), step)
        for r in resolutions
        for step in RATIO_STEPS[::every]
    ]
    counted = [*steps, *(Setting(KEEP, r) for r in resolutions)]
    others = {UNIFORM: steps, GEOMETRIC: ratios}
    return {scheme: others.get(scheme, counted) for scheme in MAKERS}


def _reznik(row: Row, setting: Setting) -> Point:
    q = row.send(setting.keep, round(setting.unit)).q
    return Point(q.token_ids, q.probs, q)


def _control(row: Row, setting: Setting) -> Point:
    q = row.send(setting.keep, round(setting.unit)).q
    indices = Indices.of_counts(q.counts.astype(np.int64), 1 / q.resolution)
    return Point(q.token_ids, q.probs, indices=indices)


def _remainder(row: Row, setting: Setting) -> Point:
    resolution = round(setting.unit)
    ids, probs = row.top(min(row.kept(setting.keep), resolution))
    return _counted(ids, quantizers.largest_remainder(probs, resolution), row)


def _variation(row: Row, setting: Setting) -> Point:
    ids, probs = row.top(row.kept(setting.keep))
    return _counted(ids, quantizers.least_variation(probs, round(setting.unit)), row)


def _counted(ids: Ids, counts: NDArray[np.int64], row: Row) -> Point:
    order = np.argsort(ids)
    order = order[counts[order] > 0]
    q = sqs.SparseDistribution(ids[order], counts[order], row.q.size)
    return Point(q.token_ids, q.probs, q)


def _uniform(row: Row, setting: Setting) -> Point:
    ids, probs = row.top(row.kept(setting.keep))
    multiples = quantizers.uniform(probs, 1 / setting.unit)
    indices = Indices.of_counts(multiples, 1 / setting.unit)
    return Point(ids, multiples / multiples.sum(), indices=indices)


def _geometric(row: Row, setting: Setting) -> Point:
    ids, probs = row.top(row.kept(setting.keep))
    levels = quantizers.geometric(probs, setting.unit)
    weights = quantizers.geometric_weights(levels, setting.unit)
    indices = Indices.of_levels(levels, setting.unit)
    return Point(ids, weights / weights.sum(), indices=indices)


MAKERS: dict[str, Callable[[Row, Setting], Point]] = {
    REZNIK: _reznik,
    REMAINDER: _remainder,
    VARIATION: _variation,
    CONTROL: _control,
    UNIFORM: _uniform,
    GEOMETRIC: _geometric,
}


def set_bits(ids: Ids, vocab_size: int, prior: sqs.Prior | None) -> int:
    """Return what the codec takes to name a set of tokens.

    Parameters
    ----------
    ids : ndarray of uint32 [k]
        In any order.
    vocab_size : int
    prior : Prior or None

    Notes
    -----
    The bits of a distribution are those of its counts and then those of its set, and
    neither depends on the other but for k. A distribution with a count of 1 for each
    token has the set's bits and those of k equal counts; the latter alone remain in a
    vocabulary of k tokens, of which there is one set. They are taken off.
    """
    k = len(ids)
    ones = np.ones(k, np.uint32)
    both = sqs.SparseDistribution(np.sort(ids), ones, vocab_size)
    bits = codec(vocab_size, k, "entropy", prior).bits(both)
    if k == 1:  # no vocabulary is so small, and the count is no news
        return bits
    counts = sqs.SparseDistribution(np.arange(k, dtype=np.uint32), ones, k)
    return bits - codec(k, k, "entropy").bits(counts)


class Prompt:
    """Sums over the rows of a prompt.

    Attributes
    ----------
    sums : dict of str to ndarray of float64 [settings, 4]
        By scheme: TV, acceptance, and bits without a prior and with it.
    codes : dict of str to list of list of ndarray
        By scheme and setting: the symbols whose bits aren't in `sums` yet.
    facts : ndarray of float64
        As `FACTS` names them.
    bound : float
        The largest `bound_share`.
    excess : float
        How far the TV of `VARIATION` was above Reznik's at most.
    """

    def __init__(self, number: int, sizes: dict[str, int]) -> None:
        self.number = number
        self.rows = 0
        self.draft_acceptance = 0.0
        self.sums = {scheme: np.zeros((n, 4)) for scheme, n in sizes.items()}
        self.codes: dict[str, list[list[NDArray[np.int16]]]] = {
            scheme: [[] for _ in range(n)] for scheme, n in sizes.items()
        }
        self.facts = np.zeros(len(FACTS))
        self.bound, self.excess = 0.0, -1.0


class Meter:
    """Measures the rows of one vocabulary, a prompt at a time.

    Parameters
    ----------
    vocab_size : int
    prior : Prior or None
    settings : dict of str to list of Setting
        As `sweeps` returns them.
    """

    def __init__(
        self,
        vocab_size: int,
        prior: sqs.Prior | None,
        settings: dict[str, list[Setting]],
    ) -> None:
        self._vocab_size = vocab_size
        self._priors = (None, prior) if prior else (None,)
        self._settings = settings
        self._prompts: list[Prompt] = []

    def add(self, number: int, rows: Iterable[Row]) -> None:
        """Measure the rows of a prompt."""
        prompt = Prompt(number, {s: len(x) for s, x in self._settings.items()})
        self._prompts.append(prompt)
        for row in rows:
            prompt.rows += 1
            prompt.draft_acceptance += float(np.minimum(row.p, row.q).sum())
            prompt.facts += facts(row)
            self._row(prompt, row)

    def _row(self, prompt: Prompt, row: Row) -> None:
        sets: dict[bytes, list[int]] = {}
        tv: dict[str, list[float]] = {scheme: [] for scheme in MAKERS}
        for scheme, make in MAKERS.items():
            for place, setting in enumerate(self._settings[scheme]):
                point = make(row, setting)
                loss = row.judge(point.ids, point.probs)
                tv[scheme].append(loss.tv)
                sums = prompt.sums[scheme][place]
                sums[:2] += loss.tv, loss.acceptance
                sums[2 : 2 + len(self._priors)] += self._bits(point, sets)
                if point.indices is not None:
                    prompt.codes[scheme][place].append(point.indices.codes)
        shares = [bound_share(row, setting) for setting in self._settings[REZNIK]]
        prompt.bound = max(prompt.bound, *shares)
        above = np.subtract(tv[VARIATION], tv[REZNIK]).max()
        prompt.excess = max(prompt.excess, float(above))

    def _bits(self, point: Point, sets: dict[bytes, list[int]]) -> list[float]:
        """Return the bits without a prior and with it, but for those of symbols."""
        size, q = self._vocab_size, point.q
        if q is not None:
            return [
                codec(size, q.resolution, "entropy", prior).bits(q)
                for prior in self._priors
            ]
        assert point.indices is not None
        key = np.sort(point.ids).tobytes()
        if key not in sets:
            sets[key] = [set_bits(point.ids, size, prior) for prior in self._priors]
        return [bits + point.indices.free + 0.5 for bits in sets[key]]

    def records(self, seed: int) -> Records:
        """Return a record for each prompt.

        Parameters
        ----------
        seed : int
            Of the halves of the prompts.
        """
        half = np.arange(len(self._prompts)) % 2
        half = np.random.default_rng(seed).permutation(half)
        for scheme in MAKERS:
            self._price(scheme, half)
        return [
            {"half": mine, **self._record(prompt)}
            for mine, prompt in zip(half.tolist(), self._prompts, strict=True)
        ]

    def _price(self, scheme: str, half: NDArray[np.int64]) -> None:
        """Add the bits of symbols, with what the other half of the prompts taught."""
        for place in range(len(self._settings[scheme])):
            parts = [prompt.codes[scheme][place] for prompt in self._prompts]
            if not parts[0]:
                return
            counted = np.array([count_codes(np.concatenate(part)) for part in parts])
            for prompt, own, mine in zip(self._prompts, counted, half, strict=True):
                bits = price(own, counted[half != mine].sum(0))
                prompt.sums[scheme][place, 2 : 2 + len(self._priors)] += bits

    def _record(self, prompt: Prompt) -> dict[str, Any]:
        return {
            "vocab_size": self._vocab_size,
            "prior": len(self._priors) > 1,
            "prompt": prompt.number,
            "rows": prompt.rows,
            "draft_acceptance": prompt.draft_acceptance,
            "facts": dict(zip(FACTS, prompt.facts.tolist(), strict=True)),
            "bound": prompt.bound,
            "excess": prompt.excess,
            "sums": {
                # Six digits, as there are a hundred thousand of them.
                scheme: [[float(f"{x:.6g}") for x in sums] for sums in table.tolist()]
                for scheme, table in prompt.sums.items()
            },
        }


def bound_share(row: Row, setting: Setting) -> float:
    """Return TV(q renormalised, q^) of Reznik's point as a share of K/(4 l)."""
    sent = row.send(setting.keep, round(setting.unit))
    ids, probs = row.top(sent.kept)
    dense = dict(zip(sent.q.token_ids.tolist(), sent.q.probs.tolist(), strict=True))
    rounded = np.array([dense.get(i, 0.0) for i in ids.tolist()])
    tv = 0.5 * np.abs(rounded - probs / probs.sum()).sum()
    return float(tv) / quantizer_tv_bound(sent.kept, sent.q.resolution)


def needs(options: Options) -> set[tuple[str, float]]:
    """Return the texts that are read."""
    return {(model, t) for model, t in _pairs(options)}


def _pairs(options: Options) -> list[tuple[str, float]]:
    models = options.models[:1] if options.quick else options.models
    temperatures = TEMPERATURES[:1] if options.quick else TEMPERATURES
    return [(model, t) for t in temperatures for model in models]


def tasks(options: Options) -> list[Task]:
    """Return a task for each model and temperature."""
    return [Task(f"{m} {t:g}", measure, (m, t)) for m, t in _pairs(options)]


def measure(options: Options, model: str, temperature: float) -> Records:
    """Measure the rows of a model, and of the first one stretched ones too."""
    from benchmarks.experiments.models import load
    from benchmarks.experiments.traces import traces

    pair = load(options, model)
    swept = sweeps(temperature, options.quick)
    meters = {0: Meter(pair.vocab_size, pair.prior, swept)}
    if model == options.model and pair.vocab_size > 2 * HEAD:  # there is a tail
        meters |= {size: Meter(size, None, swept) for size in SIZES}
    rows = QUICK_ROWS if options.quick else ROWS
    for trace in traces(options, model, temperature, prompts=PROMPTS.get(model)):
        chosen = np.linspace(0, len(trace) - 1, min(rows, len(trace))).round()
        real = [
            Row(trace.draft[i], trace.target[i], temperature)
            for i in chosen.astype(int).tolist()
        ]
        for size, meter in meters.items():
            moved = _moved(real, size, temperature) if size else real
            meter.add(trace.prompt, moved)
    common = {"model": model, "temperature": temperature}
    return [
        common | {"stretched": bool(size)} | record
        for size, meter in meters.items()
        for record in meter.records(options.seed)
    ]


def _moved(rows: Iterable[Row], size: int, temperature: float) -> Iterator[Row]:
    for row in rows:
        pair = stretched(row.q, row.p, size)
        with np.errstate(divide="ignore"):
            draft, target = (temperature * np.log(probs) for probs in pair)
        yield Row(draft, target, temperature)


def summary(records: Records, options: Options) -> dict[str, Any]:
    """Return fronts, ratios at equal loss, and what bounds were met, by vocabulary."""
    cells: dict[tuple[float, int, bool], Records] = {}
    for record in records:
        key = record["temperature"], record["vocab_size"], record["stretched"]
        cells.setdefault(key, []).append(record)
    return {"cells": [_cell(cells[key], options.seed) for key in sorted(cells)]}


def _cell(records: Records, seed: int) -> dict[str, Any]:
    first = records[0]
    prior = first["prior"]
    named = ("model", "stretched", "vocab_size", "temperature", "prior")
    return {
        **{name: first[name] for name in named},
        "prompts": len(records),
        "rows": sum(record["rows"] for record in records),
        "bound": max(record["bound"] for record in records),
        "excess": max(record["excess"] for record in records),
        "facts": _mean_facts(records),
        "curves": _curves(Cell(records, prior)),
        "tv": _at(records, TV_POINTS, "tv", prior, seed),
        "acceptance": _at(records, ACCEPTANCE_POINTS, "acceptance", prior, seed),
        "tv_no_prior": _at(records, TV_POINTS, "tv", False, seed),
    }


def _at(
    records: Records,
    points: Iterable[tuple[float, float]],
    against: str,
    prior: bool,
    seed: int,
) -> list[dict[str, Any]]:
    """Compare at the losses that are for the temperature of the records."""
    cell = Cell(records, prior)
    return [
        {"loss": loss, "schemes": compare(cell, against, loss, seed)}
        for temperature, loss in points
        if temperature == records[0]["temperature"]
    ]


def _curves(cell: Cell) -> dict[str, Any]:
    """Return bits at the losses of `CURVE`, by scheme, and None out of reach."""
    everything = np.ones((1, len(cell.records)))
    found = {}
    for scheme in MAKERS:
        curve = Curve(cell, scheme, "tv")
        bits = [float(curve.bits(everything, loss)[0]) for loss in CURVE]
        found[scheme] = [b if np.isfinite(b) else None for b in bits]
    return found


def _mean_facts(records: Records) -> dict[str, float]:
    rows = sum(record["rows"] for record in records)
    return {name: sum(r["facts"][name] for r in records) / rows for name in FACTS}


def checks(summary: dict[str, Any]) -> list[Check]:
    """Return the two bounds, and that stretched rows are like those they come from."""
    cells = summary["cells"]
    bound = max(cell["bound"] for cell in cells)
    excess = max(cell["excess"] for cell in cells)
    found = [
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
    for cell in cells:
        if cell["stretched"]:
            found.append(_likeness(cell, _origin(cell, cells)))
    return found


def _origin(cell: dict[str, Any], cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the real rows that stretched ones come from."""
    same = ("model", "temperature")
    return next(
        other
        for other in cells
        if not other["stretched"] and all(other[n] == cell[n] for n in same)
    )


def _likeness(cell: dict[str, Any], origin: dict[str, Any]) -> Check:
    off = {name: cell["facts"][name] - origin["facts"][name] for name in FACTS}
    return Check(
        f"rows stretched to V = {cell['vocab_size']:,} are like those they come from, "
        f"T = {cell['temperature']:g}",
        all(abs(off[name]) <= CLOSE[name] for name in FACTS),
        "top-1 mass {top1:+.1e}, entropy {entropy:+.3f} bits, mass beyond 64 tokens "
        "{tail64:+.1e}, beyond 1024 {tail1024:+.1e}".format(**off),
    )


def tables(summary: dict[str, Any]) -> list[Table | Text]:
    """Return ratios at equal TV and at equal acceptance, and what the rows are like."""
    cells = summary["cells"]
    found: list[Table | Text] = []
    for temperature in sorted({cell["temperature"] for cell in cells}):
        some = [cell for cell in cells if cell["temperature"] == temperature]
        found.append(_ratios(some, "tv", "TV(q, q^)"))
        found.append(_ratios(some, "acceptance", "a loss of acceptance"))
    found.append(
        dim(
            "Bits of a distribution for Reznik's lattice, and the ratio of the others\n"
            "to it, with 95 % intervals; with the model's prior where V has a *.\n"
        )
    )
    found.append(_likenesses(cells))
    return found


def _ratios(cells: list[dict[str, Any]], against: str, name: str) -> Table:
    temperature = cells[0]["temperature"]
    loss = cells[0][against][-1]["loss"]
    heads = [f"{c['vocab_size']:,}{'*' if c['prior'] else ''}" for c in cells]
    made = table(f"Bits at {name} of {loss:g}, T = {temperature:g}", "V =", *heads)
    points = [
        next(point["schemes"] for point in cell[against] if point["loss"] == loss)
        for cell in cells
    ]
    for scheme in MAKERS:
        digits = 0 if scheme == REZNIK else 2
        found = [point[scheme] for point in points]
        made.add_row(scheme, *(_number(x, "value", digits) for x in found))
        made.add_row("", *(_interval(x, digits) for x in found), style="dim")
    return made


def _number(numbers: dict[str, float] | None, name: str, digits: int) -> str:
    return f"{numbers[name]:.{digits}f}" if numbers else "-"


def _interval(numbers: dict[str, float] | None, digits: int) -> str:
    low, high = (_number(numbers, name, digits) for name in ("low", "high"))
    return f"{low}-{high}" if numbers else ""


def _likenesses(cells: list[dict[str, Any]]) -> Table:
    heads = ("top-1 mass", "entropy", *(f"beyond {n}" for n in TAILS))
    made = table("What the draft's rows are like", "", *heads)
    for cell in cells:
        name = "stretched" if cell["stretched"] else cell["model"]
        facts = cell["facts"]
        made.add_row(
            f"T = {cell['temperature']:g}, V = {cell['vocab_size']:,}, {name}",
            *(f"{facts[fact]:.4f}" for fact in FACTS),
        )
    return made


STYLES = {
    REZNIK: ("black", "-"),
    REMAINDER: ("tab:blue", "-"),
    VARIATION: ("tab:green", "-"),
    CONTROL: ("0.55", "--"),
    UNIFORM: ("tab:orange", "-"),
    GEOMETRIC: ("tab:red", "-"),
}


def plot(summary: dict[str, Any], figure: Figure) -> None:
    """Draw bits against TV, and ratios at equal TV and acceptance, for each V."""
    lowest = min(cell["temperature"] for cell in summary["cells"])
    cells = [cell for cell in summary["cells"] if cell["temperature"] == lowest]
    figure.set_size_inches(3.3 * len(cells) + 0.4, 9)
    axes = figure.subplots(3, len(cells), sharex="row", sharey="row", squeeze=False)
    for cell, column in zip(cells, axes.T, strict=True):
        _draw_curves(cell, *column[:2])
        _draw_acceptance(cell, column[2])
        of = "stretched rows" if cell["stretched"] else cell["model"]
        column[0].set_title(f"V = {cell['vocab_size']:,}, {of}", fontsize="medium")
        for part in column:
            part.grid(visible=True, color="0.93")
    axes[0, 0].set_ylabel(f"bits per distribution, T = {lowest:g}")
    for row in axes[1:]:
        row[0].set_ylabel("bits / bits of Reznik's lattice")
        row[0].set_ylim(0.8, 1.4)
    axes[0, -1].legend(fontsize="small")


def _draw_curves(cell: dict[str, Any], above: Axes, below: Axes) -> None:
    curves = {scheme: np.array(cell["curves"][scheme], np.float64) for scheme in MAKERS}
    for scheme, (color, line) in STYLES.items():
        style: dict[str, Any] = {"color": color, "linestyle": line, "label": scheme}
        above.plot(CURVE, curves[scheme], **style)
        below.plot(CURVE, curves[scheme] / curves[REZNIK], **style)
    above.set_yscale("log")
    bits = (20, 30, 50, 100, 200, 300, 500, 1000)
    above.set_yticks(bits, [str(x) for x in bits])
    above.minorticks_off()
    for part in (above, below):
        part.set(xscale="log", xlabel="mean TV(q, q^)")
        part.set_xticks(
            ticks := (0.01, 0.02, 0.05, 0.1, 0.2), [f"{x:g}" for x in ticks]
        )
        part.minorticks_off()


def _draw_acceptance(cell: dict[str, Any], axes: Axes) -> None:
    places = np.arange(len(cell["acceptance"]))
    others = [scheme for scheme in MAKERS if scheme != REZNIK]
    for i, scheme in enumerate(others):
        for place, point in zip(places, cell["acceptance"], strict=True):
            if (numbers := point["schemes"][scheme]) is None:
                continue
            x, color = place + 0.13 * (i - len(others) // 2), STYLES[scheme][0]
            axes.plot([x, x], [numbers["low"], numbers["high"]], color=color)
            axes.plot(x, numbers["value"], "o", color=color, markersize=4)
    axes.axhline(1, color="black")
    axes.set_xticks(places, [f"{point['loss']:g}" for point in cell["acceptance"]])
    axes.set_xlabel("loss of acceptance rate")
