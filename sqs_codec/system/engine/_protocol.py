"""The interface of engines."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sqs_codec import Round, Sampling, SparseDistribution, Verdict
from sqs_codec.system.session import Job, VerifyRound


@dataclass(frozen=True)
class EngineInfo:
    """Facts about an engine and its model.

    Attributes
    ----------
    summary : str
        Short description for people.
    vocab_size : int
        Vocabulary size of the target model's logits.
    max_text : int
        Maximum tokens of text and draft together.
    tokenizer : bytes
        Fingerprint of the tokenizer, 8 bytes; empty for none.
    places : int
        Number of sessions that fit into memory; 0 if unknown.
    """

    summary: str
    vocab_size: int
    max_text: int
    tokenizer: bytes = b""
    places: int = 0


class Engine(Protocol):
    """A target model that verifies the rounds of many sessions.

    All methods are called in one event loop and must not block it. An engine stores
    nothing of a session except a cache: a `Job` is complete.
    """

    async def open(self) -> EngineInfo:
        """Load the model, or connect to it. Called once, before other methods.

        Raises
        ------
        ValueError or OSError
            The model can't be served; the message says why and what to do.
        """

    async def verify(self, job: Job) -> Verdict | None:
        """Return the verdict on a job, or None if it verifies nothing.

        Calls overlap, at most one per session. A call may be canceled.

        Raises
        ------
        Exception
            The engine failed on the job. The same job may be tried again.
        """

    def drop(self, session: bytes) -> None:
        """Free the cache of a session, if it has one."""

    def progress(self) -> Mapping[bytes, int]:
        """Return the number of prefilled tokens, by session with a long prefill.

        An edge waits longer while its number rises. Sessions may be missing.
        """

    def health(self) -> str | None:
        """Return in a few words why it can't verify now, or None if it can."""

    async def close(self) -> None:
        """Stop, and free all resources. Unfinished jobs fail.

        Called also after `open` failed or was canceled.
        """


async def measure_steps(engine: Engine, info: EngineInfo) -> dict[int, float]:
    """Measure the seconds to verify 1 token and 6 tokens, for the edges' planners.

    Returns the quickest passes, as other processes may delay some. Repeats each at
    least five times, and for up to two seconds until the five quickest are within 10 %.
    """
    session = b"sqs_codec.measure_steps"
    text = [0] * min(64, info.max_text - 5)
    q = SparseDistribution([0], [1], info.vocab_size)
    steps = {}
    for tokens, draft in (1, None), (6, Round([q] * 5, [0] * 5)):
        job = VerifyRound(session, text, draft, np.zeros(tokens), Sampling())
        await engine.verify(job)  # includes the prefill
        times: list[float] = []
        began = first = time.perf_counter()
        while len(times) < 5 or (times[4] > 1.1 * times[0] and began < first + 2):
            began = time.perf_counter()
            await engine.verify(job)
            times = sorted([*times, time.perf_counter() - began])
        steps[tokens] = times[0]
    engine.drop(session)
    return steps
