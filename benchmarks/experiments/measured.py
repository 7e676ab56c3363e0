"""Texts in the real system over links: by the cloud alone, rounds, hints, a planner.

The rows of both models are recorded in files, and given to a real edge and a real
server by `system`. Which rounds are the fastest is simulated before that, with drafts
that are accepted as they will be in the real system.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import sqs_codec as sqs
from benchmarks.experiments import system
from benchmarks.experiments.experiment import Options, Records
from benchmarks.experiments.models import Models, load
from benchmarks.experiments.traces import Trace, traces
from benchmarks.harness.recorded import RecordedDraft, RecordedVerifier
from benchmarks.planner.__main__ import STEPS, plans
from benchmarks.planner.simulate import JITTER, Drafts, Run, Steps
from benchmarks.relay import Link
from sqs_codec.system.edge import FixedPlan, default_settings
from sqs_codec.system.hf import ModelError
from sqs_codec.system.serve._datagram.link import DatagramLink
from sqs_codec.system.session import Setting

ALONE, ROUNDS, HINTS, PLANNER = "alone", "rounds", "hints", "planner"

TEXTS, QUICK_TEXTS = 4, 1

TOKENS, QUICK_TOKENS = 96, 16
"""Of a text."""

TEMPERATURE = 0.7

CLOUD = STEPS["slow"]
"""With the fast one drafting gains next to nothing, whoever drafts."""

SESSIONS, QUICK_SESSIONS = 8, 4
"""Pairs of an edge and a server at once, each of which sleeps most of the time."""


class Place(NamedTuple):
    """A link: bits per second to the cloud, seconds of a round trip, and loss."""

    rate: float
    trip: float
    loss: float = 0.0

    def __str__(self) -> str:
        power = 1 if self.rate < 1e6 else 2
        rate = f"{self.rate / 1000**power:g}{'kM'[power - 1]}"
        lost = f", {self.loss:.0%} lost" if self.loss else ""
        return f"{rate}, {1000 * self.trip:g} ms{lost}"


def measure(options: Options, places: Sequence[Place]) -> Records:
    """Write texts over each link in each way.

    A planner goes from text to text; at the first it knows nothing.
    """
    models = load(options, options.model)
    settings = tuple(default_settings(models.vocab_size, models.prior))
    texts = recorded(options, models, QUICK_TEXTS if options.quick else TEXTS)
    tokens = min(map(rows_of, texts))
    drafts = [
        replay(text, settings, [options.seed, n], tokens)
        for n, text in enumerate(texts)
    ]
    cases: dict[str, dict[str, Any]] = {}
    cells = []
    for place in places:
        rounds = best_rounds(drafts, place, options.seed)
        for way, plan, modes in (
            (ALONE, FixedPlan(0), ()),
            (ROUNDS, rounds, ()),
            (HINTS, None, ("hints",)),
            (PLANNER, None, ("alone", "hints")),
        ):
            cell = system.Cell(
                f"{place}: {way}",
                Link(place.rate, place.trip, jitter=JITTER, loss=place.loss),
                tuple(texts),
                tokens,
                settings,
                plan,
                CLOUD,
                TEMPERATURE,
                options.seed,
                modes,
            )
            cells.append(cell)
            case = {"part": "real", "way": way, "plan": _words(rounds, settings)}
            cases[cell.key] = case | place._asdict()
    sessions = QUICK_SESSIONS if options.quick else SESSIONS
    played = {one["key"]: one["texts"] for one in system.play_all(cells, sessions)}
    return [
        {**case, **text, "text": n}
        for key, case in cases.items()
        for n, text in enumerate(played[key])
    ]


def best_rounds(
    texts: Sequence[Sequence[Drafts]], place: Place, seed: int
) -> FixedPlan:
    """Return the rounds that are fastest over texts, if simulated."""

    def seconds(fixed: FixedPlan) -> float:
        total = 0.0
        for number, drafts in enumerate(texts):
            run = Run(
                np.array(place.rate),
                np.array(place.trip),
                CLOUD,
                DatagramLink.overhead,
                drafts,
                np.random.default_rng([seed, number]),
                len(drafts[0].bits) + 1,
                loss=place.loss,
            )
            run.fixed(fixed.plan())
            total += float(run.now)
        return total

    return min(plans(len(texts[0])), key=seconds)


def _words(fixed: FixedPlan, settings: Sequence[Setting]) -> str:
    """Name rounds by their length, K and resolution."""
    plan = fixed.plan()
    setting = settings[plan.setting]
    assert isinstance(setting.keep, sqs.TopK)
    return f"{plan.length}: K={setting.keep.k}, l={setting.codec.resolution}"


# Recording


def recorded(options: Options, models: Models, count: int) -> list[system.Text]:
    """Record both models over so many texts, in files of the folder that stay there.

    The last text may be short, as no prompts are left. It is left out if there are
    others, as all have as many tokens as the shortest one.

    Raises
    ------
    ModelError
        The only text has a single token, which needs no draft.
    """
    most = QUICK_TOKENS if options.quick else TOKENS
    folder = options.folder / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    parts = traces(options, models.name, TEMPERATURE)
    found: list[system.Text] = []
    for number, text in enumerate(itertools.islice(joined(parts, most), count)):
        if found and sum(map(len, text)) < most:
            break
        if sum(map(len, text)) < 2:
            raise ModelError("the target's only text ends at once: nothing to draft")
        files = folder / f"{number}-draft.npy", folder / f"{number}-target.npy"
        for file, rows in zip(
            files,
            ([p.draft for p in text], [p.target for p in text]),
            strict=True,
        ):
            _save(file, np.concatenate(rows)[:most])
        found.append(system.Text(models.prompts[text[0].prompt].tokens, *files))
    return found


def rows_of(text: system.Text) -> int:
    """Return how many rows a text has."""
    return len(np.load(text.draft, mmap_mode="r"))


def joined(parts: Iterable[Trace], tokens: int) -> Iterator[list[Trace]]:
    """Join traces to texts of so many tokens or more; the last may have fewer."""
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


def replay(
    text: system.Text, settings: Sequence[Setting], seed: list[int], tokens: int
) -> list[Drafts]:
    """Draft and judge each position but the last, as the real system will in rounds.

    Returns
    -------
    list of Drafts
        By setting.
    """
    v, start = settings[0].codec.vocab_size, len(text.prompt)
    draft = RecordedDraft(v, 0.0)
    target = RecordedVerifier(v, Steps(0.0, 0.0, 0.0))
    draft.begin(start, np.load(text.draft, mmap_mode="r"), [*seed, 0])
    target.begin(start, np.load(text.target, mmap_mode="r"), [*seed, 1])
    found = []
    for setting in settings:
        accepted, bits = [], []
        for at in range(start, start + tokens - 1):
            row = draft.logits(range(at))[0]
            q = setting.codec.quantize(row, setting.keep, temperature=TEMPERATURE)
            token = q.sample(draft.rng)
            verdict = target.judge(sqs.Round([q], [token]), at, TEMPERATURE)
            accepted.append(verdict.accepted == 1)
            bits.append(setting.codec.bits(q) - np.log2(q.prob(token)))
        found.append(Drafts(np.array(accepted), np.array(bits)))
    return found
