"""What an edge drafts while the cloud decodes: tokens that may come, told as hints."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from sqs_codec.system.edge._model import DraftModel
from sqs_codec.system.edge._planner import Hints
from sqs_codec.system.session import MAX_HINTED, EdgeSession, Emitted

MOST = 16  # tokens of a branch beyond the text

IN_FLIGHT, SLOW, LOST = 3, 0.5, 2.0
"""Hints of which the cloud isn't known to have heard: one, or three where it has heard
of the last ones within half a second, so that a thin link has no queue. After two
seconds they may be lost."""


@dataclass
class _DraftBranch:
    """Tokens that may follow the text, and how sure each of them is."""

    tokens: list[int]
    chances: list[float]
    told: int = 0  # how many of them the cloud was told

    @property
    def reached(self) -> float:
        """The chance that all of them come."""
        return math.prod(self.chances)


class Ahead:
    """The branches beyond a text, the likeliest first."""

    def __init__(
        self,
        session: EdgeSession,
        draft: DraftModel,
        hints: Hints,
        end: int,
        clock: Callable[[], float],
    ) -> None:
        self._session = session
        self._draft = draft
        self._hints = hints
        self._end = end  # of what the cloud is to decode
        self._clock = clock
        self._branches: list[_DraftBranch] = []
        self._told: deque[float] = deque()  # when, of hints that aren't heard of
        self._slow = True  # whether the cloud hears of hints late, as far as is known
        self.seconds = 0.0
        """What the last step took that has read no more than a token of each branch."""

    def follow(self, emitted: Emitted) -> Emitted:
        """Keep what fits tokens that have come.

        Returns these, with how many of them were guessed, and how many rightly.
        """
        guessed = right = 0
        for token in emitted.tokens:
            if not self._branches:
                continue
            kept = [b for b in self._branches if b.tokens[0] == token]
            guessed += 1
            right += bool(kept)
            for branch in kept:
                del branch.tokens[0], branch.chances[0]
                branch.told = max(0, branch.told - 1)
            self._branches = [branch for branch in kept if branch.tokens]
        return Emitted(emitted.tokens, right, guessed)

    def step(self) -> bool:
        """Draft a token more of each branch that is worth it; say if any is."""
        began, goes_on = self._clock(), bool(self._branches)
        drafted = self._step(self._session.text)
        if drafted and goes_on:
            self.seconds = self._clock() - began
        return drafted

    def _step(self, text: list[int]) -> bool:
        if not self._branches:
            self._begin(text)
            return bool(self._branches)
        most = min(MOST, self._end - len(text))
        short = [one for one in self._branches if len(one.tokens) < most]
        alive = [*filter(self._is_worth_it, short)]
        if not alive:
            return False
        draft, texts = self._draft, [[*text, *branch.tokens] for branch in alive]
        rows = draft.branches(texts) if len(texts) > 1 else draft.logits(*texts)
        for branch, row in zip(alive, rows, strict=True):
            position = len(text) + len(branch.tokens)
            guesses = self._session.guess(row, position)
            branch.tokens += guesses.tokens
            branch.chances += guesses.chances
        return True

    def _begin(self, text: list[int]) -> None:
        if len(text) >= self._end:
            return
        row = self._draft.logits(text)[-1]
        guesses = self._session.guess(row, len(text), self._hints.branches)
        self._branches = [
            _DraftBranch([token], [chance])
            for token, chance in zip(guesses.tokens, guesses.chances, strict=True)
        ]

    def _is_worth_it(self, branch: _DraftBranch) -> bool:
        return branch.reached >= self._hints.threshold / 4

    def tell(self, drafting: bool) -> None:
        """Queue a hint of what the cloud wasn't told, if that is enough for one.

        If no more is drafted for the moment, a token is enough. While too many hints
        are on their way the next one grows.
        """
        if self._is_busy():
            return
        least = self._hints.positions if drafting else 1
        worth = filter(self._is_worth_it, self._branches)
        fresh = [one for one in worth if len(one.tokens) - one.told >= least]
        if not fresh:
            return
        start = fresh[0].told
        length = min(len(fresh[0].tokens) - start, MAX_HINTED)
        end = start + length
        alike = [one for one in fresh if one.told == start and len(one.tokens) >= end]
        part = slice(start, start + length)
        queued = self._session.hint(
            len(self._session.text) + start,
            [(b.tokens[:start], b.tokens[part], b.chances[part]) for b in alike],
        )
        if queued:
            self._told.append(self._clock())
            for branch in alike:
                branch.told = end

    def _is_busy(self) -> bool:
        """Say whether the cloud is still to hear of as many hints as there may be."""
        now = self._clock()
        while len(self._told) > self._session.unheard:
            self._slow = now - self._told.popleft() > SLOW
        if self._told and now - self._told[-1] > LOST:
            return False
        return len(self._told) >= (1 if self._slow else IN_FLIGHT)

    def tell_again(self) -> None:
        """Take that another cloud may lack what was told."""
        self._told.clear()
        for branch in self._branches:
            branch.told = 0
