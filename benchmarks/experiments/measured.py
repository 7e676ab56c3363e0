"""Protocols that write the same texts in the real system, and the same simulated.

The rows of both models are recorded in files, and given to a real edge and a real
server by `system`. Before that, each plan is simulated, and the same drafts are
accepted as will be in the real system: so a difference between the two is one of time.
Of chance there is only the jitter, drawn anew on both, and trips that take four times
as long, which only the simulation has.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import sqs_codec as sqs
from benchmarks.experiments import system
from benchmarks.experiments.experiment import Options, Records
from benchmarks.experiments.models import Models, load
from benchmarks.experiments.simulated import (
    CLOUD_ALONE,
    OURS,
    PLANNER,
    TOKENS,
    Floats,
    Grid,
    Position,
    as_drafts,
    bits_of,
    joined,
    planner_of,
    run_of,
    words,
)
from benchmarks.experiments.traces import traces
from benchmarks.harness.recorded import RecordedDraft, RecordedVerifier
from benchmarks.planner.__main__ import STEPS, plans
from benchmarks.planner.simulate import JITTER, Drafts, Run, Steps
from benchmarks.relay import Link
from sqs_codec.edge import FixedPlan, Planner, default_settings
from sqs_codec.hf._models import ModelError
from sqs_codec.session import Setting
from sqs_codec.session._wire import Context

TEXTS, QUICK_TEXTS = 3, 1

QUICK_TOKENS = 16

TEMPERATURE = 0.7

CLOUD = "slow"
"""With the fast one drafting gains next to nothing, whoever drafts."""

SESSIONS, QUICK_SESSIONS = 8, 4
"""Pairs of an edge and a server at once. With V = 49 152 twelve take two thirds of one
core, and eight a core take their time within 1 % of one alone."""

Told = dict[str, float]
"""Seconds and bytes up and down of a text, as simulated."""


@dataclass(frozen=True)
class Candidate:
    """A plan to measure; without one, a planner."""

    name: str
    plan: FixedPlan | None


class Recorded(NamedTuple):
    """A text for the real system; what it drafts there, by setting."""

    text: system.Text
    drafts: dict[str, Drafts]


def measure(options: Options, grid: Grid) -> Records:
    """Write texts over each link: by the cloud alone, the best plan and a planner.

    A planner goes from text to text; at the first it knows nothing.
    """
    models = load(options, options.model)
    settings = default_settings(models.vocab_size, models.prior)
    texts = [
        replay(text, settings, [options.seed, number])
        for number, text in enumerate(recorded(options, models))
    ]
    cases: dict[str, dict[str, Any]] = {}
    cells = []
    for at, each in enumerate(chosen(settings, texts, grid, options.seed)):
        rate, trip = map(float, grid.links[:, at])
        for one, told in each:
            key = f"{rate:g} bit/s, {trip:g} s: {one.name}"
            case = {"rate": rate, "trip": trip, "plan": one.name, "simulated": told}
            cases[key] = case
            link = Link(rate, trip, jitter=JITTER)
            cells.append(_cell(key, link, texts, settings, one.plan, options.seed))
    sessions = QUICK_SESSIONS if options.quick else SESSIONS
    played = {one["key"]: one["texts"] for one in system.play_all(cells, sessions)}
    return [
        record for key, case in cases.items() for record in _records(case, played[key])
    ]


def _cell(
    key: str,
    link: Link,
    texts: Sequence[Recorded],
    settings: Sequence[Setting],
    plan: FixedPlan | None,
    seed: int,
) -> system.Cell:
    return system.Cell(
        key,
        link,
        tuple(text.text for text in texts),
        tokens_of(texts),
        tuple(settings),
        plan,
        STEPS[CLOUD],
        TEMPERATURE,
        seed,
    )


def _records(case: dict[str, Any], played: list[dict[str, Any]]) -> Records:
    found = []
    for number, (text, told) in enumerate(zip(played, case["simulated"], strict=True)):
        measured = {name: value for name, value in text.items() if name != "text"}
        ends = {"part": "real", "text": number, "simulated": told}
        found.append({**case, **ends, "measured": measured})
    return found


def chosen(
    settings: Sequence[Setting], texts: Sequence[Recorded], grid: Grid, seed: int
) -> list[list[tuple[Candidate, list[Told]]]]:
    """Simulate all plans, and return for each link those to measure.

    They are the cloud alone, the best plan with drafts, and a planner; each with what
    texts come to.
    """
    alone = Candidate(CLOUD_ALONE, FixedPlan(0))
    drafting = []
    for fixed in plans(len(settings)):
        plan = fixed.plan()
        name = f"{OURS} {plan.length}, {words(settings[plan.setting])}"
        drafting.append(Candidate(name, fixed))
    told = [simulate(one, settings, texts, grid.links, seed) for one in drafting]
    told_alone = simulate(alone, settings, texts, grid.links, seed)
    found = []
    for at, link in enumerate(grid.links.T):
        seconds = [sum(text["seconds"] for text in links[at]) for links in told]
        best = int(np.argmin(seconds))
        planner = Candidate(PLANNER, None)
        (planned,) = simulate(planner, settings, texts, link, seed)
        best_plan = (drafting[best], told[best][at])
        found.append([(alone, told_alone[at]), best_plan, (planner, planned)])
    return found


def simulate(
    one: Candidate,
    settings: Sequence[Setting],
    texts: Sequence[Recorded],
    links: Floats,
    seed: int,
) -> list[list[Told]]:
    """Return seconds and bytes of each text over each of links, [2, links].

    For a planner, which chooses for one link, that is [2].
    """
    runs = []
    planner = planner_of(settings, TEMPERATURE) if one.plan is None else None
    for number, text in enumerate(texts):
        drafts = [text.drafts[words(setting)] for setting in settings]
        run = run_of(links, drafts, STEPS[CLOUD], tokens_of(texts), [seed, number])
        run.prompt(_context_bytes(text.text.prompt, settings[0].codec.vocab_size))
        _write(run, one.plan, planner)
        runs.append(run)
    names = ("seconds", "up", "down")
    found = np.array([[np.ravel(x) for x in (r.now, r.up, r.down)] for r in runs])
    return [
        [dict(zip(names, map(float, text), strict=True)) for text in link]
        for link in np.moveaxis(found, 2, 0)
    ]


def _context_bytes(prompt: Sequence[int], vocab_size: int) -> int:
    """Return how long the message is that tells the cloud a prompt."""
    message = Context(bytes(4), 0, 0, 0, 0, len(prompt), list(prompt))
    return len(message.to_bytes(vocab_size))


def _write(run: Run, plan: FixedPlan | None, planner: Planner | None) -> None:
    """Write a text as the loop does."""
    if planner is not None:
        run.planned(planner)
    elif plan is not None and plan.plan().length:
        run.fixed(plan.plan())
    else:
        run.alone()


def tokens_of(texts: Sequence[Recorded]) -> int:
    """Return the tokens of each text: as many as all of them have."""
    return min(len(drafts.bits) for text in texts for drafts in text.drafts.values())


# Recording


def recorded(options: Options, models: Models) -> list[system.Text]:
    """Record both models over texts, in files of the folder that stay there.

    The last text may be short, as no prompts are left. It is left out if there are
    others, as all have as many tokens as the shortest one.

    Raises
    ------
    ModelError
        The only text has a single token, which needs no draft.
    """
    most, count = (QUICK_TOKENS, QUICK_TEXTS) if options.quick else (TOKENS, TEXTS)
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


def _save(path: Path, rows: np.ndarray) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, rows)
    part.replace(path)


def replay(text: system.Text, settings: Sequence[Setting], seed: list[int]) -> Recorded:
    """Draft and judge each position alone, as the real system will."""
    v, start = settings[0].codec.vocab_size, len(text.prompt)
    draft = RecordedDraft(v, 0.0)
    target = RecordedVerifier(v, Steps(0.0, 0.0, 0.0))
    rows = np.load(text.draft, mmap_mode="r")
    draft.begin(start, rows, [*seed, 0])
    target.begin(start, np.load(text.target, mmap_mode="r"), [*seed, 1])
    found: dict[str, list[Position]] = {words(setting): [] for setting in settings}
    for at in range(len(rows) - 1):
        before = range(start + at)
        for setting in settings:
            row = draft.logits(before)[0]
            q = setting.codec.quantize(row, setting.keep, temperature=TEMPERATURE)
            token = q.sample(draft.rng)
            verdict = target.judge(sqs.Round([q], [token]), start + at, TEMPERATURE)
            bits = bits_of(setting.codec, q, token)
            found[words(setting)].append(Position(verdict.accepted == 1, bits, 0.0))
    return Recorded(text, {name: as_drafts(each) for name, each in found.items()})
