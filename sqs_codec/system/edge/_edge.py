"""An edge: a draft model that produces completions with a cloud's target model."""

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
"""Planners that an edge keeps, one per kind of sampling and link; the oldest leaves."""


class _Kept:
    """At most one idle line. It is closed with the edge."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.closings = 0
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self.lines)

    def take(self, *instead: Line, closings: int | None = None) -> list[Line]:
        """Replace the kept line and return the old one.

        If `close` was called since `closings`, keep nothing and return `instead`.
        """
        with self._lock:
            if closings not in (None, self.closings):
                return [*instead]
            lines, self.lines[:] = [*self.lines], instead
            return lines


def _close(lines: list[Line]) -> None:
    for line in lines:
        line.close()


class Edge:
    """A draft model that produces completions with a cloud's target model.

    Completions have the target model's output distribution. Draft model and link only
    affect their speed.

    Parameters
    ----------
    draft : Draft
        The draft model. The cloud compares its tokenizer's fingerprint with that of
        the target, to make sure that both have the same vocabulary.
    settings : sequence of Setting, optional
        1 to 4 settings that the planner can choose. If None, `Setting.defaults`.
    planner : Planner or FixedPlan, optional
        If None, the edge makes a `Planner`, which learns across completions.
    modes, prefer
        Arguments of that `Planner`.
    rng : numpy.random.Generator, optional
        Samples the drafted tokens. If None, one with a fresh seed.
    keep_session : bool
        Whether completions with an equal callable `link` (one server and access token)
        share a link until `close`. Those without a given seed, but with equal sampling
        and stop tokens, also share a session.

    Attributes
    ----------
    draft : Draft
        The draft model.
    metrics : EdgeMetrics
        Sums over all completions so far.
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
        self._reader = Reader(draft, time.monotonic)  # knows what the KV cache holds
        self._rng = np.random.default_rng() if rng is None else rng
        self._given_planner = planner
        self._planners: dict[tuple[Sampling, bool], Planning] = {}
        self._keep_session = keep_session
        self._kept = _Kept()

    def __repr__(self) -> str:
        return f"<Edge of {self.draft}>"

    def close(self) -> None:
        """Close the kept session and link; those of a completion close at its end."""
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
        """Start a completion.

        Parameters
        ----------
        prompt : sequence of int
            Token ids, at least one.
        link : Link or callable
            A link to the cloud, or a function that makes one. With a function, the
            completion survives a broken link. A given link is closed at the end.
        max_tokens : int
            Maximum number of tokens to produce.
        sampling : Sampling, optional
            Temperature and truncation, for target and draft. If None, temperature 1 and
            no truncation.
        stop : collection of int, optional
            Tokens that end the completion; the last token is one of them. If None, the
            model's own.
        seed : int, optional
            The same seed, prompt and sampling give the same completion, over any link,
            with or without hints, if the target computes the same logits. It excludes
            rounds, whose tokens depend on more. If None, a fresh one.
        planner : Planner or FixedPlan, optional
            Replaces the edge's planner for this completion.
        patience : float
            Give up after this many seconds without a token or progress. A cloud in
            prefill reports its progress.

        Returns
        -------
        iterator of Step
            Steps come as soon as their tokens are verified. ``metrics`` has the sums so
            far; ``close()`` ends the completion.

        Raises
        ------
        RefusalError
            The cloud refused the session; the message says why.
        LinkError
            No connection, or no answer for longer than `patience`.
        """
        metrics = EdgeMetrics(
            alone_tokens=self.metrics.alone_tokens,
            alone_seconds=self.metrics.alone_seconds,
        )
        sampling = Sampling() if sampling is None else sampling
        if seed is not None and set(self._modes) == {"rounds"}:
            raise ValueError(
                "seed needs the mode alone or hints; modes has only rounds"
            )
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
        about = (sampling, ends) if seed is None else object()  # equal to no other

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
