"""The edge's end of a session: a state machine without clock, socket or thread."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sqs_codec import Guesses, Sampling, SparseDistribution, gumbel_guess
from sqs_codec._base import checks
from sqs_codec._base.words import shown
from sqs_codec.system._base import protocol
from sqs_codec.system._base.tokens import common_length
from sqs_codec.system.session import _handshake, _text
from sqs_codec.system.session import _wire as wire
from sqs_codec.system.session._edge_rounds import (
    EdgeGeneration,
    EdgeRound,
    RoundDrafter,
)
from sqs_codec.system.session._handshake import Setting
from sqs_codec.system.session._hints import make_branch
from sqs_codec.system.session._random import shared_key
from sqs_codec.system.session._wire import Limits, WireError

OVER = "refused", "ended"

NEVER = 1 << 62  # more tokens than any text has


@dataclass(frozen=True)
class Emitted:
    """Verified tokens, which the text now includes.

    Attributes
    ----------
    tokens : tuple of int
        Token ids, at least one.
    accepted, drafted : int
        Accepted and drafted tokens of the round; both 0 if the cloud decoded.
    """

    tokens: tuple[int, ...]
    accepted: int
    drafted: int


class EdgeSession:
    """The edge's end of a session: turns drafts into messages, and answers into text.

    Pass received bytes to `receive`, and send the bytes that `data_to_send` returns.
    For a round, call `push` for each token, then `flush`; the session is `waiting`
    until the answer arrives. Or call `generate`, and the cloud decodes with shared
    random numbers. Meanwhile `guess` predicts its tokens and `hint` sends predictions.
    Hints change the speed and nothing else.

    If messages are lost, repeated or late, or the cloud has lost the session, call
    `resend` (after a time-out) or `reconnect` (on a new link). This never changes a
    token. If the cloud refuses the session, `text` stays valid, and another session
    can continue it.

    Parameters
    ----------
    settings : sequence of Setting
        1 to 4 settings for drafting, with one vocabulary.
    text : sequence of int
        The prompt, at least one token.
    rng : numpy.random.Generator
        Samples the drafted tokens.
    sampling : Sampling
        Temperature and truncation of the target model.
    tokenizer : bytes
        Fingerprint of 8 bytes that the cloud's tokenizer must have; empty if the cloud
        has none.
    stop : sequence of int
        Tokens that end the text, at most 64.
    session_id : bytes [16], optional
        Random if None.
    seed : bytes [16], optional
        Key of the target's random numbers. Each text needs its own, independent of
        `rng`. Random if None.
    rounds : bool
        Whether to allow rounds. Without them, the text is a function of seed, prompt,
        sampling and the target's logits.
    max_message : int
        Maximum bytes per message on the link, at least 512. Rounds end before they
        exceed it, or 4,096 bytes.

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
        rounds: bool = True,
        max_message: int = protocol.MAX_MESSAGE,
    ) -> None:
        settings = _handshake.check_settings(settings)
        codecs = [setting.codec for setting in settings]
        self._vocab_size = codecs[0].vocab_size
        self._max_message = checks.in_range(
            "max_message", max_message, protocol.MIN_MESSAGE
        )
        packet = min(self._max_message, protocol.ROUND_BYTES) - protocol.ROUND_HEAD
        self._sampling = Sampling() if sampling is None else sampling
        checks.instance("sampling", self._sampling, Sampling, "a Sampling")
        self._drafters = [
            RoundDrafter(
                setting.codec,
                setting.keep,
                sampling=self._sampling,
                rng=rng,
                budget_bits=8 * packet,
                max_tokens=protocol.max_draft(self._vocab_size),
                max_survivors=protocol.MAX_SURVIVORS,
            )
            for setting in settings
        ]
        self._text = _text.check_text(text, self._vocab_size)
        self._stop = frozenset(_text.check_tokens("stop", stop, self._vocab_size))
        if len(self._stop) > protocol.MAX_STOP:
            raise ValueError(
                f"stop must have at most {protocol.MAX_STOP} tokens, got "
                f"{len(self._stop)}"
            )
        self._seed = os.urandom(wire.SEED_BYTES) if seed is None else seed
        self._epoch = 0  # number of times that the text was replaced
        own = os.urandom(wire.SESSION_BYTES) if session_id is None else session_id
        asked = tokenizer, self._sampling, self._stop, self._max_message
        self._hello = _handshake.make_hello(own, self._seed, codecs, *asked)
        self._phase = "greeting"  # or "open", or one of OVER
        self._due: bytes | None = self._hello  # the message to send first
        self._refused: str | None = None
        self._stopped = False
        self._welcome: wire.Welcome | None = None
        self._welcomes = 0
        self._sync = _text.TextSync(self._vocab_size, self._max_message)
        self._round: EdgeRound | EdgeGeneration | None = None
        self._hints: list[bytes] = []
        self._serial = self._heard = 0  # numbers of the last hint, sent and confirmed
        # Rounds may begin here: at later positions nobody knows the random numbers.
        self._first_known = self._known = 0 if rounds else NEVER

    def __repr__(self) -> str:
        return (
            f"<EdgeSession of {len(self._text)} tokens, vocabulary {self._vocab_size}, "
            f"round {self._sync.number}, {self.state}>"
        )

    # State

    @property
    def state(self) -> str:
        """The state, as in the diagram of ``docs/protocol.md``: "idle" for example."""
        if self._phase != "open":
            return self._phase
        return "idle" if self._round is None else self._round.state

    @property
    def text(self) -> list[int]:
        """The verified text, including the prompt."""
        return [*self._text]

    @property
    def drafted(self) -> tuple[int, ...]:
        """The tokens of the present round."""
        return self._round.drafter.tokens if isinstance(self._round, EdgeRound) else ()

    @property
    def stop(self) -> frozenset[int]:
        """Tokens that end the text."""
        return self._stop

    @property
    def rounds_from(self) -> int:
        """Length of the text from which on rounds are allowed; 2^62 for never.

        Before it, the cloud may have sampled with shared random numbers, or the edge
        has used some of them. A round there could choose between two samples after
        seeing one of them.
        """
        works = self._round
        granted = works.base + works.asked if isinstance(works, EdgeGeneration) else 0
        return max(self._known, granted)

    @property
    def unheard_hints(self) -> int:
        """Number of hints that the cloud hasn't confirmed, including lost ones."""
        return (self._serial - self._heard) % wire.NUMBERS

    @property
    def max_message(self) -> int:
        """Maximum bytes per message on the link."""
        return self._max_message

    @property
    def limits(self) -> Limits | None:
        """The cloud's limits; None before its welcome."""
        return None if self._welcome is None else self._welcome.limits

    @property
    def welcomes(self) -> int:
        """Number of times that a cloud has accepted the session."""
        return self._welcomes

    @property
    def target_steps(self) -> dict[int, float] | None:
        """Seconds of a forward pass by number of tokens; None if not stated."""
        steps = None if self._welcome is None else self._welcome.steps
        return None if steps is None else {n: t / 1e3 for n, t in steps.items()}

    @property
    def refused(self) -> str | None:
        """The reason, if the session was refused."""
        return self._refused

    @property
    def finished(self) -> bool:
        """Whether the text is complete.

        It ends with a stop token, has the cloud's maximum length, or `end` was called.
        """
        limits = self.limits
        full = limits is not None and len(self._text) >= limits.max_text
        return self._stopped or full or self._phase == "ended"

    @property
    def sending_text(self) -> bool:
        """Whether the cloud still lacks a part of the text, so that rounds wait."""
        return not self._sync.follows

    @property
    def waiting(self) -> bool:
        """Whether an answer is due: to a hello, a round or a request to decode."""
        return self.state in ("greeting", "waiting", "generating")

    @property
    def progress(self) -> int:
        """Tokens of the text that the cloud has received plus those it has read."""
        return self._sync.progress

    # Drafting

    def push(self, logits: Any, *, setting: int = 0) -> int | None:
        """Draft the next token; None if the round is full.

        A round is full if the next distribution might not fit the message, whatever
        token is sampled from it, or after a stop token. If the text has room for only
        one token, nothing is drafted.

        Parameters
        ----------
        logits : array_like [vocab_size]
            The draft model's logits after the text and the tokens drafted so far, as
            for `Drafter.push`. The session's sampling is applied to them. A
            SparseDistribution is used unchanged.
        setting : int
            Index of the setting; the same for a whole round.

        Raises
        ------
        ValueError
            As for `Drafter.push`, or the round's first distribution doesn't fit a
            message. The session is unchanged.
        RuntimeError
            An answer is due, or the text or the session has ended.
        """
        limits, draft = self._check_open("push"), self._round
        if draft is None:
            at = checks.in_range("setting", setting, 0, len(self._drafters) - 1)
            self._check_unshared()
            number = self._sync.number
            draft = EdgeRound(self._drafters[at], at, len(self._text), number)
        elif not isinstance(draft, EdgeRound) or draft.packet is not None:
            raise RuntimeError("push: an answer is due; hand it to receive() first")
        elif draft.setting != setting:
            raise ValueError(
                f"setting must be {draft.setting}, that of the round's first token, "
                f"got {setting}"
            )
        length = draft.base + len(draft.drafter.tokens)
        if draft.stopped or length + 1 >= limits.max_text:
            return None
        if isinstance(logits, SparseDistribution):
            token = draft.drafter.push(logits)
        else:
            temperature = self._sampling.temperature
            token = draft.drafter.push(logits, temperature=temperature)
        if token is not None:
            draft.stopped = token in self._stop
            self._round = draft
        return token

    def _check_unshared(self) -> None:
        """Reject a round at positions whose random numbers may be known."""
        if self._first_known:
            raise RuntimeError("push: the session was made without rounds")
        if len(self._text) < self.rounds_from:
            raise RuntimeError(
                f"push: up to token {self.rounds_from} the text goes on by shared "
                f"random numbers, and it has {len(self._text)}; see generate()"
            )

    def flush(self) -> None:
        """Queue the round of the pushed tokens; its answer is due then."""
        self._check_open("flush")
        draft = self._round
        if not isinstance(draft, EdgeRound):
            raise RuntimeError("flush: nothing was drafted; push comes first")
        if draft.packet is not None:
            raise RuntimeError("flush: the round is whole; its answer comes next")
        draft.packet, draft.due = draft.drafter.finish(), True

    def generate(self, n: int, *, together: int = 1) -> None:
        """Let the cloud decode `n` tokens with shared random numbers.

        A stop token ends them early. Before all have come, another call with a larger
        `n` raises the number; afterwards a call begins a new request. The cloud sends
        `together` tokens per message, 1 to 64: more take fewer bytes and arrive later.
        """
        checks.in_range("together", together, 1, protocol.MAX_AHEAD)
        limits = self._check_open("generate")
        generation = self._round or EdgeGeneration(len(self._text))
        if isinstance(generation, EdgeRound):
            raise RuntimeError("generate: a round is being drafted; abort() ends it")
        before = generation.earlier
        room = limits.max_text - generation.base
        n = checks.in_range("n", n, max(1, before + generation.n), before + room)
        generation.n, generation.together = n - before, together
        generation.ask()
        self._round = generation

    def guess(self, logits: Any, position: int, count: int = 1) -> Guesses:
        """Predict the cloud's token at a position.

        The cloud samples with the same random numbers, so the first guess is as often
        right as the similarity of the two models allows. Afterwards this position is
        closed to rounds (`rounds_from`).

        Parameters
        ----------
        logits : array_like [vocab_size]
            The draft model's logits after the text and predicted tokens.
        position : int
            Number of tokens before this one.
        count : int
            Number of guesses, 1 to 8.
        """
        if isinstance(self._round, EdgeRound):
            raise RuntimeError(
                "guess: a round is in the works, by other random numbers"
            )
        checks.in_range("position", position, len(self._text))
        shape = np.shape(logits)
        if shape != (self._vocab_size,):
            size = self._vocab_size
            raise ValueError(f"logits must have shape ({size},), got {shape}")
        key, sampling = shared_key(self._seed, self._epoch), self._sampling
        guesses = gumbel_guess(logits, key, position, count, sampling=sampling)
        self._known = max(self._known, position + 1)
        return guesses

    def hint(
        self,
        position: int,
        branches: Sequence[tuple[Sequence[int], Sequence[int], Sequence[float]]],
    ) -> bool:
        """Queue a hint: predicted tokens, which may save the cloud forward passes.

        Returns whether it was queued. It is while the cloud decodes and has the text,
        or gets it in an earlier message.

        Parameters
        ----------
        position : int
            Position of the branches' first token.
        branches : sequence of (path, tokens, chances)
            1 to 16 branches: the predicted tokens between the text and `position`, the
            1 to 16 tokens to send (equally many in each branch), and the probability
            of each.
        """
        checks.in_range("position", position, len(self._text), NEVER)
        made = tuple(
            make_branch([*self._text, *path], tokens, chances, self._vocab_size)
            for path, tokens, chances in branches
        )
        lengths = {len(branch.tokens) for branch in made}
        if not 1 <= len(made) <= protocol.MAX_BRANCHES or len(lengths) > 1:
            raise ValueError(
                f"branches must be 1 to {protocol.MAX_BRANCHES} of one length, got "
                f"{len(made)} of {sorted(lengths)} tokens"
            )
        generates = isinstance(self._round, EdgeGeneration) and self._sync.follows
        queued = generates and self._phase == "open"
        if queued:
            self._serial = (self._serial + 1) % wire.NUMBERS
            hint = wire.Hint(self._sync.number, self._serial, position, made)
            self._hints.append(hint.to_bytes(self._vocab_size))
        return queued

    def _check_open(self, name: str) -> Limits:
        """Return the limits, if the text can continue."""
        welcome = self._welcome
        if self._phase == "refused":
            raise RuntimeError(f"{name}: the session was refused: {self._refused}")
        if self._phase == "ended":
            raise RuntimeError(f"{name}: the session was ended")
        if welcome is None:
            raise RuntimeError(f"{name}: the cloud's welcome comes first; see waiting")
        if self.finished:
            raise RuntimeError(f"{name}: the text is whole; abort(text) begins another")
        return welcome.limits

    def abort(self, text: Sequence[int] | None = None) -> None:
        """Drop the present round or request, and continue from `text` or another one.

        The decision to abort must not depend on drafted tokens, unless the whole text
        is discarded. A new `text` includes its prompt.
        """
        if self._phase in OVER:
            raise RuntimeError("abort: the session is over")
        self._known = self.rounds_from
        if text is not None:
            self._replace(_text.check_text(text, self._vocab_size))
        elif self._round is None:
            return
        self._drop()
        self._sync.skip()
        self._send_text()

    def hold_place(self) -> None:
        """Ask the cloud to keep the place if the link breaks, from the next text on."""
        self._sync.held = True

    def free_place(self) -> bool:
        """Free the place until the next text; tell whether another one is possible."""
        most = 0 if self.limits is None else self.limits.max_text
        if rests := self._phase == "open" and len(self._text) < most:
            self._sync.held = False
            self.abort(self._text)
        return rests

    def _replace(self, text: list[int]) -> None:
        limits = self.limits
        if limits is not None and len(text) >= limits.max_text:
            raise ValueError(
                f"text must leave room within the cloud's {limits.max_text} tokens, "
                f"got {len(text)}"
            )
        self._sync.share(common_length(text, self._text))
        self._text = text
        self._stopped = False
        # New random numbers: some are known, and a repeated prompt needs others.
        self._epoch += 1
        self._known = self._first_known

    def _drop(self) -> None:
        if self._round is not None:
            self._round.drop()
        self._round = None
        self._hints.clear()

    def _send_text(self) -> None:
        """Begin to send the text up to the present round."""
        if self._welcome is None:
            return
        base, drawn = len(self._text), None
        if self._round is not None:
            base, drawn = self._round.base, self._round.drawn
        self._sync.send(self._text[:base], drawn, self._epoch, self._welcome)

    def end(self) -> None:
        """End the session. A second call does nothing."""
        if self._phase in OVER:
            return
        unheard = self._welcome is None and self._due is not None
        self._due = None if unheard else wire.End().to_bytes()
        self._drop()
        self._phase = "ended"

    # Messages to the cloud

    def data_to_send(self) -> list[bytes]:
        """Return the messages to send. They count as sent."""
        if self._due is not None:
            due, self._due = self._due, None
            return [due]
        if self._phase != "open":
            return []
        messages = self._sync.data_to_send()
        if self._round is not None and self._round.due and self._sync.follows:
            messages.append(self._round.to_bytes(self._sync.number))
        messages += self._hints
        self._hints.clear()
        return messages

    def resend(self) -> None:
        """Queue unanswered messages again, after a time-out on an unreliable link."""
        if self._phase == "greeting":
            self._due = self._hello
            return
        self._sync.go_back()
        self._send_round_again()

    def _send_round_again(self) -> None:
        if self._round is not None:
            self._round.again()

    def reconnect(self) -> None:
        """Begin on a new link, perhaps to another cloud. The text stays."""
        if self._phase not in OVER:
            self._phase, self._due = "greeting", self._hello
            self._hints.clear()
            self._heard = self._serial

    # Messages from the cloud

    def receive(self, message: bytes) -> Emitted | None:
        """Process a message from the cloud; return the tokens that it adds, if any.

        A message that breaks the protocol ends the session, like a refusal.
        """
        if self._phase in OVER:
            return None
        try:
            if len(message) > self._max_message:
                raise WireError(
                    f"a message has {len(message)} bytes, the edge takes at most "
                    f"{self._max_message}"
                )
            return self._take(wire.parse_down(bytes(message), self._vocab_size))
        except WireError as error:
            self._refuse(f"the cloud broke the protocol: {error}")
        return None

    def _refuse(self, reason: str) -> None:
        self._drop()
        self._phase, self._due = "refused", None
        self._refused = shown(reason)  # may be the cloud's text, so escape it

    def _take(self, message: wire.Down) -> Emitted | None:
        if isinstance(message, wire.Answer):
            return self._take_answer(message)
        if isinstance(message, wire.Tokens):
            return self._take_tokens(message)
        if isinstance(message, wire.Refusal):
            self._refuse(message.reason)
        elif isinstance(message, wire.Welcome):
            self._take_welcome(message)
        elif isinstance(message, wire.Need):
            self._take_need(message)
        else:
            self._sync.take(message, len(self._text))
        return None

    def _take_welcome(self, welcome: wire.Welcome) -> None:
        before = self._welcome
        same = before is not None and before.instance == welcome.instance
        if same and self._phase != "greeting":
            return  # a repeated welcome
        length = 0 if self.finished else len(self._text)
        reason = _handshake.why_unfit(length, welcome.limits, self.limits)
        if reason is not None:
            self._refuse(reason)
            return
        self._phase, self._due = "open", None
        self._welcome = welcome
        self._welcomes += 1
        if not same or welcome.number > self._sync.number + 1:
            self._adopt(welcome)
        elif welcome.number < self._sync.number:
            self._send_text()
        else:
            self._sync.arrived()
        self._send_round_again()

    def _adopt(self, welcome: wire.Welcome) -> None:
        """Continue with a cloud that doesn't have the text."""
        # The round gets a new number, as the old cloud's answer may still arrive. It
        # keeps the random numbers of the first one, so both clouds give one result.
        if self._round is not None:
            self._round.move(len(self._text))
        self._sync.move(welcome.number)
        self._send_text()

    def _take_need(self, need: wire.Need) -> None:
        if self._welcome is None or self._phase == "greeting":
            return  # the hello on its way solves it
        if need.instance != self._welcome.instance:
            self.reconnect()
            return
        self._send_text()
        self._send_round_again()

    def _take_answer(self, answer: wire.Answer) -> Emitted | None:
        draft = self._round
        if (
            not isinstance(draft, EdgeRound)
            or not draft.sent
            or answer.number != self._sync.number % wire.NUMBERS
        ):
            return None
        drafted = draft.drafter.tokens
        if answer.accepted > len(drafted):
            return None  # an answer to another round
        draft.drafter.feedback(answer.accepted)
        added = self._add([*drafted[: answer.accepted], answer.token], done=True)
        return Emitted(added, answer.accepted, len(drafted))

    def _take_tokens(self, message: wire.Tokens) -> Emitted | None:
        generation = self._round
        if not isinstance(generation, EdgeGeneration):
            return None
        if message.number != self._sync.number:
            return None
        self._heard = message.heard % wire.NUMBERS
        fresh = generation.take(message)
        if not fresh:
            return None
        done = generation.have == generation.n
        return Emitted(self._add(fresh, done=done), 0, 0)

    def _add(self, tokens: list[int], *, done: bool) -> tuple[int, ...]:
        """Add tokens up to a stop token, which also ends the round; return them."""
        tokens = _text.until_stop(tokens, self._stop)
        self._text += tokens
        self._stopped = tokens[-1] in self._stop
        done = done or self._stopped
        if done:
            self._round = None
            self._hints.clear()
        self._sync.answered(len(self._text), done=done)
        return tuple(tokens)
