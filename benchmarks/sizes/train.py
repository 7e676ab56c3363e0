"""Training of small drafts, and their files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from benchmarks.sizes import lessons
from benchmarks.sizes.student import SIZES, Student, save
from sqs_codec.system import hf

BATCH = 4
"""Texts per step."""

BEGIN, END = 0.2, 0.6
"""The part of the training in which the loss changes from cross-entropy to rejections.
"""

RATE, DECAY = 4e-3, 0.05
"""Parameters of AdamW; the rate rises for 50 steps, then falls as a cosine."""


def losses(student: Student, batch: lessons.Batch) -> tuple[torch.Tensor, ...]:
    """Return a batch's means: cross-entropy, -log(acceptance), acceptance.

    With the second loss a small draft learns its target's most probable tokens, with
    the first one it spreads over all possible ones.
    """
    logs, rows = student(batch), int(batch.taught.sum())
    entropy = -(batch.weights * logs).sum() / rows
    both = torch.minimum(batch.weights, logs.exp())
    accepted = torch.zeros(rows).index_add(0, batch.rows, both)
    return entropy, -(accepted + 1e-3).log().mean(), accepted.mean()


def train(
    files: Sequence[Path],
    output: Path,
    size: str,
    target: str | None,
    minutes: float,
    epochs: float,
) -> None:
    """Train until `epochs` or `minutes` are over; write the file."""
    torch.manual_seed(0)
    rng, model = np.random.default_rng(0), hf.load_model(target)
    taught, held = lessons.read(files)
    counts, shape = lessons.counts(taught, model.vocab_size), SIZES[size]
    columns = np.sort(np.argsort(-counts, kind="stable")[: shape.columns])
    inputs = lessons.nearest(model, columns)
    table = model.model.get_output_embeddings().weight.detach()[columns].float()
    table = lessons.directions(table, shape.embedding)
    student = Student(shape, inputs, columns, table, counts)
    parameters = sum(each.numel() for each in student.parameters())
    positions = sum(len(text.places) for text in taught)
    print(
        f"{size}: {parameters:,} parameters, {student.embedding.numel():,} of them "
        f"embeddings; {positions:,} distributions of {len(taught):,} texts"
    )
    optimizer = torch.optim.AdamW(
        student.parameters(), RATE, betas=(0.9, 0.99), weight_decay=DECAY
    )
    steps = int(epochs * -(-len(taught) // BATCH))
    began, step, done = time.monotonic(), 0, 0.0
    with tqdm(total=100, unit="%") as bar:
        while done < 1:
            for batch in lessons.batches(taught, BATCH, rng):
                spent = (time.monotonic() - began) / 60 / minutes
                done = max(step / steps, spent)
                if done >= 1:
                    break
                cosine = 0.5 + 0.5 * np.cos(np.pi * done)
                for group in optimizer.param_groups:
                    group["lr"] = RATE * min(1, (step + 1) / 50) * (0.02 + cosine)
                entropy, refused, accepted = losses(student, batch)
                share = min(1.0, max(0.0, (done - BEGIN) / (END - BEGIN)))
                found = (1 - share) * entropy + share * refused
                optimizer.zero_grad()
                found.backward()
                nn.utils.clip_grad_norm_(student.parameters(), 1.0)
                optimizer.step()
                step += 1
                bar.set_postfix(entropy=f"{entropy:.3f}", accepted=f"{accepted:.3f}")
                bar.update(100 * done - bar.n)
    save(student, model, output)
    seconds, epochs = time.monotonic() - began, step * BATCH / len(taught)
    print(f"{epochs:.1f} epochs in {seconds:.0f} s; {_held_out(student, held)}")


def _held_out(student: Student, held: lessons.Texts) -> str:
    """Return the results on held-out texts, as words."""
    if not held:
        return "no texts were held out"
    student.eval()
    rows, found = [], []
    with torch.inference_mode():
        for batch in lessons.batches(held, BATCH):
            rows.append(int(batch.taught.sum()))
            found.append([one.item() for one in losses(student, batch)])
    entropy, refused, accepted = np.average(found, 0, rows)
    return (
        f"on held-out texts: acceptance {accepted:.3f}, losses {entropy:.3f} and "
        f"{refused:.3f}"
    )
