"""Metrics of completions at the edge."""

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
        Tokens of the completions, without prompts.
    drafted : int
        Tokens sent in rounds, and tokens whose hints came in time.
    accepted : int
        Drafted tokens that needed no forward pass of their own.
    resampled : int
        Rejected tokens, at most one per answer. This includes hints that the cloud
        ignored because they were too unlikely.
    answers : int
        Rounds, and forward passes of the target while it decodes.
    bytes_up, bytes_down : int
        Bytes on the wire: all packets, including handshakes and farewells.
    seconds : float
        Time from the beginning of each completion to its last token.
    mode, reason : str
        The mode of the last tokens, and the planner's reason for it.
    alone_tokens, alone_seconds : float
        Tokens and seconds in the mode *alone*, as this edge measured them, also before
        this completion. Old measurements fade.
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
        """Tokens per second."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def alone_per_second(self) -> float:
        """Tokens per second in the mode *alone*; 0 if it wasn't measured."""
        return self.alone_tokens / self.alone_seconds if self.alone_seconds else 0.0

    def __add__(self, later: "EdgeMetrics") -> "EdgeMetrics":
        """Return the sums of both."""
        return replace(later, **{n: getattr(self, n) + getattr(later, n) for n in SUMS})

    def add(self, step: Step, seconds: float) -> None:
        """Add a step that came `seconds` after the last one."""
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
        Sums over the steps returned so far.
    """

    def __init__(
        self, steps: Generator[Step, None, None], metrics: EdgeMetrics
    ) -> None:
        self._steps, self.metrics = steps, metrics

    def __next__(self) -> Step:
        return next(self._steps)

    def close(self) -> None:
        """End the completion."""
        self._steps.close()
