"""Compare the planner with the best fixed plan, on simulated links.

    python -m benchmarks.planner                      # three minutes

For each link of a grid and each text, three ways to make `TOKENS` tokens are
simulated: by the planner, which has seen nothing but the handshake; by each of the
plans that it chooses from, all the time, of which the one that is fastest over all
texts counts; and by the cloud alone. The session is open when the clock starts.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import sqs_codec as sqs
from benchmarks.planner.simulate import TOKENS, Run, Steps, World
from benchmarks.sources import Source, shipped
from benchmarks.tables import about, about_line, dim, table
from sqs_codec.edge import FixedPlan, Planner, default_settings
from sqs_codec.edge._costs import LENGTHS
from sqs_codec.session import Sampling

RATES = (2e3, 5e3, 1e4, 3e4, 1e5, 1e6, 1e7, 1e8)
TRIPS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.3)
OVERHEAD = 166  # of gRPC
ROWS = 600
TEMPERATURES = (0.7, 1.0)

STEPS = {
    "fast": Steps(0.015, 0.030, 0.0015),
    "slow": Steps(0.015, 0.120, 0.006),
}
"""Seconds: a drafted token; the target for one token and for each more."""

NOISE = 0.8
"""Deviation of what makes a target's logits of Gemma's: a mismatch like SmolLM2's."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """Seconds for all texts, [links], and what they were compared on.

    Attributes
    ----------
    name : str
    acceptance : float
        Of the best setting.
    planned, again, best, alone : ndarray
        By a planner that knows nothing, by one that has seen another text, by the
        best plan, by the cloud alone.
    worst : float
        The cloud's time alone over the planner's, for the worst text and link.
    """

    name: str
    acceptance: float
    planned: Floats
    again: Floats
    best: Floats
    alone: Floats
    worst: float


def worlds() -> Iterator[tuple[str, World, Sampling]]:
    """Quantize the rows of each pair of models at each temperature."""
    for name, model, noise in (
        ("SmolLM2", "smollm2", 0.0),
        ("Gemma noise", "gemma3", NOISE),
        ("Gemma itself", "gemma3", 0.0),
    ):
        source = shipped(model).first(ROWS)
        source = Source(
            source.summary, source.vocab_size, source.sessions, sqs.Prior.builtin(model)
        )
        for t in TEMPERATURES:
            settings = default_settings(source.vocab_size, source.prior)
            world = World.of(source, settings, t, noise)
            yield f"{name} {t:g}", world, Sampling(t)


def compare(
    name: str,
    world: World,
    planner: Planner,
    steps: Steps,
    texts: int,
    rates: Sequence[float] = RATES,
    trips: Sequence[float] = TRIPS,
) -> Outcome:
    """Simulate all three ways on all links of a grid."""
    links = np.array([(r, t) for r in rates for t in trips]).T
    drafts = [world.text(seed) for seed in range(texts)]

    def run(seed: int, link: Floats) -> Run:
        rng = np.random.default_rng(seed)
        return Run(link[0], link[1], steps, OVERHEAD, drafts[seed], rng)

    alone, planned, again = np.zeros((3, texts, links.shape[1]))
    fixed = []
    for plan in plans(len(world.settings)):
        runs = [run(seed, links) for seed in range(texts)]
        for one in runs:
            one.fixed(plan.plan())
        fixed.append(sum(one.now for one in runs))
    for seed in range(texts):
        cloud = run(seed, links)
        cloud.alone()
        alone[seed] = cloud.now
        for at, link in enumerate(links.T):
            learner = copy.deepcopy(planner)
            for times, n in ((planned, seed), (again, (seed + 1) % texts)):
                one = run(n, link)
                one.planned(learner)
                times[n, at] = one.now
    return Outcome(
        name,
        acceptance=max(world.acceptance),
        planned=planned.sum(0),
        again=again.sum(0),
        best=np.min([*fixed, alone.sum(0)], axis=0),
        alone=alone.sum(0),
        worst=float(min((alone / planned).min(), (alone / again).min())),
    )


def plans(settings: int) -> Iterator[FixedPlan]:
    """Yield each plan that the planner chooses from."""
    for length, setting in itertools.product(LENGTHS, range(settings)):
        yield FixedPlan(length, setting)


def show(outcomes: Sequence[Outcome], console: Console, texts: int) -> None:
    """Print a table."""
    links = len(RATES) * len(TRIPS)
    made = table(
        f"The planner on {links} links, {texts} texts of {TOKENS} tokens each",
        *("model, T, cloud", "accep-\ntance", "within\n10 %", "second\ntext"),
        *("best,\nmean", "cloud,\nleast", "worst\ntext", "cloud,\nmost"),
    )
    for one in outcomes:
        share, alone = one.best / one.planned, one.alone / one.planned
        made.add_row(
            one.name,
            f"{one.acceptance:.0%}",
            f"{np.mean(share >= 0.9):.0%}",
            f"{np.mean(one.best / one.again >= 0.9):.0%}",
            *(f"{x:.2f}" for x in (share.mean(), alone.min(), one.worst, alone.max())),
        )
    console.print(made)
    console.print(
        dim(
            "within 10 %: the share of the links on which the planner has 0.9 of the "
            "tokens per second of the best fixed plan in hindsight; second text: the "
            "same where the planner has seen a text before; best, cloud: its "
            "tokens per second over that plan's, over the cloud's alone; worst text: "
            "the least of a single text. Gemma 3 has no target of its own: noise "
            "makes one of the draft's logits, or the draft itself is the target."
        )
    )


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--texts", type=int, default=3, help="(default: %(default)s)")
    args = parser.parse_args()
    began = time.monotonic()
    outcomes = []
    for name, world, sampling in worlds():
        planner = Planner(world.settings, sampling=sampling, overhead=OVERHEAD)
        for cloud, steps in STEPS.items():
            full = f"{name} {cloud}"
            outcomes.append(compare(full, world, planner, steps, args.texts))
    console = Console()
    show(outcomes, console, args.texts)
    console.print(dim(about_line({**about(), "seconds": time.monotonic() - began})))


if __name__ == "__main__":
    main()
