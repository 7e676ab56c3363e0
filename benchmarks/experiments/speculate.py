"""Speculation over a known completion, with its exact acceptance probabilities.

In speculative decoding the completion has the target's distribution, whatever is
drafted. So a completion of the target can be replayed. Given token y at a position, a
draft there was accepted with probability min(p(y), q^(y)) / p(y), and then it was y.
Otherwise it was sampled from max(0, q^ - p), normalized, independently of y. So one
completion and its rows, of both models, serve for all settings.

Only drafts after a rejected token are unknown, as the models weren't run there. These
drafts are void, and the completion's rows replace theirs, so that their bits are
approximately right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from benchmarks.schemes import Row, Rule, Sent, paper_bits

if TYPE_CHECKING:
    from benchmarks.experiments.traces import Trace


def judge(
    row: Row, q: sqs.SparseDistribution, token: int, judged: float, drawn: float
) -> tuple[bool, int]:
    """Sample whether a draft from `q` is accepted, and its token.

    An accepted draft is the completion's `token`. Numbers in [0, 1) decide: `judged`
    about the acceptance, `drawn` about a rejected draft's token.
    """
    p = row.p
    if judged * p[token] < min(p[token], q.prob(token)):
        return True, token
    excess = np.maximum(0.0, q.probs - p[q.token_ids])
    total = excess.sum()
    if total <= 0:  # p and q are equal except for rounding
        return True, token
    place = np.searchsorted(excess.cumsum(), drawn * total, "right")
    return False, int(q.token_ids[min(int(place), len(q.token_ids) - 1)])


class Draft(NamedTuple):
    """A drafted token."""

    row: Row
    sent: Sent
    dropped: float
    """The dropped mass."""
    state: float
    """The keep rule's state before it: the threshold of a `Conformal`."""
    accepted: bool
    """Whether the cloud would accept it."""
    token: int

    @property
    def rejection(self) -> float:
        """The probability of rejection: TV(p, q^)."""
        return max(0.0, 1.0 - self.sent.loss.acceptance)


@dataclass(frozen=True)
class Round:
    """A round of L drafts."""

    drafts: tuple[Draft, ...]
    accepted: int
    """The number of accepted drafts."""
    tokens: int
    """The completion's new tokens: the accepted ones, and the next one if any."""

    @property
    def judged(self) -> tuple[Draft, ...]:
        """The verified drafts: the accepted ones, and the rejected one if any."""
        return self.drafts[: self.accepted + 1]

    @property
    def rejected(self) -> bool:
        """Whether the cloud had to resample."""
        return self.accepted < len(self.drafts)

    def formula_bits(self, conformal: bool) -> int:
        """Return the bits of the paper's formula."""
        return sum(_formula_bits(draft.sent, conformal) for draft in self.drafts)

    def packet(self, codec: sqs.Codec) -> bytes:
        """Return the packet that `Drafter.finish` would send."""
        return codec.encode_round(
            [draft.sent.q for draft in self.drafts], [d.token for d in self.drafts]
        )


class Budget(Protocol):
    """The limit on a round's bits."""

    def holds(self, drafts: Sequence[Draft], sent: Sent) -> bool:
        """Return whether another distribution fits after the drafts."""


@dataclass(frozen=True)
class FormulaBudget:
    """A budget with the paper's formula, which counts no bits for the tokens."""

    bits: int
    conformal: bool

    def holds(self, drafts: Sequence[Draft], sent: Sent) -> bool:
        """Add up the formula."""
        parts = (*(draft.sent for draft in drafts), sent)
        return sum(_formula_bits(part, self.conformal) for part in parts) <= self.bits


@dataclass(frozen=True)
class PacketBudget:
    """A budget for the packet, whichever token is sampled last, as in `Drafter`."""

    bits: int
    codec: sqs.Codec

    def holds(self, drafts: Sequence[Draft], sent: Sent) -> bool:
        """Make the packet."""
        rarest = int(sent.q.token_ids[sent.q.counts.argmin()])
        data = self.codec.encode_round(
            [*(draft.sent.q for draft in drafts), sent.q],
            [*(draft.token for draft in drafts), rarest],
        )
        return 8 * len(data) <= self.bits


@dataclass
class Edge:
    """The drafting side."""

    keep: Rule
    resolution: int
    length: int
    """The most drafted tokens per round."""
    budget: Budget | None = None
    """As in `Drafter`, it doesn't limit the first token of a round."""
    rollback: bool = True
    """Whether `keep` learns from verified positions only."""
    state: float = field(init=False)
    """The state of `keep`, which persists between completions."""

    def __post_init__(self) -> None:
        self.state = self.keep.start()

    def draft(
        self, rows: Sequence[Row], tokens: Sequence[int], draws: NDArray[np.float64]
    ) -> Round:
        """Draft a round at the beginning of the rest of a completion."""
        drafts: list[Draft] = []
        states = []
        state = self.state
        accepted: int | None = None
        for row, token, numbers in zip(
            rows[: self.length], tokens, draws, strict=False
        ):
            sent = row.send(self.keep, self.resolution, state)
            if drafts and self.budget and not self.budget.holds(drafts, sent):
                break
            dropped = row.dropped_mass(sent.kept)
            verdict = judge(row, sent.q, token, *numbers)
            if accepted is None and not verdict[0]:
                accepted = len(drafts)
            drafts.append(Draft(row, sent, dropped, state, *verdict))
            state = self.keep.next(state, dropped)
            states.append(state)
        accepted = len(drafts) if accepted is None else accepted
        last = min(accepted, len(drafts) - 1) if self.rollback else -1
        self.state = states[last]
        return Round(tuple(drafts), accepted, min(accepted + 1, len(tokens)))


def read_rows(trace: Trace, temperature: float) -> list[Row]:
    """Return the rows of a completion."""
    pairs = zip(trace.draft, trace.target, strict=True)
    return [Row(draft, target, temperature) for draft, target in pairs]


def draw(seed: int, trace: Trace, turn: int = 0) -> NDArray[np.float64]:
    """Return the random numbers of one `replay` of a completion, [n, 2].

    `traces.write` uses the seed [seed, prompt], for NumPy the same as [seed, prompt,
    0]. These numbers are independent of those that generated the completion.
    """
    rng = np.random.default_rng([seed, trace.prompt, 1 + turn])
    return rng.random((len(trace), 2))


def replay(
    edge: Edge, rows: Sequence[Row], tokens: Sequence[int], draws: NDArray[np.float64]
) -> Iterator[Round]:
    """Yield the rounds in which an edge and a cloud generate a completion.

    Rounds draft up to the completion's end: whether a position is verified must not
    depend on its token, such as a stop token. The numbers `draws` [n, 2] of a position
    decide about a draft there. With the same numbers, edges differ only in how they
    draft. No position is verified twice, so each has the right distribution.
    """
    start = 0
    while start < len(tokens):
        left = slice(start, None)
        made = edge.draft(rows[left], tokens[left], draws[left])
        yield made
        start += made.tokens


def _formula_bits(sent: Sent, conformal: bool) -> int:
    q = sent.q
    return paper_bits(q.vocab_size, sent.kept, q.resolution, conformal)
