"""One run: the times of every call, starting from logits."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import sqs_codec as sqs
from benchmarks.schemes import softmax
from benchmarks.sources import Source
from benchmarks.speed import rivals
from benchmarks.speed.engines import engines
from benchmarks.speed.timing import Contestant, Timing, each, interleave, pinned
from benchmarks.tables import about
from sqs_codec._base.format import MAX_ROUND

K, TEMPERATURE, RESOLUTION, BETA = 64, 0.7, 100, 1e-3
"""The default setting."""

ROUND = 5
"""Drafted tokens per round; the target has one more row."""

GROUP_ROWS = ROUND + 1

BUDGET = 1 << 20
"""A budget that no round reaches: only its check is timed."""

ENCODE, QUANTIZE = "quantize + encode", "quantize"
ENCODE_ONE, DECODE_ONE = "encode", "decode"
ENCODE_ROUND, DECODE_ROUND = f"encode_round of {ROUND}", f"decode_round of {ROUND}"
VERIFY, READ_TARGET = f"verify a round of {ROUND}", f"one read of {GROUP_ROWS} rows"
PUSH, PUSH_BUDGET = "Drafter.push", "Drafter.push, budget"
MASS, UNBIASED = "quantize, with dropped_mass", "quantize_unbiased"
DRAW, GUESS, KEY = "gumbel_draw", "gumbel_guess of 4", bytes(16)
LOOP, THREADS = "TopK, in a loop", "{}, threads={}"
RULES: dict[str, sqs.Keep] = {"TopK": sqs.TopK(K), "Threshold": sqs.Threshold(BETA)}


HEAD = 1024
"""The most probable tokens; logits of added tokens are sampled from the others."""


@dataclass(frozen=True)
class Plan:
    """The amount of measurements."""

    rounds: int = 100
    footprint: int = 4 << 20
    """Bytes of all rows of a case, for any vocabulary and type."""
    vocabularies: tuple[int, ...] = (32_000, 49_152, 65_536, 128_256, 151_936, 262_144)
    batches: tuple[int, ...] = (4, 16, 64, 256, 1024)

    def rows(self, vocab_size: int) -> int:
        """Return the number of float32 rows in the footprint, at least a round's."""
        return max(GROUP_ROWS, self.footprint // (4 * vocab_size))


QUICK = Plan(
    rounds=1,
    footprint=1 << 20,
    vocabularies=(32_000, 49_152),
    batches=(4,),
)
"""A test that everything runs; its times mean little."""


@dataclass(frozen=True)
class Case:
    """Contestants on the same inputs."""

    value: Any
    """The value of the varied parameter, if any."""
    times: dict[str, Timing]
    """Times by contestant."""
    notes: dict[str, float] = field(default_factory=dict)
    """Additional columns, such as the number of remaining tokens k."""


@dataclass(frozen=True)
class Group:
    """Cases that differ in one parameter, or one case."""

    name: str
    title: str
    by: str
    """The name of the parameter."""
    cases: list[Case]
    base: dict[str, str] = field(default_factory=dict)
    """For one case: the contestant to compare each contestant's time with."""


@dataclass(frozen=True)
class Speed:
    """The results of a run."""

    measured: dict[str, Any]
    """The rows, the parameters and the environment."""
    groups: dict[str, Group]


def each_row(
    name: str,
    call: Callable[..., object],
    rows: Sequence[NDArray[np.floating]],
    keep: sqs.Keep,
) -> Contestant:
    """Time a call that takes a row of logits and a rule."""

    def run() -> None:
        for row in rows:
            call(row, keep, temperature=TEMPERATURE)

    return Contestant(name, run, len(rows))


def _encoder(codec: sqs.Codec) -> Callable[..., bytes]:
    """Return a function of a row of logits and a rule that returns the packet."""
    return lambda row, keep, temperature: codec.encode(
        codec.quantize(row, keep, temperature=temperature)
    )


def push(
    name: str,
    codec: sqs.Codec,
    rows: Sequence[NDArray[np.floating]],
    budget_bits: int | None,
) -> Contestant:
    """Time `Drafter.push` on the rows of one round, without its end."""
    assert len(rows) <= MAX_ROUND
    drafter = sqs.Drafter(
        codec,
        sqs.TopK(K),
        rng=np.random.default_rng(0),
        budget_bits=budget_bits,
        max_tokens=MAX_ROUND,
    )
    call = drafter.push

    def run() -> None:
        for row in rows:
            call(row, temperature=TEMPERATURE)

    return Contestant(name, run, len(rows), drafter.abort)


class Bench:
    """All measurements on the logits [n, V] of draft and target from one source.

    The seed determines the order of contestants, drafted tokens and verdicts.
    """

    def __init__(
        self,
        draft: NDArray[np.float32],
        target: NDArray[np.float32],
        plan: Plan,
        seed: int,
    ) -> None:
        self._all = draft
        self._target = target
        self._plan = plan
        self._rng = np.random.default_rng(seed)
        self._vocab_size = draft.shape[1]
        self.rows = draft[: plan.rows(self._vocab_size)]
        self._list = list(self.rows)
        self.engines = engines()
        self.packets = 0
        """The number of packets that were equal on all engines."""
        self._codec = self.engines[0].codec(self._vocab_size, RESOLUTION)
        self._qs = self._codec.quantize_rows(
            self.rows, RULES["TopK"], temperature=TEMPERATURE
        )
        self._rounds = [
            sqs.Round(tuple(qs), tuple(q.sample(self._rng) for q in qs))
            for start in range(0, len(self._qs) - ROUND, GROUP_ROWS)
            for qs in [self._qs[start : start + ROUND]]  # the last row has no draft
        ]

    def groups(self) -> Iterator[Callable[[], Group]]:
        """Yield all measurements on one core."""
        yield self.calls
        yield self.by_vocabulary

    def _time(self, contestants: Sequence[Contestant]) -> dict[str, Timing]:
        rounds, clock = self._plan.rounds, time.thread_time_ns
        return interleave(contestants, rounds, self._rng, clock)

    def _encoders(
        self, rows: NDArray[np.floating], keep: sqs.Keep
    ) -> tuple[list[Contestant], list[sqs.SparseDistribution]]:
        """Return logits to bytes on all engines, and the rows' distributions."""
        found, contestants = [], []
        for engine in self.engines:
            codec = engine.codec(rows.shape[1], RESOLUTION)
            qs = codec.quantize_rows(rows, keep, temperature=TEMPERATURE)
            found.append(codec.encode_rows(qs))
            contestants.append(each_row(engine.name, _encoder(codec), list(rows), keep))
            if found[-1] != found[0]:
                raise AssertionError(f"packets from {engine.name} differ")
        self.packets += len(rows)
        return contestants, list(map(codec.decode, found[0]))

    def _against(self, value: int, rows: NDArray[np.floating], k: int = K) -> Case:
        """Time logits to bytes on all engines, and the rivals."""
        encoders, qs = self._encoders(rows, sqs.TopK(k))
        others = rivals.others(list(rows), k, TEMPERATURE)
        shown = [x for x in others if x.name in (rivals.TORCH, rivals.NUMPY_TWICE)]
        times = self._time([*encoders, *shown, rivals.one_read(rows)])
        return Case(value, times, {"k": _survivors(qs)})

    def calls(self) -> Group:
        """Time every call on the unchanged rows."""
        encoders, _ = self._encoders(self.rows, sqs.TopK(K))
        codec, rows = self._codec, self._list
        logits = self._target[: len(self._rounds) * GROUP_ROWS]
        targets = softmax(logits, TEMPERATURE).astype(np.float32)
        by_round = targets.reshape(len(self._rounds), GROUP_ROWS, -1)
        packets = [codec.encode_round(round_) for round_ in self._rounds]
        fitted = sqs.Codec(
            self._vocab_size, RESOLUTION, prior=sqs.Prior.builtin("smollm2")
        )
        unbiased = partial(codec.quantize_unbiased, rng=self._rng)
        at, drawn = itertools.count(), {"sampling": sqs.Sampling(TEMPERATURE)}
        with_mass = partial(codec.quantize, dropped_mass=True)
        contestants = [
            *(replace(e, name=f"{ENCODE}, {e.name}") for e in encoders),
            each_row(QUANTIZE, codec.quantize, rows, RULES["TopK"]),
            each(UNBIASED, partial(unbiased, temperature=TEMPERATURE), rows),
            each_row(MASS, with_mass, rows, RULES["TopK"]),
            each_row(
                f"{QUANTIZE}, Threshold", codec.quantize, rows, RULES["Threshold"]
            ),
            each(ENCODE_ONE, codec.encode, self._qs),
            each(DECODE_ONE, codec.decode, list(map(codec.encode, self._qs))),
            each(f"{ENCODE_ONE}, with a prior", fitted.encode, self._qs),
            each(
                f"{DECODE_ONE}, with a prior",
                fitted.decode,
                list(map(fitted.encode, self._qs)),
            ),
            each(ENCODE_ROUND, codec.encode_round, self._rounds),
            each(DECODE_ROUND, codec.decode_round, packets),
            each(DRAW, lambda row: sqs.gumbel_draw(row, KEY, next(at), **drawn), rows),
            each(
                GUESS,
                lambda row: sqs.gumbel_guess(row, KEY, next(at), 4, **drawn),
                rows,
            ),
            push(PUSH, codec, rows, None),
            push(PUSH_BUDGET, codec, rows, BUDGET),
            *rivals.others(rows, K, TEMPERATURE),
            rivals.one_read(self.rows),
            each(
                VERIFY,
                lambda pair: sqs.verify(pair[0], pair[1], self._rng),
                list(zip(self._rounds, by_round, strict=True)),
            ),
            rivals.one_read(targets, len(self._rounds), READ_TARGET),
        ]
        title = f"V = {self._vocab_size}, K = {K}, T = {TEMPERATURE}, l = {RESOLUTION}"
        no_logits = ENCODE_ONE, DECODE_ONE
        base = {
            c.name: rivals.READ for c in contestants if not c.name.startswith(no_logits)
        }
        base |= {VERIFY: READ_TARGET, READ_TARGET: READ_TARGET}
        notes = {"k": _survivors(self._qs)}
        case = Case(None, self._time(contestants), notes)
        return Group("calls", title, "", [case], base)

    def by_vocabulary(self) -> Group:
        """Time logits to bytes for each V."""
        cases = []
        for v in self._plan.vocabularies:
            rows = resized(self._all[: self._plan.rows(v)], v, self._rng)
            cases.append(self._against(v, rows))
        return Group("vocabulary", f"By vocabulary: K = {K}", "V", cases)

    def threads(self, cores: int) -> Group:
        """Time batches with one thread up to the number of cores."""
        cases = []
        for n in self._plan.batches:
            rows = np.resize(self._all, (n, self._vocab_size))
            call = self._codec.quantize
            contestants = [each_row(LOOP, call, list(rows), RULES["TopK"])]
            for name, keep in RULES.items():
                for threads in range(1, cores + 1):
                    many = partial(self._codec.quantize_rows, rows, keep)
                    run = partial(many, temperature=TEMPERATURE, threads=threads)
                    name_of = THREADS.format(name, threads)
                    contestants.append(Contestant(name_of, run, n))
            times = interleave(contestants, self._plan.rounds, self._rng)
            cases.append(Case(n, times))
        title = f"quantize_rows, time per row: V = {self._vocab_size}, {cores} cores"
        return Group("threads", title, "rows", cases)


def take(
    source: Source, n: int, group: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return n rows of draft and target, or all if a source has fewer.

    Rows come in groups of `group` consecutive ones, from all sessions in turn. Shipped
    rows have the same logit for all tokens of their tail. Each of these is lowered by
    the absolute value of a normal deviate, because `numpy.argpartition` takes forty
    times as long with ties, which no model has.
    """
    longest = max(map(len, source.sessions))
    places = [
        (session, i)
        for start in range(0, longest, group)
        for session in source.sessions
        for i in range(start, min(start + group, len(session)))
    ][:n]
    draft = np.array([session.draft[i] for session, i in places], np.float32)
    target = np.array([session.target[i] for session, i in places], np.float32)
    for row in (*draft, *target):
        tail = np.flatnonzero(row == row.min())
        if len(tail) > row.size // 2:
            row[tail] -= np.abs(rng.normal(size=len(tail)))
    return draft, target


def resized(
    rows: NDArray[np.float32], vocab_size: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return rows with another vocabulary size.

    A smaller one has the first tokens. Additional tokens of a larger one get logits
    sampled from the row without its `HEAD` largest, so that the kept tokens stay.
    """
    if vocab_size <= rows.shape[1]:
        return np.ascontiguousarray(rows[:, :vocab_size])
    more = vocab_size - rows.shape[1]
    tail = max(1, rows.shape[1] - HEAD)
    tails = np.partition(rows, tail - 1, axis=1)[:, :tail]
    return np.hstack([rows, rng.choice(tails, more, axis=1)])


def _survivors(qs: Sequence[sqs.SparseDistribution]) -> float:
    return float(np.mean([len(q.counts) for q in qs]))


def run(source: Source, plan: Plan, seed: int, *, progress: bool) -> Speed:
    """Measure everything on a source's rows; AssertionError if packets differ."""
    most = max(map(plan.rows, (*plan.vocabularies, source.vocab_size)))
    rows = take(source, most, GROUP_ROWS, np.random.default_rng(seed))
    with pinned(1) as pins:
        bench = Bench(*rows, plan, seed)
        tasks = list(bench.groups())
        groups = [task() for task in tqdm(tasks, disable=not progress)]
    # Threads stay on the cores that are allowed when they start.
    with pinned(2) as cores:
        if cores == 2:
            groups.append(bench.threads(cores))
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
        **about("torch", "numba"),
    }
    return Speed(measured, {group.name: group for group in groups})
