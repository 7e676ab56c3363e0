"""What an edge drafts while the cloud decodes: tokens that may come, told as hints."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sqs_codec.system._base.protocol import MAX_HINTED, PART
from sqs_codec.system.edge._planner import Hints
from sqs_codec.system.edge._reading import Reader
from sqs_codec.system.session import EdgeSession, Emitted

MOST = 16  # tokens of a branch beyond the text

WIDTH = 6
"""Branches that are drafted on in a step and told in a hint, at most."""

OPENS, LATE = 2.0, 4
"""A guess opens a branch if it is reached with so many times the threshold, unless the
cloud hears of hints after more than so many of its messages: the link has no room."""

IN_FLIGHT, SLOW, LOST = 3, 0.5, 2.0
"""Hints of which the cloud isn't known to have heard: one, or three where it has heard
of the last ones within half a second, so that a thin link has no queue. After two
seconds they may be lost."""


@dataclass
class _DraftBranch:
    """Tokens that may follow the text, and how likely each of them is."""

    tokens: list[int]
    chances: list[float]
    told: int = 0  # how many of them the cloud was told
    heard: int = 0  # up to which position of the text the cloud is known to have it

    @property
    def reached(self) -> float:
        """The chance that all of them come."""
        return math.prod(self.chances)


class Branches:
    """The branches beyond a text, the likeliest first."""

    def __init__(
        self,
        session: EdgeSession,
        draft: Reader,
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
        self._messages = 0  # of the cloud's tokens
        # Of hints that aren't heard of: when they were told, after which message, up to
        # which position, and of which branches.
        self._told: deque[tuple[float, int, int, list[_DraftBranch]]] = deque()
        # Whether the cloud hears of hints late, as far as is known.
        self._slow = self._late = True
        self.reads = False
        """Whether the draft still reads the text, in parts."""
        self.seconds = 0.0
        """What the last step took that has read no more than a token of each branch."""

    def follow(self, emitted: Emitted) -> Emitted:
        """Keep what fits new tokens; add how many were hinted, and hinted right."""
        right, told, in_time = 0, False, False
        self._messages += 1
        start = len(self._session.text) - len(emitted.tokens)
        for at, token in enumerate(emitted.tokens, start):
            kept = [b for b in self._branches if b.tokens[0] == token]
            in_time = any(branch.heard > at for branch in self._branches)
            told = any(branch.told for branch in kept)
            right += told
            for branch in kept:
                del branch.tokens[0], branch.chances[0]
                branch.told = max(0, branch.told - 1)
            self._branches = [branch for branch in kept if branch.tokens]
        accepted = right - told
        if told and self._session.finished:  # it may well have been a hint
            in_time = False
        return Emitted(emitted.tokens, accepted, accepted + in_time)

    def step(self) -> bool:
        """Read a part of the text, or draft a token per branch; say if it did."""
        began, goes_on = self._clock(), bool(self._branches)
        drafted = self._step(self._session.text)
        if drafted and goes_on and not self.reads:
            self.seconds = self._clock() - began
        return drafted

    def _step(self, text: list[int]) -> bool:
        most = min(MOST, self._end - len(text))
        known = self._branches or [_DraftBranch([], [])]
        short = [one for one in known if len(one.tokens) < most and self._goes_on(one)]
        alive = [*filter(self._is_worth_it, short)][:WIDTH]
        if not alive:
            return False
        draft, texts = self._draft, [[*text, *branch.tokens] for branch in alive]
        self.reads = draft.read(texts[0])
        if self.reads:
            return True
        rows = draft.branches(texts) if len(texts) > 1 else draft.logits(*texts)
        for branch, row in zip(alive, rows, strict=True):
            known += self._grow(branch, row, len(text) + len(branch.tokens))
        self._branches = sorted(known, key=lambda one: one.reached, reverse=True)
        return True

    def _grow(self, branch: _DraftBranch, row: Any, at: int) -> list[_DraftBranch]:
        """Add the first guess to a branch; return branches that others open."""
        guesses = self._session.guess(row, at, self._hints.branches)
        first, *rest = zip(guesses.tokens, guesses.chances, strict=True)
        others = [
            replace(branch, tokens=[*branch.tokens, t], chances=[*branch.chances, c])
            for t, c in rest
        ]
        if branch.tokens:
            least = math.inf if self._late else OPENS * self._hints.threshold
            others = [one for one in others if one.reached >= least]
        branch.tokens.append(first[0])
        branch.chances.append(first[1])
        return others

    def _is_worth_it(self, branch: _DraftBranch) -> bool:
        return branch.reached >= self._hints.threshold / 4

    def _goes_on(self, branch: _DraftBranch) -> bool:
        return self._session.stop.isdisjoint(branch.tokens[-1:])

    def tell(self, drafting: bool) -> None:
        """Queue a hint if enough is new: a token, if drafting pauses or stops."""
        # While too many hints are on their way the next one grows.
        if self._is_busy():
            return
        least = self._hints.positions if drafting else 1
        worth = filter(self._is_worth_it, self._branches)
        fresh = [
            one
            for one in worth
            if len(one.tokens) - one.told >= (least if self._goes_on(one) else 1)
        ]
        if not fresh:
            return
        start = fresh[0].told
        length = min(len(fresh[0].tokens) - start, MAX_HINTED)
        end = start + length
        alike = [one for one in fresh if one.told == start and len(one.tokens) >= end]
        del alike[WIDTH:]
        part = slice(start, end)
        queued = self._session.hint(
            len(self._session.text) + start,
            [(b.tokens[:start], b.tokens[part], b.chances[part]) for b in alike],
        )
        if queued:
            to = len(self._session.text) + end
            self._told.append((self._clock(), self._messages, to, alike))
            for branch in alike:
                branch.told = end
                if not self._messages and len(self._session.text) > PART:
                    # It still reads the prompt.
                    branch.heard = to

    def _is_busy(self) -> bool:
        """Say whether the cloud is still to hear of as many hints as there may be."""
        now = self._clock()
        while len(self._told) > self._session.unheard_hints:
            at, messages, to, branches = self._told.popleft()
            for branch in branches:
                branch.heard = to
            self._slow = now - at > SLOW
            self._late = self._slow or self._messages - messages > LATE
        if self._told and now - self._told[-1][0] > LOST:
            return False
        return len(self._told) >= (1 if self._slow else IN_FLIGHT)

    def tell_again(self) -> None:
        """Take that another cloud may lack what was told."""
        self._told.clear()
        for branch in self._branches:
            branch.told = 0
