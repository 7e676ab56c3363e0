"""An edge: a draft model, whatever runs it, that writes texts with a cloud's."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Collection, Generator, Sequence
from functools import partial

import numpy as np

from sqs_codec import Sampling
from sqs_codec.system._base.protocol import MODES, Mode
from sqs_codec.system.edge._line import Line
from sqs_codec.system.edge._loop import Planning, count, write
from sqs_codec.system.edge._metrics import Completion, EdgeMetrics
from sqs_codec.system.edge._model import Draft
from sqs_codec.system.edge._planner import Planner, Prefer, Step
from sqs_codec.system.edge._reading import Reader
from sqs_codec.system.edge._seed import seed_of
from sqs_codec.system.session import EdgeSession, Link, Setting

MOST_PLANNERS = 16
"""What is known of links and models for other ways to draw is forgotten."""


class _Kept:
    """One line at most, which rests until the edge is gone."""

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
        The draft model. By its tokenizer's fingerprint the cloud makes sure that both
        models have the same vocabulary.
    settings : sequence of Setting, optional
        What the planner may choose from, 1 to 4. If None, `Setting.defaults`.
    planner : Planner or FixedPlan, optional
        If None, a `Planner` of the edge's own, which learns from text to text.
    modes, prefer
        As the `Planner` takes them.
    rng : numpy.random.Generator, optional
        Draws the drafted tokens. If None, one with a fresh seed.
    keep_session : bool
        Whether texts with an equal callable `link` (of one server and token) go on over
        one link until `close`; those without a given seed, but with equal sampling and
        stop tokens, also with one session.

    Attributes
    ----------
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
        keep_session: bool = True,
    ) -> None:
        tokenizer = draft.tokenizer
        self._stop = tokenizer.stop if tokenizer else frozenset[int]()
        self._fingerprint = tokenizer.fingerprint if tokenizer else b""
        self.metrics = EdgeMetrics()
        if settings is None:
            settings = Setting.defaults(draft.vocab_size)
        Planner(settings, modes=modes, prefer=prefer)  # for its errors, now
        self._settings, self._modes, self._prefer = settings, tuple(modes), prefer
        self.draft = draft
        self._reader = Reader(draft, time.monotonic)  # it knows what is cached
        self._rng = np.random.default_rng() if rng is None else rng
        self._given_planner = planner
        self._planners: dict[tuple[Sampling, bool], Planning] = {}
        self._keep_session = keep_session
        self._kept = _Kept()

    def __repr__(self) -> str:
        return f"<Edge of {self.draft}>"

    def close(self) -> None:
        """End the session and the link that stay, and those of a text once it ends."""
        self._kept.closings += 1
        self._close(self._kept.take(), self.metrics)

    def generate(
        self,
        prompt: Sequence[int],
        link: Link | Callable[[], Link],
        *,
        max_tokens: int,
        sampling: Sampling | None = None,
        stop: Collection[int] | None = None,
        seed: int | None = None,
        planner: Planning | None = None,
        patience: float = 60.0,
    ) -> Completion:
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
        planner : Planner or FixedPlan, optional
            For this completion, instead of the edge's.
        patience : float
            After so many seconds without a token or progress from the cloud it is
            given up. A cloud that reads a long text says how far it is.

        Returns
        -------
        iterator of Step
            Each comes as soon as its tokens are verified. ``metrics`` are those of this
            completion so far; ``close()`` ends it.

        Raises
        ------
        RefusalError
            The cloud refuses the session and says why.
        LinkError
            There is no link, or no answer for too long.
        """
        metrics = EdgeMetrics(
            alone_tokens=self.metrics.alone_tokens,
            alone_seconds=self.metrics.alone_seconds,
        )
        sampling = Sampling() if sampling is None else sampling
        if seed is not None and set(self._modes) == {"rounds"}:
            raise ValueError("seed: rounds alone, as asked, have no text of a seed")
        ends = sorted(self._stop if stop is None else stop)
        begin = partial(
            EdgeSession,
            self._settings,
            prompt,
            rng=self._rng,
            sampling=sampling,
            tokenizer=self._fingerprint,
            stop=ends,
            seed=None if seed is None else seed_of(seed, prompt),
            rounds=seed is None,
        )
        about = (sampling, ends) if seed is None else object()  # one of its own

        def steps() -> Generator[Step, None, None]:
            began, sums = time.monotonic(), (metrics, self.metrics)
            keep, closings = self._keep_session and callable(link), self._kept.closings
            lines = self._kept.take() if keep else []
            try:
                if not lines or lines[0].connect != link:
                    lines.insert(0, Line(link, begin, patience))
                elif lines[0].about != about or not lines[0].resume(prompt, patience):
                    lines[0].renew(begin, patience)
                line, line.about = lines[0], about
                how = planner or self._planner(sampling, seed is None)
                yield from write(line, self._reader, how, max_tokens, began, *sums)
            finally:
                if lines and keep and lines[0].rest():
                    count(lines[0], *sums)
                    lines += self._kept.take(lines.pop(0), closings=closings)
                self._close(lines, *sums)

        return Completion(steps(), metrics)

    def _close(self, lines: list[Line], *sums: EdgeMetrics) -> None:
        for line in lines:
            line.close()
            count(line, *sums)

    def _planner(self, sampling: Sampling, rounds: bool) -> Planning:
        if self._given_planner is not None:
            return self._given_planner
        key = sampling, rounds
        if key not in self._planners:
            if len(self._planners) == MOST_PLANNERS:
                del self._planners[next(iter(self._planners))]
            modes = [mode for mode in self._modes if rounds or mode != "rounds"]
            self._planners[key] = Planner(
                self._settings, modes=modes, prefer=self._prefer
            )
        return self._planners[key]
