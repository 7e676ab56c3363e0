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

from benchmarks.distill.measure import half_width
from benchmarks.distill.schemes import TAIL, UNBIASED, Array
from benchmarks.distill.teachers import TAUGHT, Lessons, Size, teach
from benchmarks.experiments.experiment import Options
from benchmarks.tables import dim, table

BATCH = 2
"""Texts per step."""

DENSE = "dense"
KEPT = (DENSE, *reversed(TAUGHT))
"""The forms that students learn from."""

Record = dict[str, Any]


class Student(nn.Module):
    """A transformer with tied embeddings, initialized from its teacher's."""

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
        """Return the hidden states before the head, [B, T, width]."""
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        x = self.embedding(tokens) + self.places[:length]
        with torch.autocast("cpu", torch.bfloat16):
            out: torch.Tensor = self.body(x, mask, is_causal=True)
        return out


def answers(
    student: Student, lessons: Lessons, texts: Array
) -> tuple[Array, torch.Tensor]:
    """Return the indices of texts' distributions, and a student's states there."""
    rows = lessons.rows[texts]
    hidden = student(torch.from_numpy(lessons.tokens[texts]))
    return rows[rows >= 0], hidden[torch.from_numpy(rows >= 0)]


def subtract(
    student: torch.Tensor,
    kept: tuple[Array, Array, Array],
    rows: Array,
    *,
    tail: bool,
) -> None:
    """Subtract stored distributions from a student's, in place.

    With a tail, the student's probability of all unlisted tokens is one outcome, and
    each token's gradient is its share of it.
    """
    columns, weights, first = kept
    lengths = first[rows + 1] - first[rows]
    starts = np.repeat(first[rows] - np.cumsum(lengths) + lengths, lengths)
    of = torch.from_numpy(starts + np.arange(lengths.sum()))
    row = torch.from_numpy(np.repeat(np.arange(len(rows)), lengths))
    at = row * student.shape[1] + torch.from_numpy(columns)[of]
    given, flat = torch.from_numpy(weights)[of], student.view(-1)
    if tail:
        own = flat[at]
        teacher, rest = 1 - torch.zeros(2, len(rows)).index_add_(
            1, row, torch.stack((given, own))
        )
        student.mul_((1 - teacher / rest.clamp(min=1e-6))[:, None])
        flat[at] = own
    flat.index_add_(0, at, -given)


def learn(lessons: Lessons, size: Size, what: str, seed: int) -> Record:
    """Train a student; return its divergence from the teacher on each text.

    The loss is the cross-entropy with the stored distribution. Its gradient in the
    logits is the student's distribution minus the stored one. Matrix products use
    bfloat16, as on GPUs.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    began = time.process_time()
    student = Student(lessons, size.layers)
    weight = student.embedding.weight
    optimizer = torch.optim.AdamW(
        student.parameters(),
        size.rate,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        fused=True,
    )
    batches = list(_batches(lessons.about, size.epochs, seed))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, size.rate, len(batches), pct_start=0.1, cycle_momentum=False
    )
    for texts in batches:
        rows, hidden = answers(student, lessons, texts)
        head, h = weight.detach().bfloat16(), hidden.detach().bfloat16()
        off = (h @ head.T).softmax(-1, dtype=torch.float32)
        if what == DENSE:
            off -= torch.from_numpy(lessons.dense[rows]).float().softmax(-1)
        else:
            rounding = seed if what in UNBIASED else 0
            subtract(off, lessons.kept[f"{what} {rounding}"], rows, tail="tail" in what)
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
    }


def _batches(about: dict[str, Any], epochs: int, seed: int) -> Iterator[Array]:
    rng, texts = np.random.default_rng(seed), about["texts"]
    for _ in range(epochs):
        order = rng.permutation(texts)
        yield from (order[i : i + BATCH] for i in range(0, texts - BATCH + 1, BATCH))


@torch.no_grad()
def divergence(lessons: Lessons, student: Student) -> list[float]:
    """Return the mean of KL(teacher || student) on each held-out text, in nats."""
    found = []
    for text in range(lessons.about["texts"], len(lessons.tokens)):
        rows, hidden = answers(student, lessons, np.array([text]))
        logs = (hidden.float() @ student.embedding.weight.T).log_softmax(-1)
        teacher = torch.from_numpy(lessons.dense[rows]).float().log_softmax(-1)
        found.append(float((teacher.exp() * (teacher - logs)).sum(-1).mean()))
    return found


def measure(options: Options, name: str, size: Size) -> list[Record]:
    """Train a teacher's students, except those already in the folder."""
    lessons, file = teach(options, name, size), options.folder / name / "runs.json"
    found = json.loads(file.read_text("utf-8")) if file.exists() else {}
    kl = defaultdict(list)
    for seed, what in itertools.product(range(size.seeds), KEPT):
        key = f"{what} {seed}"
        if key not in found:
            found[key] = learn(lessons, size, what, seed)
            file.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
            print(f"{name}, {key}: {np.mean(found[key]['kl']):.3f}", flush=True)
        kl[what].append(found[key]["kl"])
    return [{"model": name, **lessons.about, **found[f"{DENSE} 0"], "kl": kl}]


def around(values: Array) -> tuple[float, float]:
    """Return the mean of [seeds, texts], and half its interval over both."""
    return values.mean(), math.hypot(*(half_width(values.mean(i)) for i in (0, 1)))


def interval(values: Array) -> str:
    """Format a mean and its 95 % interval."""
    return "{:.3f} ± {:.3f}".format(*around(values))


def tables(records: list[Record]) -> list[Table | Text]:
    """Return the results of each teacher's students."""
    return [part for record in records for part in _tables(record)]


def _tables(record: Record) -> list[Table | Text]:
    values = {what: np.array(found) for what, found in record["kl"].items()}
    heads = ("stored", "bytes per\ntoken", "KL", "over dense", f"over {TAIL}")
    made = table(f"{record['model']}: held-out KL(teacher || student), nats", *heads)
    for what in KEPT:
        one = values[what]
        beside = [interval(one - values[o]) if what != o else "" for o in (DENSE, TAIL)]
        taken = f"{record['bytes'][what]:.1f}"
        made.add_row(what, taken, f"{one.mean():.3f}", *beside)
    seeds, texts = values[DENSE].shape
    explained = (
        f"{seeds} seeds, {texts} held-out texts; intervals of 95 % over both, for "
        f"differences over pairs. {record['parameters'] / 1e6:.1f} M parameters, "
        f"{record['columns']} columns; {record['taught']} of {record['positions']} "
        f"positions (the others are held out); {record['steps']} steps of {BATCH} "
        "texts. Bytes are means over all these texts, with the best coding of each "
        "scheme. No prior was fitted to their prompts."
    )
    return [made, dim(explained)]
