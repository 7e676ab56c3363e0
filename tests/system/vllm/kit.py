"""Engines of vLLM for tests, and jobs for them."""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import tokenizers
import torch
import transformers
from numpy.typing import NDArray

import sqs_codec as sqs
from sqs_codec import Sampling, Verdict
from sqs_codec.system.hf import Cloud
from sqs_codec.system.session import Job, VerifyHints, VerifyRound
from sqs_codec.system.vllm import VllmEngine
from sqs_codec.system.vllm._message import SHORT
from tests.system.hf.test_cloud import tiny

T = TypeVar("T")
V = 100
"""Tokens of the tiny models' vocabulary."""

PADDED = 128
"""Logits that they give."""

SEED = 12
TIMEOUT = 300

SAMPLINGS = [
    Sampling(temperature=0.7),
    Sampling(temperature=0),
    Sampling(),
    Sampling(temperature=1.3, top_k=20),
    Sampling(temperature=0.8, top_p=0.9),
    Sampling(min_p=0.05),
    Sampling(temperature=0.9, top_k=40, top_p=0.95, min_p=0.01),
]
RESOLUTIONS = [100, 7, 1000, 1 << 16]


class Served:
    """An engine in an event loop that runs when it is asked something.

    Attributes
    ----------
    engine : VllmEngine
    info : EngineInfo
    asked : list of tuple
        Of each request the session, whether it was to skip the cache, and whether rows
        were missing.
    """

    def __init__(self, engine: VllmEngine) -> None:
        self.engine = engine
        self.asked: list[tuple[bytes, bool, bool]] = []
        self._loop = asyncio.new_event_loop()
        try:
            self.info = self.run(engine.open())
        except BaseException:
            self.close()
            raise
        own = engine._ask

        async def ask(job: Job, tokens: Any, *, skip_cache: bool = False) -> Any:
            answer = await own(job, tokens, skip_cache=skip_cache)
            self.asked.append((job.session, skip_cache, answer == SHORT))
            return answer

        engine._ask = ask  # to watch it

    def run(self, work: Awaitable[T]) -> T:
        return self._loop.run_until_complete(asyncio.wait_for(work, TIMEOUT))

    def one(self, job: Job) -> Verdict | None:
        return self.run(self.engine.verify(job))

    def all(self, jobs: Sequence[Job]) -> list[Verdict | None]:

        async def verify() -> list[Verdict | None]:
            return list(await asyncio.gather(*map(self.engine.verify, jobs)))

        return self.run(verify())

    def close(self) -> None:
        self.run(self.engine.close())
        self._loop.close()


@contextmanager
def served(*args: Any, **options: Any) -> Iterator[Served]:
    it = Served(VllmEngine(*args, **options))
    try:
        yield it
    finally:
        it.close()


@contextmanager
def all_end(pid: int) -> Iterator[None]:
    """Check that a block ends a process, and all that it has started."""
    processes = [psutil.Process(pid)]
    processes += processes[0].children(recursive=True)
    yield
    _, left = psutil.wait_procs(processes, timeout=30)
    assert not left


def save_tiny(folder: Path, kind: str, **options: Any) -> str:
    """Save a model of random weights, large enough for peaked distributions."""
    sizes = {"vocab_size": PADDED, "hidden_size": 64, "intermediate_size": 64}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    own = {**sizes, "initializer_range": 0.2, **options}
    tiny(kind, SEED, **own).save_pretrained(folder)
    vocabulary = {f"w{i}": i for i in range(V)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "w0"))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="w0"
    ).save_pretrained(folder)
    return str(folder)


class Writer:
    """Makes jobs of tokens that a model finds likely.

    A draft is drawn from the model's distributions, disturbed, as they would be if
    the text went on as it does. So much of it is accepted, and much isn't.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    vocab_size : int
    tokens : sequence of int
        The tokens that texts consist of.
    """

    def __init__(self, model: Any, vocab_size: int, tokens: Sequence[int]) -> None:
        self.rng = np.random.default_rng(SEED)
        self.tokens = [int(token) for token in tokens]
        self._vocab_size = vocab_size
        with torch.inference_mode():
            logits = model(torch.tensor([self.tokens])).logits[0, :, :vocab_size]
        self._logits: NDArray[np.float32] = logits.float().numpy()

    def job(self, number: int, session: bytes, end: int) -> Job:
        """Return a job on the first `end` tokens; its kind depends on the number."""
        rng, text = self.rng, self.tokens[:end]
        sampling = SAMPLINGS[number % len(SAMPLINGS)]
        if number % 5 == 4:
            return VerifyRound(session, text, None, rng.random(1), sampling)
        if number % 5 == 2:
            return self._hinted(session, text, sampling, number % 4)
        codec = sqs.Codec(self._vocab_size, RESOLUTIONS[number // 3 % 4])
        length = number % 6 + 1
        rows = self._logits[end - 1 : end - 1 + length]
        noise = 0.7 * rng.standard_normal(rows.shape).astype(np.float32)
        keep = sqs.TopK(min(16, codec.resolution))
        qs = [codec.quantize(row, keep, temperature=0.8) for row in rows + noise]
        round_ = sqs.Round(qs, [q.sample(rng) for q in qs])
        return VerifyRound(session, text, round_, rng.random(length + 1), sampling)

    def _hinted(
        self, session: bytes, text: list[int], sampling: Sampling, count: int
    ) -> Job:
        """Return a job with a key. The first hint is right, others may be."""
        key, end = self.rng.bytes(16), len(text)
        hints = [
            sqs.gumbel_draw(row, key, end + i, sampling=sampling)
            for i, row in enumerate(self._logits[end - 1 : end - 1 + count])
        ]
        return VerifyHints(session, text, hints, key, sampling)


def session(number: int) -> bytes:
    return number.to_bytes(16, "big")


def by_transformers(cloud: Cloud, jobs: Sequence[Job]) -> list[Verdict | None]:
    return [verdict for job in jobs for verdict in cloud.verify([job])]
