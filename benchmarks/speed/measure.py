"""One run of ``sqs bench speed``: from logits to times, and what they are held to."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

import sqs_codec as sqs
from sqs_codec.bench import contestants as c
from sqs_codec.bench import overhead
from sqs_codec.bench.engines import NUMBA, Engine, engines
from sqs_codec.bench.rows import Rows, take
from sqs_codec.bench.sources import Source
from sqs_codec.bench.timing import Contestant, Timing, interleave, pinned

if TYPE_CHECKING:
    from sqs_codec.demo.models import Pair

K, TEMPERATURE, RESOLUTION, BETA = 64, 0.7, 100, 1e-3
"""The setting where nothing else is said."""

ROUND = 5
"""Drafted tokens of a round; the target has a row more."""

GROUP_ROWS = ROUND + 1

PER_SUPPORT = 2048
"""Tokens that the distributions of a case of one support size have together: ranks of
1 024 tokens take milliseconds."""

BUDGET = 1 << 20
"""Bits that no round here needs: what is timed is to look."""

ENCODE, QUANTIZE = "encode_logits", "quantize"
ENCODE_BY = f"{ENCODE}, {{}}"
ENCODE_ONE, DECODE_ONE = "encode", "decode"
ENCODE_ROUND, DECODE_ROUND = f"encode_round of {ROUND}", f"decode_round of {ROUND}"
VERIFY, READ_TARGET = f"verify a round of {ROUND}", f"one read of {GROUP_ROWS} rows"
PUSH, PUSH_BUDGET = "Drafter.push", "Drafter.push, budget"
THRESHOLD = "encode_logits, Threshold"
FIXED, CONFORMAL = "quantize, Threshold", "quantize, Conformal + update"
CODINGS = {"entropy": "entropy", "enumerative": "enum.", "bitpack": "pack"}
CONSTRICTION = ("constriction, encode", "constriction, decode")
STEP = "draft step"
LOOP, THREADS = "TopK, in a loop", "{}, threads={}"
TOP_K_RULE, THRESHOLD_RULE = "TopK", "Threshold"


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes
    ----------
    rounds : int
    footprint : int
        Bytes that the rows of a case take together, whatever the vocabulary and type.
    vocabularies, ks, temperatures, resolutions, supports, batches : tuple
        What is varied, one at a time.
    """

    rounds: int = 100
    footprint: int = 4 << 20
    vocabularies: tuple[int, ...] = (32_000, 49_152, 65_536, 128_256, 151_936, 262_144)
    ks: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    temperatures: tuple[float, ...] = (0.0, 0.3, 0.7, 1.0, 1.5)
    resolutions: tuple[int, ...] = (16, 100, 400, 1600, 6400, 65_536)
    supports: tuple[int, ...] = (1, 4, 10, 16, 64, 256, 1024)
    batches: tuple[int, ...] = (4, 16, 64, 256, 1024)

    def rows(self, vocab_size: int) -> int:
        """Return how many rows of float32 fill the footprint; enough for a round."""
        return max(GROUP_ROWS, self.footprint // (4 * vocab_size))


QUICK = Plan(
    rounds=3,
    footprint=1 << 20,
    vocabularies=(32_000, 262_144),
    ks=(1, 64),
    temperatures=(0.0, 0.7),
    resolutions=(100, 1600),
    supports=(1, 10),
    batches=(4,),
)
"""To see that everything runs; its times mean little."""


@dataclass(frozen=True)
class Case:
    """Contestants on the same inputs.

    Attributes
    ----------
    value : object
        What is varied.
    times : dict of str to Timing
        By contestant.
    logits : int, optional
        Of one call.
    notes : dict of str to float
        What else is worth a column.
    """

    value: Any
    times: dict[str, Timing]
    logits: int | None = None
    notes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Cases that differ in one thing.

    Attributes
    ----------
    name, title, by : str
        For machines, for people, and what varies.
    cases : list of Case
    """

    name: str
    title: str
    by: str
    cases: list[Case]


@dataclass(frozen=True)
class Bar:
    """What a run is held to.

    Attributes
    ----------
    name : str
    value : float
    limit : float
    at_least : bool
        Whether `value` must reach the limit; otherwise it must not exceed it.
    unit : str
    stretch : float, optional
        A limit that would be better still.
    """

    name: str
    value: float
    limit: float
    at_least: bool = False
    unit: str = "x"
    stretch: float | None = None

    @property
    def passes(self) -> bool:
        """Whether the limit is kept."""
        return self._keeps(self.limit)

    @property
    def stretches(self) -> bool:
        """Whether the better one is, if there is one."""
        return self.stretch is not None and self._keeps(self.stretch)

    def _keeps(self, limit: float) -> bool:
        return self.value >= limit if self.at_least else self.value <= limit


@dataclass(frozen=True)
class Speed:
    """A whole run.

    Attributes
    ----------
    measured : dict
        What it was measured on and with.
    groups : list of Group
    calls : dict of str to (Timing, Timing)
        By function, through Python and in C alone.
    bars : list of Bar
    """

    measured: dict[str, Any]
    groups: list[Group]
    calls: dict[str, tuple[Timing, Timing]]
    bars: list[Bar]

    def group(self, name: str) -> Group:
        """Return a group; KeyError if it wasn't measured."""
        return {group.name: group for group in self.groups}[name]

    def as_json(self) -> dict[str, Any]:
        """Return everything that the tables and the plots are made from."""
        return {
            "measured": self.measured,
            "bars": [
                {
                    "name": bar.name,
                    "value": bar.value,
                    "unit": bar.unit,
                    "at_least" if bar.at_least else "at_most": bar.limit,
                    "stretch": bar.stretch,
                    "passes": bar.passes,
                }
                for bar in self.bars
            ],
            "groups": {
                group.name: {
                    "title": group.title,
                    "by": group.by,
                    "cases": [_case_json(case) for case in group.cases],
                }
                for group in self.groups
            },
            "python_overhead": {
                name: {
                    "python": _timing_json(python),
                    "c": _timing_json(alone),
                    "overhead_us": python.beyond(alone),
                }
                for name, (python, alone) in self.calls.items()
            },
        }

    def write(self, path: Path) -> None:
        """Write the JSON."""
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n", "utf-8")


def _case_json(case: Case) -> dict[str, Any]:
    return {
        "value": case.value,
        "logits": case.logits,
        **case.notes,
        "times": {n: _timing_json(t) for n, t in case.times.items()},
    }


def _timing_json(timing: Timing) -> dict[str, float]:
    low, high = timing.spread
    return {"us": timing.median, "us_q1": low, "us_q3": high}


class Bench:
    """All measurements on the rows of one source.

    Parameters
    ----------
    rows : Rows
    plan : Plan
    seed : int
        Of the order of contestants, drafted tokens and verdicts.
    pair : Pair, optional
        Whose draft model is timed.
    """

    def __init__(self, rows: Rows, plan: Plan, seed: int, pair: Pair | None) -> None:
        self._all = rows
        self._plan = plan
        self._pair = pair
        self._rng = np.random.default_rng(seed)
        self.engines = engines()
        self.packets = 0
        """How many packets all engines agreed on."""
        self.rows = rows.first(plan.rows(rows.vocab_size))
        self._vocab_size = rows.vocab_size
        self._codec = self._fast.codec(self._vocab_size, RESOLUTION)
        self._list = list(self.rows.draft)

    @property
    def _fast(self) -> Engine:
        return self.engines[0]

    def _time(self, contestants: Sequence[Contestant]) -> dict[str, Timing]:
        return interleave(contestants, self._plan.rounds, self._rng)

    @cached_property
    def _qs(self) -> list[sqs.SparseDistribution]:
        keep = sqs.TopK(K)
        return [self._codec.quantize(row, keep, TEMPERATURE) for row in self._list]

    @cached_property
    def _rounds(self) -> list[sqs.Round]:
        """A round of every `GROUP_ROWS` rows, of which the last has no draft."""
        rounds = []
        for start in range(0, len(self._qs) - ROUND, GROUP_ROWS):
            qs = self._qs[start : start + ROUND]
            rounds.append(sqs.Round(tuple(qs), tuple(q.sample(self._rng) for q in qs)))
        return rounds

    @cached_property
    def _targets(self) -> NDArray[np.float32]:
        """Target probabilities, [rounds, L+1, V]."""
        n = len(self._rounds)
        x = self.rows.target[: n * GROUP_ROWS].astype(np.float64) / TEMPERATURE
        x = np.exp(x - x.max(axis=1, keepdims=True))
        x /= x.sum(axis=1, keepdims=True)
        return np.asarray(x.reshape(n, GROUP_ROWS, -1), np.float32)

    def _encoders(
        self,
        rows: NDArray[np.floating],
        keep: sqs.Keep,
        temperature: float = TEMPERATURE,
        resolution: int = RESOLUTION,
    ) -> tuple[list[Contestant], list[sqs.SparseDistribution]]:
        """Return logits to bytes on all engines, and what becomes of the rows."""
        codecs = {e.name: e.codec(rows.shape[1], resolution) for e in self.engines}
        listed = list(rows)
        packets = {
            name: [codec.encode_logits(row, keep, temperature) for row in listed]
            for name, codec in codecs.items()
        }
        for name, found in packets.items():
            if found != packets[self._fast.name]:
                raise AssertionError(f"{name} and {self._fast.name} differ in packets")
        self.packets += len(rows)
        first = codecs[self._fast.name]
        return (
            [
                c.encode_logits(codec, listed, keep, temperature, name)
                for name, codec in codecs.items()
            ],
            [first.decode(packet) for packet in packets[self._fast.name]],
        )

    def _against(
        self,
        value: Any,
        rows: NDArray[np.floating],
        keep: sqs.Keep,
        temperature: float = TEMPERATURE,
        k: int = K,
    ) -> Case:
        """Time logits to bytes on all engines, and what it compares with."""
        encoders, qs = self._encoders(rows, keep, temperature)
        others = [
            c.torch_top_k(list(rows), k, temperature or 1.0),
            c.argpartition(list(rows), k),
            c.one_read(rows),
        ]
        times = self._time([*encoders, *others])
        return Case(value, times, rows.shape[1], {"survivors": _survivors(qs)})

    def groups(self) -> Iterator[Callable[[], Group]]:
        """Yield all measurements on one core."""
        yield self.calls
        yield self.by_vocabulary
        yield self.by_k
        yield self.by_temperature
        yield self.by_dtype
        yield self.by_resolution
        yield self.by_support
        yield self.by_engine
        yield self.symbols
        if self._pair is not None:
            yield self.draft_step

    def calls(self) -> Group:
        """Time every call, on the rows as they are."""
        draft, keep = self.rows.draft, sqs.TopK(K)
        encoders, _ = self._encoders(draft, keep)
        targets = self._targets
        at = (self._list, sqs.TopK(K), TEMPERATURE)
        threshold, codec = sqs.Threshold(BETA), self._codec
        conformal = sqs.Conformal(beta=BETA)
        read_targets = targets.reshape(-1, self._vocab_size)
        times = self._time(
            [
                *(replace(e, name=ENCODE_BY.format(e.name)) for e in encoders),
                c.quantize(codec, *at, QUANTIZE),
                c.encode_logits(codec, self._list, threshold, TEMPERATURE, THRESHOLD),
                c.quantize(codec, self._list, threshold, TEMPERATURE, FIXED),
                c.conformal(codec, self._list, conformal, TEMPERATURE, CONFORMAL),
                c.encode(codec, self._qs, ENCODE_ONE),
                c.decode(codec, self._qs, DECODE_ONE),
                c.encode_round(codec, self._rounds, ENCODE_ROUND),
                c.decode_round(codec, self._rounds, DECODE_ROUND),
                c.push(self._drafter(None), self._list, TEMPERATURE, PUSH),
                c.push(self._drafter(BUDGET), self._list, TEMPERATURE, PUSH_BUDGET),
                c.torch_top_k(self._list, K, TEMPERATURE),
                c.torch_top_k_first(self._list, K, TEMPERATURE),
                c.argpartition(self._list, K),
                c.one_read(draft),
                c.verify(self._rounds, list(targets), self._rng, VERIFY),
                c.one_read(read_targets, len(self._rounds), READ_TARGET),
            ]
        )
        notes = {"survivors": _survivors(self._qs)}
        title = f"V = {self._vocab_size}, K = {K}, T = {TEMPERATURE}, l = {RESOLUTION}"
        case = Case(f"V = {self._vocab_size}", times, self._vocab_size, notes)
        return Group("calls", title, "", [case])

    def _drafter(self, budget_bits: int | None) -> sqs.Drafter:
        return sqs.Drafter(
            self._codec,
            sqs.TopK(K),
            rng=np.random.default_rng(self._rng.integers(1 << 32)),
            budget_bits=budget_bits,
            max_tokens=256,
        )

    def by_vocabulary(self) -> Group:
        """Time logits to bytes by V."""
        cases = []
        for v in self._plan.vocabularies:
            rows = self._all.first(self._plan.rows(v)).resized(v, self._rng).draft
            cases.append(self._against(v, rows, sqs.TopK(K)))
        return Group("vocabulary", f"By vocabulary: K = {K}", "V", cases)

    def by_k(self) -> Group:
        """Time logits to bytes by K."""
        v = self._vocab_size
        cases = [
            self._against(k, self.rows.draft, sqs.TopK(k), k=k)
            for k in self._plan.ks
            if k < v
        ]
        return Group("top_k", f"By tokens kept: V = {v}", "K", cases)

    def by_temperature(self) -> Group:
        """Time logits to bytes by temperature; torch's stands for 1 at 0."""
        cases = [
            self._against(t, self.rows.draft, sqs.TopK(K), temperature=t)
            for t in self._plan.temperatures
        ]
        return Group("temperature", f"By temperature: K = {K}", "T", cases)

    def by_dtype(self) -> Group:
        """Time logits to bytes by type."""
        cases = []
        keep = sqs.TopK(K)
        for dtype in (np.float16, np.float32, np.float64):
            size = self._plan.rows(self._vocab_size) * 4 // np.dtype(dtype).itemsize
            rows: NDArray[Any] = self._all.draft[:size].astype(dtype)
            cases.append(self._against(np.dtype(dtype).name, rows, keep))
        halves = self._all.draft[: 2 * self._plan.rows(self._vocab_size)]
        bfloat16 = (halves.view(np.uint32) >> 16).astype(np.uint16)
        contestants = [
            c.encode_bfloat16(
                engine.codec(self._vocab_size), bfloat16, keep, TEMPERATURE, engine.name
            )
            for engine in self.engines
        ]
        halves = bfloat16.view(np.float16)
        times = self._time([*contestants, c.one_read(halves)])
        cases.append(Case("bfloat16", times, self._vocab_size))
        return Group("dtype", f"By type of the logits: K = {K}", "type", cases)

    def by_resolution(self) -> Group:
        """Time what comes after the scan by l."""
        cases = []
        for resolution in self._plan.resolutions:
            encoders, qs = self._encoders(
                self.rows.draft, sqs.TopK(K), resolution=resolution
            )
            codec = self._fast.codec(self._vocab_size, resolution)
            chosen = [encoders[0], c.encode(codec, qs, ENCODE_ONE)]
            chosen.append(c.decode(codec, qs, DECODE_ONE))
            times = self._time(chosen)
            notes = {"survivors": _survivors(qs)}
            cases.append(Case(resolution, times, self._vocab_size, notes))
        return Group("resolution", f"By resolution: K = {K}", "l", cases)

    def by_support(self) -> Group:
        """Time every coding by k."""
        cases = []
        for k in self._plan.supports:
            if k > self._vocab_size:
                continue
            resolution = max(RESOLUTION, 16 * k)
            n = max(2, min(len(self.rows), PER_SUPPORT // k))
            qs = [_with_support(row, k, resolution) for row in self._list[:n]]
            contestants = []
            for coding, name in CODINGS.items():
                codec = self._fast.codec(self._vocab_size, resolution, coding)
                contestants += [
                    c.encode(codec, qs, f"{name}, encode"),
                    c.decode(codec, qs, f"{name}, decode"),
                ]
                if coding == "entropy":
                    contestants.append(c.bits(codec, qs, f"{name}, bits"))
            cases.append(Case(k, self._time(contestants), None, {"l": resolution}))
        title = f"By support: l = max({RESOLUTION}, 16 k)"
        return Group("support", title, "k", cases)

    def by_engine(self) -> Group:
        """Time all calls that an engine answers, on each of them."""
        cases: dict[str, dict[str, Timing]] = {}
        contestants = []
        for engine in self.engines:
            codec, name = engine.codec(self._vocab_size, RESOLUTION), engine.name
            at = (self._list, sqs.TopK(K), TEMPERATURE)
            threshold = (self._list, sqs.Threshold(BETA), TEMPERATURE)
            contestants += [
                c.encode_logits(codec, *at, f"{ENCODE}|{name}"),
                c.encode_logits(codec, *threshold, f"{THRESHOLD}|{name}"),
                c.quantize(codec, *at, f"{QUANTIZE}|{name}"),
                c.encode(codec, self._qs, f"{ENCODE_ONE}|{name}"),
                c.decode(codec, self._qs, f"{DECODE_ONE}|{name}"),
                c.encode_round(codec, self._rounds, f"{ENCODE_ROUND}|{name}"),
                c.decode_round(codec, self._rounds, f"{DECODE_ROUND}|{name}"),
            ]
        for both, timing in self._time(contestants).items():
            call, _, name = both.partition("|")
            cases.setdefault(call, {})[name] = timing
        return Group(
            "engines",
            f"By backend and instruction set: V = {self._vocab_size}, K = {K}",
            "call",
            [Case(call, times) for call, times in cases.items()],
        )

    def symbols(self) -> Group:
        """Time the coder alone, against constriction's on the same symbols."""
        theirs = c.Constriction(self._qs)
        times = self._time(
            [
                c.encode(self._codec, self._qs, ENCODE_ONE),
                c.decode(self._codec, self._qs, DECODE_ONE),
                theirs.encode(CONSTRICTION[0]),
                theirs.decode(CONSTRICTION[1]),
            ]
        )
        ours = 8 * np.mean([len(self._codec.encode(q)) for q in self._qs])
        notes = {
            "survivors": _survivors(self._qs),
            "bits": float(ours),
            "constriction_bits": theirs.bits,
        }
        case = Case(f"V = {self._vocab_size}", times, None, notes)
        return Group("symbols", "The same supports and counts", "", [case])

    def draft_step(self) -> Group:
        """Time logits to bytes beside the step of the model that makes them."""
        from sqs_codec.demo.models import CachedModel
        from sqs_codec.demo.run import own_prompts

        assert self._pair is not None
        model = CachedModel(self._pair.draft, self._pair.vocab_size)
        text = self._pair.encode(own_prompts()[0])
        model.logits(text)
        step = Contestant(
            STEP,
            lambda: model.logits([*text, text[0]]),
            1,
            lambda: model.rollback(len(text)),
        )
        keep = sqs.TopK(K)
        ours = c.encode_logits(self._codec, self._list, keep, TEMPERATURE, ENCODE)
        push = c.push(self._drafter(BUDGET), self._list, TEMPERATURE, PUSH_BUDGET)
        times = self._time([step, ours, push])
        case = Case(f"after {len(text)} tokens", times, self._vocab_size)
        title = "Beside a cached step of SmolLM2-135M's draft, one token, one thread"
        return Group("draft_step", title, "", [case])

    def threads(self, cores: int) -> Group:
        """Time batches, with as many threads as there are cores."""
        keep = sqs.TopK(K)
        rules = {TOP_K_RULE: keep, THRESHOLD_RULE: sqs.Threshold(BETA)}
        cases = []
        for n in self._plan.batches:
            rows = np.resize(self._all.draft, (n, self._vocab_size))
            loop = (self._codec, list(rows), keep, TEMPERATURE, LOOP)
            contestants = [c.encode_logits(*loop)]
            contestants += [
                c.encode_batch(
                    *(self._codec, rows, rule, TEMPERATURE, threads),
                    THREADS.format(name, threads),
                )
                for name, rule in rules.items()
                for threads in range(1, cores + 1)
            ]
            cases.append(Case(n, self._time(contestants), self._vocab_size))
        title = f"encode_batch, a row's time: V = {self._vocab_size}, {cores} cores"
        return Group("threads", title, "rows", cases)


def _survivors(qs: Sequence[sqs.SparseDistribution]) -> float:
    return float(np.mean([len(q.counts) for q in qs]))


def _with_support(
    row: NDArray[np.floating], k: int, resolution: int
) -> sqs.SparseDistribution:
    """Return the k most probable tokens, each with a count."""
    ids = np.sort(np.argpartition(row, -k)[-k:])
    x = np.exp(row[ids].astype(np.float64) - row.max())
    counts = 1 + (x / x.sum() * (resolution - k)).astype(np.uint32)
    counts[x.argmax()] += resolution - counts.sum()
    return sqs.SparseDistribution(ids, counts, row.size)


def bars(groups: dict[str, Group], bench: Bench) -> list[Bar]:
    """Hold a run to what the design asks for."""
    times = groups["calls"].cases[0].times
    names = [engine.name for engine in bench.engines]
    by_engine = {name: times[ENCODE_BY.format(name)] for name in names}
    ours, read = by_engine[names[0]], times[c.READ]
    found = [
        Bar(
            "softmax + topk / encode_logits",
            times[c.TORCH].over(ours),
            5,
            True,
            stretch=7,
        ),
        Bar("encode_logits / one read", ours.over(read), 5, stretch=3.5),
        Bar("decode", times[DECODE_ONE].median, 10, unit="us"),
        Bar(
            "Conformal, update beyond Threshold",
            times[CONFORMAL].beyond(times[FIXED]),
            1,
            unit="us",
        ),
        Bar(
            f"verify / one read of its {GROUP_ROWS} rows",
            times[VERIFY].over(times[READ_TARGET]),
            3,
        ),
    ]
    cases = groups["vocabulary"].cases
    few, most = cases[0], cases[-1]
    grown = most.times[names[0]].median / few.times[names[0]].median
    found.append(
        Bar(
            f"growth, V = {few.value} to {most.value} / V's",
            grown / (most.value / few.value),
            1.1,
        )
    )
    base = next((name for name in ("AVX2", "NEON", "scalar") if name in names), None)
    if base:
        ratio = by_engine[NUMBA].over(by_engine[base])
        found.append(Bar(f"encode_logits, {NUMBA} / {base}", ratio, 3))
    if "threads" in groups:
        batch = groups["threads"].cases[-1]
        for rule in (TOP_K_RULE, THRESHOLD_RULE):
            one, two = (batch.times[THREADS.format(rule, n)] for n in (1, 2))
            name = f"{batch.value} rows, {rule}: 1 thread / 2"
            found.append(Bar(name, one.over(two), 1.8, True))
    return found


def run(
    source: Source, plan: Plan, seed: int, pair: Pair | None, *, progress: bool
) -> Speed:
    """Measure everything on the rows of a source.

    Parameters
    ----------
    source : Source
        Of at least `GROUP_ROWS` rows.
    plan : Plan
    seed : int
    pair : Pair, optional
        Models whose draft step is timed too.
    progress : bool
        Whether to show a bar on standard error.

    Raises
    ------
    ValueError
        There are too few rows.
    AssertionError
        Engines differ in a packet.
    """
    began = time.monotonic()
    most = max(map(plan.rows, (*plan.vocabularies, source.vocab_size)))
    most = max(most, 2 * plan.rows(source.vocab_size))  # for types of half the size
    rows = take(source, most, GROUP_ROWS, np.random.default_rng(seed))
    if len(rows) < GROUP_ROWS or source.vocab_size <= K:
        raise ValueError(
            f"expected at least {GROUP_ROWS} rows of more than {K} tokens, "
            f"got {len(rows)} of {source.vocab_size}"
        )
    calls = {}
    with pinned(1) as pins:
        bench = Bench(rows, plan, seed, pair)
        tasks = track(
            list(bench.groups()),
            "Measuring",
            console=Console(stderr=True),
            transient=True,
            disable=not progress,
        )
        groups = [task() for task in tasks]
        if sqs.backend() == "native":
            calls = overhead.measure(plan.rounds, np.random.default_rng(seed))
    # Threads are started, and stay, on the cores that are allowed then.
    with pinned(2) as cores:
        if cores == 2:
            groups.append(bench.threads(cores))
    held = bars({group.name: group for group in groups}, bench)
    for name, (python, alone) in calls.items():
        held.append(Bar(f"Python's part of {name}", python.beyond(alone), 3, unit="us"))
    measured = {
        "source": source.summary,
        "rows": len(bench.rows),
        "footprint": plan.footprint,
        "vocab_size": source.vocab_size,
        "rounds": plan.rounds,
        "seed": seed,
        "pinned": pins == 1,
        "packets": bench.packets,
        "engines": [engine.name for engine in bench.engines],
        **_machine(),
        "seconds": round(time.monotonic() - began, 1),
    }
    return Speed(measured, groups, calls, held)


def _machine() -> dict[str, Any]:
    """Name what times depend on."""
    packages = ("numpy", "torch", "numba", "constriction")
    cpu, flags = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines: dict[str, str] = {}
        for line in info.read_text("utf-8").split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            lines[name.strip()] = value.strip()
        cpu = lines.get("model name", cpu)
        known = lines.get("flags", "").split()
        flags = " ".join(f for f in known if f.startswith(("avx", "fma", "f16c")))
    return {
        "machine": f"{cpu}, {os.cpu_count()} cores, {platform.system()}",
        "cpu_flags": flags,
        "version": sqs.__version__,
        "backend": sqs.backend(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }
