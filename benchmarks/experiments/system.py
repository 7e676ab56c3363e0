"""The real system over a link, with models that replay recordings.

The server, its sessions and batches, the edge, and the DTLS datagrams are those of
`sqs_codec`. Only the models are recordings (`benchmarks.harness.recorded`).
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from benchmarks.harness.cells import Cell, Played, Reading, Text, write
from benchmarks.harness.recorded import RecordedDraft, TimedVerifier
from benchmarks.harness.serving import HOST, served
from sqs_codec.system.edge import Edge, Planning, Step
from sqs_codec.system.engine import BatchEngine
from sqs_codec.system.serve import Certificate, connect
from sqs_codec.system.session import LinkError
from tests.certificates import issue
from tests.relay import Relay

CONNECTING_SECONDS = 90.0
"""The limit on the DTLS handshake. Its 2 kB take 8 s at 2 kbit/s, more with repeats."""


class _Real:
    """An edge and a server with a link between them."""

    def __init__(
        self, cell: Cell, verifier: TimedVerifier, relay: Relay, cert: Path
    ) -> None:
        self._cell, self._relay, self._cert = cell, relay, cert
        self.draft = RecordedDraft(cell.vocab_size, cell.steps.draft)
        self.verifier = verifier

    def read(self) -> Reading:
        """Read the clock and the counters."""
        late = self._relay.late + self.draft.late + self.verifier.late
        return Reading(time.monotonic(), *self._relay.bytes, late)

    def settle(self) -> None:
        """Wait until the uplink is free."""
        time.sleep(self._relay.busy)

    def steps(self, text: Text, planner: Planning) -> Iterator[Step]:
        """Generate a completion."""
        cell = self._cell
        link = connect(
            f"{HOST}:{self._relay.port}",
            transport="datagram",
            security=Certificate(self._cert),
            timeout=CONNECTING_SECONDS,
        )
        edge = Edge(
            self.draft, settings=cell.settings, planner=planner, rng=self.draft.rng
        )
        return edge.generate(
            text.prompt,
            link,
            max_tokens=cell.tokens,
            sampling=cell.sampling,
            seed=None if cell.in_rounds else cell.seed,
        )


def play(cell: Cell) -> list[Played]:
    """Generate the completions of a cell."""
    verifier = TimedVerifier(cell.vocab_size, cell.steps)
    with tempfile.TemporaryDirectory() as folder:
        issued = issue(Path(folder), HOST)
        engine = BatchEngine(verifier)
        with (
            served(engine, "datagram", issued, cell.steps.told) as port,
            Relay(port, cell.link, cell.seed) as relay,
        ):
            return [*write(cell, _Real(cell, verifier, relay, issued.cert))]


def play_all(cells: Sequence[Cell], workers: int) -> Iterator[tuple[str, list[Played]]]:
    """Generate the completions of many cells; yield each cell's key and results.

    Workers take one cell at a time, and mostly sleep. A LinkError names the cell.
    """
    pool = ProcessPoolExecutor(workers, get_context("spawn"))
    try:
        playing = {pool.submit(play, cell): cell.key for cell in cells}
        for done in as_completed(playing):
            try:
                yield playing[done], done.result()
            except LinkError as error:
                raise LinkError(f"{playing[done]}: {error}") from error
    finally:
        pool.shutdown(cancel_futures=True)
