"""A server in a thread, over a toy model with computable logits."""

import asyncio
import threading
import time
import zlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from sqs_codec import Sampling
from sqs_codec._codec.verify import Verdict
from sqs_codec.system import edge
from sqs_codec.system.engine import BatchEngine, Engine
from sqs_codec.system.serve import INSECURE, Service, connect, start_datagrams
from sqs_codec.system.serve._connect import Transport
from sqs_codec.system.serve._grpc.server import GrpcServer, start_grpc
from sqs_codec.system.session import (
    EdgeSession,
    Job,
    Link,
    Setting,
    Verifier,
    verify_jobs,
)
from tests.certificates import issue

T = TypeVar("T")

ROOT = Path(__file__).parents[3]
VOCAB = 64
CODEC = sqs.Codec(VOCAB)
KEEP = sqs.TopK(8)
GREEDY = Sampling(temperature=0.0)
PATIENCE = 60.0
"""Seconds that are enough for quick work, even on a busy machine."""


def toy_logits(text: Sequence[int], noise: int = 0) -> NDArray[np.float32]:
    """The logits after a text, by a hash of its end; noise makes a draft of it."""
    rng = np.random.default_rng(zlib.crc32(bytes(text[-3:])))
    logits = rng.normal(0, 3, VOCAB)
    return np.float32(logits + np.random.default_rng(noise).normal(0, noise > 0, VOCAB))


def greedy(text: Sequence[int], length: int) -> list[int]:
    """A text continued by the most probable tokens."""
    text = list(text)
    for _ in range(length):
        text.append(int(toy_logits(text).argmax()))
    return text


class Draft(edge.Draft):
    """A draft model that is wrong now and then."""

    vocab_size = VOCAB

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        return toy_logits(tokens, noise=len(tokens) % 3)[None]


class Toy:
    """A `Verifier`. `on_call` may raise, wait or count."""

    vocab_size = VOCAB
    max_text = 4096

    def __init__(self, on_call: Callable[[Sequence[Job]], object] = len) -> None:
        self.on_call = on_call
        self.forgotten: list[bytes] = []

    def verify(self, jobs: Sequence[Job]) -> list[Verdict | None]:
        self.on_call(jobs)
        return [self._verify(job) for job in jobs]

    def _verify(self, job: Job) -> Verdict | None:
        text = [*job.text, *job.drafted]
        ends = range(len(job.text), len(job.text) + job.wanted)
        return verify_jobs([job], np.array([toy_logits(text[:end]) for end in ends]))[0]

    def forget(self, session: bytes) -> None:
        self.forgotten.append(session)


def batch(verifier: Verifier) -> BatchEngine:
    """An engine of it, with the tokenizer of `edge_session`."""
    return BatchEngine(verifier, summary="a toy", tokenizer=b"tokenize")


class Server:
    """A service and its gRPC server, in an event loop of a thread."""

    def __init__(
        self, verifier: Verifier | Engine, *, port: int = 0, **options: Any
    ) -> None:
        security = options.pop("security", INSECURE)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._links: list[Link] = []
        options.setdefault("tokens", None)
        self.engine = verifier if hasattr(verifier, "open") else batch(verifier)
        try:
            info = self.run(self.engine.open(), 300)
            self.service = Service(self.engine, info, **options)
            self.run(self.service.start())
            self.grpc: GrpcServer = self.run(
                start_grpc(self.service, "127.0.0.1", port, security=security)
            )
        except BaseException:
            self._end()
            raise
        self.address = f"127.0.0.1:{self.grpc.port}"

    def run(self, work: Coroutine[Any, Any, T], timeout: float = PATIENCE) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def link(self, *, port: int | None = None, **options: Any) -> Link:
        """A link to it, which `serving` closes."""
        address = f"127.0.0.1:{port}" if port else self.address
        self._links.append(connect(address, **({"security": INSECURE} | options)))
        return self._links[-1]

    def close_links(self) -> None:
        for link in self._links:
            link.close()

    def metric(self, name: str, **labels: str) -> float:
        return self.service.metrics.registry.get_sample_value(name, labels) or 0.0

    def stop(self, grace: float = 1.0) -> None:
        if self._loop.is_closed():
            return
        self.run(self.service.stop(grace))
        self.run(self.grpc.stop(0.5))
        self._end()

    def _end(self) -> None:
        self.run(self.engine.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def serving(
    verifier: Verifier | Engine | None = None, **options: Any
) -> Iterator[Server]:
    """Serve a model, by default a toy; `Service` and `start_grpc` have the options."""
    server = Server(verifier or Toy(), **options)
    try:
        yield server
    finally:
        server.close_links()
        server.stop()


def edge_session(text: Sequence[int], **options: Any) -> EdgeSession:
    given: dict[str, Any] = {"sampling": GREEDY, "tokenizer": b"tokenize"}
    given["rng"] = np.random.default_rng(0)
    settings = [Setting(options.pop("codec", CODEC), KEEP)]
    return EdgeSession(settings, text, **(given | options))


@contextmanager
def both_transports(server: Server) -> Iterator[dict[Transport, int]]:
    """Also serve over datagrams; yield the ports; all connections must end."""
    start = start_datagrams(server.service, "127.0.0.1", 0, security=INSECURE)
    datagrams = server.run(start)
    yield {"grpc": server.grpc.port, "datagram": datagrams.port}
    server.close_links()
    wait_until(lambda: not server.service._connections and not datagrams._open)
    server.run(datagrams.stop())


Mode = Literal["drafts", "generate"]


def converse(
    edge: EdgeSession, link: Link, length: int, mode: Mode = "drafts"
) -> list[int]:
    while len(edge.text) < length and edge.refused is None:
        if not edge.waiting:
            if mode == "generate":
                edge.generate(length - len(edge.text))
            else:
                draft_round(edge)
        exchange(edge, link)
    return list(edge.text)[:length]


def draft_round(edge: EdgeSession) -> None:
    """Queue a whole round of four tokens."""
    for _ in range(4):
        text = [*edge.text, *edge.drafted]
        # A draft that is wrong now and then.
        assert edge.push(toy_logits(text, noise=len(text) % 3)) is not None
    edge.flush()


def exchange(edge: EdgeSession, link: Link) -> None:
    """Send an edge's messages and receive one."""
    assert try_exchange(edge, link, PATIENCE), "the cloud is silent"


def send(edge: EdgeSession, link: Link) -> None:
    for message in edge.data_to_send():
        link.send(message)


def try_exchange(edge: EdgeSession, link: Link, seconds: float) -> bool:
    """Do the same; after a time-out the edge resends."""
    send(edge, link)
    message = link.receive(seconds)
    if message is None:
        edge.resend()
    else:
        edge.receive(message)
    return message is not None


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def certificate(
    folder: Path, name: str = "localhost", *, minutes: int = 60
) -> tuple[Path, Path]:
    addresses = ["127.0.0.1"] if name == "localhost" else []
    issued = issue(folder, name, *addresses, minutes=minutes)
    return issued.cert, issued.key
