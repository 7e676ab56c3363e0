"""Students that learn from a live teacher or from its stored distributions."""

import itertools
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from rich.table import Table
from rich.text import Text
from torch import nn

from benchmarks.charts import Panel, Point
from benchmarks.distill.schemes import RESOLUTIONS, Array
from benchmarks.distill.teachers import Lessons, Size, teach
from benchmarks.experiments.experiment import NAMES, Options
from benchmarks.tables import dim, table

BATCH = 2
"""Texts of a step."""

DENSE, TOP = "dense", "top"
KEPT = {
    DENSE: "the live teacher",
    **{f"{size}": f"systematic, l = {size}" for size in reversed(RESOLUTIONS)},
    TOP: "fp16 top-64",
}
"""What students learn of."""

TRIAL = 100
"""Seed of the runs that choose the rate, on the live teacher."""

QUANTILES = {2: 12.706, 5: 2.776}
"""0.975 of Student's t, by the number of seeds."""

Record = dict[str, Any]


class Student(nn.Module):
    """A transformer whose embeddings, begun as its teacher's, are its head, too."""

    def __init__(self, lessons: Lessons, layers: int) -> None:
        super().__init__()
        width = lessons.embedding.shape[1]
        self.embedding = nn.Embedding.from_pretrained(
            torch.from_numpy(lessons.embedding.copy()), freeze=False
        )
        self.places = nn.Parameter(torch.zeros(lessons.tokens.shape[1], width))
        layer = nn.TransformerEncoderLayer(
            *(width, width // 64, 4 * width, 0.0, "gelu"),
            batch_first=True,
            norm_first=True,
        )
        self.body = nn.TransformerEncoder(
            layer, layers, nn.LayerNorm(width), enable_nested_tensor=False
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return what the head is put on, [B, T, width]."""
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        x = self.embedding(tokens) + self.places[:length]
        with torch.autocast("cpu", torch.bfloat16):
            out: torch.Tensor = self.body(x, mask, is_causal=True)
        return out


def answers(
    student: Student, lessons: Lessons, texts: Array
) -> tuple[Array, torch.Tensor]:
    """Return the numbers of texts' distributions, and a student's rows there."""
    rows = lessons.rows[texts]
    hidden = student(torch.from_numpy(lessons.tokens[texts]))
    return rows[rows >= 0], hidden[torch.from_numpy(rows >= 0)]


def subtract(
    student: torch.Tensor, kept: tuple[Array, Array, Array], rows: Array
) -> None:
    """Take kept distributions off a student's, in place."""
    columns, weights, first = kept
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
    began = time.process_time()
    student = Student(lessons, size.layers)
    weight = student.embedding.weight
    optimizer = torch.optim.AdamW(
        student.parameters(), rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    batches = list(_batches(lessons.about, size.epochs, seed))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, len(batches), pct_start=0.1, cycle_momentum=False
    )
    for texts in batches:
        rows, hidden = answers(student, lessons, texts)
        head, h = weight.detach().bfloat16(), hidden.detach().bfloat16()
        off = (h @ head.T).softmax(-1, dtype=torch.float32)
        if what == DENSE:
            off -= torch.from_numpy(lessons.dense[rows]).float().softmax(-1)
        else:
            subtract(off, lessons.kept[TOP if what == TOP else f"{what} {seed}"], rows)
        off = off.div_(len(rows)).bfloat16()
        weight.grad = (off.T @ h).float()
        hidden.backward((off @ head).to(hidden.dtype))
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return {
        "kl": divergence(lessons, student),
        "steps": len(batches),
        "parameters": sum(p.numel() for p in student.parameters()),
        "seconds": time.process_time() - began,
        "rate": rate,
    }


def _batches(about: dict[str, Any], epochs: int, seed: int) -> Iterator[Array]:
    rng, texts = np.random.default_rng(seed), about["texts"]
    for _ in range(epochs):
        order = rng.permutation(texts)
        yield from (order[i : i + BATCH] for i in range(0, texts - BATCH + 1, BATCH))


@torch.no_grad()
def divergence(lessons: Lessons, student: Student) -> float:
    """Return the mean of KL(teacher || student) on held-out texts, in nats."""
    found = []
    for text in range(lessons.about["texts"], len(lessons.tokens)):
        rows, hidden = answers(student, lessons, np.array([text]))
        logs = (hidden.float() @ student.embedding.weight.T).log_softmax(-1)
        teacher = torch.from_numpy(lessons.dense[rows]).float().log_softmax(-1)
        found.append((teacher.exp() * (teacher - logs)).sum(-1))
    return float(torch.cat(found).mean())


def measure(options: Options, name: str, size: Size) -> list[Record]:
    """Run all students of a teacher, or what is missing of them in the folder."""
    lessons, file = teach(options, name, size), options.folder / name / "runs.json"
    found = json.loads(file.read_text("utf-8")) if file.exists() else {}

    def run(key: str, what: str, seed: int, rate: float) -> float:
        if key not in found:
            found[key] = learn(lessons, size, what, seed, rate)
            file.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
            print(name, key, found[key], flush=True)
        return float(found[key]["kl"])

    rate = min(size.rates, key=lambda rate: run(f"rate {rate}", DENSE, TRIAL, rate))
    kl = defaultdict(list)
    for seed, what in itertools.product(range(size.seeds), KEPT):
        kl[what].append(run(f"{what} {seed}", what, seed, rate))
    return [{"model": name, **lessons.about, **found[f"{DENSE} 0"], "kl": kl}]


def around(values: Array) -> tuple[float, float]:
    """Return a mean, and how far its interval of 95 % goes, by Student's t."""
    n = len(values)
    return values.mean(), QUANTILES[n] * values.std(ddof=1) / math.sqrt(n)


def interval(values: Array) -> str:
    """Return a mean and its interval of 95 %."""
    return "{:.3f} +- {:.3f}".format(*around(values))


def chart(records: list[Record]) -> list[Panel]:
    """Show how far students of what was kept are behind the live teacher's."""
    series: dict[str, list[Point]] = {}
    for record in records:
        kl = {what: np.array(found) for what, found in record["kl"].items()}
        for what in (*KEPT,)[1:]:
            way = "top-64" if what == TOP else "counts"
            mean, half = around(kl[what] - kl[DENSE])
            point = record["bytes"][what], mean, mean - half, mean + half
            series.setdefault(f"{way}, {NAMES[record['model']]}", []).append(point)
    title = "KL(teacher ‖ student) beside the live teacher's, nats"
    return [Panel(title, series, "bytes a token", beside=0, log="x")]


def tables(records: list[Record]) -> list[Table | Text]:
    """Return what students of each teacher learned."""
    return [part for record in records for part in _tables(record)]


def _tables(record: Record) -> list[Table | Text]:
    values = {what: np.array(found) for what, found in record["kl"].items()}
    explained = (
        f"{len(values[DENSE])} seeds, intervals of 95 % over them; differences are "
        f"paired. {record['parameters'] / 1e6:.1f} M parameters, {record['columns']} "
        f"columns; {record['taught']} positions of {record['positions']}, the others "
        f"are held out; {record['steps']} steps of {BATCH} texts, rate "
        f"{record['rate']:g}."
    )
    title = f"{record['model']}: held-out KL(teacher || student), nats"
    return [
        _table(title, record["bytes"], {what: values[what] for what in KEPT}),
        dim(explained),
    ]


def _table(title: str, taken: dict[str, float], kl: dict[str, Array]) -> Table:
    heads = ("kept", "bytes a\ntoken", "KL", "over dense", "over top-64")
    made = table(title, *heads)
    for what, found in kl.items():
        beside = [interval(found - kl[o]) if what != o else "" for o in (DENSE, TOP)]
        made.add_row(KEPT[what], f"{taken[what]:.1f}", interval(found), *beside)
    return made
