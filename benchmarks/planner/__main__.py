"""Compare hints, rounds, alone and the planner on a virtual clock.

    python -m benchmarks.planner                  # five minutes on two cores
    python -m benchmarks.planner --plot gain.svg  # and draw three of the links
    python -m benchmarks.planner --quick          # the same in miniature
    python -m benchmarks.planner --busy 1         # both models on the same cores
    python -m benchmarks.planner --constant MEMORY=24

Each mode generates the same completions over each link, as does a planner that knows
only the handshake. Rounds have the length and setting with the lowest expected time on
the link; other formats are compared by expected times. The clock starts when the
session is open. With ``--busy`` forward passes take longer while the draft computes,
planners persist between completions, and the first completion isn't counted. Results
don't depend on the machine's speed.
"""

import itertools
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import sqs_codec as sqs
from benchmarks.charts import Panel, draw
from benchmarks.experiments.estimate import draws, near, of_draws, shown
from benchmarks.harness.cells import JITTER, Cell, Text, simulate
from benchmarks.harness.recorded import STEPS
from benchmarks.harness.rounds import Rounds, of_formats
from benchmarks.schemes import Format, ours, qs, raw
from benchmarks.sources import shipped, small
from benchmarks.tables import about, about_line, command, dim, table
from sqs_codec.system.edge import FixedPlan, Hints, Mode, _planner
from sqs_codec.system.session import Setting
from tests.relay import Link
from tests.world import WorldLink

LINKS = (
    *((2e3, 0.1), (1e4, 0.02), (1e4, 0.1), (1e5, 0.02), (1e5, 0.1)),
    *((1e6, 0.02), (1e6, 0.1), (1e7, 0.005), (1e7, 0.3)),
)
"""Uplink bits per second, and round-trip time in seconds."""

DRAWN = ((1e4, 0.02), (1e5, 0.02), (1e6, 0.1))

TYPICAL = slice(1, 7)
"""The links over which the mean gain of hints is reported."""

TOKENS, LOSS = 200, 0.05

NOISE = 0.8
"""Standard deviation of logit noise that makes a model as different as SmolLM2's draft
and target."""

LITTLE = 0.12
"""The same, as different as a model and its 8-bit version."""

LAPS = 3
"""Completions that contain nearly all shipped rows; expected times are computed from
these."""

SMALL = 0.0004
"""Seconds per step of the shipped draft, measured by `benchmarks.experiments sizes`."""

ALONE, ROUNDS, HINTED = "alone", "rounds", "hints"
PLANNED, BYTES, UNHINTED = "planner", "for bytes", "planner without hints"

RIVALS = {
    "raw, K=1, 2, 4": [Format(f"raw {k}", partial(raw, k=k)) for k in (1, 2, 4)],
    "QS, l=16": [Format("QS 16", partial(qs, resolution=16))],
}
"""Other formats, with parameters that can be useful on these links."""

SUMS = "tokens", "seconds", "bytes_up", "bytes_down", "passes", "rows"
"""The attributes of `Played` that are summed over completions."""

Floats = NDArray[np.float64]
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """Two models, the sampling, the clouds, and the number of completions."""

    model: str
    draft: str
    temperature: float
    texts: int
    clouds: Sequence[str] = tuple(STEPS)
    loss: float = 0.0

    def __str__(self) -> str:
        return f"{self.model} {self.draft} {self.temperature:g}"

    def record(self, folder: Path, tokens: int) -> tuple[Text, ...]:
        """Save completions made of shipped rows, which repeat in a circle."""
        source = small() if self.draft == "shipped" else shipped(self.model.lower())
        places = [(one, i) for one in source.sessions for i in range(len(one))]
        found = []
        for seed in range(self.texts):
            rng = np.random.default_rng(seed)
            start = int(rng.integers(len(places)))
            here = [places[at % len(places)] for at in range(start, start + tokens)]
            rows = zip(*((one.draft[i], one.target[i]) for one, i in here), strict=True)
            files = folder / f"{seed}-draft.npy", folder / f"{seed}-target.npy"
            for file, model in zip(files, self._models(rng, *rows), strict=True):
                np.save(file, model)
            found.append(Text((1,), *files))
        return tuple(found)

    def _models(self, rng: np.random.Generator, *rows: Sequence[Rows]) -> list[Rows]:
        """Return both models' rows.

        A model that drafts for itself gets a little noise; Gemma, with shipped rows of
        only one model, gets much.
        """
        drafts, targets = map(np.array, rows)
        if self.draft == "near":
            drafts = targets + LITTLE * rng.standard_normal(targets.shape, "f4")
        if self.model == "Gemma3":
            targets = drafts + NOISE * rng.standard_normal(drafts.shape, "f4")
        return [drafts, targets]


CASES = (
    Case("SmolLM2", "far", 0.7, 12),
    Case("SmolLM2", "shipped", 0.7, 12, ("slow",)),
    Case("SmolLM2", "far", 0.7, 12, ("slow",), LOSS),
    Case("SmolLM2", "far", 1.0, 12, ("slow",)),
    Case("SmolLM2", "near", 0.7, 12, ("slow",)),
    Case("Gemma3", "far", 0.7, 2),
)


@dataclass(frozen=True)
class Grid:
    """The simulated cases, links and tokens."""

    cases: Sequence[Case] = CASES
    links: Sequence[tuple[float, float]] = LINKS
    tokens: int = TOKENS
    busy: float = 0.0
    """See `Steps`."""
    constants: Sequence[str] = ()
    """Overridden constants of the planner, as NAME=VALUE."""


QUICK = Grid([replace(case, texts=2) for case in CASES[:2]], LINKS[1:3], 24)


@dataclass(frozen=True)
class Outcome:
    """The results of each mode over each link."""

    name: str
    """Models, temperature, cloud and loss."""
    acceptance: float
    """The acceptance rate with the best setting."""
    links: Sequence[tuple[float, float]]
    sums: dict[str, Floats]
    """Sums for each mode, [links, texts, SUMS]."""
    rivals: dict[str, Floats] = field(default_factory=dict)
    """Tokens per second with other formats over ours, [links]."""

    @property
    def texts(self) -> int:
        """The number of completions."""
        return self.sums[ALONE].shape[1]

    def each(self, way: str, what: str, by: str = "tokens") -> Floats:
        """Return a ratio of sums, and its resamples: [1 + n, links]."""
        sums = np.moveaxis(draws(self.texts) @ self.sums[way], 0, 1)
        return np.asarray(sums[..., SUMS.index(what)] / sums[..., SUMS.index(by)])

    @cached_property
    def speed(self) -> dict[str, Floats]:
        """Tokens per second, with resamples."""
        return {way: self.each(way, "tokens", "seconds") for way in self.sums}

    @cached_property
    def size(self) -> dict[str, Floats]:
        """Bytes per token in both directions, with IP headers and resamples."""
        return {
            way: self.each(way, "bytes_up") + self.each(way, "bytes_down")
            for way in self.sums
        }

    @property
    def without(self) -> Floats:
        """The faster of rounds and alone."""
        return np.maximum(self.speed[ALONE], self.speed[ROUNDS])

    @property
    def best(self) -> Floats:
        """The fastest mode."""
        return np.maximum(self.without, self.speed[HINTED])


def compare(case: Case, cloud: str, grid: Grid) -> Outcome:
    """Simulate all modes."""
    for name, value in (each.split("=") for each in grid.constants):
        setattr(_planner, name, type(getattr(_planner, name))(value))
    prior = sqs.Prior.builtin(case.model.lower())
    with tempfile.TemporaryDirectory() as folder:
        texts = case.record(Path(folder), grid.tokens)
        settings = tuple(Setting.defaults(prior.vocab_size, prior))
        steps = STEPS[cloud]._replace(busy=grid.busy)
        if case.draft == "shipped":
            steps = steps._replace(draft=SMALL)
        about = Link(), texts, grid.tokens, settings
        cell = Cell(str(case), *about, None, steps, case.temperature)
        some = replace(cell, texts=texts[:LAPS])
        rounds = of_formats(some.positions(), [*map(ours, settings)])
        ways = [
            _written(replace(cell, link=_link(*link, case.loss)), rounds)
            for link in grid.links
        ]
        return Outcome(
            f"{case} {cloud}" + f", {case.loss:.0%} lost" * (case.loss > 0),
            float(rounds.acceptance.max()),
            grid.links,
            {way: np.array([each[way] for each in ways]) for way in ways[0]},
            _rivals(some, grid, rounds) if case == CASES[0] else {},
        )


def _link(rate: float, trip: float, loss: float) -> Link:
    return Link(rate, trip, jitter=JITTER, loss=loss)


def _written(cell: Cell, rounds: Rounds) -> dict[str, Floats]:
    """Return the sums of each mode over a link."""
    link = cell.link
    best = rounds.fastest(link.rate, link.trip, cell.steps, WorldLink.overhead)
    ways = {
        ALONE: replace(cell, plan=FixedPlan(0)),
        ROUNDS: replace(cell, plan=best),
        HINTED: replace(cell, plan=FixedPlan(hints=Hints())),
        PLANNED: replace(cell, modes=get_args(Mode)),
        UNHINTED: replace(cell, modes=("alone", "rounds")),
        BYTES: replace(cell, prefer="bytes"),
    }
    return {way: _sums(each) for way, each in ways.items()}


def _sums(cell: Cell) -> Floats:
    """Return each completion's sums, each with a new planner.

    If models share cores, one planner generates all, and the first isn't counted.
    """
    alike = [replace(cell, texts=(text,), seed=n) for n, text in enumerate(cell.texts)]
    if cell.steps.busy:
        played = simulate(cell)[1:]
    else:
        played = [text for each in alike for text in simulate(each)]
    return np.array([[getattr(text, name) for name in SUMS] for text in played], float)


def _rivals(cell: Cell, grid: Grid, ours: Rounds) -> dict[str, Floats]:
    """Return the speed of rounds with other formats, relative to ours.

    All rounds have the length with the lowest expected time on their link.
    """
    around = cell.steps, WorldLink.overhead

    def seconds(rounds: Rounds) -> Floats:
        return np.array([rounds.seconds(*link, *around).min() for link in grid.links])

    return {
        name: seconds(ours) / seconds(of_formats(cell.positions(), ways))
        for name, ways in RIVALS.items()
    }


def bars(outcomes: Iterable[Outcome], grid: Grid) -> Table:
    """Return the gains of hints and planners over all links."""
    made = table(
        f"Ratios of tokens per second: completions of {grid.tokens} tokens",
        *("model, draft, T, cloud", "texts", "accep-\ntance"),
        *("hints, mean", "hints,\nleast", "hints /\nalone"),
        *("planner,\nmean", "planner,\nleast", "without hints,\nleast"),
    )
    for one in outcomes:
        alone, hinted = one.speed[ALONE], one.speed[HINTED]
        gain = (hinted / one.without)[:, TYPICAL]
        shares = (one.speed[PLANNED] / one.best)[0]
        unhinted = (one.speed[UNHINTED] / one.without)[0]
        made.add_row(
            *(one.name, f"{one.texts}", f"{one.acceptance:.0%}"),
            shown(of_draws(gain.mean(1)).as_json(), ".2f"),
            *(f"{x:.2f}" for x in (gain[0].min(), (hinted / alone)[0].min())),
            *(f"{x:.2f}" for x in (shares.mean(), shares.min(), unhinted.min())),
        )
    return made


def speeds(one: Outcome) -> Table:
    """Return the results of each mode on each link."""
    links = (f"{rate / 1e3:g}, {1e3 * trip:g}" for rate, trip in one.links)
    made = table(f"{one.name}: {one.texts} completions", "kbit/s, ms", *links)

    def add(name: str, values: Floats, digits: int) -> None:
        made.add_row(name, *(near(of_draws(x).as_json(), digits) for x in values.T))

    for way, speed in one.speed.items():
        add(way, speed, 1)
    for name, share in one.rivals.items():
        add(name, share * one.speed[ROUNDS], 1)
    for way, size in one.size.items():
        add(f"bytes, {way}", size, 0)
    for way, what in itertools.product((ROUNDS, HINTED), ("passes", "rows")):
        add(f"{what}, {way}", one.each(way, what), 2)
    return made


def chart(far: Outcome, small: Outcome) -> list[Panel]:
    """Return the speeds with two drafts over a few links."""
    names = [f"{rate / 1e3:g} kbit/s, {1e3 * trip:g} ms" for rate, trip in far.links]
    shown = [i for i, link in enumerate(far.links) if link in DRAWN]
    bars = {way: far.speed[way] for way in (ALONE, ROUNDS, HINTED)}
    bars["hints, shipped"] = small.speed[HINTED]
    series = {
        name: [(names[i], float(speed[0, i])) for i in shown]
        for name, speed in bars.items()
    }
    return [Panel("Tokens per second, simulated", series, bars=True)]


def main(argv: list[str] | None = None) -> None:
    """Simulate and print."""
    parser = command("planner", __doc__, quick=True)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot (SVG)")
    said = "added share of a forward pass's time while the draft computes"
    parser.add_argument("--busy", type=float, default=0.0, metavar="SHARE", help=said)
    said = "override a constant of the planner"
    parser.add_argument("--constant", action="append", metavar="NAME=VALUE", help=said)
    args = parser.parse_args(argv)
    given = {"busy": args.busy, "constants": args.constant or ()}
    grid = replace(QUICK if args.quick else Grid(), **given)
    tasks = [(case, cloud, grid) for case in grid.cases for cloud in case.clouds]
    with ProcessPoolExecutor() as pool:
        outcomes = [*pool.map(compare, *zip(*tasks, strict=True))]
    console = Console(width=max(150, Console().width))
    console.print(bars(outcomes, grid))
    for one in outcomes:
        console.print(speeds(one))
    if args.plot:
        draw("Tokens per second by link", chart(*outcomes[1:3]), args.plot)
    console.print(
        dim(
            "Intervals: 95 %, over completions. hints: relative to the faster of "
            "rounds and alone, from 10 kbit/s to 1 Mbit/s; / alone: the least over all "
            "links; planner: relative to the fastest mode; without hints: relative to "
            "the faster of rounds and alone. for bytes: alone, 8 tokens per message. "
            "passes, rows: forward passes of the target and steps of the draft, per "
            "token. Speeds of other formats are our rounds' times the expected ratio."
        )
    )
    console.print(dim(about_line(about())))


if __name__ == "__main__":
    main()
