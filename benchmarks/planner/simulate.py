"""Simulate the loop of an edge and a cloud, event by event.

What a position's draft is like comes from real rows: its distribution is quantized,
its token drawn and judged against the target's row, its bits those of the codec. The
rows of a text follow each other whichever tokens are drawn. No formula of the planner
is used; what it observes is what the loop observes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from benchmarks.sources import Source
from sqs_codec.cli.demo.count import softmax
from sqs_codec.edge._planner import FixedPlan, Observation, Plan, Planner
from sqs_codec.session import Setting
from sqs_codec.session._limits import MAX_AHEAD

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
"""Deviation of the log of what the target takes for a round."""

Floats = NDArray[np.float64]


class Steps(NamedTuple):
    """Seconds of the models: a drafted token; the target for one and each more."""

    draft: float
    target: float
    more: float

    def verify(self, tokens: int) -> float:
        """Seconds of the target for so many tokens at once."""
        return self.target + self.more * (tokens - 1)


@dataclass(frozen=True)
class Drafts:
    """What is drafted at each position of a text with one setting, [TOKENS + SPARE].

    Attributes
    ----------
    accepted : ndarray of bool
    bits : ndarray of float64
        Of the token and its distribution.
    """

    accepted: NDArray[np.bool_]
    bits: Floats


class Position(NamedTuple):
    """A row quantized: a distribution, and how each of its tokens would fare."""

    q: sqs.SparseDistribution
    accepted: Floats
    bits: int


@dataclass(frozen=True)
class World:
    """Positions of real texts at one temperature, for each setting."""

    settings: Sequence[Setting]
    positions: Sequence[Sequence[Position]]

    @classmethod
    def of(
        cls,
        source: Source,
        settings: Sequence[Setting],
        temperature: float,
        noise: float = 0.0,
    ) -> World:
        """Quantize all rows of a source.

        Normal noise of a deviation is added to the target's logits, for sources that
        have none but the draft's.
        """
        rng = np.random.default_rng(0)
        found = []
        for session in source.sessions:
            for i in range(len(session)):
                target = session.target[i]
                target = target + noise * rng.standard_normal(target.size)
                p = softmax(target, temperature)
                found.append(_positions(session.draft[i], p, settings, temperature))
        return cls(settings, list(zip(*found, strict=True)))

    @property
    def acceptance(self) -> list[float]:
        """How probable it is that a token is accepted, by setting."""
        return [
            float(np.mean([p.accepted @ p.q.probs for p in positions]))
            for positions in self.positions
        ]

    def text(self, seed: int) -> list[Drafts]:
        """Draw a text that begins anywhere; the settings share the numbers."""
        rng = np.random.default_rng(seed)
        start = int(rng.integers(len(self.positions[0])))
        draws = rng.random((2, TOKENS + SPARE))
        places = [(start + i) for i in range(TOKENS + SPARE)]
        return [
            _drafts([every[place % len(every)] for place in places], draws)
            for every in self.positions
        ]


def _positions(
    draft: NDArray[np.floating],
    p: Floats,
    settings: Sequence[Setting],
    temperature: float,
) -> list[Position]:
    """Quantize a row by each setting."""
    found = []
    for setting in settings:
        q = setting.codec.quantize(draft, setting.keep, temperature=temperature)
        accepted = np.minimum(1, p[q.token_ids] / q.probs)
        found.append(Position(q, accepted, setting.codec.bits(q)))
    return found


def _drafts(positions: Sequence[Position], draws: Floats) -> Drafts:
    found = []
    for (q, accepted, bits), draw, judge in zip(positions, *draws, strict=True):
        x = int(np.searchsorted(q.counts.cumsum(), int(draw * q.resolution), "right"))
        found.append((judge < accepted[x], bits - np.log2(q.probs[x])))
    accepted, sums = np.array(found).T
    return Drafts(accepted.astype(bool), sums)


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
    most : float
        Bytes of a message; a longer one goes as several.
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
    most: float = np.inf
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
        verified = self._send(size, handed) + trip / 2 + self._verify(length + 1)
        self.now = verified + trip / 2
        self.done += accepted + 1
        self._receive(1, ANSWER)
        return self._observed(plan, length, accepted, size, drafting, self.now - handed)

    def prompt(self, size: int) -> None:
        """Send the prompt, behind which the uplink is taken."""
        self._send(size, self.now)

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
        size += self.overhead * max(1, int(np.ceil(size / self.most)))
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
