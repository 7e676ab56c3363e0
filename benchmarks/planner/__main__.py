"""Compare hints, rounds, the cloud alone and the planner, on simulated links.

    python -m benchmarks.planner                  # seven minutes on two cores
    python -m benchmarks.planner --quick          # the same in miniature

Over each link of a grid the same texts are written in every way: by the cloud alone, by
rounds as others and as we send them, by hints, and by a planner that knows nothing but
the handshake. Of rounds the length and setting count that are fastest over all texts,
of hints the same. The session is open when the clock starts.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import sqs_codec as sqs
from benchmarks.planner.hints import (
    Edge,
    HintsEdge,
    Link,
    RoundsEdge,
    Simulation,
)
from benchmarks.planner.simulate import TOKENS, Logits, Run, Steps, Text, World, noisy
from benchmarks.sources import shipped
from benchmarks.tables import about, about_line, dim, table
from sqs_codec.system.edge import FixedPlan, Hints, Planner, default_settings
from sqs_codec.system.edge._costs import LENGTHS
from sqs_codec.system.serve._datagram.link import DatagramLink
from sqs_codec.system.session import Sampling

RATES = (2e3, 5e3, 1e4, 3e4, 1e5, 1e6, 1e7, 1e8)
TRIPS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.3)
BAR_RATES, BAR_TRIPS = (1e4, 3e4, 1e5, 1e6), (0.02, 0.1)
"""Links of which the bar of hints is."""

OVERHEAD = DatagramLink.overhead
ROWS = 600
TEMPERATURES = (0.7, 1.0)
LOSSES = (0.0, 0.05)
SESSIONS = (1, 16, 64)
SHARED, SHARED_LENGTHS = ((1e4, 0.02), (1e5, 0.1)), (1, 2, 4, 6)
"""Links on which sessions share the cloud, and lengths of their rounds."""

SHOWN = "SmolLM2 far 0.7 slow"
"""Of which each link is shown."""

STEPS = {
    "fast": Steps(0.015, 0.030, 0.0015),
    "slow": Steps(0.015, 0.120, 0.006),
}
"""Seconds: a drafted token; the target for one token and for each more."""

NOISE, LITTLE = 0.8, 0.12
"""Deviation of what makes a target's logits of Gemma's: a mismatch like that of
SmolLM2's two models, and one like that of a model and itself in 8 bits."""

HINTS = (
    Hints(),
    Hints(1, 3, 0.01),
    Hints(2, 3, 0.01),
    Hints(4, 3, 0.01),
    Hints(3, 1, 0.01),
    Hints(4, 4, 0.1),
)
"""Those that are tried; the first are the planner's."""

ALONE, ROUNDS, PLANNED, BYTES = "alone", "rounds", "planner", "for bytes"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """Models, and how the text is drawn."""

    model: str
    draft: str
    temperature: float

    def __str__(self) -> str:
        return f"{self.model} {self.draft} {self.temperature:g}"

    def pairs(self, rows: int) -> Iterable[tuple[Logits, Logits]]:
        """Yield logits of the draft and of the target at each position.

        A model that is its own draft gets a little noise, and Gemma, whose shipped
        rows are of one model, much.
        """
        drafts, targets = zip(
            *shipped(self.model.lower()).first(rows).pairs(), strict=True
        )
        if self.draft == "near":
            drafts = noisy(targets, LITTLE, 0)
        elif self.model == "Gemma3":
            targets = noisy(drafts, NOISE, 0)
        return zip(drafts, targets, strict=True)

    def world(self, rows: int, rivals: bool = True) -> World:
        """Draft at all positions."""
        prior = sqs.Prior.builtin(self.model.lower())
        settings = default_settings(prior.vocab_size, prior)
        return World.of(self.pairs(rows), settings, self.temperature, rivals)


CASES = [
    Case(model, draft, t)
    for model in ("SmolLM2", "Gemma3")
    for draft in ("far", "near")
    for t in TEMPERATURES
]


@dataclass(frozen=True)
class Grid:
    """What is simulated: cases, links, so many texts and sessions, of so many rows."""

    cases: Sequence[Case]
    rates: Sequence[float]
    trips: Sequence[float]
    losses: Sequence[float]
    texts: int
    sessions: Sequence[int]
    rows: int

    @property
    def links(self) -> list[tuple[float, float]]:
        """Rate and trip of each."""
        return [*itertools.product(self.rates, self.trips)]


FULL = Grid(CASES, RATES, TRIPS, LOSSES, 4, SESSIONS, ROWS)
QUICK = Grid(CASES[:1], (1e4, 1e6), (0.02,), (0.05,), 1, (2,), 40)


@dataclass(frozen=True)
class Outcome:
    """Seconds of each text in each way, on one grid.

    Attributes
    ----------
    name : str
        Of models, temperature, cloud and loss.
    acceptance : float
        Of the best setting.
    links : list of tuple of float
    seconds : dict from str to ndarray [texts, links]
        By the cloud alone, rounds of several kinds, and two planners.
    hints : ndarray [HINTS, texts, links]
    """

    name: str
    acceptance: float
    links: list[tuple[float, float]]
    seconds: dict[str, Floats]
    hints: Floats

    def speed(self, name: str) -> Floats:
        """Return tokens a second over all texts, on each link."""
        seconds = self.seconds[name]
        return np.asarray(len(seconds) * TOKENS / seconds.sum(0))

    @property
    def hinted(self) -> Floats:
        """Tokens a second by each of `HINTS`, [HINTS, links]."""
        return np.asarray(self.hints.shape[1] * TOKENS / self.hints.sum(1))

    @property
    def without(self) -> Floats:
        """Tokens a second of the better of rounds and the cloud alone."""
        return np.maximum(self.speed(ALONE), self.speed(ROUNDS))


def compare(case: Case, grid: Grid) -> list[Outcome]:
    """Write texts in every way, for each cloud and loss."""
    world = case.world(grid.rows)
    sampling = Sampling(case.temperature)
    make = partial(Planner, world.settings, sampling=sampling, overhead=OVERHEAD)
    planners = make(), make(prefer="bytes")
    texts = [world.text(seed) for seed in range(grid.texts)]
    found = []
    for (cloud, steps), loss in itertools.product(STEPS.items(), grid.losses):
        name = f"{case} {cloud}" + f", {loss:.0%} lost" * (loss > 0)
        links = [Link(*link, OVERHEAD, loss) for link in grid.links]
        seconds = _rounds(texts, steps, links)
        seconds |= _planned(planners, texts, steps, links)
        hints = [_hinted(FixedPlan(hints=h), texts, steps, links) for h in HINTS]
        seconds[ALONE] = _hinted(FixedPlan(0), texts, steps, links)
        made = name, world.acceptance, grid.links, seconds, np.array(hints)
        found.append(Outcome(*made))
    return found


def _hinted(
    planner: Planner | FixedPlan,
    texts: Sequence[Text],
    steps: Steps,
    links: Sequence[Link],
) -> Floats:
    """Return the seconds of each text on each link, with hints or alone."""

    def seconds(seed: int, link: Link) -> float:
        guesses = texts[seed].guesses
        edge = partial(HintsEdge, guesses=guesses, planner=copy.deepcopy(planner))
        return Simulation([edge], link, steps, TOKENS, seed).run().seconds

    return np.array([[seconds(n, link) for link in links] for n in range(len(texts))])


def _rounds(
    texts: Sequence[Text], steps: Steps, links: Sequence[Link]
) -> dict[str, Floats]:
    """Return the seconds of rounds by the best plan of each kind."""
    kinds = {ROUNDS: [text.drafts for text in texts]}
    kinds |= {name: [text.rivals[name] for text in texts] for name in texts[0].rivals}
    where = np.array([[link.rate, link.trip] for link in links]).T
    found = {}
    for kind, drafts in kinds.items():
        ways = range(len(drafts[0]))
        plans = [FixedPlan(*plan).plan() for plan in itertools.product(LENGTHS, ways)]
        every = np.zeros((len(plans), len(texts), len(links)))
        for (at, plan), seed in itertools.product(enumerate(plans), range(len(texts))):
            rng = np.random.default_rng(seed)
            run = Run(*where, steps, OVERHEAD, drafts[seed], rng, loss=links[0].loss)
            run.fixed(plan)
            every[at, seed] = run.now
        best = every.sum(1).argmin(0)
        found[kind] = every[best, :, np.arange(len(links))].T
    return found


def _planned(
    planners: tuple[Planner, Planner],
    texts: Sequence[Text],
    steps: Steps,
    links: Sequence[Link],
) -> dict[str, Floats]:
    """Return the seconds of texts by planners that have seen nothing."""
    few = np.zeros((len(texts), len(links)))
    for seed, (at, link) in itertools.product(range(len(texts)), enumerate(links)):
        rng, drafts = np.random.default_rng(seed), texts[seed].drafts
        run = Run(*link[:2], steps, OVERHEAD, drafts, rng, loss=link.loss)
        run.planned(copy.deepcopy(planners[1]))
        few[seed, at] = float(run.now)
    return {PLANNED: _hinted(planners[0], texts, steps, links), BYTES: few}


@dataclass(frozen=True)
class Capacity:
    """Tokens a second of sessions that share a cloud.

    Attributes
    ----------
    name : str
    sessions : int
    alone, rounds, hints : float
        In all; rounds of the best length and setting.
    """

    name: str
    sessions: int
    alone: float
    rounds: float
    hints: float


def share(case: Case, grid: Grid) -> list[Capacity]:
    """Let sessions share a cloud, in each way."""
    world = case.world(grid.rows, rivals=False)
    found = []
    for n, (cloud, steps) in itertools.product(grid.sessions, STEPS.items()):
        texts = [world.text(seed) for seed in range(n)]
        for rate, trip in SHARED:
            link = Link(rate, trip, OVERHEAD)

            def speed(
                edges: Sequence[Callable[[Simulation], Edge]],
                link: Link = link,
                steps: Steps = steps,
            ) -> float:
                run = Simulation(edges, link, steps, TOKENS, 0).run()
                return run.tokens / run.seconds

            def hinted(
                plan: FixedPlan, texts: Sequence[Text] = texts
            ) -> list[Callable[[Simulation], Edge]]:
                return [
                    partial(HintsEdge, guesses=t.guesses, planner=plan) for t in texts
                ]

            rounds = [
                [
                    partial(RoundsEdge, drafts=t.drafts[way], length=length)
                    for t in texts
                ]
                for length in SHARED_LENGTHS
                for way in range(len(world.settings))
            ]
            name = f"{case} {cloud}, {rate:,.0f} bit/s, {1000 * trip:.0f} ms"
            alone = speed(hinted(FixedPlan(0)))
            hints = speed(hinted(FixedPlan(hints=Hints())))
            found.append(Capacity(name, n, alone, max(map(speed, rounds)), hints))
    return found


def plans(settings: int) -> Iterator[FixedPlan]:
    """Yield each round that the planner chooses from."""
    for length, setting in itertools.product(LENGTHS, range(settings)):
        yield FixedPlan(length, setting)


def bars(outcomes: Sequence[Outcome]) -> Table:
    """Show what hints and planners are worth, over the links of the grid."""
    made = table(
        f"Tokens a second as shares: texts of {TOKENS} tokens",
        *("model, draft, T, cloud", "accep-\ntance"),
        *("hints,\nmean", "hints,\nleast", "one,\nmean", "one,\nleast"),
        *("hints /\nalone", "planner,\n10 %", "planner\n/ alone"),
        *("rounds,\n10 %", "bytes,\n10 %", "bytes /\nalone"),
    )
    for one in outcomes:
        bar = [r in BAR_RATES and t in BAR_TRIPS for r, t in one.links]
        alone, hinted, without = one.speed(ALONE), one.hinted, one.without
        best = np.maximum(without, hinted.max(0))
        gain, usual = (hinted.max(0) / without)[bar], (hinted[0] / without)[bar]
        planned, few = one.speed(PLANNED), one.speed(BYTES)
        made.add_row(
            one.name,
            f"{one.acceptance:.0%}",
            *(f"{x:.2f}" for x in (gain.mean(), gain.min(), usual.mean(), usual.min())),
            f"{(hinted.max(0) / alone).min():.2f}",
            f"{np.mean(planned >= 0.9 * best):.0%}",
            f"{(planned / alone).min():.2f}",
            f"{np.mean(without >= 0.9 * best):.0%}",
            f"{np.mean(few >= 0.9 * without):.0%}",
            f"{(few / alone).min():.2f}",
        )
    return made


def speeds(one: Outcome) -> Table:
    """Show tokens a second on each link, in each way."""
    names = [ALONE, "raw top-K", "QS", ROUNDS, BYTES]
    made = table(one.name, "bit/s", "ms", *names, "hints", PLANNED)
    for at, (rate, trip) in enumerate(one.links):
        found = [one.speed(name)[at] for name in names]
        found += [one.hinted[:, at].max(), one.speed(PLANNED)[at]]
        cells = [f"{x:.1f}" for x in found]
        made.add_row(f"{rate:,.0f}", f"{1000 * trip:.0f}", *cells)
    return made


def capacities(found: Sequence[Capacity]) -> Table:
    """Show what sessions have of a cloud that they share."""
    made = table(
        "Tokens a second of all sessions that share a cloud",
        *("models, cloud, link", "sessions", ALONE, ROUNDS, "hints"),
    )
    for one in found:
        cells = [f"{x:.0f}" for x in (one.alone, one.rounds, one.hints)]
        made.add_row(one.name, str(one.sessions), *cells)
    return made


def main(argv: list[str] | None = None) -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="in miniature")
    grid = QUICK if parser.parse_args(argv).quick else FULL
    began = time.monotonic()
    with ProcessPoolExecutor() as pool:
        found = pool.map(compare, grid.cases, itertools.repeat(grid))
        shared = pool.map(share, grid.cases[:1], itertools.repeat(grid))
        outcomes = [*itertools.chain.from_iterable(found)]
        console = Console(width=max(130, Console().width))
        console.print(bars(outcomes))
        for one in outcomes:
            if one.name.startswith(SHOWN):
                console.print(speeds(one))
        console.print(capacities([*itertools.chain.from_iterable(shared)]))
    console.print(
        dim(
            "hints: of the best setting over the better of rounds and the cloud alone, "
            "from 10 kbit/s to 1 Mbit/s and with 20 and 100 ms; one: of the setting "
            "that the planner has; / alone: the least over the whole grid; 10 %: the "
            "share of the links on which a planner that knows nothing, or the better "
            "of rounds and the cloud alone, has 0.9 of the best of all, and the "
            "planner for few bytes of the better of rounds and the cloud alone."
        )
    )
    console.print(dim(about_line({**about(), "seconds": time.monotonic() - began})))


if __name__ == "__main__":
    main()
