"""Completions over a link and their results, on a real or a virtual clock.

`benchmarks.experiments.system` runs them with a real server over a real socket;
`simulate` runs them here on a virtual clock.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from benchmarks.harness.recorded import RecordedDraft, RecordedVerifier
from benchmarks.schemes import Row
from sqs_codec import Sampling
from sqs_codec.system import edge
from sqs_codec.system.edge._seed import seed_of
from sqs_codec.system.session import EdgeSession, Setting
from tests.relay import Link
from tests.world import Cloud, Steps, World, WorldLink, ways

JITTER = 0.1
"""The default jitter of a link."""


@dataclass(frozen=True)
class Text:
    """A recorded completion: files with both models' logits [n, V].

    Row i predicts token i after the prompt, in float32 or float16.
    """

    prompt: tuple[int, ...]
    draft: Path
    target: Path


@dataclass(frozen=True)
class Cell:
    """Completions over one link with one plan, generated one after the other."""

    key: str
    """The name in results."""
    link: Link
    texts: tuple[Text, ...]
    tokens: int
    """Tokens per completion, at most its rows."""
    settings: tuple[Setting, ...]
    plan: edge.FixedPlan | None
    """None: a `Planner` chooses, and keeps learning between completions."""
    steps: Steps
    """Seconds of both models."""
    temperature: float = 0.7
    seed: int = 0
    modes: tuple[str, ...] = ("alone", "hints")
    """The planner's choice. Completions with rounds depend on more than the seed."""
    prefer: Literal["speed", "bytes"] = "speed"
    """What the planner optimizes."""

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.settings[0].codec.vocab_size

    @property
    def sampling(self) -> Sampling:
        """The sampling of all completions."""
        return Sampling(self.temperature)

    @property
    def in_rounds(self) -> bool:
        """Whether rounds are possible."""
        if self.plan is None:
            return "rounds" in self.modes
        return self.plan.plan().length > 0

    def planner(self) -> edge.Planning:
        """Return the plan, or a new planner."""
        if self.plan is not None:
            return self.plan
        return edge.Planner(self.settings, modes=self.modes, prefer=self.prefer)

    def rows(self, file: Path) -> NDArray[np.floating]:
        """Return a model's logits for a completion."""
        rows: NDArray[np.floating] = np.load(file, mmap_mode="r")
        if len(rows) < self.tokens:
            raise ValueError(
                f"{file} has {len(rows)} rows, but {self.tokens} tokens are needed"
            )
        return rows

    def positions(self) -> Iterator[Row]:
        """Yield both models' logits at each position of the completions."""
        for text in self.texts:
            pairs = zip(self.rows(text.draft), self.rows(text.target), strict=True)
            for pair in itertools.islice(pairs, self.tokens):
                yield Row(*pair, self.temperature)


@dataclass(frozen=True)
class Played:
    """The measurements of one completion.

    The clock starts at the edge's first plan. At this time the session is open and the
    uplink is free; the prompt is sent while the clock runs. Bytes include IP headers.
    """

    tokens: int
    seconds: float
    passes: int
    """Forward passes of the target."""
    rows: int
    """Steps of the draft."""
    drafted: int
    """Tokens drafted or hinted."""
    accepted: int
    """Tokens of those that were accepted."""
    bytes_up: int
    bytes_down: int
    late: float
    """The total delay of datagrams and model steps because this machine was busy, in
    seconds."""
    text: list[int]


class Reading(NamedTuple):
    """The clock and the counters at a moment."""

    at: float
    up: int
    down: int
    late: float

    def since(self, early: Reading) -> Reading:
        """Return the differences from an earlier reading."""
        return Reading(*(a - b for a, b in zip(self, early, strict=True)))


class System(Protocol):
    """An edge that generates completions with a cloud."""

    draft: RecordedDraft
    verifier: RecordedVerifier

    def read(self) -> Reading:
        """Read the clock and the counters."""

    def settle(self) -> None:
        """Wait until the uplink is free."""

    def steps(self, text: Text, planner: edge.Planning) -> Iterator[edge.Step]:
        """Generate a completion."""


class _Watched:
    """A planner that reads the clock at its first plan of a completion.

    Before this plan, it waits until the uplink is free of the opening messages.
    """

    def __init__(self, planner: edge.Planning, system: System) -> None:
        self._planner, self._system = planner, system
        self.began: Reading | None = None

    def plan(self) -> edge.Plan:
        """Return what to do next."""
        if self.began is None:
            self._system.settle()
            self.began = self._system.read()
        return self._planner.plan()

    def begin(self, handshake: edge._planner.Handshake) -> None:
        """Pass on the handshake before a completion."""
        self._planner.begin(handshake)

    def learn(self, step: edge.Step) -> None:
        """Learn from a step."""
        self._planner.learn(step)


def write(cell: Cell, system: System) -> Iterator[Played]:
    """Generate the completions of a cell."""
    planner = cell.planner()
    for number, text in enumerate(cell.texts):
        prompt, seed = len(text.prompt), [cell.seed, number]
        system.draft.begin(prompt, cell.rows(text.draft), [*seed, 0])
        system.verifier.begin(prompt, cell.rows(text.target), [*seed, 1])
        watched, rows = _Watched(planner, system), system.draft.rows
        steps, readings = [], []
        for step in system.steps(text, watched):
            readings.append(system.read())
            steps.append(step)
        assert watched.began is not None
        yield _played(steps, [watched.began, *readings], system.draft.rows - rows)


def _played(
    steps: Sequence[edge.Step], readings: Sequence[Reading], rows: int
) -> Played:
    """Sum up a completion; the first reading is before its first step."""
    whole = readings[-1].since(readings[0])
    text = [token for step in steps for token in step.tokens]
    return Played(
        tokens=len(text),
        seconds=whole.at,
        passes=len(steps),
        rows=rows,
        drafted=sum(step.drafted for step in steps),
        accepted=sum(step.accepted for step in steps),
        bytes_up=whole.up,
        bytes_down=whole.down,
        late=whole.late,
        text=text,
    )


# On a virtual clock


class _Session(EdgeSession):
    """A session that caches guesses: a completion has the same rows each time."""

    known: ClassVar[dict[tuple[Path, bytes, int, int], sqs.Guesses]] = {}
    rows: Path

    def guess(self, logits: Any, position: int, count: int = 1) -> sqs.Guesses:
        """Return the tokens that the cloud may sample."""
        at = self.rows, self._seed, position, count
        if at not in self.known:
            self.known[at] = super().guess(logits, position, count)
        self._known = max(self._known, position + 1)
        return self.known[at]


class _Virtual:
    """An edge of a world, and its link to a cloud."""

    def __init__(
        self, cell: Cell, world: World, cloud: Cloud, verifier: RecordedVerifier
    ) -> None:
        self._cell, self._world, self._cloud = cell, world, cloud
        seconds, v = cell.steps.draft, cell.vocab_size
        self.draft = RecordedDraft(v, seconds, world, world.compute)
        self.verifier = verifier
        self._up, self._down = ways(cell.link, cell.seed)

    def read(self) -> Reading:
        """Read the clock and the counters."""
        return Reading(self._world.now, self._up.bytes, self._down.bytes, 0.0)

    def settle(self) -> None:
        """Wait until the uplink is free."""
        self._world.sleep(max(0.0, self._up.free - self._world.now))

    def steps(self, text: Text, planner: edge.Planning) -> Iterator[edge.Step]:
        """Generate a completion like `Edge`."""
        cell, world = self._cell, self._world
        link = WorldLink(world, self._cloud, self._up, self._down)
        session = _Session(
            cell.settings,
            text.prompt,
            rng=self.draft.rng,
            sampling=cell.sampling,
            max_message=link.max_message,
            seed=seed_of(cell.seed, text.prompt),
            rounds=cell.in_rounds,
        )
        session.rows = text.draft
        return edge.generate(
            session,
            self.draft,
            link,
            planner,
            max_tokens=cell.tokens,
            clock=world,
            sleep=world.sleep,
        )


def simulate(cell: Cell) -> list[Played]:
    """Generate the completions of a cell on a virtual clock."""
    world, verifier = World(), RecordedVerifier(cell.vocab_size)
    cloud = Cloud(world, verifier, cell.steps)
    return [*write(cell, _Virtual(cell, world, cloud, verifier))]
