"""What a server asks of whatever runs the target model."""

import statistics
import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sqs_codec import Round, Sampling, SparseDistribution, Verdict
from sqs_codec.system.session import Job


@dataclass(frozen=True)
class EngineInfo:
    """What an engine runs.

    Attributes
    ----------
    summary : str
        In a few words for people.
    vocab_size : int
        How many tokens the target model gives logits of.
    max_text : int
        How many tokens of text and draft together it can read.
    tokenizer : bytes
        The fingerprint of its tokenizer, 8 bytes; or none.
    places : int
        How many sessions there is memory for; 0 if it isn't known.
    """

    summary: str
    vocab_size: int
    max_text: int
    tokenizer: bytes = b""
    places: int = 0


class Engine(Protocol):
    """A target model that verifies the rounds of many sessions.

    All methods are called in one event loop, which none of them may block. What an
    engine keeps of a session is a cache; a `Job` says everything.
    """

    async def open(self) -> EngineInfo:
        """Load the model, or connect to it, and say what it is. Called once, first.

        Raises
        ------
        ValueError or OSError
            It can't be served; the message says why and what to do.
        """

    async def verify(self, job: Job) -> Verdict | None:
        """Return the verdict on a job, None if there was nothing to verify.

        As many jobs may be under way as there are sessions, one of each. A job may be
        cancelled.

        Raises
        ------
        Exception
            The engine failed on it; nothing has changed that matters. The same job may
            be tried again.
        """

    def drop(self, session: bytes) -> None:
        """Free what is kept for a session, if anything is."""

    def health(self) -> str | None:
        """Say in a few words why nothing can be verified now; None if it can."""

    async def close(self) -> None:
        """Stop, and free what it takes. Jobs under way fail.

        Called also where `open` failed or was cancelled.
        """


async def measure_steps(engine: Engine, info: EngineInfo) -> dict[int, float]:
    """Return the seconds that an engine takes to verify 1 token and 6 tokens.

    Measured by some rounds of one session; edges plan by it.
    """
    session = b"sqs_codec.measure_steps"
    text = [0] * min(64, info.max_text - 5)
    q = SparseDistribution([0], [1], info.vocab_size)
    steps = {}
    for tokens, draft in (1, None), (6, Round([q] * 5, [0] * 5)):
        job = Job(session, text, draft, np.zeros(tokens), Sampling())
        times = []
        for _ in range(6):  # the first of them reads the text
            began = time.perf_counter()
            await engine.verify(job)
            times.append(time.perf_counter() - began)
        steps[tokens] = statistics.median(times[1:])
    engine.drop(session)
    return steps
