"""What a cloud session asks of a target model: jobs in, verdicts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from sqs_codec import Round, Sampling, Verdict, gumbel_verify, verify_rounds
from sqs_codec._base import checks
from sqs_codec._base.errors import Status, row_error
from sqs_codec._codec.truncation import truncate
from sqs_codec.system.session._limits import MAX_DRAFT

Mode = Literal["alone", "rounds", "hints"]
"""How a text comes: the cloud decodes alone or with hints, or it verifies rounds."""

MODES: tuple[Mode, ...] = get_args(Mode)
"""All modes."""

PART = 512
"""Tokens of texts that are read in one call: more than take a processor's time, and few
enough to wait for."""


@dataclass(frozen=True, eq=False)
class Job:
    """What a target model is to compute for one session.

    It has draws, or a key, or neither: then the text is only to be read.

    Attributes
    ----------
    session : bytes
        Names the cache of keys and values that may already hold the beginning of
        `text`. Nothing else: the job says all there is to know.
    text : sequence of int
        The token ids before the drafted ones, at least one, the prompt included.
    round_ : Round or None
        The drafted tokens that follow the text. If None, there are none.
    draws : ndarray of float64 [L+1] or [0]
        Numbers in [0, 1), by which the round is verified as `verify_rounds` does.
    sampling : Sampling
    hints : sequence of int
        With a key, the tokens that may follow the text.
    key : bytes [16] or None
        Of the numbers that both ends share: the verdict is that of `gumbel_verify` on
        the hints, whose first is at position ``len(text)``.
    """

    session: bytes
    text: Sequence[int]
    round_: Round | None
    draws: NDArray[np.float64]
    sampling: Sampling
    hints: Sequence[int] = ()
    key: bytes | None = None

    @property
    def mode(self) -> Mode:
        """How its tokens come."""
        if self.key is None:
            return "rounds"
        return "hints" if self.hints else "alone"

    @property
    def drafted(self) -> Sequence[int]:
        """The tokens to be judged: those of the round, or the hints."""
        return self.hints if self.round_ is None else self.round_.tokens

    @property
    def wanted(self) -> int:
        """How many rows of the target the verdict takes: 0 if the text is only read."""
        return len(self.draws) if self.key is None else len(self.hints) + 1

    @staticmethod
    def rows_of(jobs: Sequence[Job], count: int) -> list[int]:
        """Return how many rows each of some jobs wants; ValueError if not `count`."""
        wanted = [job.wanted for job in jobs]
        if sum(wanted) != count:
            raise ValueError(f"the jobs want {sum(wanted)} rows of logits, got {count}")
        return wanted

    def check(self, vocab_size: int, max_text: int, because: str) -> list[int]:
        """Return the text and draft; ValueError if the `Verifier` can't do the job.

        `because` says what `max_text` comes from, for people.
        """
        tokens, drafted = [*self.text, *self.drafted], len(self.drafted)
        if len(tokens) == drafted:
            raise ValueError("the text must have at least one token")
        if len(tokens) > max_text:
            fits = f"the most that fits is {max_text} ({because})"
            raise ValueError(f"{len(tokens)} tokens, and {fits}")
        if drafted > MAX_DRAFT:
            raise ValueError(f"a draft may have {MAX_DRAFT} tokens, got {drafted}")
        least, most = min(tokens), max(tokens)
        if not 0 <= least <= most < vocab_size:
            raise ValueError(
                f"token ids must be in [0, {vocab_size}), got {least} to {most}"
            )
        if self.round_ is not None and self.round_.vocab_size != vocab_size:
            raise ValueError(
                f"the round has a vocabulary of {self.round_.vocab_size}, the model "
                f"one of {vocab_size}"
            )
        if self.key is not None and (self.round_ is not None or len(self.draws)):
            raise ValueError("a job with a key has hints, neither a round nor draws")
        if self.wanted not in (0, drafted + 1):
            raise ValueError(
                f"{drafted} drafted tokens take {drafted + 1} draws, or none, "
                f"got {len(self.draws)}"
            )
        return tokens


class Verifier(Protocol):
    """A target model that verifies the rounds of many sessions at once."""

    @property
    def vocab_size(self) -> int:
        """How many tokens it gives logits of."""

    @property
    def max_text(self) -> int:
        """How many tokens of text and draft together it can read."""

    def verify(self, jobs: Sequence[Job]) -> list[Verdict | None]:
        """Return the verdict on each job, None where there was nothing to verify.

        Jobs are of different sessions. One thread calls at a time. An exception
        concerns all jobs of the call; nothing has changed that matters.
        """

    def forget(self, session: bytes) -> None:
        """Free the cache of a session, if there is one. From any thread."""


def verify_jobs(
    jobs: Sequence[Job], logits: NDArray[np.floating]
) -> list[Verdict | None]:
    """Return the verdict on each job, None where its text is only to be read.

    Temperature and truncations are applied here.

    Parameters
    ----------
    jobs : sequence of Job
        Their texts aren't read, but their lengths are, where there is a key.
    logits : ndarray of float16, float32 or float64 [n, V]
        As many rows as the jobs want, in their order: what the target says after a
        job's text and after each drafted token. ``-inf`` masks a token. Errors name
        the job and which of its rows is wrong.

    Examples
    --------
    >>> from sqs_codec import Sampling
    >>> from sqs_codec.system.session import Job, verify_jobs
    >>> job = Job(b"a session", [3], None, np.array([0.5]), Sampling(temperature=0))
    >>> verify_jobs([job], np.float32([[0, 2, 1]]))
    [Verdict(accepted=0, token=1)]
    """
    parts = np.split(logits, np.cumsum(Job.rows_of(jobs, len(logits))))
    verdicts = []
    for i, (job, rows) in enumerate(zip(jobs, parts, strict=False)):
        try:
            verdicts.append(_verify(job, rows))
        except ValueError as error:
            raise ValueError(f"jobs[{i}]: {error}") from None
    return verdicts


def _verify(job: Job, logits: NDArray[np.floating]) -> Verdict | None:
    if not job.wanted:
        return None
    if job.key is None:
        probs = _probabilities(logits, job.sampling)
        return verify_rounds([job.round_], probs, job.draws)[0]
    place = job.key, len(job.text)
    return gumbel_verify(job.hints, logits, *place, sampling=job.sampling)


def _probabilities(
    logits: NDArray[np.floating], sampling: Sampling
) -> NDArray[np.floating]:
    """Return what a sampling makes of logits: in float64 of these, else in float32."""
    temperature = sampling.temperature
    logits, _ = checks.rows("logits", logits, logits.shape[-1])
    top = logits.max(1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(top))
    if bad.size:
        status = Status.ALL_MASKED if top[bad[0]] == -np.inf else Status.NOT_FINITE
        raise row_error(f"logits[{bad[0]}]", logits[bad[0]], status)
    checks.no_probabilities(logits[0])
    if not temperature:
        best = np.zeros(logits.shape)
        np.put_along_axis(best, logits.argmax(1)[:, None], 1, 1)
        return best
    logits = truncate(logits, sampling)
    dtype = np.promote_types(logits.dtype, np.float32)
    # Beyond, 0 or -inf times it would be NaN.
    limits = np.finfo(dtype)
    scale = dtype.type(min(max(1 / temperature, limits.tiny), limits.max))
    with np.errstate(over="ignore", under="ignore"):
        probs = np.exp((logits.astype(dtype, copy=False) - top) * scale)
    return np.asarray(probs / probs.sum(1, keepdims=True))
