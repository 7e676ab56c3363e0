"""Verifying jobs with the logits of a Hugging Face model."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sqs_codec import Verdict
from sqs_codec.system.session import Job, VerifyHints, VerifyRound
from sqs_codec.torch import gumbel_verify_rounds, verify_rounds
from sqs_codec.torch._tensors import detached, truncated


def verify_jobs(jobs: Sequence[Job], logits: torch.Tensor) -> list[Verdict | None]:
    """Do as `sqs_codec.system.session.verify_jobs`, on the logits' device."""
    # This waits for the device twice: once for all rounds, once for all hints.
    rows = detached("logits", logits)
    counts = [job.wanted for job in jobs]
    if sum(counts) != len(rows):
        raise ValueError(f"the jobs want {sum(counts)} rows of logits, got {len(rows)}")
    parts = torch.split(rows, counts)
    rounds = {i: job for i, job in enumerate(jobs) if isinstance(job, VerifyRound)}
    hints = {i: job for i, job in enumerate(jobs) if isinstance(job, VerifyHints)}

    def own(some: Mapping[int, Job]) -> torch.Tensor:
        return rows if len(some) == len(jobs) else torch.cat([parts[i] for i in some])

    verdicts: dict[int, Verdict] = {}
    if rounds:
        found = _verify_rounds([*rounds.values()], own(rounds))
        verdicts |= zip(rounds, found, strict=True)
    if hints:
        found = _verify_hints([*hints.values()], own(hints))
        verdicts |= zip(hints, found, strict=True)
    return [verdicts.get(i) for i in range(len(jobs))]


def _verify_rounds(jobs: Sequence[VerifyRound], rows: torch.Tensor) -> list[Verdict]:
    rounds, draws = [job.round for job in jobs], [job.draws for job in jobs]
    rows = truncated(rows, [job.sampling for job in jobs for _ in range(job.wanted)])
    temperatures = [job.sampling.temperature for job in jobs]
    return verify_rounds(rounds, rows, np.concatenate(draws), temperature=temperatures)


def _verify_hints(jobs: Sequence[VerifyHints], rows: torch.Tensor) -> list[Verdict]:
    return gumbel_verify_rounds(
        [job.hints for job in jobs],
        rows,
        [job.key for job in jobs],
        [len(job.text) for job in jobs],
        sampling=[job.sampling for job in jobs],
    )
