"""Compare hints, rounds, the cloud alone and the planner on a virtual clock.

    python -m benchmarks.planner                  # three minutes on two cores
    python -m benchmarks.planner --plot gain.svg  # and draw three of the links
    python -m benchmarks.planner --quick          # the same in miniature
    python -m benchmarks.planner --busy 1         # both models on the same cores
    python -m benchmarks.planner --constant MEMORY=24

Over each of a few links the same texts are written in every way: by the cloud alone,
in rounds, with hints, and as a planner says that knows nothing but the handshake. Of
rounds the length and setting count that are fastest by their law, by which what others
send is compared with them. The session is open when the clock starts. With ``--busy``
a forward pass takes so much longer while the draft computes, planners go on from text
to text, and the first text isn't counted.
"""

import itertools
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import sqs_codec as sqs
from benchmarks.charts import Panel, draw
from benchmarks.harness.cells import JITTER, Cell, Text, simulate
from benchmarks.harness.recorded import STEPS
from benchmarks.harness.rounds import Rounds, of_formats
from benchmarks.schemes import Format, ours, qs, raw
from benchmarks.sources import shipped
from benchmarks.tables import about, about_line, command, dim, table
from sqs_codec.system.edge import MODES, FixedPlan, Hints, _planner
from sqs_codec.system.session import Setting
from tests.relay import Link
from tests.world import WorldLink

LINKS = (
    *((2e3, 0.1), (1e4, 0.02), (1e4, 0.1), (1e5, 0.02), (1e5, 0.1)),
    *((1e6, 0.02), (1e6, 0.1), (1e7, 0.005), (1e7, 0.3)),
)
"""Bits a second up, and seconds of a round trip."""

DRAWN = ((1e4, 0.02), (1e5, 0.02), (1e6, 0.1))
"""Those of the picture."""

BAR = slice(1, 7)
"""Those of which the bar of hints is."""

TOKENS, LOSS = 200, 0.05

NOISE, LITTLE = 0.8, 0.12
"""Deviation of what makes a target's logits of Gemma's: a mismatch like that of
SmolLM2's two models, and one like that of a model and itself in 8 bits."""

ALONE, ROUNDS, HINTED = "alone", "rounds", "hints"
PLANNED, BYTES, UNHINTED = "planner", "for bytes", "planner without hints"

RIVALS = {
    "raw, K=1, 2, 4": [Format(f"raw {k}", partial(raw, k=k)) for k in (1, 2, 4)],
    "QS, l=16": [Format("QS 16", partial(qs, resolution=16))],
}
"""What others send of a distribution, with what is worth a try on these links."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """Models, how the text is drawn, and how much of it there is."""

    model: str
    draft: str
    temperature: float
    texts: int
    losses: Sequence[float] = (0.0,)

    def __str__(self) -> str:
        return f"{self.model} {self.draft} {self.temperature:g}"

    def record(self, folder: Path, tokens: int) -> tuple[Text, ...]:
        """Write texts of shipped rows, which follow each other in a circle."""
        source = shipped(self.model.lower())
        found = []
        for seed in range(self.texts):
            rng = np.random.default_rng(seed)
            start = int(rng.integers(source.rows))
            rows = itertools.islice(
                itertools.cycle(source.pairs()), start, start + tokens
            )
            files = folder / f"{seed}-draft.npy", folder / f"{seed}-target.npy"
            for file, model in zip(files, self._models([*rows], rng), strict=True):
                np.save(file, model)
            found.append(Text((1,), *files))
        return tuple(found)

    def _models(
        self, pairs: Sequence[tuple[Any, Any]], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the draft's rows and the target's.

        A model that is its own draft gets a little noise, and Gemma, whose shipped
        rows are of one model, much.
        """
        drafts, targets = (np.array(rows) for rows in zip(*pairs, strict=True))
        if self.draft == "near":
            return targets + LITTLE * rng.standard_normal(targets.shape, "f4"), targets
        if self.model == "Gemma3":
            return drafts, drafts + NOISE * rng.standard_normal(drafts.shape, "f4")
        return drafts, targets


CASES = (
    Case("SmolLM2", "far", 0.7, 2, (0.0, LOSS)),
    Case("SmolLM2", "far", 1.0, 1),
    Case("SmolLM2", "near", 0.7, 1),
    Case("Gemma3", "far", 0.7, 1),
)


@dataclass(frozen=True)
class Grid:
    """What is written: cases, links and tokens."""

    cases: Sequence[Case] = CASES
    links: Sequence[tuple[float, float]] = LINKS
    tokens: int = TOKENS
    busy: float = 0.0
    """As `Steps` has it."""
    constants: Sequence[str] = ()
    """What the planner's constants are in place of their own values: NAME=VALUE."""

    @property
    def shown(self) -> str:
        """The first case, of which each link is shown."""
        return str(next(iter(self.cases), ""))


QUICK = Grid([replace(CASES[0], texts=1)], LINKS[1:3], 24)


@dataclass(frozen=True)
class Outcome:
    """What each way gives and takes, [links]."""

    name: str
    """Of models, temperature, cloud and loss."""
    acceptance: float
    """Of the best setting."""
    links: Sequence[tuple[float, float]]
    speed: dict[str, Floats]
    """Tokens a second. What others send only where each link is shown."""
    size: dict[str, Floats]
    """Bytes of IP for a token, up and down."""

    @property
    def without(self) -> Floats:
        """The better of rounds and the cloud alone."""
        return np.maximum(self.speed[ALONE], self.speed[ROUNDS])

    @property
    def best(self) -> Floats:
        """The fastest."""
        return np.maximum(self.without, self.speed[HINTED])

    @property
    def least(self) -> Floats:
        """The fewest bytes of rounds, hints and the cloud alone."""
        return np.min([self.size[way] for way in (ALONE, ROUNDS, HINTED)], axis=0)


def compare(case: Case, grid: Grid) -> list[Outcome]:
    """Write texts in every way, for each cloud and loss."""
    for name, value in (each.split("=") for each in grid.constants):
        setattr(_planner, name, type(getattr(_planner, name))(value))
    prior = sqs.Prior.builtin(case.model.lower())
    case = replace(case, texts=max(case.texts, 2)) if grid.busy else case
    with tempfile.TemporaryDirectory() as folder:
        texts = case.record(Path(folder), grid.tokens)
        settings = tuple(Setting.defaults(prior.vocab_size, prior))
        about = Link(), texts, grid.tokens, settings
        cell = Cell(str(case), *about, None, STEPS["slow"], case.temperature)
        rounds = of_formats(cell.positions(), [*map(ours, cell.settings)])
        found = []
        for cloud, loss in itertools.product(STEPS, case.losses):
            name = f"{case} {cloud}" + f", {loss:.0%} lost" * (loss > 0)
            here = replace(cell, steps=STEPS[cloud]._replace(busy=grid.busy))
            shown = name == f"{grid.shown} slow"
            ways = [
                _written(replace(here, link=_link(*link, loss)), rounds)
                for link in grid.links
            ]
            speed, size = (
                {way: np.array([each[way][i] for each in ways]) for way in ways[0]}
                for i in range(2)
            )
            if shown:
                for way, part in _rivals(here, grid, rounds).items():
                    speed[way] = part * speed[ROUNDS]
            acceptance = float(rounds.acceptance.max())
            found.append(Outcome(name, acceptance, grid.links, speed, size))
    return found


def _link(rate: float, trip: float, loss: float) -> Link:
    return Link(rate, trip, jitter=JITTER, loss=loss)


def _written(cell: Cell, rounds: Rounds) -> dict[str, tuple[float, float]]:
    """Return tokens a second over a link in each way, and bytes for a token."""
    link = cell.link
    best = rounds.fastest(link.rate, link.trip, cell.steps, WorldLink.overhead)
    ways = {
        ALONE: replace(cell, plan=FixedPlan(0)),
        ROUNDS: replace(cell, plan=best),
        HINTED: replace(cell, plan=FixedPlan(hints=Hints())),
        PLANNED: replace(cell, modes=MODES),
        UNHINTED: replace(cell, modes=("alone", "rounds")),
        BYTES: replace(cell, modes=("alone", "rounds"), prefer="bytes"),
    }
    return {way: _sums(each) for way, each in ways.items()}


def _sums(cell: Cell) -> tuple[float, float]:
    """Return both; a planner knows nothing at the beginning of any text.

    Where models share cores it knows what the first one has told.
    """
    alike = [replace(cell, texts=(text,), seed=n) for n, text in enumerate(cell.texts)]
    if cell.steps.busy:
        played = simulate(cell)[1:]
    else:
        played = [text for each in alike for text in simulate(each)]
    tokens = sum(text.tokens for text in played)
    size = sum(text.bytes_up + text.bytes_down for text in played)
    return tokens / sum(text.seconds for text in played), size / tokens


def _rivals(cell: Cell, grid: Grid, ours: Rounds) -> dict[str, Floats]:
    """Return what others have of our tokens a second in rounds, by the law of rounds.

    All rounds are the fastest on their link.
    """
    around = cell.steps, WorldLink.overhead

    def seconds(rounds: Rounds) -> Floats:
        return np.array([rounds.seconds(*link, *around).min() for link in grid.links])

    return {
        name: seconds(ours) / seconds(of_formats(cell.positions(), ways))
        for name, ways in RIVALS.items()
    }


def bars(outcomes: Iterable[Outcome]) -> Table:
    """Show what hints and planners are worth, over the links of the grid."""
    made = table(
        f"Tokens a second as shares: texts of {TOKENS} tokens",
        *("model, draft, T, cloud", "accep-\ntance"),
        *("hints,\nmean", "hints,\nleast", "hints /\nalone"),
        *("planner,\nmean", "planner,\nleast", "without hints,\nleast"),
        *("bytes,\n10 %", "bytes /\nalone"),
    )
    for one in outcomes:
        alone, hinted = one.speed[ALONE], one.speed[HINTED]
        gain = (hinted / one.without)[BAR]
        shares, few = one.speed[PLANNED] / one.best, one.size[BYTES]
        unhinted = one.speed[UNHINTED] / one.without
        made.add_row(
            one.name,
            f"{one.acceptance:.0%}",
            *(f"{x:.2f}" for x in (gain.mean(), gain.min(), (hinted / alone).min())),
            *(f"{x:.2f}" for x in (shares.mean(), shares.min(), unhinted.min())),
            f"{np.mean(few <= 1.1 * one.least):.0%}",
            f"{(few / one.size[ALONE]).max():.2f}",
        )
    return made


def speeds(one: Outcome) -> Table:
    """Show tokens a second on each link, and bytes for a token, in each way."""
    links = (f"{rate / 1e3:g}, {1e3 * trip:g}" for rate, trip in one.links)
    made = table(one.name, "kbit/s, ms", *links)
    for way, speed in one.speed.items():
        made.add_row(way, *(f"{x:.1f}" for x in speed))
    for way, size in one.size.items():
        made.add_row(f"bytes, {way}", *(f"{x:.0f}" for x in size))
    return made


def chart(one: Outcome) -> list[Panel]:
    """Show what a draft gains over a few links."""
    names = [f"{rate / 1e3:g} kbit/s, {1e3 * trip:g} ms" for rate, trip in one.links]
    shown = [i for i, link in enumerate(one.links) if link in DRAWN]
    series = {
        way: [(names[i], float(one.speed[way][i])) for i in shown]
        for way in (ALONE, ROUNDS, HINTED)
    }
    return [Panel("Tokens of text a second", series, bars=True)]


def main(argv: list[str] | None = None) -> None:
    """Simulate and print."""
    parser = command("planner", __doc__, quick=True)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="an SVG")
    said = "how much longer a forward pass takes while the draft computes"
    parser.add_argument("--busy", type=float, default=0.0, metavar="SHARE", help=said)
    said = "another value of a constant of the planner"
    parser.add_argument("--constant", action="append", metavar="NAME=VALUE", help=said)
    args = parser.parse_args(argv)
    given = {"busy": args.busy, "constants": args.constant or ()}
    grid = replace(QUICK if args.quick else Grid(), **given)
    with ProcessPoolExecutor() as pool:
        found = pool.map(compare, grid.cases, itertools.repeat(grid))
        outcomes = [*itertools.chain.from_iterable(found)]
        console = Console(width=max(130, Console().width))
        console.print(bars(outcomes))
        for one in outcomes:
            if one.name.startswith(f"{grid.shown} slow"):
                console.print(speeds(one))
            if args.plot and one.name == f"{grid.shown} slow":
                draw("Tokens of text a second by link", chart(one), args.plot)
    console.print(
        dim(
            "hints: over the better of rounds and the cloud alone, from 10 kbit/s to "
            "1 Mbit/s; / alone: the least over all links; planner: over the best of "
            "all ways, and without hints over the better of rounds and alone; bytes, "
            "10 %: the share of the links on which the planner for few bytes takes at "
            "most 1.1 of the fewest; bytes / alone: the most. "
            "What others send has as much of our rounds as it has by their law."
        )
    )
    console.print(dim(about_line(about())))


if __name__ == "__main__":
    main()
