"""The real system over a link, with models that say what was recorded of real ones.

A server with its sessions and batches, an edge, DTLS datagrams and their packets are
those of `sqs_codec`. Only the models are recordings (`benchmarks.harness.recorded`).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.recorded import RecordedDraft, RecordedVerifier
from benchmarks.harness.serving import HOST, served
from benchmarks.planner.simulate import Steps
from benchmarks.relay import Link, Relay
from benchmarks.wire.certificates import issue
from sqs_codec.system.edge import (
    Edge,
    FixedPlan,
    Observation,
    Plan,
    Planner,
    Planning,
    Step,
)
from sqs_codec.system.engine import BatchEngine
from sqs_codec.system.serve import connect
from sqs_codec.system.serve._datagram.link import DatagramLink
from sqs_codec.system.session import LinkError, Sampling, Setting

CONNECTING_SECONDS = 90.0
"""How long the DTLS handshake may take: its 2 kB take 8 s at 2 kbit/s, and more where
it is repeated."""


@dataclass(frozen=True)
class Text:
    """A text that was recorded.

    Attributes
    ----------
    prompt : tuple of int
    draft, target : Path
        Files of arrays [n, V], float32 or float16: the logits of both models, row i
        those for the token number i after the prompt.
    """

    prompt: tuple[int, ...]
    draft: Path
    target: Path


@dataclass(frozen=True)
class Cell:
    """Texts to write over one link by one plan, one after the other.

    Attributes
    ----------
    key : str
        Names it in what comes of it.
    link : Link
    texts : tuple of Text
    tokens : int
        Of each text, no more than its rows.
    settings : tuple of Setting
    plan : FixedPlan or None
        With None a `Planner` chooses, which learns from text to text.
    steps : Steps
        Seconds of both models.
    temperature : float
    seed : int
    modes : sequence of str
        Which the planner chooses from. Rounds have to be planned: their texts depend
        on more than the seed.
    """

    key: str
    link: Link
    texts: tuple[Text, ...]
    tokens: int
    settings: tuple[Setting, ...]
    plan: FixedPlan | None
    steps: Steps
    temperature: float = 0.7
    seed: int = 0
    modes: tuple[str, ...] = ("alone", "hints")

    @property
    def in_rounds(self) -> bool:
        """Whether the texts come in rounds."""
        return self.plan is not None and self.plan.plan().length > 0


@dataclass(frozen=True)
class Played:
    """What came of one text.

    The clock starts when the edge makes its first plan, as the link is there and the
    session open by then, and nothing is left on the uplink. The prompt goes up while
    the clock runs. All bytes are those of IP.

    Attributes
    ----------
    tokens : int
    seconds, first : float
        To the last token and to the first.
    passes, rows, drafted, accepted : int
        Passes of the target, rows of the draft, tokens that were drafted or guessed,
        and how many of them were accepted or right.
    bytes_up, bytes_down : int
        While the clock ran.
    late : float
        Seconds by which the link's datagrams and the models' steps came later than
        stated, because this machine had no time; their sum.
    reason : str
        The planner's last one.
    text : list of int
    """

    tokens: int
    seconds: float
    first: float
    passes: int
    rows: int
    drafted: int
    accepted: int
    bytes_up: int
    bytes_down: int
    late: float
    reason: str
    text: list[int]


class _Reading(NamedTuple):
    """The clock and the counters at a moment."""

    at: float
    up: int
    down: int
    late: float

    def since(self, early: _Reading) -> _Reading:
        """Return what has passed."""
        return _Reading(
            self.at - early.at,
            self.up - early.up,
            self.down - early.down,
            self.late - early.late,
        )


class _Watched:
    """A planner, and what is read when it is first asked in a text.

    It isn't asked before the uplink is free of what was sent twice to open the session.
    """

    def __init__(self, planner: Planning, system: _System) -> None:
        self._planner, self._system = planner, system
        self.began: _Reading | None = None

    def plan(self) -> Plan:
        """Return what to do next."""
        if self.began is None:
            time.sleep(self._system.relay.busy)
            self.began = self._system.read()
        return self._planner.plan()

    def observe(self, observation: Observation) -> None:
        """Learn what came of it."""
        self._planner.observe(observation)


@dataclass
class _System:
    """An edge and a server with a link between them."""

    cell: Cell
    draft: RecordedDraft
    verifier: RecordedVerifier
    planner: Planning
    relay: Relay
    cert: Path

    def write(self, number: int) -> Played:
        """Write one of the cell's texts."""
        cell, text = self.cell, self.cell.texts[number]
        self._open(text, number)
        watched = _Watched(self.planner, self)
        address = f"{HOST}:{self.relay.port}"
        link = connect(
            address, transport="datagram", cert=self.cert, timeout=CONNECTING_SECONDS
        )
        edge = Edge(
            self.draft, settings=cell.settings, planner=watched, rng=self.draft.rng
        )
        steps, readings, rows = [], [], self.draft.rows
        for step in edge.generate(
            text.prompt,
            link,
            max_tokens=cell.tokens,
            sampling=Sampling(cell.temperature),
            seed=None if cell.in_rounds else cell.seed,
        ):
            readings.append(self.read())
            steps.append(step)
        assert watched.began is not None
        return _played(steps, [watched.began, *readings], self.draft.rows - rows)

    def read(self) -> _Reading:
        """Read the clock and the counters."""
        late = self.relay.late + self.draft.late + self.verifier.late
        return _Reading(time.monotonic(), *self.relay.bytes, late)

    def _open(self, text: Text, number: int) -> None:
        prompt, seed = len(text.prompt), [self.cell.seed, number]
        self.draft.begin(prompt, self._rows(text.draft), [*seed, 0])
        self.verifier.begin(prompt, self._rows(text.target), [*seed, 1])

    def _rows(self, file: Path) -> NDArray[np.floating]:
        rows: NDArray[np.floating] = np.load(file, mmap_mode="r")
        if len(rows) < self.cell.tokens:
            raise ValueError(
                f"{file} has {len(rows)} rows, and texts have {self.cell.tokens} tokens"
            )
        return rows


def _played(steps: Sequence[Step], readings: Sequence[_Reading], rows: int) -> Played:
    """Sum up a text, of which steps and readings are known.

    The first reading is that of the first plan; then there is one of each step.
    """
    began, first, *_ = readings
    whole = readings[-1].since(began)
    text = [token for step in steps for token in step.tokens]
    return Played(
        tokens=len(text),
        seconds=whole.at,
        first=first.at - began.at,
        passes=len(steps),
        rows=rows,
        drafted=sum(step.drafted for step in steps),
        accepted=sum(step.accepted for step in steps),
        bytes_up=whole.up,
        bytes_down=whole.down,
        late=whole.late,
        reason=steps[-1].reason,
        text=text,
    )


def play(cell: Cell) -> dict[str, Any]:
    """Write the texts of a cell.

    Returns
    -------
    dict
        ``key``, the cell's, and ``texts``: a `Played` of each, as a dict.
    """
    draft = RecordedDraft(cell.settings[0].codec.vocab_size, cell.steps.draft)
    verifier = RecordedVerifier(draft.vocab_size, cell.steps)
    planner = cell.plan or Planner(
        cell.settings,
        sampling=Sampling(cell.temperature),
        overhead=DatagramLink.overhead,
        modes=cell.modes,
    )
    with tempfile.TemporaryDirectory() as folder:
        issued = issue(Path(folder), HOST)
        steps = {n: cell.steps.verify(n) for n in (1, 6)}
        engine = BatchEngine(verifier)
        with (
            served(engine, "datagram", issued, steps) as port,
            Relay(port, cell.link, cell.seed) as relay,
        ):
            system = _System(cell, draft, verifier, planner, relay, issued.cert)
            texts = [asdict(system.write(i)) for i in range(len(cell.texts))]
    return {"key": cell.key, "texts": texts}


def play_all(cells: Sequence[Cell], workers: int) -> Iterator[dict[str, Any]]:
    """Write the texts of many cells; yield what `play` returns, as they are done.

    Parameters
    ----------
    cells : sequence of Cell
        They begin in this order, the first ones when all workers are there.
    workers : int
        How many cells to have at work at once. A cell sleeps nearly all of the time.

    Raises
    ------
    LinkError
        A cell's link doesn't work; it says which cell.
    """
    if not cells:
        return
    workers = min(workers, len(cells))
    context = get_context("spawn")
    barrier = context.Barrier(workers)
    pool = ProcessPoolExecutor(workers, context, barrier.wait)
    try:
        playing = {pool.submit(play, cell): cell.key for cell in cells}
        for done in as_completed(playing):
            try:
                yield done.result()
            except LinkError as error:
                raise LinkError(f"{playing[done]}: {error}") from error
    finally:
        pool.shutdown(cancel_futures=True)
