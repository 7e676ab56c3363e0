"""How jobs are verified by the logits of a Hugging Face model."""

from collections.abc import Sequence

import numpy as np
import torch

from sqs_codec import Verdict
from sqs_codec.system.session import Job
from sqs_codec.torch import gumbel_verify_rounds, verify_rounds
from sqs_codec.torch._tensors import detached, truncated


def verify_jobs(jobs: Sequence[Job], logits: torch.Tensor) -> list[Verdict | None]:
    """Return the verdict on each job, None where its text is only to be read.

    As `sqs_codec.system.session.verify_jobs`, on logits where they are: for rounds
    together, and for hints, an accelerator is waited for twice.

    Parameters
    ----------
    jobs : sequence of Job
    logits : torch.Tensor of float16, bfloat16, float32 or float64 [n, V]
    """
    rows = detached("logits", logits)
    parts = torch.split(rows, Job.rows_of(jobs, len(rows)))
    wanted = [i for i, job in enumerate(jobs) if job.wanted]
    verdicts: dict[int, Verdict] = {}
    for verify, keyed in (_verify_rounds, False), (_verify_hints, True):
        own = [i for i in wanted if keyed == (jobs[i].key is not None)]
        if not own:
            continue
        if len(own) < len(jobs):
            rows = torch.cat([parts[i] for i in own])
        found = verify([jobs[i] for i in own], rows)
        verdicts |= zip(own, found, strict=True)
    return [verdicts.get(i) for i in range(len(jobs))]


def _verify_rounds(jobs: Sequence[Job], rows: torch.Tensor) -> list[Verdict]:
    rounds, draws = [job.round_ for job in jobs], [job.draws for job in jobs]
    rows = truncated(rows, [job.sampling for job in jobs for _ in range(job.wanted)])
    temperatures = [job.sampling.temperature for job in jobs]
    return verify_rounds(rounds, rows, np.concatenate(draws), temperature=temperatures)


def _verify_hints(jobs: Sequence[Job], rows: torch.Tensor) -> list[Verdict]:
    return gumbel_verify_rounds(
        [job.hints for job in jobs],
        rows,
        [job.key or b"" for job in jobs],
        [len(job.text) for job in jobs],
        sampling=[job.sampling for job in jobs],
    )
