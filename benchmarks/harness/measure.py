"""Engines with more and more sessions, in turns.

To draft for many sessions on the same cores would hide what verifying takes. So each of
many sessions goes through the rounds of one that was played, from a place of its own.
The numbers are the same, so the verdicts have to be.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.harness.sessions import Played, Session, drafted
from benchmarks.pair import Pair
from sqs_codec._codec.verify import Verdict
from sqs_codec.system.engine import Engine, EngineInfo
from sqs_codec.system.hf import CachedModel, verify_jobs
from sqs_codec.system.session import Job


class OneByOne:
    """An `Engine` that reads one text at a time, as transformers' generation does."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._caches: dict[bytes, CachedModel] = {}
        self._turn = asyncio.Lock()

    async def open(self) -> EngineInfo:
        """Say what it is."""
        return EngineInfo("transformers", self._pair.vocab_size, 1 << 30)

    async def verify(self, job: Job) -> Verdict | None:
        """Wait for those that came before, then verify."""
        async with self._turn:
            return await asyncio.to_thread(self._verify, job)

    def _verify(self, job: Job) -> Verdict | None:
        cache = self._caches.setdefault(
            job.session, CachedModel(self._pair.target, self._pair.vocab_size)
        )
        tokens = drafted(job)
        rows = torch.from_numpy(cache.logits([*job.text, *tokens], len(tokens) + 1))
        [verdict] = verify_jobs([job], rows)
        return verdict

    def drop(self, session: bytes) -> None:
        """Forget a session."""
        self._caches.pop(session, None)

    def health(self) -> str | None:
        """Say that all is well."""

    async def close(self) -> None:
        """Forget all."""
        self._caches.clear()


@dataclass
class Case:
    """An engine and its sessions."""

    name: str
    engine: Engine
    played: Sequence[Session]
    sessions: int
    turns: list[tuple[int, int, float]] = field(default_factory=list)
    """Of each turn the rounds, the tokens that were written, and the seconds."""
    waits: list[float] = field(default_factory=list)
    """Seconds of each round."""
    resident: list[int] = field(default_factory=list)
    """Bytes of the process after each turn."""
    wrong: int = 0
    """Verdicts other than those that were played."""

    def __post_init__(self) -> None:
        self._places = [7 * i for i in range(self.sessions)]
        self._tokens = 0

    @property
    def rates(self) -> list[float]:
        """Rounds a second, of each turn."""
        return [rounds / seconds for rounds, _, seconds in self.turns]

    @property
    def tokens(self) -> float:
        """Tokens a second, of all sessions together."""
        _, tokens, seconds = np.sum(self.turns, axis=0)
        return float(tokens / seconds)

    @property
    def growth(self) -> float:
        """Bytes by which the process was larger in the second half of the turns.

        Without the first one, in which memory is still being taken.
        """
        first, second = np.array_split(self.resident[1:], 2)
        return float(np.median(second) - np.median(first)) if len(second) else 0.0

    async def fill(self) -> None:
        """Have the longest text of every session read, and let the engine warm up."""
        await asyncio.gather(
            *(self._do(i, self._rounds(i)[-1]) for i in range(self.sessions))
        )
        self.waits.clear()

    async def turn(self, seconds: float) -> None:
        """Let all sessions go on for some time; each does one round at least."""
        began, before = time.perf_counter(), (len(self.waits), self._tokens)

        async def session(i: int) -> None:
            rounds = self._rounds(i)
            while True:
                self._places[i] += 1
                await self._do(i, rounds[self._places[i] % len(rounds)])
                if time.perf_counter() - began >= seconds:
                    return

        await asyncio.gather(*map(session, range(self.sessions)))
        spent = time.perf_counter() - began
        done = len(self.waits) - before[0], self._tokens - before[1]
        self.turns.append((*done, spent))
        self.resident.append(resident())

    def _rounds(self, i: int) -> list[Played]:
        return self.played[i % len(self.played)].rounds

    def _name(self, i: int) -> bytes:
        return bytes([self.sessions]) + i.to_bytes(15, "big")

    async def _do(self, i: int, turn: Played) -> None:
        began = time.perf_counter()
        verdict = await self.engine.verify(replace(turn.job, session=self._name(i)))
        self.waits.append(time.perf_counter() - began)
        assert turn.verdict is not None
        self._tokens += turn.verdict.accepted + 1
        self.wrong += verdict != turn.verdict


async def run(cases: Sequence[Case], turns: int, seconds: float) -> None:
    """Give all cases their turns, each time in another order.

    Their engines are opened before, and closed then.
    """
    engines = [*dict.fromkeys(case.engine for case in cases)]
    opened: list[Engine] = []
    rng = np.random.default_rng(0)
    try:
        for engine in engines:
            opened.append(engine)
            await engine.open()
        for case in cases:  # off the clock
            await case.fill()
        with tqdm(total=turns * len(cases), unit=" turns", disable=None) as bar:
            for _ in range(turns):
                for at in rng.permutation(len(cases)):
                    await cases[at].turn(seconds)
                    bar.update()
    finally:
        for engine in opened:
            await engine.close()


def needed(played: Sequence[Session], sessions: int) -> int:
    """Return how many tokens the texts of so many sessions come to have."""
    longest = [session.tokens for session in played]
    return sum(longest[i % len(longest)] for i in range(sessions))


def resident() -> int:
    """Return the bytes of memory of this process, 0 where the system doesn't say."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return 0
    return int(status.read_text().split()[1]) * 4096
