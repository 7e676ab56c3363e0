"""Jobs of cloud sessions for the target model, and their verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sqs_codec import Round, Sampling, Verdict, gumbel_verify, verify_rounds
from sqs_codec._base import checks
from sqs_codec._base.errors import Status, row_error
from sqs_codec._codec.truncation import truncate
from sqs_codec.system._base.protocol import MAX_DRAFT


@dataclass(frozen=True, eq=False)
class _Job:
    session: bytes
    text: Sequence[int]

    @property
    def drafted(self) -> Sequence[int]:
        """The tokens to verify; they follow the text."""
        return ()

    @property
    def wanted(self) -> int:
        """Number of rows of logits needed: after the text and after each token."""
        return len(self.drafted) + 1

    def check(self, vocab_size: int, max_text: int, because: str) -> list[int]:
        """Return text and draft; ValueError if the `Verifier` can't do the job.

        `because` explains `max_text` in the message.
        """
        tokens, drafted = [*self.text, *self.drafted], len(self.drafted)
        if len(tokens) == drafted:
            raise ValueError("the text must have at least one token")
        if len(tokens) > max_text:
            limit = f"the limit is {max_text} ({because})"
            raise ValueError(f"text and draft have {len(tokens)} tokens, {limit}")
        if drafted > MAX_DRAFT:
            raise ValueError(f"a draft has at most {MAX_DRAFT} tokens, got {drafted}")
        least, most = min(tokens), max(tokens)
        if not 0 <= least <= most < vocab_size:
            raise ValueError(
                f"token ids must be in [0, {vocab_size}), got {least} to {most}"
            )
        return tokens


class Read(_Job):
    """Prefill: read a text that a later job continues.

    Attributes
    ----------
    session : bytes
        Id of the KV cache that may hold the beginning of `text`. Nothing else depends
        on it: a job is complete by itself.
    text : sequence of int
        Token ids including the prompt, at least one.
    """

    @property
    def wanted(self) -> int:
        """Number of rows of logits needed: none."""
        return 0


@dataclass(frozen=True, eq=False)
class VerifyRound(_Job):
    """Verify a round, as `verify_rounds` does.

    Attributes
    ----------
    round : Round or None
        The drafted tokens after the text; None for no tokens.
    draws : ndarray of float64 [L+1]
        Random numbers in [0, 1).
    sampling : Sampling
        Temperature and truncation of the target.
    """

    round: Round | None
    draws: NDArray[np.float64]
    sampling: Sampling

    def __post_init__(self) -> None:
        if self.wanted != len(self.draws):
            raise ValueError(
                f"draws must have {self.wanted} numbers for {len(self.drafted)} "
                f"drafted tokens, got {len(self.draws)}"
            )

    @property
    def drafted(self) -> Sequence[int]:
        """The tokens of the round."""
        return () if self.round is None else self.round.tokens

    def check(self, vocab_size: int, max_text: int, because: str) -> list[int]:
        """Return text and draft; ValueError if the `Verifier` can't do the job."""
        if self.round is not None and self.round.vocab_size != vocab_size:
            raise ValueError(
                f"the round has a vocabulary of {self.round.vocab_size} tokens, the "
                f"model one of {vocab_size}"
            )
        return super().check(vocab_size, max_text, because)


@dataclass(frozen=True, eq=False)
class VerifyHints(_Job):
    """Verify hints with shared random numbers, as `gumbel_verify` does.

    Attributes
    ----------
    hints : sequence of int
        Predicted tokens after the text. If empty, one token is sampled.
    key : bytes [16]
        Key of the shared random numbers. The first hint has position ``len(text)``.
    sampling : Sampling
        Temperature and truncation of the target.
    """

    hints: Sequence[int]
    key: bytes
    sampling: Sampling

    @property
    def drafted(self) -> Sequence[int]:
        """The hints."""
        return self.hints


Job = Read | VerifyRound | VerifyHints
"""Work of the target model for one session."""


class Verifier(Protocol):
    """A target model that verifies tokens of many sessions in one batch."""

    @property
    def vocab_size(self) -> int:
        """Vocabulary size of its logits."""

    @property
    def max_text(self) -> int:
        """Maximum number of tokens of text and draft together."""

    def verify(self, jobs: Sequence[Job]) -> list[Verdict | None]:
        """Return the verdict on each job; None for a `Read`.

        Each job is of another session. One thread calls at a time. If it raises, all
        jobs of the call have failed, and they can be repeated.
        """

    def forget(self, session: bytes) -> None:
        """Free the KV cache of a session, if there is one. Any thread may call it."""


def verify_jobs(
    jobs: Sequence[Job], logits: NDArray[np.floating]
) -> list[Verdict | None]:
    """Return the verdict on each job; None for a `Read`.

    It applies temperature and truncation to the logits.

    Parameters
    ----------
    jobs : sequence of Job
        Only the lengths of their texts matter.
    logits : ndarray of float16, float32 or float64 [n, V]
        The target's logits after each job's text and after each of its drafted tokens,
        in the order of the jobs. ``-inf`` masks a token.

    Raises
    ------
    ValueError
        It names the job and the row that is wrong.

    Examples
    --------
    >>> from sqs_codec import Sampling
    >>> from sqs_codec.system.session import VerifyRound, verify_jobs
    >>> job = VerifyRound(b"a session", [3], None, [0.5], Sampling(temperature=0))
    >>> verify_jobs([job], np.float32([[0, 2, 1]]))
    [Verdict(accepted=0, token=1)]
    """
    wanted = [job.wanted for job in jobs]
    if sum(wanted) != len(logits):
        raise ValueError(
            f"the jobs need {sum(wanted)} rows of logits, got {len(logits)}"
        )
    parts = np.split(logits, np.cumsum(wanted))
    verdicts = []
    for i, (job, rows) in enumerate(zip(jobs, parts, strict=False)):
        try:
            verdicts.append(_verify(job, rows))
        except ValueError as error:
            raise ValueError(f"jobs[{i}]: {error}") from None
    return verdicts


def _verify(job: Job, logits: NDArray[np.floating]) -> Verdict | None:
    if isinstance(job, VerifyRound):
        probs = _probabilities(logits, job.sampling)
        return verify_rounds([job.round], probs, job.draws)[0]
    if isinstance(job, VerifyHints):
        place = job.key, len(job.text)
        return gumbel_verify(job.hints, logits, *place, sampling=job.sampling)
    return None


def _probabilities(
    logits: NDArray[np.floating], sampling: Sampling
) -> NDArray[np.floating]:
    """Return the distributions after sampling's changes: float64 if logits are."""
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
    # A larger scale would turn 0 or -inf into NaN.
    limits = np.finfo(dtype)
    scale = dtype.type(min(max(1 / temperature, limits.tiny), limits.max))
    with np.errstate(over="ignore", under="ignore"):
        probs = np.exp((logits.astype(dtype, copy=False) - top) * scale)
    return np.asarray(probs / probs.sum(1, keepdims=True))
