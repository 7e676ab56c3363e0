"""Simulate rounds, and a cloud that decodes alone; ``hints.py`` simulates hints.

What a position's draft is like comes from real rows: its distribution is quantized,
its token drawn and judged against the target's row, its bits those of the codec. The
rows of a text follow each other whichever tokens are drawn. No formula of the planner
is used; what it observes is what the loop observes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from benchmarks.experiments.wire_formats import Wire, qs, raw
from benchmarks.rate.schemes import Row
from sqs_codec.system.edge import FixedPlan, Observation, Plan, Planner
from sqs_codec.system.session import MAX_AHEAD, Setting

TOKENS = 200
"""Of a text."""

SPARE = 32
"""Positions after a text that may be drafted but not used."""

HEADER = 4
"""Bytes of a round, and of what asks the cloud to decode alone."""

ANSWER, TOKEN = 4, 6
"""Bytes of a verdict, and of a token that the cloud decodes alone."""

HANDSHAKE = 600
"""Bytes with which a session begins."""

JITTER, LATE, LATENESS = 0.1, 0.01, 4.0
"""Deviation of the log of a trip; how many trips take how many times as long."""

UNSTEADY = 0.05
"""Deviation of the log of what the target takes."""


AGAIN = 1.5
"""Usual round trips after which what is lost is sent again."""

Floats = NDArray[np.float64]
Logits = NDArray[np.float32]


class Steps(NamedTuple):
    """Seconds of the models: a drafted token; the target for one and each more."""

    draft: float
    target: float
    more: float

    def verify(self, tokens: int) -> float:
        """Seconds of the target for so many tokens at once."""
        return self.target + self.more * (tokens - 1)


class Guesses(NamedTuple):
    """What an edge guesses at each position of a text.

    Attributes
    ----------
    ranks : sequence of int
        The place of the text's token among the guesses, from 0.
    chances : sequence of sequence of float
        How sure each guess is.
    token : int
        Bytes of an id.
    """

    ranks: Sequence[int]
    chances: Sequence[Sequence[float]]
    token: int


@dataclass(frozen=True)
class Drafts:
    """What is drafted at each position of a text, whatever came before.

    Attributes
    ----------
    accepted : ndarray of bool
    bits : ndarray of float64
        Of the token and its distribution.
    """

    accepted: NDArray[np.bool_]
    bits: NDArray[np.float64]


class Position(NamedTuple):
    """What is sent of a row, and how each token that may be drafted fares; [k] each."""

    sums: Floats  # of the probabilities
    accepted: Floats
    bits: Floats


RIVALS = {
    "QS": [partial(qs, resolution=16)],
    "raw top-K": [partial(raw, k=k) for k in (1, 2, 4)],
}
"""What others send of a distribution, with what is worth a try on these links."""

GUESSES = 8
"""So many at each position."""

KEYS = 4
"""Of the numbers that both ends share; texts take them in turn."""


@dataclass(frozen=True)
class World:
    """Rows of real texts at one temperature, which follow each other in a circle.

    Attributes
    ----------
    settings : sequence of Setting
    positions : sequence of sequence of Position
        By each setting.
    rivals : dict of str to sequence of sequence of Position
        By what others send.
    guesses : sequence of sequence of tuple
        What is guessed at each position, by each key.
    token : int
        Bytes of an id.
    """

    settings: Sequence[Setting]
    positions: Sequence[Sequence[Position]]
    rivals: dict[str, list[Sequence[Position]]]
    guesses: Sequence[Sequence[tuple[int, tuple[float, ...]]]]
    token: int

    @classmethod
    def of(
        cls,
        pairs: Iterable[tuple[Logits, Logits]],
        settings: Sequence[Setting],
        temperature: float,
        rivals: bool = False,
    ) -> World:
        """Draft and judge by pairs of rows, the draft's and the target's logits."""
        ways = [partial(_ours, setting) for setting in settings]
        ways += [send for of_name in RIVALS.values() for send in of_name] * rivals
        found, guessed = [], []
        for place, (draft, target) in enumerate(pairs):
            row = Row(draft, target, temperature)
            found.append([_position(row, send(row)) for send in ways])
            guessed.append(
                [_guess(draft, target, n, place, temperature) for n in range(KEYS)]
            )
        vocab_size = settings[0].codec.vocab_size
        by_way = iter(zip(*found, strict=True))
        ours = [next(by_way) for _ in settings]
        others = {
            name: [next(by_way) for _ in of_name]
            for name, of_name in RIVALS.items()
            if rivals
        }
        token = 2 if vocab_size <= 1 << 16 else 3
        return cls(settings, ours, others, [*zip(*guessed, strict=True)], token)

    @property
    def acceptance(self) -> float:
        """How probable it is that a token is accepted, by the best setting."""
        return max(
            float(np.mean([np.diff(p.sums, prepend=0) @ p.accepted for p in positions]))
            for positions in self.positions
        )

    def text(self, seed: int) -> Text:
        """Draw a text that begins anywhere; all that drafts shares the numbers."""
        rng = np.random.default_rng(seed)
        start = int(rng.integers(len(self.positions[0])))
        draws = rng.random((2, TOKENS + SPARE))
        rows = len(self.positions[0])
        places = [(start + i) % rows for i in range(TOKENS + SPARE)]

        def drafts(positions: Sequence[Position]) -> Drafts:
            return _drafts([positions[place] for place in places], draws)

        rivals = {name: [*map(drafts, every)] for name, every in self.rivals.items()}
        guessed = self.guesses[seed % KEYS]
        ranks, chances = zip(*(guessed[place] for place in places), strict=True)
        guesses = Guesses(ranks, chances, self.token)
        return Text([*map(drafts, self.positions)], rivals, guesses)


class Text(NamedTuple):
    """What is drafted and guessed at each position of a text.

    Attributes
    ----------
    drafts : list of Drafts
        By each setting.
    rivals : dict of str to list of Drafts
    guesses : Guesses
    """

    drafts: list[Drafts]
    rivals: dict[str, list[Drafts]]
    guesses: Guesses


def noisy(rows: Iterable[Logits], noise: float, seed: int) -> Iterator[Logits]:
    """Add normal noise of a deviation to each row."""
    rng = np.random.default_rng(seed)
    for row in rows:
        yield row + noise * rng.standard_normal(row.size, np.float32)


def _ours(setting: Setting, row: Row) -> Wire:
    codec = setting.codec
    q = row.send(setting.keep, codec.resolution).q
    return Wire(codec.bits(q), None, q)


def _position(row: Row, wire: Wire) -> Position:
    """Tell how each token fares that may be drafted from what is sent."""
    probs, p = wire.q.probs, row.p[wire.q.token_ids]
    bits = wire.token_bits
    if bits is None:
        bits = -np.log2(probs)
    accepted = np.minimum(1, p / np.maximum(probs, 1e-300))
    return Position(np.cumsum(probs), accepted, wire.bits + bits + 0 * probs)


def _guess(
    draft: Logits, target: Logits, key: int, place: int, temperature: float
) -> tuple[int, tuple[float, ...]]:
    """Return the place of the target's token among the guesses, and how sure these are.

    Guesses that there aren't are sure by nothing.
    """
    where = key.to_bytes(16, "little"), place
    drawn = sqs.gumbel_draw(target, *where, temperature=temperature)
    guesses = sqs.gumbel_guess(draft, *where, GUESSES, temperature=temperature)
    tokens, chances = guesses.tokens, guesses.chances
    rank = tokens.index(drawn) if drawn in tokens else GUESSES
    return rank, chances + (0.0,) * (GUESSES - len(chances))


def _drafts(positions: Sequence[Position], draws: Floats) -> Drafts:
    accepted, bits = [], []
    for position, draw, judge in zip(positions, *draws, strict=True):
        x = int(np.searchsorted(position.sums, draw * position.sums[-1], "right"))
        accepted.append(judge < position.accepted[x])
        bits.append(position.bits[x])
    return Drafts(np.array(accepted), np.array(bits))


@dataclass
class Run:
    """A text over one link, or over many at once by the same plans.

    Attributes
    ----------
    rate, trip : ndarray
        Bits per second and seconds of each link.
    steps : Steps
    overhead : int
        Bytes around a message.
    text : sequence of Drafts
        By setting.
    rng : numpy.random.Generator
        Of the link.
    tokens : int
        Of the text.
    loss : float
        Share of the messages that are lost; rounds are sent again then.
    done : int
        Tokens so far.
    now : ndarray
        Seconds so far, for each link.
    up, down : ndarray
        Bytes sent to the cloud and by it so far, likewise, overhead included.
    """

    rate: Floats
    trip: Floats
    steps: Steps
    overhead: int
    text: Sequence[Drafts]
    rng: np.random.Generator
    tokens: int = TOKENS
    loss: float = 0.0
    done: int = 0
    now: Floats = field(init=False)
    up: Floats = field(init=False)
    down: Floats = field(init=False)
    _uplink_free: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.now = np.zeros(np.shape(self.rate))
        self._uplink_free = self.up = self.down = self.now

    def round(self, plan: Plan) -> Observation:
        """Draft a round, send it and wait for its answer.

        What the observation says is of the first link, if there are many.
        """
        drafts, here = self.text[plan.setting], self.done
        length = min(plan.length, self.tokens - here - 1)
        accepts = drafts.accepted[here : here + length]
        accepted = length if accepts.all() else int(accepts.argmin())
        trip, drafting = self._draw_trip(), length * self.steps.draft
        size = HEADER + int(np.ceil(drafts.bits[here : here + length].sum() / 8))
        handed = self.now + drafting
        sent = self._send(size, handed)
        while self.loss and self.rng.random() > (1 - self.loss) ** 2:
            sent = self._send(
                size, sent + AGAIN * (trip + self.steps.verify(length + 1))
            )
        verified = sent + trip / 2 + self._verify(length + 1)
        self.now = verified + trip / 2
        self.done += accepted + 1
        self._receive(1, ANSWER)
        return self._observed(plan, length, accepted, size, drafting, self.now - handed)

    def alone(self) -> None:
        """Let the cloud decode the rest of the text."""
        left = self.tokens - self.done
        self._ask()
        ahead = self._ahead()
        more = np.ceil(np.maximum(0, left - ahead) / np.ceil(ahead / 2))
        self.up = self.up + more * (HEADER + self.overhead)
        self.now = self.now + left * self.steps.target
        self._receive(left, TOKEN)
        self.done = self.tokens

    def fixed(self, plan: Plan) -> None:
        """Go through the text by rounds of one plan; the last token needs none."""
        while self.done < self.tokens - 1:
            self.round(plan)
        if self.done < self.tokens:
            self.alone()

    def planned(self, planner: Planner) -> None:
        """Go through the text as a planner says, over one link.

        As in the loop, the planner has seen the handshake before the clock starts.
        """
        bits = 8 * (HANDSHAKE + self.overhead)
        waited = self._draw_trip() + bits / self.rate + self.steps.target
        shaken = FixedPlan(0).plan()
        planner.observe(self._observed(shaken, 0, 0, HANDSHAKE, 0.0, waited))
        plan = planner.plan()
        while self.done < self.tokens:
            if plan.length and self.done < self.tokens - 1:
                planner.observe(self.round(plan))
                plan = planner.plan()
            else:
                plan = self._alone_as_planned(planner, plan)

    def _alone_as_planned(self, planner: Planner, plan: Plan) -> Plan:
        """Let the cloud decode until the planner says otherwise; return what it says.

        More tokens are asked for before the cloud has decoded those asked for.
        """
        ahead = int(self._ahead())
        began = self.now
        self._ask()
        cloud = self.now  # when it goes on, a round trip later
        waited = cloud + self.steps.target - began
        asked = min(self.done + ahead, self.tokens)
        told: dict[int, Floats] = {}
        follows = plan
        while self.done < asked:
            cloud = np.maximum(cloud, told.pop(self.done, cloud)) + self.steps.target
            self.now = cloud
            self.done += 1
            self._receive(1, TOKEN)
            planner.observe(self._observed(plan, 0, 1, HEADER, 0.0, waited))
            waited = np.zeros(1)
            if follows.length == 0 and asked - self.done <= ahead // 2:
                follows = planner.plan()
                if follows.length == 0:
                    told[asked] = self._send(HEADER, self.now) + self.trip
                    asked = min(self.done + ahead, self.tokens)
        return follows

    def _ahead(self) -> Floats:
        """Return for how many tokens the cloud is asked at once.

        It is asked again when half of them have come.
        """
        # The loop has measured round trips before, if only that of the handshake.
        usual = self.trip + 8 * (HEADER + self.overhead) / self.rate
        ahead = 4 + np.ceil(2 * usual / self.steps.target)
        return np.asarray(np.minimum(ahead, MAX_AHEAD))

    def _ask(self) -> None:
        """Ask an idle cloud for tokens; go on to when it has begun to send them."""
        trip = self._draw_trip()
        self.now = self._send(HEADER, self.now) + trip

    def _send(self, size: int, at: Floats) -> Floats:
        """Queue a message at a time; return when it has left."""
        size += self.overhead
        self._uplink_free = np.maximum(self._uplink_free, at) + 8 * size / self.rate
        self.up = self.up + size
        return self._uplink_free

    def _receive(self, messages: int, size: int) -> None:
        """Count messages of the cloud."""
        self.down = self.down + messages * (size + self.overhead)

    def _draw_trip(self) -> Floats:
        """Return what a round trip takes this time."""
        late = LATENESS if self.rng.random() < LATE else 1.0
        return np.asarray(self.trip * np.exp(self.rng.normal(0, JITTER)) * late)

    def _verify(self, tokens: int) -> float:
        """Return what the target takes this time."""
        return self.steps.verify(tokens) * float(np.exp(self.rng.normal(0, UNSTEADY)))

    def _observed(
        self,
        plan: Plan,
        drafted: int,
        accepted: int,
        size: int,
        drafting: float,
        waited: Floats,
    ) -> Observation:
        """Return what a planner sees; of the first link, if there are many."""
        return Observation(
            plan=plan,
            drafted=drafted,
            accepted=accepted,
            bytes_up=size,
            draft_seconds=drafting,
            wait_seconds=float(np.ravel(waited)[0]),
            target_steps={n: self.steps.verify(n) for n in (1, 6)},
        )
