"""The cloud's end of a session: a state machine without clock, socket or thread."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqs_codec import Codec, Prior, Round, Verdict
from sqs_codec._base import checks
from sqs_codec.system._base.protocol import (
    HINT_THRESHOLD,
    MAX_AHEAD,
    MAX_SURVIVORS,
    PART,
    max_draft,
)
from sqs_codec.system.session import _wire as wire
from sqs_codec.system.session._handshake import Agreement, agree, by_digest, check_bytes
from sqs_codec.system.session._hints import HeardHints
from sqs_codec.system.session._job import Job, Read, VerifyHints, VerifyRound
from sqs_codec.system.session._random import draws, shared_key
from sqs_codec.system.session._text import WINDOW, until_stop
from sqs_codec.system.session._wire import Limits, WireError

TOKENS_HEAD = 32  # maximum bytes before the tokens in a message of tokens
MAX_FAILURES = 3  # consecutive failed jobs that end a session


@dataclass(frozen=True)
class CloudRound:
    """A drafted round to verify."""

    number: int
    draws: NDArray[np.float64]
    asked: wire.RoundMessage
    round: Round


@dataclass
class CloudGeneration:
    """A round that the cloud decodes with shared random numbers."""

    number: int
    base: int
    n: int = 0
    sent: int = 0  # number of tokens put into messages
    had: int = 0  # number of tokens that the edge has confirmed
    together: int = 1  # tokens per message
    stopped: bool = False


class CloudSession:
    """The cloud's end of a session. It is a cache: the edge can restore all of it.

    Pass received messages to `receive`, and send those that `data_to_send` returns.
    `next_job` returns work for the target model, and `complete` takes its verdict. No
    message from a peer raises an error: one that breaks the protocol ends the session,
    and `refused` says why.

    Parameters
    ----------
    session_id : bytes [16]
        The edge's id of the session; `session_of` reads it from a hello.
    limits : Limits
        Limits of texts and messages.
    tokenizer : bytes
        Fingerprint of 8 bytes that the edge's tokenizer must have; empty for none.
    vocab_size : int
        Vocabulary size of the target model.
    max_text : int
        Maximum context length of the target model, in tokens.
    steps : mapping of int to float, optional
        Seconds of a forward pass by number of tokens, for the edge's planner. Each
        welcome sends the present values.
    priors : sequence of Prior
        Priors that edges may use in addition to those of this package.

    Examples
    --------
    >>> cloud = CloudSession(bytes(16), limits=Limits(), tokenizer=b"", vocab_size=4,
    ...                      max_text=100)
    >>> cloud.receive(b"what is this?")
    >>> cloud.refused
    'no message begins with byte 0x77'
    """

    def __init__(
        self,
        session_id: bytes,
        *,
        limits: Limits,
        tokenizer: bytes,
        vocab_size: int,
        max_text: int,
        steps: Mapping[int, float] | None = None,
        priors: Sequence[Prior] = (),
    ) -> None:
        checks.instance("limits", limits, Limits, "Limits")
        self._session_id = check_bytes("session_id", session_id, wire.SESSION_BYTES)
        self._tokenizer = check_bytes(
            "tokenizer", tokenizer, wire.TOKENIZER_BYTES, optional=True
        )
        self._vocab_size = Codec(vocab_size).vocab_size  # checks it
        most = min(limits.max_text, checks.in_range("max_text", max_text, 2))
        self._limits = replace(limits, max_text=most)
        self._steps = steps
        self._priors = by_digest(priors)
        self._instance = os.urandom(wire.INSTANCE_BYTES)
        self._refused: str | None = None
        self._ended = False
        self._out: dict[type, bytes] = {}
        self._new = True  # until the hello
        self._agreed: Agreement
        self._number = 0  # of the present or next round
        self._drawn = 0  # the number that chooses that round's random numbers
        self._epoch = 0  # number of times that the text was replaced
        self._held: bool | None = None  # whether the edge asked to hold the place
        self._text: list[int] = []
        self._base = 0  # tokens of the text before round `_number`
        self._draft: CloudRound | None = None
        self._generation: CloudGeneration | None = None
        self._hints = HeardHints()
        self._heard = 0  # serial number of the last hint
        self._answered: tuple[CloudRound, bytes] | None = None  # in case it is lost
        self._pending: wire.Context | None = None  # a text that is still arriving
        self._early: dict[int, wire.Context] = {}  # its parts after a gap, by start
        self._read = 0  # tokens of the text that the target has read or sampled
        self._job: Job | None = None
        self._told = 0  # progress of the job that the edge was told, in tokens
        self._overtaken = False
        self._failures = 0

    def __repr__(self) -> str:
        return (
            f"<CloudSession, vocabulary {self._vocab_size}, round {self._number}, "
            f"{self.state}>"
        )

    @property
    def state(self) -> str:
        """The state, as in the diagram of ``docs/protocol.md``: "ready" for example."""
        if self._refused is not None or self._ended:
            return "ended" if self._ended else "refused"
        if self._new:
            return "new"
        if self._pending is not None:
            return "collecting"
        if self._draft is not None:
            return "verifying"
        return "ready" if self._running() is None else "decoding"

    @property
    def refused(self) -> str | None:
        """The reason, if the session was refused."""
        return self._refused

    @property
    def ended(self) -> bool:
        """Whether the edge has ended the session."""
        return self._ended

    @property
    def text_length(self) -> int:
        """Number of tokens of the text."""
        return len(self._text)

    @property
    def freed_place(self) -> bool:
        """Whether the edge has freed its place and requested nothing since."""
        return self._held is False and self.state == "ready"

    @property
    def holds_place(self) -> bool:
        """Whether the session is in the middle of a completion."""
        return bool(self._held) or self.state in ("collecting", "verifying", "decoding")

    # Messages

    def receive(self, message: bytes) -> None:
        """Process a message from the edge, valid or not."""
        if self._ended:
            self._queue(wire.Need(None))
            return
        if self._refused is not None:
            self._queue(wire.Refusal(self._refused))
            return
        size, most = len(message), self._limits.max_message
        if size > most:
            self._refuse(f"a message has {size} bytes, the cloud takes at most {most}")
            return
        try:
            self._take(wire.parse_up(bytes(message), self._vocab_size))
        except WireError as error:
            self._refuse(str(error))

    def data_to_send(self) -> list[bytes]:
        """Return the messages for the edge since the last call."""
        messages = [*self._out.values()]
        self._out.clear()
        return messages + self._token_messages()

    def _queue(self, message: Any) -> None:
        """Queue a message; it replaces an earlier one of its kind."""
        self._queue_bytes(type(message), message.to_bytes())

    def _queue_bytes(self, kind: type, data: bytes) -> None:
        self._out.pop(kind, None)
        self._out[kind] = data

    def _refuse(self, reason: str) -> None:
        """End the session and free its memory."""
        self._refused = reason
        self._out.clear()
        self._forget()
        self._queue(wire.Refusal(reason))

    def _forget(self) -> None:
        self._text = []
        self._drop_round()
        self._pending = self._answered = None
        self._early, self._read = {}, 0

    def _take(self, message: wire.Up) -> None:
        if isinstance(message, wire.Hello):
            self._take_hello(message)
        elif isinstance(message, wire.End):
            self._ended = True
            self._out.clear()
            self._forget()
            self._queue(wire.Need(None))  # confirms the end
        elif self._new:
            self._queue(wire.Need(None))
        elif isinstance(message, wire.Context):
            self._take_context(message)
        elif isinstance(message, wire.RoundMessage):
            self._take_round(message)
        elif isinstance(message, wire.Hint):
            self._take_hint(message)
        else:
            self._take_generate(message)

    def _take_hello(self, hello: wire.Hello) -> None:
        if self._new:
            self._agreed = agree(
                hello, self._session_id, self._tokenizer, self._vocab_size, self._priors
            )
            self._new = False
        elif hello != self._agreed.hello:
            raise WireError(
                "the hello differs from the session's first; open another session to "
                "change it"
            )
        length = len(self._text)
        steps = self._steps and {n: round(1e3 * t, 3) for n, t in self._steps.items()}
        told = self._limits, self._number, length, steps
        self._queue(wire.Welcome(self._instance, *told))

    # The text

    def _take_context(self, part: wire.Context) -> None:
        if part.instance != self._instance:
            self._need_context()
        elif self._is_old(part.number):
            pass
        elif part.number == self._number:
            self._compare(part)
        elif part.shared > len(self._text):
            self._need_context()
        else:
            self._collect(part)

    def _need_context(self) -> None:
        self._queue(wire.Need(self._instance))

    def _have(self, number: int, count: int) -> None:
        self._queue(wire.Have(self._instance, number, count))

    def _compare(self, part: wire.Context) -> None:
        """Compare a part with the text that is already here."""
        same = self._text[part.start : part.end] == part.tokens
        if part.total != self._base or not same:
            raise WireError(f"round {part.number} had another text before")
        if (part.drawn, part.epoch) != (self._drawn, self._epoch):
            raise WireError(
                f"round {part.number} had random numbers {self._drawn} of epoch "
                f"{self._epoch} before, got {part.drawn} of {part.epoch}"
            )
        self._have(part.number, part.total)

    def _collect(self, part: wire.Context) -> None:
        """Add a part to the text that is arriving."""
        if not 1 <= part.total < self._limits.max_text:
            raise WireError(
                f"the edge's text has {part.total} tokens, the cloud takes 1 to "
                f"{self._limits.max_text - 1}"
            )
        pending = self._pending
        if pending is None or not pending.is_of(part):
            pending = self._pending = replace(part, start=part.shared, tokens=[])
            self._early = {}
            self._drop_round()  # the edge has dropped it
        pending.add(part)
        early, end = self._early, pending.end
        # Early parts may have `total` tokens together, which bounds the memory.
        room = part.total // (len(early) + 1)
        if part.start > end and len(part.tokens) <= room and len(early) < WINDOW:
            early[part.start] = part
        while pending.end in early:
            pending.add(early.pop(pending.end))
        self._have(part.number, pending.end)
        if pending.end == pending.total:
            text = self._text[: pending.shared] + pending.tokens
            self._epoch = pending.epoch
            if pending.held or self._held:
                self._held = pending.held
            self._start(pending.number, pending.drawn, text)
            self._read = min(self._read, pending.shared)

    def _start(self, number: int, drawn: int, text: list[int]) -> None:
        """Wait for round `number` after `text`, with the random numbers of `drawn`."""
        self._number, self._drawn = number, drawn
        self._text, self._base = text, len(text)
        self._pending = self._draft = None

    def _drop_round(self) -> None:
        self._draft = self._generation = None
        self._overtaken = True

    # Rounds

    def _take_round(self, message: wire.RoundMessage) -> None:
        number = self._unwrap(message.number)
        last, answer = self._answered or (None, b"")
        if last is not None and number == last.number < self._number:
            _check_same(last, message)
            self._queue_bytes(wire.Answer, answer)
        elif self._is_old(number):
            pass
        elif number > self._number or not self._fits(message.base):
            self._need_context()
        elif self._draft is not None:
            _check_same(self._draft, message)
            self.tell_progress()
        else:
            round_ = self._decode(message)
            random = draws(self._agreed.hello.seed, self._drawn, len(round_) + 1)
            self._draft = CloudRound(number, random, message, round_)
            self._generation = None

    def _unwrap(self, number: int) -> int:
        """Return the number with these 7 low bits nearest to the next round's."""
        half = wire.NUMBERS // 2
        return self._number + (number - self._number + half) % wire.NUMBERS - half

    def _is_old(self, number: int) -> bool:
        """Tell whether a round has ended or was dropped."""
        pending = self._pending
        return number < (self._number if pending is None else pending.number)

    def _fits(self, base: int) -> bool:
        """Tell whether a draft follows the text and nothing else runs."""
        length = len(self._text)
        return length > 0 and base == length & 0xFFFF and self._running() is None

    def _running(self) -> CloudGeneration | None:
        """Return the incomplete generation, if there is one."""
        generation = self._generation
        running = generation is not None and generation.number == self._number
        return generation if running else None

    def _decode(self, message: wire.RoundMessage) -> Round:
        codecs, setting = self._agreed.codecs, message.setting
        if setting >= (known := len(codecs)):
            raise WireError(f"setting {setting} is unknown; the hello has {known}")
        codec = codecs[setting]
        try:
            found = codec.decode_round(message.packet, max_survivors=MAX_SURVIVORS)
        except ValueError as error:
            raise WireError(f"a round's {error}") from None
        size, most = len(found), max_draft(self._vocab_size)
        if size > most:
            raise WireError(f"a round has {size} drafted tokens, the limit is {most}")
        if self._base + size >= self._limits.max_text:
            raise WireError(
                f"a text of {self._base} tokens, a draft of {size} and one more token "
                f"exceed the cloud's limit of {self._limits.max_text}"
            )
        return found

    # Decoding with shared random numbers

    def _take_generate(self, message: wire.Generate) -> None:
        if message.have > message.n or message.n == 0:
            raise WireError(f"the edge has {message.have} tokens of {message.n}")
        generation = self._generation
        if generation is not None and generation.number == message.number:
            self._raise(generation, message)
        elif self._is_old(message.number):
            pass
        elif message.number > self._number or not self._text:
            self._need_context()
        elif self._draft is not None:
            raise WireError(f"round {message.number} was a draft before")
        else:
            generation = CloudGeneration(message.number, self._base)
            self._raise(generation, message)
            self._generation = generation
            self._hints.clear()

    def _take_hint(self, hint: wire.Hint) -> None:
        """Add a hint; those of other generations are ignored."""
        self._heard = hint.serial
        running = self._running()
        if running is not None and running.number == hint.number:
            self._hints.add(hint, len(self._text))

    def _raise(self, generation: CloudGeneration, message: wire.Generate) -> None:
        """Raise the number of tokens of a generation."""
        if message.base != generation.base:
            raise WireError(
                f"round {message.number} began at {generation.base}, "
                f"not at {message.base}"
            )
        if message.base + message.n > self._limits.max_text:
            raise WireError(
                f"a text of {message.base} tokens and {message.n} more exceed the "
                f"cloud's limit of {self._limits.max_text}"
            )
        have = min(message.have, len(self._text) - generation.base)
        if message.n > have + MAX_AHEAD:
            raise WireError(
                f"a generation of {message.n} tokens is {message.n - have} ahead of "
                f"the edge, the limit is {MAX_AHEAD}"
            )
        generation.had = max(generation.had, have)
        generation.together = message.together
        if message.n > generation.n and not generation.stopped:
            generation.n = message.n
            # If it was complete, the session has moved on to the next round.
            self._number, self._base = generation.number, generation.base
            self._drawn = generation.number
        else:  # the edge lacks tokens that were sent
            generation.sent = min(generation.sent, generation.had)
            if self._running() and not self._unsent(generation):
                self.tell_progress()

    def _unsent(self, generation: CloudGeneration) -> int:
        """Return the number of tokens to send now: 0 while the message can grow."""
        unsent = len(self._text) - generation.base - generation.sent
        waits = self._running() is not None and unsent < generation.together
        return 0 if waits else unsent

    def _token_messages(self) -> list[bytes]:
        generation = self._generation
        if generation is None or not self._unsent(generation):
            return []
        tokens = self._text[generation.base :]
        most = min(self._limits.max_message, self._agreed.hello.max_message)
        size = (most - TOKENS_HEAD) // wire.token_bytes(self._vocab_size)
        parts = [
            wire.Tokens(generation.number, self._heard, i, tokens[i : i + size])
            for i in range(generation.sent, len(tokens), size)
        ]
        generation.sent = len(tokens)
        return [part.to_bytes(self._vocab_size) for part in parts]

    # Jobs

    @property
    def overtaken(self) -> bool:
        """Whether to cancel the running job and call `fail`.

        Either its round or text was dropped, or the next job can include its work.
        """
        job = self._job
        if job is None or self._overtaken:
            return job is not None
        return not job.wanted and not self._reads_first()

    def _reads_first(self) -> bool:
        """Tell whether the next job only reads: the text is long or nothing follows."""
        unread = len(self._text) - self._read
        follows = self._draft is not None or self._running() is not None
        return unread > (PART if follows else 0)

    def next_job(self, threshold: float = HINT_THRESHOLD) -> Job | None:
        """Return the next job for the target model, if there is one.

        There is one job at a time: the next comes after `complete` or `fail`. A job
        includes the edge's hints whose probability is at least `threshold`.
        """
        if self._job or self._pending or self._refused is not None or self._ended:
            return None
        self._overtaken, self._told = False, 0
        job = self._session_id, [*self._text]
        draft = self._draft
        if self._reads_first():
            self._job = Read(*job)
        elif draft is not None:
            work = draft.round, draft.draws
            self._job = VerifyRound(*job, *work, self._agreed.sampling)
        elif (generation := self._running()) is not None:
            left = generation.base + generation.n - len(self._text)
            hints = self._hints.chain(self._text, left - 1, threshold)
            key = shared_key(self._agreed.hello.seed, self._epoch)
            self._job = VerifyHints(*job, hints, key, self._agreed.sampling)
        return self._job

    def tell_progress(self, read: int = 0) -> None:
        """Tell the edge how many tokens of its text the running job has read."""
        self._told = max(self._told, min(read, self._base))
        self._have(self._number, self._base + self._told)

    def complete(self, job: Job, verdict: Verdict | None) -> None:
        """Process the target model's verdict on a job.

        The verdict is ignored if the job was overtaken, for example by another text.
        """
        if job is not self._job:
            return
        _check_verdict(job, verdict, self._vocab_size)
        self._job = None
        self._failures = 0
        if self._overtaken:
            return
        self._read = len(job.text)
        if verdict is not None:
            if self._draft is not None:
                self._answer(self._draft, verdict)
            elif (generation := self._running()) is not None:
                self._hints.learn(verdict.accepted)
                fresh = [*job.drafted[: verdict.accepted], verdict.token]
                self._take_tokens(generation, fresh)
            self._read = len(self._text)

    def fail(self, job: Job) -> None:
        """Record that the verifier failed; `next_job` returns the same work again.

        The third failure in a row ends the session; `overtaken` jobs don't count.
        """
        if job is not self._job:
            return
        self._failures += not self.overtaken
        self._job = None
        if self._failures == MAX_FAILURES:
            self._refuse(
                f"the cloud's target model failed {MAX_FAILURES} times in a row"
            )

    def _answer(self, draft: CloudRound, verdict: Verdict) -> None:
        answer = wire.Answer(draft.number, verdict.accepted, verdict.token)
        message = answer.to_bytes(self._vocab_size)
        self._queue_bytes(wire.Answer, message)
        self._answered = draft, message
        accepted = draft.round.tokens[: verdict.accepted]
        fresh = until_stop([*accepted, verdict.token], self._agreed.stop)
        number = draft.number + 1
        self._start(number, number, self._text + fresh)

    def _take_tokens(self, generation: CloudGeneration, fresh: list[int]) -> None:
        self._text += until_stop(fresh, self._agreed.stop)
        generation.stopped = self._text[-1] in self._agreed.stop
        if generation.stopped or len(self._text) == generation.base + generation.n:
            number = generation.number + 1
            self._start(number, number, self._text)


def _check_verdict(job: Job, verdict: object, vocab_size: int) -> None:
    if isinstance(verdict, Verdict) and job.wanted:
        checks.in_range("verdict.accepted", verdict.accepted, 0, job.wanted - 1)
        checks.in_range("verdict.token", verdict.token, 0, vocab_size - 1)
    elif job.wanted or verdict is not None:
        raise TypeError(
            f"a job with {job.wanted} rows of logits can't have the verdict {verdict!r}"
        )


def _check_same(before: CloudRound, message: wire.RoundMessage) -> None:
    """Reject a second draft for a round: its random numbers are used only once."""
    if message != before.asked:
        raise WireError(f"round {before.number} came before with other bytes")
