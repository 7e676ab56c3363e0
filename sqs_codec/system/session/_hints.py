"""The cloud's collection of hints: branches of tokens that may follow the text.

A branch has a position and a hash of the tokens before it. The cloud reads a branch
only if its beginning matches the text. Hints choose which tokens a forward pass reads,
never which tokens are sampled. So lost, late, repeated or false hints do no harm.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np

from sqs_codec._base import checks
from sqs_codec.system._base.protocol import MAX_AHEAD, MAX_DRAFT, MAX_HINTED, MAX_KEPT
from sqs_codec.system.session import _wire as wire
from sqs_codec.system.session._text import check_tokens

HASHED = 4  # tokens before a branch that its hash covers

PRIOR = 2.0
"""Initial count of expected and of actual misses: at first the cloud believes the
probabilities that an edge states."""

MEMORY = 0.99  # factor that counts of misses lose per verified token


def path_hash(tokens: Sequence[int], position: int) -> int:
    """Return a one-byte hash of the last four tokens before a position."""
    last = tokens[max(0, position - HASHED) : position]
    return crc32(np.array(last, ">u4").tobytes()) & 0xFF


def make_branch(
    path: Sequence[int],
    tokens: Sequence[int],
    chances: Sequence[float],
    vocab_size: int,
) -> wire.Branch:
    """Return a branch of a hint that follows `path`, the text from its beginning."""
    found = check_tokens("tokens", tokens, vocab_size)
    if not 1 <= len(found) <= MAX_HINTED or len(chances) != len(found):
        raise ValueError(
            f"a branch must have 1 to {MAX_HINTED} tokens and as many chances, "
            f"got {len(found)} and {len(chances)}"
        )
    sure = [checks.finite(f"chances[{i}]", c, 0, 1) for i, c in enumerate(chances)]
    later = math.prod(sure[1:]) ** (1 / max(1, len(found) - 1))
    levels = _level(sure[0]), _level(later)
    return wire.Branch(path_hash(path, len(path)), *levels, tuple(found))


def _level(chance: float) -> int:
    return min(int(chance * wire.LEVELS), wire.LEVELS - 1)


class _HeardBranch(NamedTuple):
    position: int
    hash: int
    tokens: tuple[int, ...]
    chances: tuple[float, ...]

    def at(self, text: Sequence[int]) -> int | None:
        """Return the index of the token that follows a text; None if none does."""
        done = len(text) - self.position
        if not 0 <= done < len(self.tokens):
            return None
        same = tuple(text[self.position :]) == self.tokens[:done]
        follows = same and path_hash(text, self.position) == self.hash
        return done if follows else None


class HeardHints:
    """The branches that an edge has sent, and a correction of its probabilities."""

    def __init__(self) -> None:
        self._branches: list[_HeardBranch] = []
        self._claims: list[float] = []  # stated probabilities of the last chain
        self._doubted = self._missed = PRIOR  # misses: expected by the edge, and actual

    def clear(self) -> None:
        """Forget the branches, and keep the correction."""
        self._branches.clear()

    def add(self, hint: wire.Hint, length: int) -> None:
        """Add a hint, if its position is close to the end of a text of this length."""
        if not length - MAX_DRAFT < hint.position < length + MAX_AHEAD:
            return
        for branch in hint.branches:
            said = branch.hash, branch.tokens, branch.chances()
            fresh = _HeardBranch(hint.position, *said)
            if fresh not in self._branches:
                self._branches.append(fresh)
        del self._branches[:-MAX_KEPT]

    def chain(self, text: Sequence[int], most: int, threshold: float) -> list[int]:
        """Return up to `most` predicted tokens to read in the next forward pass.

        The corrected probability that all of them are right is at least `threshold`.
        """
        end = len(text)
        known = self._branches
        self._branches = [one for one in known if one.position + len(one.tokens) > end]
        path, self._claims = [*text], []
        reached, bias = 1.0, self._missed / self._doubted
        while len(self._claims) < min(most, MAX_DRAFT) and (found := self._next(path)):
            chance, token = max(found)
            reached *= max(0.0, 1 - (1 - chance) * bias)
            if reached < max(threshold, 1e-9):
                break
            path.append(token)
            self._claims.append(chance)
        return path[len(text) :]

    def _next(self, path: Sequence[int]) -> list[tuple[float, int]]:
        """Return the predicted next tokens, each after its probability."""
        found = [(branch, branch.at(path)) for branch in self._branches]
        return [(b.chances[at], b.tokens[at]) for b, at in found if at is not None]

    def learn(self, accepted: int) -> None:
        """Learn how many tokens of the last chain were right."""
        for i, claim in enumerate(self._claims[: accepted + 1]):
            self._doubted = self._doubted * MEMORY + 1 - claim
            self._missed = self._missed * MEMORY + (i == accepted)
