"""Protocols that write the same texts, simulated on many links.

A text is what the target wrote after one prompt or several, end to end. At a position
all protocols have the same luck: one number decides whether a draft is accepted, given
what the text has there. So their seconds differ by what they send and how often it is
right. Chance is left in the scatter of trips and of the target's steps alone.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from benchmarks.experiments.experiment import Options, Records
from benchmarks.experiments.models import Models, load
from benchmarks.experiments.speculate import judge
from benchmarks.experiments.traces import Trace, traces
from benchmarks.experiments.wire_formats import Format, coupled, formats
from benchmarks.planner.__main__ import STEPS
from benchmarks.planner.simulate import Drafts, Run, Steps
from benchmarks.rate.schemes import Row
from sqs_codec.edge import FixedPlan, Planner, default_settings
from sqs_codec.serve._datagram.link import DatagramLink
from sqs_codec.session import Sampling, Setting

CLOUD_ALONE, OURS = "cloud alone", "ours"
ONE_HOT, SHARED, PLANNER = "one-hot", "shared numbers", "planner"

LENGTHS = (1, 2, 4, 8, 16)
"""Of the drafts that each protocol is simulated with."""

TOKENS = 96
"""Of a text, if the prompts have so many: a planner needs some to settle."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Links: each rate with each round trip.

    Attributes
    ----------
    rates, trips : tuple of float
        Bits per second to the cloud, and seconds.
    """

    rates: tuple[float, ...]
    trips: tuple[float, ...]

    @property
    def links(self) -> Floats:
        """Rate and trip of each link, [2, links], the trips changing faster."""
        return np.array([*itertools.product(self.rates, self.trips)]).T


class Position(NamedTuple):
    """What is drafted at a position; the first two as `Drafts` has them."""

    accepted: bool
    bits: float
    acceptance: float


@dataclass(frozen=True)
class Played:
    """A text by each way to send it.

    Attributes
    ----------
    drafts : dict from tuple of str to Drafts
        By protocol and variant.
    acceptance : dict from tuple of str to ndarray
        How probable it is at each position that a draft is accepted.
    """

    drafts: dict[tuple[str, str], Drafts]
    acceptance: dict[tuple[str, str], Floats]

    def __len__(self) -> int:
        return len(next(iter(self.acceptance.values())))


class Drafter:
    """Sends positions in every way.

    Parameters
    ----------
    models : Models
    temperature : float
    """

    def __init__(self, models: Models, temperature: float) -> None:
        v, self._temperature = models.vocab_size, temperature
        self.settings = default_settings(v, models.prior)
        self._formats: list[Format] = formats(v)
        self._ids = sqs.Codec(v, 1, prior=models.prior)
        """One-hot distributions: an id and nothing else."""

    def play(self, parts: Sequence[Trace], seed: Sequence[int]) -> Played:
        """Send a text, which may consist of several."""
        rows = [
            self.position(
                Row(part.draft[i], part.target[i], self._temperature),
                part.tokens[i],
                [*seed, part.prompt, i],
            )
            for part in parts
            for i in range(len(part))
        ]
        drafts, acceptance = {}, {}
        for way in rows[0]:
            drafts[way] = as_drafts([row[way] for row in rows])
            acceptance[way] = np.array([row[way].acceptance for row in rows])
        return Played(drafts, acceptance)

    def position(
        self, row: Row, token: int, seed: Sequence[int]
    ) -> dict[tuple[str, str], Position]:
        """Send a position in every way, given what the text has there."""
        found = {}
        luck, drawn = np.random.default_rng(seed).random(2)
        for name, variant, send in self._formats:
            wire = send(row)
            accepted = luck * row.p[token] < wire.q.prob(token)
            rate = np.minimum(row.p[wire.q.token_ids], wire.q.probs).sum()
            bits = wire.bits + wire.token_bits
            found[name, variant] = Position(accepted, bits, rate)
        first = int(row.top(1)[0][0])
        found[ONE_HOT, ""] = self._only_id(first, token == first, row.p[first])
        found[SHARED, ""] = self._shared(row, token, luck, seed)
        for setting in self.settings:
            found[OURS, words(setting)] = _ours(setting, row, token, luck, drawn)
        return found

    def _shared(
        self, row: Row, token: int, luck: float, seed: Sequence[int]
    ) -> Position:
        """Draw a draft by the numbers that the cloud draws with, too."""
        rate = coupled(row.p, row.q, token)
        drafted, accepted = token, bool(luck < rate)
        if not accepted:  # for its bits alone: another token of the draft's
            others = row.q.cumsum() - row.q[token] * (np.arange(row.q.size) >= token)
            pick = np.random.default_rng([*seed, 1]).random() * others[-1]
            drafted = min(int(np.searchsorted(others, pick, "right")), row.q.size - 1)
        return self._only_id(drafted, accepted, rate)

    def _only_id(self, drafted: int, accepted: bool, rate: float) -> Position:
        only = sqs.SparseDistribution([drafted], [1], self._ids.vocab_size)
        return Position(accepted, float(self._ids.bits(only)), rate)


def _ours(
    setting: Setting, row: Row, token: int, luck: float, drawn: float
) -> Position:
    """Send a position by the codec."""
    codec = setting.codec
    sent = row.send(setting.keep, codec.resolution)
    accepted, drafted = judge(row, sent.q, token, luck, drawn)
    return Position(accepted, bits_of(codec, sent.q, drafted), sent.loss.acceptance)


def bits_of(codec: sqs.Codec, q: sqs.SparseDistribution, drafted: int) -> float:
    """Return the bits of a distribution and of the token drawn from it."""
    return codec.bits(q) - float(np.log2(q.prob(drafted)))


def as_drafts(positions: Sequence[Position]) -> Drafts:
    """Return positions as a text's drafts."""
    accepted, bits, _ = np.array(positions, np.float64).T
    return Drafts(accepted.astype(bool), bits)


def words(setting: Setting) -> str:
    """Name a setting.

    Examples
    --------
    >>> words(default_settings(100)[0])
    'K=16, l=32'
    """
    keep = setting.keep
    k = keep.k if isinstance(keep, sqs.TopK) else keep
    return f"K={k}, l={setting.codec.resolution}"


def joined(parts: Iterable[Trace], tokens: int) -> Iterator[list[Trace]]:
    """Join traces to texts of so many tokens or more; the last may have fewer."""
    text: list[Trace] = []
    for part in parts:
        text.append(part)
        if sum(map(len, text)) >= tokens:
            yield text
            text = []
    if text:
        yield text


# Simulated


def simulate(
    options: Options, name: str, temperature: float, prompts: int, grid: Grid
) -> Records:
    """Write texts by each protocol over each link of a grid."""
    drafter = Drafter(load(options, name), temperature)
    parts = traces(options, name, temperature, prompts=prompts)
    texts = [
        drafter.play(text, [options.seed, 1]) for text in joined(parts, TOKENS - 1)
    ]
    about = {"model": name, "temperature": temperature}
    records = [_sent(played, {**about, "text": i}) for i, played in enumerate(texts)]
    found = [record for each in records for record in each]
    for cloud, steps in STEPS.items():
        planner = planner_of(drafter.settings, temperature)
        for i, played in enumerate(texts):
            case = {**about, "cloud": cloud, "text": i, "tokens": len(played)}
            found += _fixed(played, steps, grid, [options.seed, i], case)
            follows = texts[(i + 1) % len(texts)]
            both = [(played, [options.seed, i]), (follows, [options.seed, i, 1])]
            found += _planned(planner, drafter.settings, both, steps, grid, case)
    return found


def planner_of(settings: Sequence[Setting], temperature: float) -> Planner:
    """Return a planner that knows nothing but that messages are datagrams."""
    sampling = Sampling(temperature)
    overhead = DatagramLink.overhead
    return Planner(settings, sampling=sampling, prefer="bytes", overhead=overhead)


def _sent(played: Played, about: dict[str, Any]) -> Records:
    """Return what positions cost and give, summed over a text."""
    return [
        {
            **about,
            "part": "sent",
            "protocol": way[0],
            "variant": way[1],
            "positions": len(played),
            "bits": float(played.drafts[way].bits.sum()),
            "accepted": float(rate.sum()),
        }
        for way, rate in played.acceptance.items()
    ]


def _fixed(
    played: Played, steps: Steps, grid: Grid, seed: list[int], case: dict[str, Any]
) -> Records:
    """Write a text in each way by drafts of each length, and by the cloud alone."""
    found = []
    for (protocol, variant), drafts in played.drafts.items():
        for length in LENGTHS:
            run = run_of(grid.links, [drafts], steps, len(played), seed)
            run.fixed(FixedPlan(length).plan())
            case = {**case, "variant": variant, "length": length}
            found.append(_outcome(run, {**case, "protocol": protocol}))
    run = run_of(grid.links, [], steps, len(played), seed)
    run.alone()
    case = {**case, "variant": "", "length": 0, "protocol": CLOUD_ALONE}
    return [*found, _outcome(run, case)]


def run_of(
    links: Floats,
    drafts: Sequence[Drafts],
    steps: Steps,
    tokens: int,
    seed: Sequence[int],
) -> Run:
    """Begin a text over links of [rate, trip]."""
    rng = np.random.default_rng(seed)
    return Run(
        *links,
        steps,
        DatagramLink.overhead,
        drafts,
        rng,
        tokens,
        DatagramLink.max_message,
    )


def _outcome(run: Run, case: dict[str, Any]) -> dict[str, Any]:
    return {
        **case,
        "part": "simulated",
        **{
            name: [float(f"{x:.5g}") for x in np.ravel(values)]
            for name, values in (
                ("seconds", run.now),
                ("up", run.up),
                ("down", run.down),
            )
        },
    }


def _planned(
    planner: Planner,
    settings: Sequence[Setting],
    both: Sequence[tuple[Played, list[int]]],
    steps: Steps,
    grid: Grid,
    case: dict[str, Any],
) -> Records:
    """Write a text by a planner that knows nothing, and one more by the same."""
    first, again, chosen = [], [], []
    for link in grid.links.T:
        learner = copy.deepcopy(planner)
        runs = []
        for played, seed in both:
            drafts = [played.drafts[OURS, words(setting)] for setting in settings]
            runs.append(run_of(link, drafts, steps, len(played), seed))
            runs[-1].planned(learner)
        first.append(runs[0])
        again.append(runs[1])
        chosen.append(learner.plan())
    return [
        {
            **case,
            "part": "planned",
            "again_tokens": len(both[1][0]),
            "seconds": [float(run.now) for run in first],
            "again": [float(run.now) for run in again],
            "up": [float(run.up) for run in first],
            "down": [float(run.down) for run in first],
            "chosen": [[plan.length, plan.setting] for plan in chosen],
        }
    ]
