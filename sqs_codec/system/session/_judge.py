"""The verdicts on jobs by a target model's logits, on arrays.

`sqs_codec.system.hf` has the same for logits on a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sqs_codec import Verdict, gumbel_verify, verify_rounds
from sqs_codec._codec.truncation import truncate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sqs_codec.system.session._job import Job, Sampling

__all__ = ["verify_jobs"]


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
        job's text and after each drafted token. ``-inf`` masks a token.

    Raises
    ------
    ValueError
        If there are more or fewer rows, or a row isn't one of logits.

    Examples
    --------
    >>> from sqs_codec.system.session import Job, Sampling, verify_jobs
    >>> job = Job(b"a session", [3], None, np.array([0.5]), Sampling(temperature=0))
    >>> verify_jobs([job], np.float32([[0, 2, 1]]))
    [Verdict(accepted=0, token=1)]
    """
    *ends, wanted = np.cumsum([0, *(job.wanted for job in jobs)])
    if len(logits) != wanted:
        raise ValueError(f"the jobs want {wanted} rows of logits, got {len(logits)}")
    parts = np.split(logits, ends[1:])
    return [_verify(*one) for one in zip(jobs, parts, strict=False)]


def _verify(job: Job, logits: NDArray[np.floating]) -> Verdict | None:
    if not job.wanted:
        return None
    if job.key is None:
        probs = _probabilities(logits, job.sampling)
        return verify_rounds([job.round_], probs, job.draws)[0]
    sampling = job.sampling.config()
    return gumbel_verify(job.hints, logits, job.key, len(job.text), **sampling)


def _probabilities(
    logits: NDArray[np.floating], sampling: Sampling
) -> NDArray[np.floating]:
    """Return what a sampling makes of logits: in float64 of these, else in float32."""
    temperature, *cuts = sampling.config().values()
    top = logits.max(1, keepdims=True)
    if not np.isfinite(top).all():
        raise ValueError("logits must be finite or -inf, and one of each row finite")
    if not temperature:
        best = np.zeros(logits.shape)
        np.put_along_axis(best, logits.argmax(1)[:, None], 1, 1)
        return best
    logits = truncate(logits, temperature, *cuts)
    dtype = np.promote_types(logits.dtype, np.float32)
    # Of what is colder, 0 times it would be NaN.
    scale = dtype.type(min(1 / temperature, float(np.finfo(dtype).max)))
    with np.errstate(over="ignore", under="ignore"):
        probs = np.exp((logits.astype(dtype, copy=False) - top) * scale)
    return np.asarray(probs / probs.sum(1, keepdims=True))
