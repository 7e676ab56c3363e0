"""Students that learn of a teacher live, and of what was kept of it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text
from torch import nn

from benchmarks.distill.schemes import RESOLUTIONS, Array
from benchmarks.distill.teachers import Lessons, Size, teach
from benchmarks.experiments.experiment import Options
from benchmarks.tables import dim, table

Record = dict[str, Any]

BATCH = 4
"""Texts of a step."""

DENSE, TOP = "dense", "top"
KEPT = {
    DENSE: "the live teacher",
    **{f"{size}": f"systematic, l = {size}" for size in reversed(RESOLUTIONS)},
    TOP: "fp16 top-64, renormalised",
}
"""What students learn of."""

QUANTILES = {2: 12.706, 5: 2.776}
"""0.975 of Student's t, by the number of seeds."""

TRIAL = 100
"""Seed of the runs that choose the rate."""


class Student(nn.Module):
    """A transformer whose embeddings are its head, too."""

    def __init__(self, columns: int, width: int, layers: int, longest: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(columns, width)
        self.places = nn.Parameter(torch.empty(longest, width))
        layer = nn.TransformerEncoderLayer(
            *(width, max(1, width // 64), 4 * width),
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.body = nn.TransformerEncoder(
            layer, layers, nn.LayerNorm(width), enable_nested_tensor=False
        )
        for weights in (self.embedding.weight, self.places):
            nn.init.normal_(weights, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return what the head is put on, [B, T, width]."""
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        x = self.embedding(tokens) + self.places[:length]
        with torch.autocast("cpu", torch.bfloat16):
            return self.body(x, mask, is_causal=True)


class Class:
    """A student's texts, batch by batch."""

    def __init__(self, lessons: Lessons) -> None:
        self.lessons = lessons
        self.longest = max(map(len, lessons.tokens))

    def hidden(self, student: Student, texts: Array) -> torch.Tensor:
        """Return a student's rows at all distributions of some texts."""
        tokens = np.zeros((len(texts), self.longest), np.int64)
        places = np.zeros(tokens.shape, bool)
        for row, text in enumerate(texts):
            own = self.lessons.tokens[text]
            n = self.lessons.first[text + 1] - self.lessons.first[text]
            tokens[row, : len(own)] = own
            places[row, len(own) - n - 1 : len(own) - 1] = True
        used = slice(max(len(self.lessons.tokens[text]) for text in texts))
        return student(torch.from_numpy(tokens[:, used]))[
            torch.from_numpy(places[:, used])
        ]

    def rows(self, texts: Array) -> NDArray[np.int64]:
        """Return the numbers of the distributions of some texts."""
        first = self.lessons.first
        return np.concatenate([np.arange(first[i], first[i + 1]) for i in texts])

    def dense(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Return the teacher's own distributions, float32 [n, H]."""
        return torch.from_numpy(self.lessons.dense[rows]).float().softmax(-1)


def subtract(student: torch.Tensor, what: Any, rows: NDArray[np.int64]) -> None:
    """Take kept distributions off a student's, in place."""
    columns, weights, first = what
    lengths = first[rows + 1] - first[rows]
    starts = np.repeat(first[rows] - np.cumsum(lengths) + lengths, lengths)
    of = starts + np.arange(lengths.sum())
    at = np.repeat(np.arange(len(rows)), lengths) * student.shape[1] + columns[of]
    student.view(-1).index_add_(0, torch.from_numpy(at), torch.from_numpy(-weights[of]))


def learn(
    lessons: Lessons, size: Size, what: str, seed: int, rate: float
) -> dict[str, float]:
    """Let a student learn; return its divergence from the teacher on held-out texts.

    The loss is the cross-entropy of what was kept, whose gradient by the logits is
    the student's distribution less that. Products are of bfloat16, as on GPUs.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    school, began = Class(lessons), time.monotonic()
    student = Student(
        int(lessons.about["columns"]), size.width, size.layers, school.longest
    )
    weight = student.embedding.weight
    optimizer = torch.optim.AdamW(
        student.parameters(), rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    batches = list(_batches(lessons.taught, size.epochs, seed))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, len(batches), pct_start=0.1, cycle_momentum=False
    )
    kept = (
        None
        if what == DENSE
        else lessons.kept[TOP if what == TOP else f"{what} {seed}"]
    )
    for texts in batches:
        rows, hidden = school.rows(texts), school.hidden(student, texts)
        head, h = weight.detach().bfloat16(), hidden.detach().bfloat16()
        off = (h @ head.T).softmax(-1, dtype=torch.float32)
        if kept is None:
            off -= school.dense(rows)
        else:
            subtract(off, kept, rows)
        off = off.div_(len(rows)).bfloat16()
        weight.grad = (off.T @ h).float()
        hidden.backward((off @ head).to(hidden.dtype))
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return {
        "kl": divergence(school, student),
        "steps": len(batches),
        "parameters": sum(p.numel() for p in student.parameters()),
        "seconds": time.monotonic() - began,
    }


def _batches(texts: int, epochs: int, seed: int) -> Iterator[Array]:
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(texts)
        yield from (order[i : i + BATCH] for i in range(0, texts - BATCH + 1, BATCH))


@torch.no_grad()
def divergence(school: Class, student: Student) -> float:
    """Return the mean of KL(teacher || student) on held-out texts, in nats."""
    total, count = 0.0, 0
    for text in range(school.lessons.taught, len(school.lessons.tokens)):
        rows = school.rows(np.array([text]))
        hidden = school.hidden(student, np.array([text])).float()
        logs = (hidden @ student.embedding.weight.T).log_softmax(-1)
        teacher = torch.from_numpy(school.lessons.dense[rows]).float().log_softmax(-1)
        total += float((teacher.exp() * (teacher - logs)).sum())
        count += len(rows)
    return total / count


def measure(options: Options, name: str, size: Size) -> list[Record]:
    """Run all students of a teacher, or what is missing of them in the folder."""
    lessons, file = teach(options, name, size), options.folder / name / "runs.json"
    found = json.loads(file.read_text("utf-8")) if file.exists() else {}

    def run(key: str, what: str, seed: int, rate: float) -> float:
        if key not in found:
            found[key] = learn(lessons, size, what, seed, rate) | {"rate": rate}
            file.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
            print(name, key, found[key], flush=True)
        return float(found[key]["kl"])

    rate = min(size.rates, key=lambda rate: run(f"rate {rate}", DENSE, TRIAL, rate))
    seeds = range(size.seeds)
    kl = {what: [run(f"{what} {n}", what, n, rate) for n in seeds] for what in KEPT}
    return [{"model": name, **lessons.about, **found[f"{DENSE} 0"], "kl": kl}]


def interval(values: Array) -> str:
    """Return a mean and the ends of its interval of 95 %, by Student's t."""
    n = len(values)
    mean, half = values.mean(), QUANTILES[n] * values.std(ddof=1) / math.sqrt(n)
    return f"{mean:.3f} ({mean - half:.3f} to {mean + half:.3f})"


def tables(records: list[Record]) -> list[Table | Text]:
    """Return what students of each teacher learned."""
    return [part for record in records for part in _tables(record)]


def _tables(record: Record) -> list[Table | Text]:
    kl = {what: np.array(values) for what, values in record["kl"].items()}
    made = table(
        f"{record['model']}: held-out KL(teacher || student), nats",
        *("kept", "bytes a\ntoken", "KL", "more than dense", "more than top-64"),
    )
    for what, values in kl.items():
        beside = [interval(values - kl[o]) if what != o else "" for o in (DENSE, TOP)]
        taken = record["bytes"].get(what) or record["bytes"][f"{what} 0"]
        made.add_row(KEPT[what], f"{taken:.1f}", interval(values), *beside)
    explained = (
        f"{len(kl[DENSE])} seeds, intervals of 95 % over them; differences are paired. "
        f"{record['parameters'] / 1e6:.1f} M parameters, {record['columns']} columns; "
        f"{record['taught']} positions, {record['positions'] - record['taught']} held "
        f"out; {record['steps']} steps of {BATCH} texts, rate {record['rate']:g}."
    )
    return [made, dim(explained)]
