"""Jobs, which a cloud session gives to a target model, and their verdicts."""

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
        """The tokens to verify, which follow the text."""
        return ()

    @property
    def wanted(self) -> int:
        """How many rows of logits the verdict takes: after the text and each token."""
        return len(self.drafted) + 1

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
        return tokens


class Read(_Job):
    """Read a text, which a later job of the session goes on with.

    Attributes
    ----------
    session : bytes
        Names the KV cache that may already hold the beginning of `text`. Nothing
        else: a job says all there is to know.
    text : sequence of int
        Token ids, at least one, the prompt included.
    """

    @property
    def wanted(self) -> int:
        """No rows of logits."""
        return 0


@dataclass(frozen=True, eq=False)
class VerifyRound(_Job):
    """Verify a round as `verify_rounds` does.

    Attributes
    ----------
    round : Round or None
        The drafted tokens that follow the text; None if there are none.
    draws : ndarray of float64 [L+1]
        Random numbers in [0, 1).
    """

    round: Round | None
    draws: NDArray[np.float64]
    sampling: Sampling

    def __post_init__(self) -> None:
        if self.wanted != len(self.draws):
            raise ValueError(
                f"{len(self.drafted)} drafted tokens take {self.wanted} draws, "
                f"got {len(self.draws)}"
            )

    @property
    def drafted(self) -> Sequence[int]:
        """The tokens of the round."""
        return () if self.round is None else self.round.tokens

    def check(self, vocab_size: int, max_text: int, because: str) -> list[int]:
        """Return the text and draft; ValueError if the `Verifier` can't do the job."""
        if self.round is not None and self.round.vocab_size != vocab_size:
            raise ValueError(
                f"the round has a vocabulary of {self.round.vocab_size}, the model "
                f"one of {vocab_size}"
            )
        return super().check(vocab_size, max_text, because)


@dataclass(frozen=True, eq=False)
class VerifyHints(_Job):
    """Verify hints as `gumbel_verify` does, by shared random numbers.

    Attributes
    ----------
    hints : sequence of int
        Tokens that may follow the text; with none, the next token is drawn.
    key : bytes [16]
        Of the shared random numbers. The first hint is at position ``len(text)``.
    """

    hints: Sequence[int]
    key: bytes
    sampling: Sampling

    @property
    def drafted(self) -> Sequence[int]:
        """The hints."""
        return self.hints


Job = Read | VerifyRound | VerifyHints
"""What a target model is to compute for one session."""


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
        Their texts aren't read, but of hints their lengths are.
    logits : ndarray of float16, float32 or float64 [n, V]
        As many rows as the jobs want, in their order: what the target says after a
        job's text and after each drafted token. ``-inf`` masks a token. Errors name
        the job and which of its rows is wrong.

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
            f"the jobs want {sum(wanted)} rows of logits, got {len(logits)}"
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
