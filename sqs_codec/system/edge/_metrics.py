"""What completions take."""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from sqs_codec.system._base.protocol import Mode
from sqs_codec.system.edge._planner import MEMORY, Step

SUMS = (
    *("tokens", "drafted", "accepted", "resampled"),
    *("answers", "bytes_up", "bytes_down", "seconds"),
)


@dataclass
class EdgeMetrics:
    """Sums over a completion, or over several.

    Attributes
    ----------
    tokens : int
        Prompts aren't counted.
    drafted : int
        Tokens sent in rounds, and tokens whose hints came in time.
    accepted : int
        Drafted tokens that took no forward pass of their own.
    resampled : int
        Rejected tokens, at most one per answer. Hints too unlikely to be read count.
    answers : int
        Rounds, and passes of the target model while it decodes.
    bytes_up, bytes_down : int
        On the wire: all packets, with connecting and the end of the session.
    seconds : float
        From the beginning of each completion to its last token.
    mode, reason : str
        How the last tokens came, and why: the planner's line.
    alone_tokens, alone_seconds : float
        Of the cloud alone, as measured by this edge, also before this completion. The
        last ones count most.
    """

    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    resampled: int = 0
    answers: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float = 0.0
    mode: Mode | Literal[""] = ""
    reason: str = ""
    alone_tokens: float = 0.0
    alone_seconds: float = 0.0

    @property
    def acceptance_rate(self) -> float:
        """Accepted tokens per accepted or rejected token."""
        return self.accepted / max(1, self.accepted + self.resampled)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of text per second."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def alone_per_second(self) -> float:
        """Tokens per second of the cloud alone; 0 before they were measured."""
        return self.alone_tokens / self.alone_seconds if self.alone_seconds else 0.0

    def __add__(self, later: "EdgeMetrics") -> "EdgeMetrics":
        """Return the figures of both together."""
        return replace(later, **{n: getattr(self, n) + getattr(later, n) for n in SUMS})

    def add(self, step: Step, seconds: float) -> None:
        """Account for a step, that many seconds after the one before."""
        self.tokens += len(step.tokens)
        self.drafted += step.drafted
        self.accepted += step.accepted
        self.resampled += step.resampled
        self.answers += 1
        self.seconds += seconds
        self.bytes_up += step.bytes_up
        self.bytes_down += step.bytes_down
        self.mode, self.reason = step.mode, step.reason
        if step.mode == "alone" and step.seconds is not None:
            kept = math.exp(-len(step.tokens) / MEMORY)
            self.alone_tokens = kept * self.alone_tokens + len(step.tokens)
            self.alone_seconds = kept * self.alone_seconds + step.seconds


class Completion(Iterator[Step]):
    """The steps of a completion; closing it ends the completion.

    Attributes
    ----------
    metrics : EdgeMetrics
        Of this completion so far, with the steps that were returned.
    """

    def __init__(
        self, steps: Generator[Step, None, None], metrics: EdgeMetrics
    ) -> None:
        self._steps, self.metrics = steps, metrics

    def __next__(self) -> Step:
        return next(self._steps)

    def close(self) -> None:
        """End it."""
        self._steps.close()
