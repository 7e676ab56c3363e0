"""Hints: predict tokens while the cloud decodes, and send the predictions."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sqs_codec.system._base.protocol import MAX_HINTED, PART
from sqs_codec.system.edge._planner import Hints
from sqs_codec.system.edge._reading import Reader
from sqs_codec.system.session import EdgeSession, Emitted

MOST = 16  # maximum length of a branch, in tokens

WIDTH = 6
"""Maximum number of branches in a drafting step and in a message."""

OPENS = 2.0
"""A guess opens a branch if its probability is at least this many times the
threshold."""

LATE = 4
"""No branches open if the cloud receives hints after more than this many of its own
messages: the link has no room for them."""

IN_FLIGHT = 3
"""Maximum number of unconfirmed hints. On a slow link it is 1, so that no queue
forms."""

SLOW = 0.5  # seconds to a confirmation; from there on the link counts as slow

LOST = 2.0  # seconds without a confirmation; then hints count as lost


@dataclass
class _DraftBranch:
    """Predicted tokens after the text, with the probability of each."""

    tokens: list[int]
    chances: list[float]
    told: int = 0  # number of tokens sent to the cloud
    heard: int = 0  # position of the text up to which the cloud has confirmed it

    @property
    def reached(self) -> float:
        """The probability that all tokens are right."""
        return math.prod(self.chances)


class Branches:
    """The branches after a text, sorted from the most probable one."""

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
        self._end = end  # position where the cloud stops decoding
        self._clock = clock
        self._branches: list[_DraftBranch] = []
        self._messages = 0  # messages with tokens from the cloud
        # Unconfirmed hints: time sent, messages before it, end position, branches.
        self._told: deque[tuple[float, int, int, list[_DraftBranch]]] = deque()
        self._slow = self._late = True  # until measured
        self.reads = False
        """Whether the draft is still in prefill."""
        self.seconds = 0.0
        """Duration of the last step that read only one token per branch."""

    def follow(self, emitted: Emitted) -> Emitted:
        """Keep the branches that match new tokens; count hinted and right tokens."""
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
        if told and self._session.finished:  # the hint may have come in time
            in_time = False
        return Emitted(emitted.tokens, accepted, accepted + in_time)

    def step(self) -> bool:
        """Read a part of the text, or draft a token per branch; False if idle."""
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
        """Append the best guess to a branch; return new branches for the others."""
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
        """Queue a hint if enough tokens are new; one is enough when drafting pauses."""
        # While too many hints are unconfirmed, the next one grows.
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
                    # It arrives before the first token: the cloud is in prefill.
                    branch.heard = to

    def _is_busy(self) -> bool:
        """Tell whether the maximum number of hints is unconfirmed."""
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
        """Send all branches again: a new cloud doesn't have them."""
        self._told.clear()
        for branch in self._branches:
            branch.told = 0
