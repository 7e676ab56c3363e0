"""The edge's end of a session, without a clock, a socket or a thread."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from sqs_codec._base import checks
from sqs_codec._base.format import MAX_ROUND
from sqs_codec._codec.codec import Codec
from sqs_codec._codec.distribution import MixedRound, Round, SparseDistribution
from sqs_codec._codec.drafter import Drafter
from sqs_codec._codec.keep import Keep, rule
from sqs_codec.session import _wire as wire
from sqs_codec.session._handshake import check_bytes, fingerprint
from sqs_codec.session._job import Sampling
from sqs_codec.session._rounds import until_stop
from sqs_codec.session._wire import Limits, WireError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["EdgeSession", "Emitted", "Refused", "Setting", "Welcomed"]

CONTEXT_HEAD = 50
"""Bytes of a context's message before its tokens, at most: 5 and five varints."""
WINDOW = 8
"""Messages of a context that may be on their way at once."""
TOKEN_BITS = 40
"""A drafted token and its count take no more of a packet, in any coding."""


@dataclass(frozen=True)
class Setting:
    """A way to draft: what both ends agree on, and which tokens the edge keeps.

    Attributes
    ----------
    codec : Codec
    keep : Keep
        A stateful rule belongs to one session.
    """

    codec: Codec
    keep: Keep

    def __post_init__(self) -> None:
        checks.instance("codec", self.codec, Codec, "a Codec")
        rule(self.keep)  # says what is wrong with it


@dataclass(frozen=True)
class Welcomed:
    """The cloud has taken the session, and these are its limits."""

    limits: Limits


@dataclass(frozen=True)
class Emitted:
    """Tokens that are part of the text from now on.

    Attributes
    ----------
    tokens : tuple of int
    accepted, drafted : int
        How many of the round's drafted tokens are accepted, and how many it had. Both
        are 0 if the cloud decoded alone.
    wanted : bool
        Whether the cloud had to ask for a distribution.
    """

    tokens: tuple[int, ...]
    accepted: int
    drafted: int
    wanted: bool = False


@dataclass(frozen=True)
class Refused:
    """The session is over, and why."""

    reason: str


class _Part(NamedTuple):
    """A segment of a round."""

    mixed: bool
    packet: bytes
    end: int
    """How many tokens the round has with it."""


@dataclass
class _Draft:
    """A drafted round on its way."""

    setting: int
    drawn: int
    """The number by which it is drawn, whichever number its round gets later."""
    segments: list[_Part] = field(default_factory=list)
    flushed: int = 0
    """How many tokens the segments have."""
    whole: bool = False
    """Whether the last segment is there."""
    sent: int = 0
    """How many segments were put into messages since they had to be."""
    reached: int = 0
    """How many tokens were put into messages ever."""
    wanted: int | None = None
    """The position whose distribution the cloud wants."""
    wanted_due: bool = False
    asked: bool = False
    """Whether the cloud has ever wanted one."""


@dataclass
class _Generation:
    """A round that the cloud decodes alone."""

    base: int
    n: int
    earlier: int = 0
    """How many tokens came before a cloud was lost, and count no more."""
    have: int = 0
    due: bool = True
    """Whether the cloud is to be asked."""


@dataclass
class _Context:
    """A text on its way; what is lost is sent again from where the cloud stands."""

    keep: int
    total: int
    size: int
    """Tokens of a message."""
    acked: int
    """How many tokens the cloud is known to have."""
    next: int
    """The first token that isn't on its way."""
    confirmed: bool = False
    sent: bool = False
    """Whether all of it was sent."""
    went_back: int = -1
    """To how many tokens it went back last, so that it does so once for each loss."""

    @property
    def single(self) -> bool:
        """Whether it fits one message."""
        return self.total - self.keep <= self.size

    def chunks(self) -> list[tuple[int, int]]:
        """Return what may be sent now, as starts and ends; it counts as sent then."""
        if self.confirmed or self.sent:
            return []
        end = min(self.total, self.acked + WINDOW * self.size)
        starts = range(self.next, end, self.size)
        chunks = [(start, min(start + self.size, end)) for start in starts]
        if self.keep == self.total:
            chunks = [(self.total, self.total)]
        self.next = max(self.next, end)
        self.sent = self.next == self.total
        return chunks

    def go_back(self) -> None:
        """Send again what the cloud isn't known to have."""
        self.next, self.sent = self.acked, False

    def take(self, count: int) -> None:
        """Take how many tokens the cloud has."""
        if count == self.total:
            self.confirmed = True
        elif count == self.acked < self.next and count != self.went_back:
            self.went_back = count
            self.go_back()  # what follows it was lost
        elif self.acked < count < self.total:
            self.acked = count
            self.next = max(self.next, count)


class EdgeSession:
    """An edge's end of a session: drafts become messages, messages become text.

    Bytes go in by `receive` and come out by `data_to_send`. A round is `push` for each
    token and `flush`; then the session is `waiting` until the answer has come. A round
    may be flushed in up to 16 segments while it is drafted. Instead of drafting,
    `generate` has the cloud decode alone.

    Whatever is lost, comes twice or late, or forgotten by the cloud: `resend` (by a
    timer of the caller's) and `reconnect` (on a new link) mend it, and no token of
    the text changes. If the session is refused, `text` stays, and another session can
    go on from it.

    Parameters
    ----------
    settings : sequence of Setting
        1 to 4 ways to draft, of one vocabulary.
    text : sequence of int
        The prompt, at least one token.
    rng : numpy.random.Generator
        Draws the drafted tokens.
    sampling : Sampling
        How the text is drawn from the target model.
    tokenizer : bytes
        A fingerprint of 8 bytes that the cloud's tokenizer has to have; or none, if
        the cloud has none either.
    stop : sequence of int
        Tokens that end the text, at most 64.
    session_id : bytes [16], optional
        Random if None.
    seed : bytes [16], optional
        What the numbers that verify derive from; each session needs its own, and it
        has to be independent of `rng`. Random if None.
    max_message : int
        Bytes that a message may have on the link, at least 512.

    Examples
    --------
    See `LocalLink`.
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        text: Sequence[int],
        *,
        rng: np.random.Generator,
        sampling: Sampling | None = None,
        tokenizer: bytes = b"",
        stop: Sequence[int] = (),
        session_id: bytes | None = None,
        seed: bytes | None = None,
        max_message: int = 65536,
    ) -> None:
        self._settings = _check_settings(settings)
        self._vocab_size = self._settings[0].codec.vocab_size
        self._drafters = [
            Drafter(s.codec, s.keep, rng=rng, max_tokens=MAX_ROUND)
            for s in self._settings
        ]
        sampling = Sampling() if sampling is None else sampling
        checks.instance("sampling", sampling, Sampling, "a Sampling")
        self._sampling = sampling
        self._text = self._check_text(text)
        self._stop = frozenset(self._check_tokens("stop", stop))
        if len(self._stop) > wire.MAX_STOP:
            raise ValueError(
                f"stop must have at most {wire.MAX_STOP} tokens, got {len(self._stop)}"
            )
        if session_id is None:
            session_id = os.urandom(wire.SESSION_BYTES)
        seed = os.urandom(wire.SEED_BYTES) if seed is None else seed
        self._max_message = checks.in_range(
            "max_message", max_message, wire.MIN_MESSAGE
        )
        self._hello = self._make_hello(
            check_bytes("session_id", session_id, wire.SESSION_BYTES),
            check_bytes("seed", seed, wire.SEED_BYTES),
            fingerprint(tokenizer),
        )
        self._limits: Limits | None = None
        self._steps: dict[int, float] | None = None
        self._refused: str | None = None
        self._ended = False
        self._end_due = False
        self._stopped = False
        self._hello_due = self._awaiting = True
        self._instance: bytes | None = None
        self._number = 0
        self._heard = 0  # the last number that the cloud is known to be at
        self._safe = 0  # tokens that any text the cloud may have begins with
        self._context: _Context | None = None
        self._draft: _Draft | None = None
        self._generation: _Generation | None = None

    def __repr__(self) -> str:
        return (
            f"<EdgeSession of {len(self._text)} tokens, vocabulary {self._vocab_size}, "
            f"round {self._number}>"
        )

    def _make_hello(self, session_id: bytes, seed: bytes, tokenizer: bytes) -> bytes:
        codecs = [s.codec for s in self._settings]
        hello = wire.Hello(
            session_id,
            seed,
            tuple({**c.config(), "fingerprint": c.fingerprint.hex()} for c in codecs),
            tokenizer,
            self._sampling.config(),
            tuple(sorted(self._stop)),
            self._max_message,
        ).to_bytes()
        if len(hello) > self._max_message:
            raise ValueError(
                f"max_message must be at least {len(hello)}, which the hello of these "
                f"settings and stop tokens takes, got {self._max_message}"
            )
        return hello

    def _check_text(self, text: Sequence[int]) -> list[int]:
        found = self._check_tokens("text", text)
        if not found:
            raise ValueError("text must have at least one token, got none")
        return found

    def _check_tokens(self, name: str, tokens: Sequence[int]) -> list[int]:
        found = checks.integers(name, tokens)
        for i, token in enumerate(found):
            checks.in_range(f"{name}[{i}]", token, 0, self._vocab_size - 1)
        return found

    # What there is to know

    @property
    def text(self) -> list[int]:
        """The text that both ends agree on, the prompt included."""
        return [*self._text]

    @property
    def drafted(self) -> tuple[int, ...]:
        """The tokens drafted since."""
        return () if self._draft is None else self._drafter(self._draft).tokens

    def _drafter(self, draft: _Draft) -> Drafter:
        return self._drafters[draft.setting]

    @property
    def limits(self) -> Limits | None:
        """What the cloud takes; None before its welcome."""
        return self._limits

    @property
    def target_steps(self) -> dict[int, float] | None:
        """Seconds that the target model takes for so many tokens, if the cloud said."""
        return None if self._steps is None else dict(self._steps)

    @property
    def refused(self) -> str | None:
        """Why the session is over, if it was refused."""
        return self._refused

    @property
    def finished(self) -> bool:
        """Whether the text is whole.

        It ends with a stop token, is as long as the cloud takes, or `end` was called.
        """
        limits = self._limits
        full = limits is not None and len(self._text) >= limits.max_text
        return self._stopped or self._ended or full

    @property
    def waiting(self) -> bool:
        """Whether an answer is due: to a hello, a whole round or a generation."""
        if self._refused is not None or self._ended:
            return False
        whole = self._draft is not None and self._draft.whole
        return self._awaiting or whole or self._generation is not None

    # Drafting

    def push(self, logits: Any, *, setting: int = 0) -> int | None:
        """Draft the next token.

        Parameters
        ----------
        logits : array_like [vocab_size]
            The draft model's, given the text and the tokens drafted so far: what
            `Drafter.push` takes. The temperature is that of the sampling.
        setting : int
            Which of the settings to draft by; the same for a whole round.

        Returns
        -------
        int or None
            The token; None if the round is full: the next distribution, whatever
            token would be drawn from it, exceeds the cloud's limits, or a stop token
            was drafted. A text with room for one token has none for a draft.

        Raises
        ------
        ValueError
            As `Drafter.push`, or if the round's first distribution exceeds a limit by
            itself. Nothing has changed then.
        RuntimeError
            If an answer is due, or the text or the session is over.
        """
        limits = self._check_open("push")
        setting = checks.in_range("setting", setting, 0, len(self._settings) - 1)
        draft = self._draft
        if self._generation is not None or (draft is not None and draft.whole):
            raise RuntimeError("push: an answer is due; hand it to receive() first")
        if draft is not None and draft.setting != setting:
            raise ValueError(
                f"setting must be {draft.setting}, that of the round's first token, "
                f"got {setting}"
            )
        drafter = self._drafters[setting]
        if self._full(drafter.tokens, limits):
            return None
        if not isinstance(logits, SparseDistribution):
            logits = drafter.quantize(logits, temperature=self._sampling.temperature)
        excess = self._excess(drafter, logits, limits)
        if excess is not None:
            if drafter.tokens:
                return None
            raise ValueError(f"push: {excess}; keep fewer tokens")
        token = drafter.push(logits)
        if token is not None:
            self._draft = draft or _Draft(setting, self._number)
        return token

    def _full(self, tokens: tuple[int, ...], limits: Limits) -> bool:
        """Say whether no token more can be drafted."""
        most = min(limits.max_draft, limits.max_text - 1 - len(self._text))
        return len(tokens) >= most or (bool(tokens) and tokens[-1] in self._stop)

    def _excess(
        self, drafter: Drafter, q: SparseDistribution, limits: Limits
    ) -> str | None:
        """Say what would be too much about a round with one more distribution."""
        drafter.codec._engine.check(q)
        survivors = q.token_ids.size + _survivors(drafter.distributions)
        if survivors > limits.max_survivors:
            return (
                f"a round's distributions may have {limits.max_survivors} tokens in "
                f"all, got {survivors}"
            )
        size = len(drafter.codec.encode(q)) + wire.SEGMENT_HEAD
        if size > self._message_limit():
            return (
                f"a message may have {self._message_limit()} bytes, and one of this "
                f"distribution has {size}"
            )
        return None

    def _message_limit(self) -> int:
        assert self._limits is not None
        return min(self._max_message, self._limits.max_message)

    def flush(
        self,
        *,
        last: bool,
        sends: Callable[[SparseDistribution], bool] | None = None,
    ) -> None:
        """Queue what was pushed and isn't queued yet.

        What doesn't fit a message is split. A segment that isn't the last is kept
        back until the last if the round's 16 are nearly used up.

        Parameters
        ----------
        last : bool
            Whether the round is whole with it. Then an answer is due.
        sends : callable, optional
            Says of a distribution whether it crosses at once; otherwise the cloud asks
            for it if it rejects the token. It may depend on the distribution alone,
            not on the token drawn. All cross if None.
        """
        self._check_open("flush")
        draft = self._draft
        if draft is None:
            raise RuntimeError("flush: nothing was drafted; push comes first")
        if draft.whole:
            raise RuntimeError("flush: the round is whole; its answer comes next")
        drafter = self._drafter(draft)
        fresh = range(draft.flushed, len(drafter.tokens))
        eager = {i for i in fresh if sends is None or sends(drafter.distributions[i])}
        room = (
            wire.MAX_SEGMENTS - len(draft.segments) - (0 if last else self._reserve())
        )
        parts = self._split(draft, fresh, eager)
        if last and len(parts) > room:
            parts = self._split(draft, fresh, set())
        if not last and len(parts) > room:
            return
        if parts:
            drafter.segment()  # so that feedback may come
        elif last:
            parts = [_Part(False, b"", draft.flushed)]
        draft.segments += parts
        draft.flushed = fresh.stop
        draft.whole = last

    def _reserve(self) -> int:
        """Return how many segments any tokens without distributions fit."""
        assert self._limits is not None
        bits = self._limits.max_draft * TOKEN_BITS
        return 1 + bits // (8 * (self._message_limit() // 2))

    def _split(self, draft: _Draft, fresh: range, eager: set[int]) -> list[_Part]:
        """Return segments of drafted positions, each as long as a message allows."""
        parts = []
        while fresh:
            part, size = self._pack(draft, fresh, eager), len(fresh)
            while (
                size > 1
                and len(part.packet) > self._message_limit() - wire.SEGMENT_HEAD
            ):
                size //= 2
                part = self._pack(draft, fresh[:size], eager)
            if len(part.packet) > self._message_limit() - wire.SEGMENT_HEAD:
                # A message has no room for a token beside this distribution.
                part = self._pack(draft, fresh[:1], set())
            parts.append(part)
            fresh = fresh[size:]
        return parts

    def _pack(self, draft: _Draft, positions: range, eager: set[int]) -> _Part:
        """Return the segment of drafted positions."""
        drafter = self._drafter(draft)
        at = slice(positions.start, positions.stop)
        round_ = Round(drafter.distributions[at], drafter.tokens[at])
        sent = [i in eager for i in positions]
        if all(sent):
            return _Part(False, drafter.codec.encode_round(round_), positions.stop)
        packet = drafter.codec.encode_mixed(MixedRound.of(round_, sent))
        return _Part(True, packet, positions.stop)

    def generate(self, n: int) -> None:
        """Let the cloud decode tokens alone.

        While it does, another call with a larger number raises it; once they have
        all come, a call begins anew.

        Parameters
        ----------
        n : int
            How many tokens in all; fewer come if one is a stop token.
        """
        limits = self._check_open("generate")
        if self._draft is not None:
            raise RuntimeError(
                "generate: a round is being drafted; abort() gives it up"
            )
        generation = self._generation or _Generation(len(self._text), 0)
        before = generation.earlier
        room = limits.max_text - generation.base
        n = checks.in_range("n", n, max(1, before + generation.n), before + room)
        generation.due |= n > before + generation.n
        generation.n = n - before
        self._generation = generation

    def _check_open(self, name: str) -> Limits:
        """Return the limits, if the text can go on."""
        if self._refused is not None:
            raise RuntimeError(f"{name}: the session was refused: {self._refused}")
        if self._ended:
            raise RuntimeError(f"{name}: the session was ended")
        if self._limits is None:
            raise RuntimeError(f"{name}: the cloud's welcome comes first; see waiting")
        if self.finished:
            raise RuntimeError(f"{name}: the text is whole; abort(text) begins another")
        return self._limits

    def abort(self, text: Sequence[int] | None = None) -> None:
        """Give up what is drafted or decoded, and go on from the text, or from another.

        What was drafted may have no part in the decision, unless the text is thrown
        away with it.

        Parameters
        ----------
        text : sequence of int, optional
            The new text, prompt included.
        """
        if self._refused is not None or self._ended:
            raise RuntimeError("abort: the session is over")
        if text is not None:
            self._replace(self._check_text(text))
        elif self._draft is None and self._generation is None:
            return
        self._drop()
        self._renumber()

    def _replace(self, text: list[int]) -> None:
        limits = self._limits
        if limits is not None and len(text) >= limits.max_text:
            raise ValueError(
                f"text must leave room within the cloud's {limits.max_text} tokens, "
                f"got {len(text)}"
            )
        same = 0
        while same < min(self._safe, len(text)) and text[same] == self._text[same]:
            same += 1
        self._safe = same
        self._text = text
        self._stopped = False

    def _drop(self) -> None:
        if self._draft is not None:
            self._drafter(self._draft).abort()
        self._draft = self._generation = None

    def _renumber(self) -> None:
        """Give the next round a number that skips one.

        The cloud may have answered the one before, and then waits for the next: it
        must not take a round whose text it missed.
        """
        self._number += 2
        if self._limits is not None:
            self._start_context()

    def _start_context(self) -> None:
        """Begin to send the text before the round."""
        width = wire.token_bytes(self._vocab_size)
        size = (self._message_limit() - CONTEXT_HEAD) // width
        total = self._total()
        keep = min(self._safe, total)
        self._context = _Context(keep, total, size, acked=keep, next=keep)

    def _total(self) -> int:
        """Return the length of the text before the present round."""
        return len(self._text) if self._generation is None else self._generation.base

    def end(self) -> None:
        """End the session. To do it twice does no harm."""
        if not self._ended and self._refused is None:
            self._drop()
            self._end_due = self._instance is not None or not self._hello_due
            self._ended = True
            self._hello_due = self._awaiting = False

    # Messages to the cloud

    def data_to_send(self) -> list[bytes]:
        """Return the messages that are due. They count as sent then."""
        if self._end_due:
            self._end_due = False
            return [wire.End().to_bytes()]
        if self._refused is not None or self._ended:
            return []
        if self._hello_due:
            self._hello_due = False
            return [self._hello]
        if self._awaiting:
            return []
        messages = self._context_messages()
        if self._ready():
            messages += self._segment_messages() + self._generate_messages()
        return messages

    def _context_messages(self) -> list[bytes]:
        context = self._context
        if context is None:
            return []
        assert self._instance is not None
        drawn = self._number if self._draft is None else self._draft.drawn
        return [
            wire.Context(
                self._instance,
                self._number,
                drawn,
                context.keep,
                start,
                context.total,
                self._text[start:end],
            ).to_bytes(self._vocab_size)
            for start, end in context.chunks()
        ]

    def _ready(self) -> bool:
        """Say whether a round may be sent.

        Not before a text that takes several messages has come whole. And not if 64
        rounds were given up since the cloud was heard: an answer to an earlier one
        could be taken for one to this, as 7 bits of their numbers are the same.
        """
        context = self._context
        if context is None or context.confirmed:
            return True
        near = self._number - self._heard < wire.NUMBERS // 2
        return context.sent and context.single and near

    def _segment_messages(self) -> list[bytes]:
        draft = self._draft
        if draft is None:
            return []
        if draft.wanted is not None:  # what follows it is void
            return self._distribution_messages(draft, draft.wanted)
        messages = [
            wire.Segment(
                self._number,
                len(self._text),
                draft.whole and i == len(draft.segments) - 1,
                draft.setting,
                draft.segments[i].mixed,
                i,
                draft.segments[i].packet,
            ).to_bytes()
            for i in range(draft.sent, len(draft.segments))
        ]
        draft.sent = len(draft.segments)
        draft.reached = draft.flushed
        return messages

    def _distribution_messages(self, draft: _Draft, position: int) -> list[bytes]:
        if not draft.wanted_due:
            return []
        draft.wanted_due = False
        drafter = self._drafter(draft)
        packet = drafter.codec.encode(drafter.distributions[position])
        return [wire.Distribution(self._number, position, packet).to_bytes()]

    def _generate_messages(self) -> list[bytes]:
        generation = self._generation
        if generation is None or not generation.due:
            return []
        generation.due = False
        message = wire.Generate(
            self._number, generation.base, generation.n, generation.have
        )
        return [message.to_bytes()]

    def resend(self) -> None:
        """Queue again what the cloud hasn't answered; for a timer on a lossy link."""
        if self._awaiting:
            self._hello_due = True
            return
        if self._context is not None:
            self._context.go_back()
        if self._draft is not None and self._draft.wanted is not None:
            self._draft.wanted_due = True
        else:
            self._send_round_again()

    def _send_round_again(self) -> None:
        """Queue all that there is of the round."""
        if self._draft is not None:
            self._draft.sent, self._draft.wanted = 0, None
        if self._generation is not None:
            self._generation.due = True

    def reconnect(self) -> None:
        """Begin on a new link, whose cloud may be another. The text stays."""
        if self._refused is None and not self._ended:
            self._hello_due = self._awaiting = True

    # Messages from the cloud

    def receive(self, message: bytes) -> list[Welcomed | Emitted | Refused]:
        """Take a message from the cloud and return what has come of it.

        A message that breaks the protocol ends the session, as a refusal does.
        """
        if self._refused is not None or self._ended:
            return []
        try:
            if len(message) > self._max_message:
                raise WireError(
                    f"a message has {len(message)} bytes, the edge takes at most "
                    f"{self._max_message}"
                )
            return self._take(wire.parse_down(bytes(message), self._vocab_size))
        except WireError as error:
            return self._refuse(f"the cloud broke the protocol: {error}")

    def _refuse(self, reason: str) -> list[Welcomed | Emitted | Refused]:
        self._drop()
        self._refused = reason
        self._awaiting = self._hello_due = False
        return [Refused(reason)]

    def _take(self, message: wire.Down) -> list[Welcomed | Emitted | Refused]:
        if isinstance(message, wire.Refusal):
            return self._refuse(message.reason)
        if isinstance(message, wire.Welcome):
            return self._take_welcome(message)
        if isinstance(message, wire.Need):
            self._take_need(message)
        elif isinstance(message, wire.Have):
            self._take_have(message)
        elif isinstance(message, wire.Want):
            self._take_want(message)
        elif isinstance(message, wire.Answer):
            return self._take_answer(message)
        else:
            return self._take_tokens(message)
        return []

    def _take_welcome(
        self, welcome: wire.Welcome
    ) -> list[Welcomed | Emitted | Refused]:
        same = welcome.instance == self._instance
        if same and not self._awaiting:
            return []  # it came twice
        if len(self._text) >= welcome.limits.max_text and not self.finished:
            return self._refuse(
                f"the edge's text has {len(self._text)} tokens, the cloud reads at "
                f"most {welcome.limits.max_text - 1} and draws one more"
            )
        self._awaiting = self._hello_due = False
        before, self._limits = self._limits, welcome.limits
        steps = welcome.steps
        self._steps = None if steps is None else {n: t / 1e3 for n, t in steps.items()}
        if not same or welcome.number > self._number + 1:
            self._adopt(welcome, before)
        elif welcome.number < self._number:
            self._start_context()
        else:
            self._context = None
        self._send_round_again()
        return [Welcomed(welcome.limits)]

    def _adopt(self, welcome: wire.Welcome, before: Limits | None) -> None:
        """Go on with a cloud that lacks the text; the one before had other limits.

        The round gets another number: an answer that the cloud before gave to it may
        still come, and this one may give another. A draft is drawn by its first number
        all the same, so that this cloud finds what the one before may have found.
        """
        self._instance = welcome.instance
        self._safe = 0
        if self._generation is not None:
            self._generation = self._rest(self._generation, welcome.limits)
        elif before is not None and _takes_less(welcome.limits, before):
            self._drop()  # whatever was drafted: that may have no part in it
        if self._draft is not None:
            self._draft.reached = 0
        self._number = max(self._number, welcome.number - 1)
        self._renumber()

    def _rest(self, generation: _Generation, limits: Limits) -> _Generation:
        """Return what another cloud is to decode of a generation."""
        length = len(self._text)
        return _Generation(
            length,
            min(generation.n - generation.have, limits.max_text - length),
            generation.earlier + generation.have,
        )

    def _take_need(self, need: wire.Need) -> None:
        if self._awaiting:
            return  # the hello that mends it is on its way
        if need.instance is None or need.instance != self._instance:
            self.reconnect()
            return
        self._start_context()
        self._send_round_again()

    def _take_have(self, have: wire.Have) -> None:
        context = self._context
        if (
            context is None
            or have.instance != self._instance
            or have.number != self._number
        ):
            return
        context.take(have.count)
        if context.confirmed:
            self._settle_context()

    def _settle_context(self) -> None:
        """Take that the cloud has the text before the round, and is at its number."""
        self._context = None
        self._heard = self._number
        self._safe = max(self._safe, self._total())

    def _take_want(self, want: wire.Want) -> None:
        draft = self._draft
        if (
            draft is not None
            and want.number == self._number % wire.NUMBERS
            and want.position < draft.reached
        ):
            draft.wanted, draft.wanted_due, draft.asked = want.position, True, True

    def _take_answer(self, answer: wire.Answer) -> list[Welcomed | Emitted | Refused]:
        draft = self._draft
        if draft is None or answer.number != self._number % wire.NUMBERS:
            return []
        whole = draft.whole and draft.reached == draft.flushed
        if answer.accepted >= draft.reached + whole:
            return []  # the cloud hasn't got so many tokens
        drafted = self.drafted
        self._drafter(draft).feedback(answer.accepted)
        self._draft = None
        added = self._add([*drafted[: answer.accepted], answer.token], done=True)
        return [Emitted(added, answer.accepted, len(drafted), draft.asked)]

    def _take_tokens(self, message: wire.Tokens) -> list[Welcomed | Emitted | Refused]:
        generation = self._generation
        if generation is None or message.number != self._number:
            return []
        fresh = message.tokens[max(0, generation.have - message.offset) :]
        if message.offset > generation.have:
            generation.due = True  # what comes before was lost
            return []
        if not fresh:
            return []
        generation.have += len(fresh)
        if generation.have > generation.n:
            raise WireError(
                f"{generation.have} tokens came for a generation of {generation.n}"
            )
        added = self._add(fresh, done=generation.have == generation.n)
        return [Emitted(added, 0, 0)]

    def _add(self, tokens: list[int], *, done: bool) -> tuple[int, ...]:
        """Add tokens to the text, up to a stop token, and return them.

        The round is over if it is `done`, or at a stop token.
        """
        tokens = until_stop(tokens, self._stop)
        self._text += tokens
        self._stopped = tokens[-1] in self._stop
        self._context = None
        self._safe = len(self._text)
        if done or self._stopped:
            self._generation = None
            self._number += 1
        self._heard = self._number
        return tuple(tokens)


def _takes_less(limits: Limits, before: Limits) -> bool:
    """Say whether any of a cloud's limits is below that of the one before."""
    return any(map(operator.lt, astuple(limits), astuple(before)))


def _survivors(distributions: Sequence[SparseDistribution]) -> int:
    return sum(q.token_ids.size for q in distributions)


def _check_settings(settings: Sequence[Setting]) -> list[Setting]:
    found = list(settings)
    if not 1 <= len(found) <= wire.MAX_SETTINGS:
        raise ValueError(
            f"settings must be 1 to {wire.MAX_SETTINGS} of them, got {len(found)}"
        )
    for i, setting in enumerate(found):
        checks.instance(f"settings[{i}]", setting, Setting, "a Setting")
    sizes = {setting.codec.vocab_size for setting in found}
    if len(sizes) > 1:
        raise ValueError(
            f"settings must share one vocabulary, got those of {sorted(sizes)} tokens"
        )
    return found
