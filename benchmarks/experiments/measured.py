"""Completions in the real system over links: alone, rounds, hints, and the planner.

A real edge and a real server run with recorded rows of both models (`system`). The same
completions are also simulated on a virtual clock.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

import sqs_codec as sqs
from benchmarks.experiments import system
from benchmarks.experiments.experiment import Options, Records
from benchmarks.experiments.models import Models, load
from benchmarks.experiments.traces import Trace, traces
from benchmarks.harness.cells import JITTER, Cell, Text, simulate
from benchmarks.harness.recorded import STEPS
from benchmarks.harness.rounds import of_formats
from benchmarks.schemes import ours
from sqs_codec.system.edge import FixedPlan
from sqs_codec.system.hf import ModelError
from sqs_codec.system.session import Setting
from tests.relay import Link
from tests.world import WorldLink

ALONE, ROUNDS, HINTS, PLANNER = "alone", "rounds", "hints", "planner"

TEXTS, QUICK_TEXTS = 4, 1

TOKENS, QUICK_TOKENS = 96, 16
"""Tokens per completion."""

TEMPERATURE = 0.7

CLOUD = STEPS["slow"]
"""With the fast target, drafts gain almost nothing."""

SESSIONS, QUICK_SESSIONS = 8, 4
"""Parallel pairs of an edge and a server, which mostly sleep."""


class Place(NamedTuple):
    """A link: uplink in bits per second, round-trip time in seconds, and loss."""

    rate: float
    trip: float
    loss: float = 0.0

    def __str__(self) -> str:
        power = 1 if self.rate < 1e6 else 2
        rate = f"{self.rate / 1000**power:g}{'kM'[power - 1]}"
        lost = f", {self.loss:.0%} lost" if self.loss else ""
        return f"{rate}, {1000 * self.trip:g} ms{lost}"


def measure(options: Options, places: Sequence[Place]) -> Records:
    """Generate and simulate completions over each link in each mode.

    A new planner learns from completion to completion.
    """
    models = load(options, options.model)
    settings = tuple(Setting.defaults(models.vocab_size, models.prior))
    texts = tuple(recorded(options, models, QUICK_TEXTS if options.quick else TEXTS))
    tokens = min(map(rows_of, texts))
    cell = Cell("", Link(), texts, tokens, settings, None, CLOUD, TEMPERATURE)
    rounds = of_formats(cell.positions(), [*map(ours, settings)])
    cases, cells = [], []
    for place in places:
        best = rounds.fastest(place.rate, place.trip, CLOUD, WorldLink.overhead)
        link = Link(place.rate, place.trip, jitter=JITTER, loss=place.loss)
        for way, plan, modes in (
            (ALONE, FixedPlan(0), ()),
            (ROUNDS, best, ()),
            (HINTS, None, ("hints",)),
            (PLANNER, None, ("alone", "hints")),
        ):
            one = replace(cell, key=f"{place}: {way}", link=link, plan=plan)
            cells.append(replace(one, modes=modes, seed=options.seed))
            case = {"part": "real", "way": way, "plan": _words(best, settings)}
            cases.append(case | place._asdict())
    sessions = QUICK_SESSIONS if options.quick else SESSIONS
    played = dict(system.play_all(cells, sessions))
    return [
        {**case, **asdict(text), "text": n, "simulated": like.seconds}
        for case, one in zip(cases, cells, strict=True)
        for n, (text, like) in enumerate(
            zip(played[one.key], simulate(one), strict=True)
        )
    ]


def _words(fixed: FixedPlan, settings: Sequence[Setting]) -> str:
    """Describe rounds by their length, K and resolution."""
    plan = fixed.plan()
    setting = settings[plan.setting]
    assert isinstance(setting.keep, sqs.TopK)
    return f"{plan.length}: K={setting.keep.k}, l={setting.codec.resolution}"


# Recording


def recorded(options: Options, models: Models, count: int) -> list[Text]:
    """Record both models' logits for `count` completions, in files of the folder.

    The last completion is left out if it is shorter than the others, because all are
    cut to the shortest one. A single completion with only one token is a ModelError.
    """
    most = QUICK_TOKENS if options.quick else TOKENS
    folder = options.folder / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    parts = traces(options, models.name, TEMPERATURE)
    found: list[Text] = []
    for number, text in enumerate(itertools.islice(joined(parts, most), count)):
        if found and sum(map(len, text)) < most:
            break
        if sum(map(len, text)) < 2:
            raise ModelError("the target's only completion has one token: use others")
        files = folder / f"{number}-draft.npy", folder / f"{number}-target.npy"
        for file, rows in zip(
            files, ([p.draft for p in text], [p.target for p in text]), strict=True
        ):
            _save(file, np.concatenate(rows)[:most])
        found.append(Text(models.prompts[text[0].prompt].tokens, *files))
    return found


def rows_of(text: Text) -> int:
    """Return the number of rows."""
    return len(np.load(text.draft, mmap_mode="r"))


def joined(parts: Iterable[Trace], tokens: int) -> Iterator[list[Trace]]:
    """Join traces to lists with at least `tokens` tokens; the last may have fewer."""
    text: list[Trace] = []
    for part in parts:
        text.append(part)
        if sum(map(len, text)) >= tokens:
            yield text
            text = []
    if text:
        yield text


def _save(path: Path, rows: np.ndarray) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, rows)
    part.replace(path)
