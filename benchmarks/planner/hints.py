"""Simulate hints, event by event: the cloud decodes, and the edge drafts on meanwhile.

The text is what the target draws by numbers that both ends share. So all that counts
of a guess is the place that the text's token has among the edge's; what is drafted
along a wrong branch has no effect but in the time and bytes that it takes. A cloud that
decodes alone is one that gets no hints.

Sessions share the cloud, whose pass reads the rows of all that wait for it.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, NamedTuple

from benchmarks.planner.simulate import (
    AGAIN,
    HANDSHAKE,
    JITTER,
    LATE,
    LATENESS,
    UNSTEADY,
    Drafts,
    Guesses,
    Steps,
)
from sqs_codec.system.edge import FixedPlan, Hints, Observation, Planning
from sqs_codec.system.edge._ahead import IN_FLIGHT, LOST, SLOW
from sqs_codec.system.session import MAX_AHEAD

HEAD, BRANCH_HEAD = 5, 2
"""Bytes of any message, and of each branch in a HINT."""

BEYOND = 16
"""Positions after the text that are drafted at most."""

LEVELS = 16
"""How many ways there are to say how sure a branch is."""

PRIOR = 2.0
"""Misses for which a session's hints are taken to be as right as they say."""

LATELY = 0.9
"""Weight of the cloud's speed so far beside that of its last pass."""


class Link(NamedTuple):
    """Bits a second to the cloud, seconds there and back, and how it loses messages.

    Attributes
    ----------
    rate, trip : float
    overhead : int
        Bytes around a message.
    loss : float
        Share of the messages that are lost.
    """

    rate: float
    trip: float
    overhead: int
    loss: float = 0.0


@dataclass
class Branch:
    """A chain of first guesses, after one of the guesses at the base of its tree.

    Attributes
    ----------
    number : int
        Of the guess at the base.
    drafted, sent : int
        Positions from the base on.
    reach : float
        How sure it is to be right from the text's end on.
    """

    number: int
    drafted: int = 0
    sent: int = 0
    reach: float = 1.0


class Part(NamedTuple):
    """Of a HINT: positions [first, last) of a branch, and how sure each is."""

    number: int
    first: int
    last: int
    chance: float


class Drafting:
    """What an edge drafts on one text, and what is to be sent of it."""

    def __init__(self, guesses: Guesses, hints: Hints, tokens: int) -> None:
        self._guesses, self._hints, self._tokens = guesses, hints, tokens
        self.begin(0)

    def begin(self, base: int) -> None:
        """Draft anew where the text ends."""
        self.base = self.text = base
        self.branches = [Branch(n) for n in range(self._hints.branches)]

    def wanted(self) -> list[Branch]:
        """Return the branches that are worth another position."""
        end = min(self.text + BEYOND, self._tokens)
        least = self._hints.threshold / 4
        return [
            branch
            for branch in self.branches
            if branch.reach >= least and self.base + branch.drafted < end
        ]

    def extend(self, branch: Branch) -> None:
        """Add a position to a branch."""
        branch.reach *= self._chance(branch, branch.drafted)
        branch.drafted += 1

    def hear(self, text: int) -> None:
        """Keep the branch that the text goes along, or begin anew at its end."""
        self.text, length = text, text - self.base
        ranks = self._guesses.ranks[self.base : text]
        kept = [b for b in self.branches if b.number == ranks[0]]
        if any(ranks[1:]) or not kept or kept[0].drafted < length:
            self.begin(text)
            return
        (branch,) = self.branches = kept
        branch.sent = max(branch.sent, length)
        rest = range(length, branch.drafted)
        branch.reach = math.prod(self._chance(branch, i) for i in rest)

    def message(self, going_on: bool) -> list[Part]:
        """Return what is to be sent: nothing if more is to come with it."""
        ready = [b for b in self.branches if b.drafted > b.sent]
        most = max((b.drafted - b.sent for b in ready), default=0)
        if going_on and most < self._hints.positions:
            return []
        return [self._part(branch) for branch in ready]

    def _part(self, branch: Branch) -> Part:
        first, last = branch.sent, branch.drafted
        branch.sent = last
        # Another branch than the first is of use once the base has turned out so.
        begins = first + (first == 0 < branch.number and last > 1)
        sure = [self._chance(branch, i) for i in range(begins, last)]
        level = int(math.prod(sure) ** (1 / len(sure)) * LEVELS)
        chance = (min(level, LEVELS - 1) + 0.5) / LEVELS
        return Part(branch.number, first, last, chance)

    def _chance(self, branch: Branch, offset: int) -> float:
        guess = branch.number if offset == 0 else 0
        return self._guesses.chances[self.base + offset][guess]


class Reader:
    """What a cloud has of one session: its text, its hints, and what it has to decode.

    Attributes
    ----------
    text, asked, heard : int
        Tokens decoded, how many are asked for, and the last hint that has come.
    """

    def __init__(self, guesses: Guesses) -> None:
        self._ranks = guesses.ranks
        self.text = self.asked = 0
        self.heard = 0
        self._base = -1
        self._held: dict[tuple[int, int], float] = {}
        self._doubted = self._missed = PRIOR
        self._read: list[float] = []

    def take(self, serial: int, base: int, parts: Sequence[Part]) -> None:
        """Take hints; those of an older tree are of no more use."""
        self.heard = serial
        if base > self._base:
            self._base, self._held = base, {}
        if base == self._base:
            for number, first, last, chance in parts:
                for offset in range(first, last):
                    self._held[number, offset] = chance

    @property
    def waits(self) -> bool:
        """Whether there are tokens to decode."""
        return self.text < self.asked

    def rows(self, least: float) -> int:
        """Choose the hints to read, and return the rows of the next pass."""
        self._read = []
        bias = self._missed / self._doubted
        offset, reach = self.text - self._base, 1.0
        along = self._ranks[max(self._base, 0) : self.text]
        number = along[0] if along else 0
        while not any(along[1:]) and self.text + len(self._read) + 1 < self.asked:
            said = self._held.get((number, offset + len(self._read)))
            if said is None:
                break
            reach *= max(0.0, 1 - (1 - said) * bias)
            if reach < least:
                break
            self._read.append(said)
        return 1 + len(self._read)

    def decode(self) -> int:
        """Return how many tokens the pass adds."""
        before = self.text
        for said in self._read:
            self._doubted += 1 - said
            if self._ranks[self.text]:
                self._missed += 1
                break
            self.text += 1
        self.text += 1
        return self.text - before


@dataclass
class Counts:
    """What texts took, in all.

    Attributes
    ----------
    seconds : float
        Until the first of them was there.
    tokens : int
        That the cloud had decoded by then.
    passes, rows : int
        Of the target; a pass counts for each text that it adds to.
    batches, drafted : int
        Of the draft, and the rows of these.
    up, down : int
        Bytes, with what is around messages.
    """

    seconds: float = 0.0
    tokens: int = 0
    passes: int = 0
    rows: int = 0
    batches: int = 0
    drafted: int = 0
    up: int = 0
    down: int = 0


class Simulation:
    """Texts of several sessions that share a cloud.

    Parameters
    ----------
    edges : sequence of callable
        Each makes an edge of a session of this simulation.
    link : Link
        Each session has its own.
    steps : Steps
    tokens : int
        Of each text.
    seed : int
    """

    def __init__(
        self,
        edges: Sequence[Callable[[Simulation], Edge]],
        link: Link,
        steps: Steps,
        tokens: int,
        seed: int,
    ) -> None:
        self.link, self.steps, self.tokens = link, steps, tokens
        self.counts = Counts()
        self._random = Random(seed)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = 0
        self._busy = False
        self._speed = len(edges) / steps.target
        self._edges = [make(self) for make in edges]

    def run(self) -> Counts:
        """Go on until the first text is there, so that all sessions are busy."""
        while all(edge.text < self.tokens for edge in self._edges):
            now, _, call = heapq.heappop(self._events)
            call(now)
        self.counts.seconds = now
        self.counts.tokens = sum(edge.reader.text for edge in self._edges)
        return self.counts

    def at(self, time: float, call: Callable[[float], None]) -> None:
        """Call something at a time."""
        self._number += 1
        heapq.heappush(self._events, (time, self._number, call))

    def half_trip(self) -> float:
        """Return what a message is on its way."""
        late = LATENESS if self._random.random() < LATE else 1.0
        return self.link.trip / 2 * math.exp(self._random.gauss(0, JITTER)) * late

    def lost(self) -> bool:
        """Say whether a message is lost."""
        return self._random.random() < self.link.loss

    def decode(self, now: float) -> None:
        """Begin a pass for all sessions that wait, if the cloud is idle."""
        here = [edge for edge in self._edges if edge.reader.waits]
        if self._busy or not here:
            return
        self._busy = True
        least = self.steps.more * self._speed
        rows = sum(edge.reader.rows(least) for edge in here)
        scatter = math.exp(self._random.gauss(0, UNSTEADY))
        seconds = self.steps.verify(rows) * scatter
        self.counts.passes += len(here)
        self.counts.rows += rows
        self.at(now + seconds, partial(self._decoded, here, seconds))

    def _decoded(self, here: Sequence[Edge], seconds: float, now: float) -> None:
        added = 0
        for edge in here:
            new = edge.reader.decode()
            added += new
            self.counts.down += HEAD + edge.token * new + self.link.overhead
            # Lost tokens come with the next, or again after a while.
            lost = self.lost()
            if not (lost and edge.reader.waits):
                later = self.half_trip() + AGAIN * edge.usual * lost
                self.at(now + later, edge.news())
        self._speed = LATELY * self._speed + (1 - LATELY) * added / seconds
        self._busy = False
        self.decode(now)


class Edge:
    """One session's edge.

    Attributes
    ----------
    reader : Reader
        What the cloud has of it.
    token : int
        Bytes of an id.
    text : int
        Tokens that it knows.
    usual : float
        Seconds from a short message to its answer.
    """

    reader: Any

    def __init__(self, simulation: Simulation, token: int) -> None:
        self._all, self.token, self.text = simulation, token, 0
        self._free = 0.0  # when the uplink is
        link = simulation.link
        self.usual = link.trip + 8 * (HEAD + link.overhead) / link.rate

    def hear(self, text: int, now: float) -> None:
        """Take what the cloud has decoded."""
        raise NotImplementedError

    def news(self) -> Callable[[float], None]:
        """Return what takes what the cloud says now."""
        return partial(self.hear, self.reader.text)

    def _send(
        self, size: int, now: float, then: Callable[[float], None], again: bool = True
    ) -> None:
        """Send a message, once more if it is lost, unless that is of no use."""
        size += self._all.link.overhead
        self._all.counts.up += size
        self._free = max(self._free, now) + 8 * size / self._all.link.rate
        lost = self._all.lost()
        later = self._all.half_trip() + AGAIN * self.usual * lost
        if again or not lost:
            self._all.at(self._free + later, then)


class RoundsEdge(Edge):
    """An edge that drafts rounds of one length, and what the cloud has of it."""

    def __init__(self, simulation: Simulation, drafts: Drafts, length: int) -> None:
        super().__init__(simulation, token=2)
        self._drafts, self._most = drafts, length
        self.reader, self.waits = self, False
        self._write(0.0)

    def _write(self, now: float) -> None:
        self._length = min(self._most, self._all.tokens - self.text - 1)
        bits = self._drafts.bits[self.text : self.text + self._length].sum()
        size = HEAD + math.ceil(bits / 8)
        drafted = now + self._length * self._all.steps.draft
        self._all.at(drafted, lambda now: self._send(size, now, self._arrive))

    def _arrive(self, now: float) -> None:
        self.waits = True
        self._all.decode(now)

    def rows(self, least: float) -> int:
        """Return the rows of the round."""
        return self._length + 1

    def decode(self) -> int:
        """Return how many tokens the round adds."""
        self.waits = False
        accepted = self._drafts.accepted[self.text : self.text + self._length]
        new = 1 + (self._length if accepted.all() else int(accepted.argmin()))
        self.text += new
        return new

    def hear(self, text: int, now: float) -> None:
        """Draft the next round."""
        if text < self._all.tokens:
            self._write(now)


class HintsEdge(Edge):
    """An edge that gives hints or none, as its planner says.

    The planner has seen a handshake before the clock starts.
    """

    def __init__(
        self, simulation: Simulation, guesses: Guesses, planner: Planning
    ) -> None:
        super().__init__(simulation, guesses.token)
        self._guesses, self._planner = guesses, planner
        self.reader = Reader(guesses)
        self._asked = self._serial = self._heard = 0
        self._told: deque[float] = deque()  # when, of hints that aren't heard of
        self._slow = True
        self._busy = False  # with a batch
        steps, link = simulation.steps, simulation.link
        target = {n: steps.verify(n) for n in (1, 6)}
        bits = 8 * (HANDSHAKE + link.overhead)
        waited = 2 * simulation.half_trip() + bits / link.rate + steps.target
        start = FixedPlan(0).plan()
        planner.observe(Observation(start, 0, 0, HANDSHAKE, 0.0, waited, target))
        self._plan = planner.plan()
        self._drafting = self._begin()
        simulation.at(0.0, self._ask)
        simulation.at(0.0, self._draft)

    def _begin(self) -> Drafting | None:
        if self._plan.hints is None:
            return None
        drafting = Drafting(self._guesses, self._plan.hints, self._all.tokens)
        drafting.begin(self.text)
        return drafting

    def _ask(self, now: float) -> None:
        """Let the cloud know early for how many tokens it has to go on."""
        ahead = 4 + math.ceil(2 * self.usual / self._all.steps.target)
        ahead = MAX_AHEAD if self._plan.hints else min(ahead, MAX_AHEAD)
        if self._asked < self._all.tokens and self._asked - self.text <= ahead // 2:
            self._asked = min(self.text + ahead, self._all.tokens)
            self._send(HEAD, now, partial(self._be_asked, self._asked))

    def _be_asked(self, tokens: int, now: float) -> None:
        self.reader.asked = max(self.reader.asked, tokens)
        self._all.decode(now)

    def _draft(self, now: float) -> None:
        """Begin a batch, unless there is one or nothing to draft."""
        drafting = self._drafting
        if drafting is None:
            return
        branches = drafting.wanted()
        if branches and not self._busy:
            self._busy = True
            # The guesses at the base are all of one row.
            rows = len(branches) if branches[0].drafted else 1
            self._all.counts.batches += 1
            self._all.counts.drafted += rows
            drafted = partial(self._drafted, drafting, drafting.base, branches)
            self._all.at(now + self._all.steps.draft, drafted)
        self._hint(now)

    def _drafted(
        self, drafting: Drafting, base: int, branches: Sequence[Branch], now: float
    ) -> None:
        self._busy = False
        if drafting.base == base:  # the text went elsewhere otherwise
            for branch in branches:
                if branch in drafting.branches:
                    drafting.extend(branch)
        self._draft(now)

    def _hint(self, now: float) -> None:
        """Send hints, unless too many are on their way, as `Ahead` does."""
        drafting = self._drafting
        while len(self._told) > self._serial - self._heard:
            self._slow = now - self._told.popleft() > SLOW
        waits = self._told and now - self._told[-1] <= LOST
        most = 1 if self._slow else IN_FLIGHT
        if drafting is None or (waits and len(self._told) >= most):
            return
        parts = drafting.message(self._busy)
        if not parts:
            return
        tokens = sum(part.last - part.first for part in parts)
        size = HEAD + BRANCH_HEAD * len(parts) + self.token * tokens
        self._serial += 1
        self._told.append(now)
        take = partial(self.reader.take, self._serial, drafting.base, parts)
        self._send(size, now, lambda now: take(), again=False)

    def news(self) -> Callable[[float], None]:
        """Return what takes what the cloud says now, also of the hints."""
        heard, hear = self.reader.heard, super().news()

        def take(now: float) -> None:
            self._heard = max(self._heard, heard)
            hear(now)

        return take

    def hear(self, text: int, now: float) -> None:
        """Take what the cloud has decoded, and go on as the planner says."""
        if text <= self.text:
            return
        new, waited = text - self.text, 0.0 if self.text else now
        draft = self._all.steps.draft if self._plan.hints else 0.0
        seen = Observation(self._plan, 0, new, HEAD, draft, waited)
        self.text = text
        self._planner.observe(seen)
        plan = self._planner.plan()
        if plan.hints != self._plan.hints:
            self._plan = plan
            self._drafting = self._begin()
        elif self._drafting is not None:
            self._drafting.hear(text)
        self._ask(now)
        self._draft(now)
