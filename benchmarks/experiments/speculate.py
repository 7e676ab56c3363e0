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
    """Draw whether a draft from `q` is accepted, and which token it was.

    The text has `token` there, which is the draft if that is accepted. Numbers from
    [0, 1) decide: `judged` whether it is, `drawn` which other token it was if not.
    """
    p = row.p
    if judged * p[token] < min(p[token], q.prob(token)):
        return True, token
    excess = np.maximum(0.0, q.probs - p[q.token_ids])
    total = excess.sum()
    if total <= 0:  # p and q are equal but for rounding
        return True, token
    place = np.searchsorted(excess.cumsum(), drawn * total, "right")
    return False, int(q.token_ids[min(int(place), len(q.token_ids) - 1)])


class Draft(NamedTuple):
    """A position that was drafted."""

    row: Row
    sent: Sent
    dropped: float
    """The mass of the tokens that weren't kept."""
    state: float
    """Of the keep rule before: the threshold, if it is `Conformal`."""
    accepted: bool
    """Whether the cloud accepts it, if it comes to judge it."""
    token: int
    """What was drafted."""

    @property
    def rejection(self) -> float:
        """How probable it was to be rejected: TV(p, q^)."""
        return max(0.0, 1.0 - self.sent.loss.acceptance)


@dataclass(frozen=True)
class Round:
    """What was drafted at once."""

    drafts: tuple[Draft, ...]
    """L of them."""
    accepted: int
    """n, how many the cloud accepted before it rejected one."""
    tokens: int
    """How many of the text's came of it: those accepted and the one after them, if the
    text has it."""

    @property
    def judged(self) -> tuple[Draft, ...]:
        """Those that the cloud looked at: the accepted, and the rejected if any."""
        return self.drafts[: self.accepted + 1]

    @property
    def rejected(self) -> bool:
        """Whether the cloud had to resample."""
        return self.accepted < len(self.drafts)

    def formula_bits(self, conformal: bool) -> int:
        """Return the bits that the paper counts for it."""
        return sum(_formula_bits(draft.sent, conformal) for draft in self.drafts)

    def packet(self, codec: sqs.Codec) -> bytes:
        """Return what `Drafter.finish` would send."""
        return codec.encode_round(
            [draft.sent.q for draft in self.drafts], [d.token for d in self.drafts]
        )


class Budget(Protocol):
    """What a round may take."""

    def holds(self, drafts: Sequence[Draft], sent: Sent) -> bool:
        """Say whether one more distribution fits behind some drafts."""


@dataclass(frozen=True)
class FormulaBudget:
    """So many bits by the paper's formula, which counts no bits for the tokens."""

    bits: int
    conformal: bool

    def holds(self, drafts: Sequence[Draft], sent: Sent) -> bool:
        """Add up the formula."""
        parts = (*(draft.sent for draft in drafts), sent)
        return sum(_formula_bits(part, self.conformal) for part in parts) <= self.bits


@dataclass(frozen=True)
class PacketBudget:
    """So many bits in a packet, whichever token is drawn last: as `Drafter` has it."""

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
    """How an edge drafts."""

    keep: Rule
    resolution: int
    length: int
    """Drafted tokens of a round at most."""
    budget: Budget | None = None
    """The first token of a round is drafted whatever it takes, as by `Drafter`."""
    rollback: bool = True
    """Whether what was learned from positions that weren't verified is forgotten."""
    state: float = field(init=False)
    """What `keep` has learned, from text to text."""

    def __post_init__(self) -> None:
        self.state = self.keep.start()

    def draft(
        self, rows: Sequence[Row], tokens: Sequence[int], draws: NDArray[np.float64]
    ) -> Round:
        """Draft a round at the beginning of what is left of a text."""
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
    """Return the positions of a text, for all edges that draft it."""
    pairs = zip(trace.draft, trace.target, strict=True)
    return [Row(draft, target, temperature) for draft, target in pairs]


def draw(seed: int, trace: Trace, turn: int = 0) -> NDArray[np.float64]:
    """Return the numbers that one `replay` of a text goes by, [n, 2].

    `traces.write` draws the text by [seed, prompt], to NumPy the same as [seed, prompt,
    0]. By numbers of that generator drafts would be judged by what wrote their text.
    """
    rng = np.random.default_rng([seed, trace.prompt, 1 + turn])
    return rng.random((len(trace), 2))


def replay(
    edge: Edge, rows: Sequence[Row], tokens: Sequence[int], draws: NDArray[np.float64]
) -> Iterator[Round]:
    """Yield the rounds in which an edge and a cloud come to a text.

    Rounds draft to the text's end: whether a position is judged must not depend on the
    token that it has, such as one that ends the text. The draws [n, 2] of a position
    decide what becomes of a draft there, as `draw` has them. Given the same ones, edges
    differ by how they draft alone. No position is judged twice, so that the law is
    right for each of them.
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
