"""The interface of links, and a link within one process."""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from sqs_codec import Prior
from sqs_codec._base import checks
from sqs_codec.system.session._cloud import CloudSession
from sqs_codec.system.session._job import Verifier
from sqs_codec.system.session._wire import Limits
from sqs_codec.system.session.transport import session_of, unknown_session


class LinkError(ConnectionError):
    """A link can't be made or has broken; the message says why and what to do."""


class Link(Protocol):
    """A connection to a cloud that carries whole messages both ways.

    One thread uses it at a time, but any thread may call `wake`. Only `send` and
    `receive` raise, and only `LinkError`: the connection is gone, so make another.
    """

    @property
    def reliable(self) -> bool:
        """Whether each message arrives once and in order while the link works.

        Otherwise messages may be lost, repeated or late, but never altered.
        """

    @property
    def max_message(self) -> int:
        """Maximum bytes per message."""

    @property
    def sent(self) -> int:
        """Bytes sent so far: all packets of the link, with IP headers."""

    @property
    def received(self) -> int:
        """Bytes received so far: all packets of the link, with IP headers."""

    @property
    def overhead(self) -> int:
        """Bytes that transport and IP add to a small message and its acknowledgment.

        A constant, for planning.
        """

    def send(self, message: bytes) -> None:
        """Send a message; waits while the link is busy."""

    def receive(self, timeout: float | None) -> bytes | None:
        """Return the next message, or None after `timeout` seconds or a `wake`.

        A timeout of 0 doesn't wait; None waits without limit.
        """

    def wake(self) -> None:
        """Make the present or the next `receive` return None at once.

        Any thread may call it. Call it before `close`, which may not end a `receive`;
        afterwards it does nothing.
        """

    def close(self) -> None:
        """Close the link. A second call does nothing."""


class LocalLink:
    """A `Link` to a cloud in this process: `send` calls the verifier.

    Parameters
    ----------
    verifier : Verifier
        The target model.
    tokenizer, limits, priors
        As in `CloudSession`.

    Examples
    --------
    >>> import numpy as np
    >>> import sqs_codec as sqs
    >>> from sqs_codec.system.session import (
    ...     EdgeSession, LocalLink, Setting, verify_jobs)
    >>> class Target:  # always continues with 0 1 2 3 0 1 ...
    ...     vocab_size, max_text = 4, 100
    ...     def verify(self, jobs):
    ...         tokens = [x for job in jobs if job.wanted
    ...                   for x in [job.text[-1], *job.drafted]]
    ...         return verify_jobs(jobs, np.eye(4)[[(x + 1) % 4 for x in tokens]])
    ...     def forget(self, session):
    ...         pass
    >>> link = LocalLink(Target())
    >>> edge = EdgeSession([Setting(sqs.Codec(4), sqs.TopK(2))], [3],
    ...                    rng=np.random.default_rng(0), sampling=sqs.Sampling(0))
    >>> def exchange():
    ...     while edge.waiting:
    ...         for message in edge.data_to_send():
    ...             link.send(message)
    ...         while (message := link.receive(0)) is not None:
    ...             emitted = edge.receive(message)
    ...     return emitted
    >>> exchange()
    >>> edge.limits.max_text
    100
    >>> logits = np.array([4.0, 3.0, 0.0, 0.0])  # the draft always predicts 0
    >>> edge.push(logits), edge.push(logits)
    (0, 0)
    >>> edge.flush()
    >>> exchange()
    Emitted(tokens=(0, 1), accepted=1, drafted=2)
    >>> edge.generate(2)
    >>> exchange()
    Emitted(tokens=(2, 3), accepted=0, drafted=0)
    >>> edge.text
    [3, 0, 1, 2, 3]
    """

    reliable = True
    overhead = 0

    def __init__(
        self,
        verifier: Verifier,
        *,
        tokenizer: bytes = b"",
        limits: Limits | None = None,
        priors: Sequence[Prior] = (),
    ) -> None:
        self._verifier = verifier
        self._tokenizer = tokenizer
        self._limits = Limits() if limits is None else limits
        checks.instance("limits", self._limits, Limits, "Limits")
        self._priors = priors
        self._session_id: bytes | None = None
        self._cloud: CloudSession | None = None
        self._inbox: deque[bytes] = deque()
        self._closed = False
        self.sent = 0
        self.received = 0

    def __repr__(self) -> str:
        return (
            f"<LocalLink to {type(self._verifier).__name__}, {self.sent} bytes sent, "
            f"{self.received} received>"
        )

    @property
    def max_message(self) -> int:
        """Maximum bytes per message."""
        return self._limits.max_message

    def send(self, message: bytes) -> None:
        """Pass a message to the cloud, which does all its work at once."""
        self._check_open()
        self.sent += len(message)
        session_id = session_of(message)
        if session_id is not None and session_id != self._session_id:
            self._open(session_id)
        if self._cloud is None:
            self._inbox.append(unknown_session())
            return
        self._cloud.receive(message)
        self._work(self._cloud)
        self._inbox += self._cloud.data_to_send()

    def _open(self, session_id: bytes) -> None:
        self._forget()
        self._cloud = CloudSession(
            session_id,
            limits=self._limits,
            tokenizer=self._tokenizer,
            vocab_size=self._verifier.vocab_size,
            max_text=self._verifier.max_text,
            priors=self._priors,
        )
        self._session_id = session_id

    def _work(self, cloud: CloudSession) -> None:
        while (job := cloud.next_job()) is not None:
            try:
                (verdict,) = self._verifier.verify([job])
                cloud.complete(job, verdict)
            except BaseException:
                cloud.fail(job)  # so that it can be repeated
                raise

    def receive(self, timeout: float | None) -> bytes | None:
        """Return the next message, or None: none arrives later."""
        self._check_open()
        if not self._inbox:
            if timeout is None:
                raise LinkError("receive: no message is due, and none will come")
            return None
        message = self._inbox.popleft()
        self.received += len(message)
        return message

    def wake(self) -> None:
        """Do nothing: ``receive`` never waits."""

    def close(self) -> None:
        """Close the link and free the session's KV cache."""
        self._closed = True
        self._forget()

    def _forget(self) -> None:
        if self._session_id is not None:
            self._verifier.forget(self._session_id)
        self._session_id = self._cloud = None

    def _check_open(self) -> None:
        if self._closed:
            raise LinkError("the link is closed; make another")
