"""An edge: a draft model, whatever runs it, that writes texts with a cloud's."""

from __future__ import annotations

import copy
import math
import threading
import time
import weakref
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from sqs_codec import Sampling
from sqs_codec.system.edge._line import Line
from sqs_codec.system.edge._loop import Planning, write
from sqs_codec.system.edge._model import Draft
from sqs_codec.system.edge._planner import MEMORY, Planner, Prefer, Step, check_modes
from sqs_codec.system.edge._reading import Reader
from sqs_codec.system.session import MODES, EdgeSession, Link, Mode, Setting, seed_of

MOST_PLANNERS = 16
"""What is known of links and models for other ways to draw is forgotten."""


@dataclass
class EdgeMetrics:
    """Sums over the texts of an edge.

    Attributes
    ----------
    tokens : int
        Of the texts, prompts not counted.
    drafted : int
        Tokens that were sent in rounds; with hints, tokens of the text that the cloud
        had hints of in time.
    accepted : int
        Drafted tokens that the cloud accepted; with hints, tokens that took no forward
        pass of their own.
    resampled : int
        Rejected tokens, at most one per answer: after it the rest of a round is void.
        With hints also tokens whose hints the cloud found too unlikely to read.
    answers : int
        Rounds, and passes of the target model while it decodes.
    bytes_up, bytes_down : int
        On the wire: all packets, with connecting and the end of the session.
    seconds : float
        From the beginning of each text to its last token.
    mode, reason : str
        How the last tokens came, and why: the planner's line.
    alone_tokens, alone_seconds : float
        Of the cloud alone, as far as they were measured; the last ones count most.
    """

    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    resampled: int = 0
    answers: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float = 0.0
    mode: Mode | Literal[""] = ""
    reason: str = ""
    alone_tokens: float = 0.0
    alone_seconds: float = 0.0

    @property
    def acceptance_rate(self) -> float:
        """Accepted tokens per accepted or rejected token."""
        return self.accepted / max(1, self.accepted + self.resampled)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of text per second."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def alone_per_second(self) -> float:
        """Tokens per second of the cloud alone; 0 before they were measured."""
        return self.alone_tokens / self.alone_seconds if self.alone_seconds else 0.0

    def add(self, step: Step) -> None:
        """Account for a step."""
        self.tokens += len(step.tokens)
        self.drafted += step.drafted
        self.accepted += step.accepted
        self.resampled += step.resampled
        self.answers += 1
        self.bytes_up += step.bytes_up
        self.bytes_down += step.bytes_down
        self.mode, self.reason = step.mode, step.reason
        if step.mode == "alone" and step.seconds is not None:
            kept = math.exp(-len(step.tokens) / MEMORY)
            self.alone_tokens = kept * self.alone_tokens + len(step.tokens)
            self.alone_seconds = kept * self.alone_seconds + step.seconds


class _Kept:
    """One line at most, which rests until an edge and what it `planned` are gone."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.closings = 0
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self.lines)

    def take(self, *instead: Line, closings: int | None = None) -> list[Line]:
        """Have another line rest; return what did, or that if one was closed since."""
        with self._lock:
            if closings not in (None, self.closings):
                return [*instead]
            lines, self.lines[:] = [*self.lines], instead
            return lines


def _close(lines: list[Line]) -> None:
    for line in lines:
        line.close()


class Edge:
    """A draft model that writes texts with a cloud's target model.

    The texts are distributed as the target model's own, whatever the draft model is
    and whatever the link does; only how fast they come depends on these.

    Parameters
    ----------
    draft : Draft
        The draft model. By its fingerprint the cloud makes sure that both models
        have the same vocabulary.
    settings : sequence of Setting, optional
        What the planner may choose from, 1 to 4. If None, `Setting.defaults`.
    planner : Planner or FixedPlan, optional
        If None, a `Planner` of the edge's own, which learns from text to text.
    modes, prefer
        As the `Planner` takes them.
    rng : numpy.random.Generator, optional
        Draws the drafted tokens. If None, one with a fresh seed.
    keep : bool
        Whether texts with an equal callable `link` (of one server and token) go on over
        one link until `close`; those without a given seed, but with equal sampling and
        stop tokens, also with one session.

    Attributes
    ----------
    draft : Draft
        As given.
    vocab_size : int
        V.
    stop : frozenset of int
        The model's own stop tokens.
    metrics : EdgeMetrics
        Over all texts so far.
    """

    def __init__(
        self,
        draft: Draft,
        *,
        settings: Sequence[Setting] | None = None,
        planner: Planning | None = None,
        modes: Collection[Mode] = MODES,
        prefer: Prefer = "speed",
        rng: np.random.Generator | None = None,
        keep: bool = True,
    ) -> None:
        self.vocab_size = draft.vocab_size
        self.stop = draft.stop
        self.metrics = EdgeMetrics()
        self._settings = settings or Setting.defaults(self.vocab_size)
        self.draft = draft
        self._reader = Reader(draft, time.monotonic)  # it knows what is cached
        self._rng = np.random.default_rng() if rng is None else rng
        self._given_planner = planner
        self._modes, self._prefer = check_modes(modes), prefer
        self._planners: dict[tuple[Sampling, int, bool], Planning] = {}
        self._keep = keep
        self._kept = _Kept()

    def __repr__(self) -> str:
        return f"<Edge of {type(self.draft).__name__}, vocabulary {self.vocab_size}>"

    def planned(self, planner: Planning) -> Edge:
        """Return an edge with another planner and the same draft and metrics."""
        made = copy.copy(self)
        made._given_planner = planner
        return made

    @property
    def kept(self) -> list[int]:
        """The text of the session that stays; empty if there is none."""
        return next((line.session.text for line in self._kept.lines), [])

    def close(self) -> None:
        """End the session and the link that stay, and those of a text once it ends."""
        self._kept.closings += 1
        self._close(self._kept.take())

    def generate(
        self,
        prompt: Sequence[int],
        link: Link | Callable[[], Link],
        *,
        max_tokens: int,
        sampling: Sampling | None = None,
        stop: Collection[int] | None = None,
        seed: int | None = None,
        patience: float = 60.0,
    ) -> Generator[Step, None, None]:
        """Continue a text.

        Parameters
        ----------
        prompt : sequence of int
            Token ids, at least one.
        link : Link or callable
            A link to the cloud, or what makes one. From what makes one the text
            survives a link that breaks. A given link is closed at the end.
        max_tokens : int
            Where the text ends at the latest.
        sampling : Sampling, optional
            Of the target model. The same applies to the draft model. If None,
            temperature 1 and no truncation.
        stop : collection of int, optional
            Tokens that end the text, as its last one. If None, the model's own.
        seed : int, optional
            Gives the same text for the same prompt and sampling each time, over any
            link, with or without hints, as far as the target model computes the same.
            It rules rounds out, whose text depends on more. If None, a fresh one.
        patience : float
            After so many seconds without a token or progress from the cloud it is
            given up. A cloud that reads a long text says how far it is.

        Yields
        ------
        Step
            As soon as its tokens are verified. `metrics` include it.

        Raises
        ------
        RefusalError
            The cloud refuses the session and says why.
        LinkError
            There is no link, or no answer for too long.
        """
        sampling = Sampling() if sampling is None else sampling
        if seed is not None and set(self._modes) == {"rounds"}:
            raise ValueError("seed: rounds alone, as asked, have no text of a seed")
        ends = sorted(self.stop if stop is None else stop)
        begin = partial(
            EdgeSession,
            self._settings,
            prompt,
            rng=self._rng,
            sampling=sampling,
            tokenizer=self.draft.fingerprint,
            stop=ends,
            seed=None if seed is None else seed_of(seed, prompt),
            rounds=seed is None,
        )
        began = time.monotonic() - self.metrics.seconds
        about = (sampling, ends) if seed is None else object()  # one of its own
        keep, closings = self._keep and callable(link), self._kept.closings
        lines = self._kept.take() if keep else []
        try:
            if not lines or lines[0].connect != link:
                lines.insert(0, Line(link, begin, patience))
            elif lines[0].about != about or not lines[0].resume(prompt, patience):
                lines[0].renew(begin, patience)
            line, line.about = lines[0], about
            planner = self._planner(sampling, line.overhead, seed is None)
            for step in write(line, self._reader, planner, max_tokens):
                self.metrics.add(step)
                self.metrics.seconds = time.monotonic() - began
                yield step
        finally:
            if lines and keep and lines[0].rest():
                self._count(lines[0])
                lines += self._kept.take(lines.pop(0), closings=closings)
            self._close(lines)

    def _close(self, lines: list[Line]) -> None:
        for line in lines:
            line.close()
            self._count(line)

    def _count(self, line: Line) -> None:
        up, down = line.count()  # since the last step
        self.metrics.bytes_up += up
        self.metrics.bytes_down += down

    def _planner(self, sampling: Sampling, overhead: int, rounds: bool) -> Planning:
        if self._given_planner is not None:
            return self._given_planner
        key = sampling, overhead, rounds
        if key not in self._planners:
            if len(self._planners) == MOST_PLANNERS:
                del self._planners[next(iter(self._planners))]
            modes = [mode for mode in self._modes if rounds or mode != "rounds"]
            self._planners[key] = Planner(
                self._settings,
                overhead=overhead,
                modes=modes,
                prefer=self._prefer,
            )
        return self._planners[key]
