"""A draft model that several clients share, and links that a client can leave."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any

from sqs_codec.system._base.tokens import common_length
from sqs_codec.system.edge import Draft
from sqs_codec.system.session import Link

CHUNK = 128  # tokens that a draft prefills in one turn


class GoneError(Exception):
    """The client has disconnected."""


class Turns:
    """A fair lock: threads get it in the order of arrival."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        turn = threading.Event()
        with self._mutex:
            if not self._held:
                self._held = True
                return
            self._waiting.append(turn)
        turn.wait()

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._held = False


class SharedDraft(Draft):
    """A client's view of the draft: it takes turns, and raises `GoneError` if gone."""

    def __init__(self, draft: Draft, turns: Turns) -> None:
        self._draft, self._turns = draft, turns
        self.vocab_size, self.tokenizer = draft.vocab_size, draft.tokenizer
        self.gone = Future[None]()
        self.seen: list[int] = []  # tokens in the draft's cache
        self.text: list[int] = []  # tokens of the last completion, with its prompt
        self.connect: Callable[[], Leash]
        self._leash: Leash | None = None

    def link(self) -> Link:
        """Make a link. The edge keeps it for completions with the same method."""
        self._leash = self.connect()
        return self._leash

    def begin(self, gone: Future[None]) -> None:
        """Switch to another client, also on the present link."""
        self.gone = gone
        if self._leash is not None:
            self._leash.hold(gone)

    def logits(self, tokens: Sequence[int]) -> Any:
        """Logits after a text; prefills a long one in several turns."""
        known = common_length(self.seen, tokens)
        for end in range(known + CHUNK, len(tokens), CHUNK):
            self._step(self._draft.logits, tokens[:end])
        self.seen = list(tokens)
        return self._step(self._draft.logits, tokens)

    def branches(self, texts: Sequence[Sequence[int]]) -> Any:
        self.seen = list(texts[0])
        return self._step(self._draft.branches, texts)

    def _step(self, call: Callable[[Any], Any], given: Sequence[Any]) -> Any:
        with self._turns:
            if self.gone.done():
                raise GoneError
            return call(given)


def link(connect: Executor, make: Callable[[], Link], gone: Future[None]) -> Leash:
    """Make a link in the executor; raise `GoneError` as soon as `gone` is done."""
    coming = connect.submit(make)
    either: list[Future[Any]] = [coming, gone]
    wait(either, return_when=FIRST_COMPLETED)
    if gone.done():
        coming.cancel()  # works if it hasn't begun
        coming.add_done_callback(_close)
        raise GoneError
    return Leash(coming.result(), gone)


def _close(coming: Future[Link]) -> None:
    """Close a link whose client has gone."""
    if not coming.cancelled() and coming.exception() is None:
        coming.result().close()


class Leash:
    """A link whose `receive` raises `GoneError` as soon as `gone` is done."""

    def __init__(self, link: Link, gone: Future[None]) -> None:
        self._link = link
        self.hold(gone)
        self.reliable, self.max_message = link.reliable, link.max_message
        self.overhead, self.send = link.overhead, link.send
        self.wake, self.close = link.wake, link.close

    def hold(self, gone: Future[None]) -> None:
        """Watch another client from now on."""
        self._gone = gone
        gone.add_done_callback(lambda _: self._link.wake())

    @property
    def sent(self) -> int:
        return self._link.sent

    @property
    def received(self) -> int:
        return self._link.received

    def receive(self, timeout: float | None) -> bytes | None:
        message = None if self._gone.done() else self._link.receive(timeout)
        if self._gone.done():
            raise GoneError
        return message
