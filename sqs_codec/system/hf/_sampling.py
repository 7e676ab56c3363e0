"""How jobs are verified by the logits of a Hugging Face model."""

import operator
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sqs_codec import Verdict
from sqs_codec.system.session import Job, VerifyHints, VerifyRound
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
    counts = [job.wanted for job in jobs]
    if sum(counts) != len(rows):
        raise ValueError(f"the jobs want {sum(counts)} rows of logits, got {len(rows)}")
    parts = torch.split(rows, counts)
    rounds = {i: job for i, job in enumerate(jobs) if isinstance(job, VerifyRound)}
    hints = {i: job for i, job in enumerate(jobs) if isinstance(job, VerifyHints)}

    def cut(own: Mapping[int, VerifyRound | VerifyHints]) -> torch.Tensor:
        """Return the rows of some jobs, truncated; what is only scaled isn't copied."""
        some = [truncated(parts[i], **own[i].sampling.config()) for i in own]
        whole = len(own) == len(jobs) and all(map(operator.is_, some, parts))
        return rows if whole else torch.cat(some)

    verdicts: dict[int, Verdict] = {}
    if rounds:
        found = _verify_rounds([*rounds.values()], cut(rounds))
        verdicts |= zip(rounds, found, strict=True)
    if hints:
        found = _verify_hints([*hints.values()], cut(hints))
        verdicts |= zip(hints, found, strict=True)
    return [verdicts.get(i) for i in range(len(jobs))]


def _verify_rounds(jobs: Sequence[VerifyRound], rows: torch.Tensor) -> list[Verdict]:
    rounds, draws = [job.round for job in jobs], [job.draws for job in jobs]
    temperatures = [job.sampling.temperature for job in jobs]
    return verify_rounds(rounds, rows, np.concatenate(draws), temperature=temperatures)


def _verify_hints(jobs: Sequence[VerifyHints], rows: torch.Tensor) -> list[Verdict]:
    return gumbel_verify_rounds(
        [job.hints for job in jobs],
        rows,
        [job.key for job in jobs],
        [len(job.text) for job in jobs],
        temperature=[job.sampling.temperature for job in jobs],
    )
