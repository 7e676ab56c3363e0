"""The real system over a link, with models that say what was recorded of real ones.

A server with its sessions and batches, an edge, DTLS datagrams and their packets are
those of `sqs_codec`. Only the models are recordings: they give the rows of a text by
position, whichever tokens are drawn, and take the time that is stated. What is drawn
and judged at a position is decided by numbers of that position, so that all plans have
the same luck.
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

import sqs_codec as sqs
from benchmarks.planner.simulate import Steps
from benchmarks.relay import Link, Relay
from benchmarks.wire.certificates import Issued, issue
from benchmarks.wire.echo import running
from sqs_codec._codec.verify import Verdict, Wanted
from sqs_codec.edge import Edge, FixedPlan, Planner, Step
from sqs_codec.edge._loop import Planning
from sqs_codec.edge._planner import Observation, Plan
from sqs_codec.engine import BatchEngine
from sqs_codec.serve import Service, connect, start_datagrams
from sqs_codec.serve._datagram.link import DatagramLink
from sqs_codec.serve._datagram.server import DatagramServer
from sqs_codec.session import Job, LinkError, Sampling, Setting

__all__ = ["Cell", "RecordedDraft", "RecordedVerifier", "Text", "play", "play_all"]

HOST = "127.0.0.1"

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


@dataclass(frozen=True)
class Played:
    """What came of one text.

    The clock starts when the edge makes its first plan, as the link is there and the
    session open by then, and nothing is left on the uplink; `connecting` and `greeting`
    are what that took. The prompt goes up while the clock runs. All bytes are those of
    IP.

    Attributes
    ----------
    tokens : int
    seconds, first : float
        To the last token and to the first.
    connecting, greeting : float
        Seconds of the DTLS handshake, and of the session's.
    rounds, drafted, accepted : int
        Rounds with drafts, their tokens, and how many of them were accepted.
    bytes_up, bytes_down : int
        While the clock ran.
    setup_up, setup_down : int
        Before.
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
    connecting: float
    greeting: float
    rounds: int
    drafted: int
    accepted: int
    bytes_up: int
    bytes_down: int
    setup_up: int
    setup_down: int
    late: float
    reason: str
    text: list[int]


class RecordedDraft:
    """A draft model that gives recorded rows, a step in so many seconds.

    Parameters
    ----------
    vocab_size : int
    seconds : float
        What a step takes; no less than it takes to read the row.

    Attributes
    ----------
    late : float
        Seconds by which steps took longer so far.
    rng : numpy.random.Generator
        To draw the drafted tokens from: set anew before each row is given, by seed,
        text and position.
    """

    stop: frozenset[int] = frozenset()
    fingerprint = b""

    def __init__(self, vocab_size: int, seconds: float) -> None:
        self.vocab_size = vocab_size
        self.late = 0.0
        self.rng = np.random.default_rng()
        self._seconds = seconds

    def begin(self, prompt: int, rows: NDArray[np.floating], seed: list[int]) -> None:
        """Take the rows that follow a prompt of so many tokens."""
        self._prompt, self._rows, self._seed = prompt, rows, seed

    def logits(self, tokens: Sequence[int]) -> NDArray[np.floating]:
        """Return the row after a text, [1, V]."""
        end = time.monotonic() + self._seconds
        at = len(tokens) - self._prompt
        row = np.array(self._rows[at : at + 1])
        bits = np.random.PCG64([*self._seed, at])
        self.rng.bit_generator.state = bits.state
        self.late += _sleep_until(end)
        return row


class RecordedVerifier:
    """A `Verifier` over recorded rows, which takes the seconds of `steps`.

    A round is really verified, by `sqs.verify_batch`, but the numbers that judge it
    are those of its positions in place of the session's. To read a prompt takes no
    time.

    Parameters
    ----------
    vocab_size : int
    steps : Steps

    Attributes
    ----------
    late : float
        Seconds by which steps took longer so far.
    """

    max_text = 1 << 20

    def __init__(self, vocab_size: int, steps: Steps) -> None:
        self.vocab_size = vocab_size
        self.late = 0.0
        self._steps = steps

    def begin(self, prompt: int, rows: NDArray[np.floating], seed: list[int]) -> None:
        """Take the rows that follow a prompt of so many tokens."""
        self._prompt, self._rows = prompt, rows
        self._numbers = np.random.default_rng(seed).random(len(rows))

    def verify(self, jobs: Sequence[Job]) -> list[Verdict | Wanted | None]:
        """Return the verdict on each job, None where there was nothing to verify."""
        began = time.monotonic()
        found = [self._judge(job) if job.draws.size else None for job in jobs]
        if tokens := sum(job.draws.size for job in jobs):
            self.late += _sleep_until(began + self._steps.verify(tokens))
        return found

    def forget(self, session: bytes) -> None:
        """Keep what is recorded."""

    def _judge(self, job: Job) -> Verdict | Wanted:
        start = len(job.text) - self._prompt
        part = slice(start, start + job.draws.size)
        rows = _softmax(self._rows[part], job.sampling.temperature)
        return sqs.verify_batch([job.round_], rows, self._numbers[part])[0]


def _softmax(rows: NDArray[np.floating], temperature: float) -> NDArray[np.float32]:
    """Return the probabilities of logits [n, V]."""
    if temperature == 0:
        found = np.zeros(rows.shape, np.float32)
        found[np.arange(len(rows)), rows.argmax(axis=1)] = 1
        return found
    rows = np.asarray(rows, np.float32)
    weights = np.exp((rows - rows.max(axis=1, keepdims=True)) / temperature)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _sleep_until(end: float) -> float:
    """Sleep, and return by how many seconds it became later."""
    time.sleep(max(0.0, end - time.monotonic()))
    return time.monotonic() - end


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


class _Server:
    """A server of recorded models, as `sqs serve` runs one."""

    def __init__(self, verifier: RecordedVerifier, cell: Cell, issued: Issued) -> None:
        self._engine = BatchEngine(verifier)
        self._steps = {n: cell.steps.verify(n) for n in (1, 6)}
        self._issued = issued

    async def start(self) -> _Server:
        """Start it."""
        info = await self._engine.open()
        self._service = Service(self._engine, info, tokens=None, steps=self._steps)
        await self._service.start()
        self._datagrams: DatagramServer = await start_datagrams(
            self._service, HOST, 0, cert=self._issued.cert, key=self._issued.key
        )
        return self

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._datagrams.port

    async def stop(self, grace: float) -> None:
        """Stop it."""
        await self._service.stop(grace)
        await self._datagrams.stop(grace)
        await self._engine.close()


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
        watched, before = _Watched(self.planner, self), self.read()
        address = f"{HOST}:{self.relay.port}"
        link = connect(
            address, transport="datagram", cert=self.cert, timeout=CONNECTING_SECONDS
        )
        connected = self.read()
        edge = Edge(
            self.draft, settings=cell.settings, planner=watched, rng=self.draft.rng
        )
        steps, readings = [], []
        sampling = Sampling(cell.temperature)
        for step in edge.generate(
            text.prompt, link, max_tokens=cell.tokens, sampling=sampling
        ):
            readings.append(self.read())
            steps.append(step)
        assert watched.began is not None
        return _played(steps, [before, connected, watched.began, *readings])

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


def _played(steps: Sequence[Step], readings: Sequence[_Reading]) -> Played:
    """Sum up a text, of which steps and readings are known.

    The first three readings are those before it, of the link and of the first plan;
    then there is one of each step.
    """
    before, connected, began, first, *_ = readings
    setup, whole = began.since(before), readings[-1].since(began)
    text = [token for step in steps for token in step.tokens]
    return Played(
        tokens=len(text),
        seconds=whole.at,
        first=first.at - began.at,
        connecting=connected.at - before.at,
        greeting=began.at - connected.at,
        rounds=sum(step.drafted > 0 for step in steps),
        drafted=sum(step.drafted for step in steps),
        accepted=sum(step.accepted for step in steps),
        bytes_up=whole.up,
        bytes_down=whole.down,
        setup_up=setup.up,
        setup_down=setup.down,
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
    )
    with tempfile.TemporaryDirectory() as folder:
        issued = issue(Path(folder), HOST)
        with (
            running(_Server(verifier, cell, issued).start) as server,
            Relay(server.port, cell.link, cell.seed) as relay,
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
