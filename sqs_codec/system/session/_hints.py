"""What a cloud holds of an edge's guesses: which tokens may follow the text.

A guess says what may come *after* some tokens at a position, of which it has a hash.
Those that don't follow the text are never read, so that it is all the same whether one
is lost, late, doubled or a lie: guesses decide what is read, never what is drawn.
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

HASHED = 4  # tokens before a guess that its hash is of

PRIOR, MEMORY = 2.0, 0.99
"""Misses by which an edge's word is taken at first, and the weight of what came of a
guess once the next is verified."""


def path_hash(tokens: Sequence[int], position: int) -> int:
    """Return a byte that tells which tokens, four at most, come before a position."""
    last = tokens[max(0, position - HASHED) : position]
    return crc32(np.array(last, ">u4").tobytes()) & 0xFF


def make_branch(
    path: Sequence[int],
    tokens: Sequence[int],
    chances: Sequence[float],
    vocab_size: int,
) -> wire.Branch:
    """Return a branch of a hint that follows a path from the beginning of the text."""
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
    """Guessed tokens, how sure each is, and what they follow."""

    position: int
    hash: int
    tokens: tuple[int, ...]
    chances: tuple[float, ...]

    def at(self, text: Sequence[int]) -> int | None:
        """Return which of its tokens follows a text; None if none does."""
        done = len(text) - self.position
        if not 0 <= done < len(self.tokens):
            return None
        same = tuple(text[self.position :]) == self.tokens[:done]
        follows = same and path_hash(text, self.position) == self.hash
        return done if follows else None


class HeardHints:
    """The guesses that an edge has sent, and how far its word can be taken."""

    def __init__(self) -> None:
        self._branches: list[_HeardBranch] = []
        self._claims: list[float] = []  # of the last chain
        self._doubted = self._missed = PRIOR  # by the edge, and in truth

    def clear(self) -> None:
        """Forget the guesses, but not what they were worth."""
        self._branches.clear()

    def add(self, hint: wire.Hint, length: int) -> None:
        """Take a hint, if it is about what may follow a text of this length soon."""
        if not length - MAX_DRAFT < hint.position < length + MAX_AHEAD:
            return
        for branch in hint.branches:
            said = branch.hash, branch.tokens, branch.chances()
            fresh = _HeardBranch(hint.position, *said)
            if fresh not in self._branches:
                self._branches.append(fresh)
        del self._branches[:-MAX_KEPT]

    def chain(self, text: Sequence[int], most: int, threshold: float) -> list[int]:
        """Return up to `most` tokens that `threshold` allows to read next."""
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
        """Return the tokens that may follow, and how sure each is."""
        found = [(branch, branch.at(path)) for branch in self._branches]
        return [(b.chances[at], b.tokens[at]) for b, at in found if at is not None]

    def learn(self, accepted: int) -> None:
        """Take how many tokens of the last chain were right."""
        for i, claim in enumerate(self._claims[: accepted + 1]):
            self._doubted = self._doubted * MEMORY + 1 - claim
            self._missed = self._missed * MEMORY + (i == accepted)
