"""The network of `sqs_codec.system.small`, in torch for training."""

from __future__ import annotations

import json
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sqs_codec.system.hf._models import LanguageModel

if TYPE_CHECKING:
    from benchmarks.sizes.lessons import Batch

Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Size:
    """The dimensions of a network."""

    columns: int
    embedding: int
    state: int
    pointer: int


SIZES = {
    "0.13M": Size(2048, 32, 96, 16),
    "0.4M": Size(4096, 56, 176, 16),
    "1.3M": Size(8192, 96, 320, 32),
    "2.5M": Size(8192, 144, 576, 32),
    "4M": Size(12288, 160, 704, 48),
    "13M": Size(24576, 288, 1216, 64),
}
"""Sizes by their approximate number of parameters."""


LEVELS = 31
"""Levels of int8 weights on each side of 0; zip compresses them to six bits."""


class Scores(torch.autograd.Function):
    """The log-sum-exp of all columns' logits, and some logits."""

    @staticmethod
    def forward(ctx: Any, *given: torch.Tensor) -> Pair:
        """Take hidden [N, e], embedding [C, e], bias [C], rows [M], columns [M]."""
        hidden, embedding, bias, rows, columns = given
        logits = torch.addmm(bias, hidden, embedding.T)
        picked = logits[rows, columns]
        total = logits.logsumexp(-1)
        ctx.save_for_backward(hidden, embedding, rows, columns, total)
        ctx.logits = logits
        return total, picked

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        """Return the gradients of the first three arguments."""
        of_total, of_picked = grads
        hidden, embedding, rows, columns, total = ctx.saved_tensors
        back = ctx.logits.sub_(total[:, None]).exp_().mul_(of_total[:, None])
        back.index_put_((rows, columns), of_picked, accumulate=True)
        return back @ embedding, back.T @ hidden, back.sum(0), None, None


class Student(nn.Module):
    """A GRU with a pointer, over the columns of a vocabulary."""

    def __init__(
        self,
        size: Size,
        inputs: NDArray[np.int64],
        columns: NDArray[np.int64],
        embedding: torch.Tensor,
        counts: NDArray[np.float64],
    ) -> None:
        super().__init__()
        self.size, self.inputs, self.columns = size, inputs, columns
        place = np.full(len(inputs), -1)
        place[columns] = np.arange(len(columns))
        self._inputs, self._place = torch.from_numpy(inputs), torch.from_numpy(place)
        self.embedding = nn.Parameter(0.1 * embedding)
        bias = np.log(counts[columns] / counts.sum())
        self.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float32))
        self.scales = nn.Parameter(torch.tensor([3.0, 3.0]))
        self.gru = nn.GRU(size.embedding, size.state, batch_first=True)
        self.out = nn.Linear(size.state, size.embedding)
        self.pointer = nn.Linear(size.state, 2 * size.pointer + 1)
        with torch.no_grad():
            self.pointer.bias[-1] = -2
        self.drop = nn.Dropout(0.1)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the log-probabilities of a batch's ids, [M]."""
        read = self.embedding[self._inputs[batch.tokens]] * self.scales[0]
        states = self.drop(self.gru(self.drop(read))[0])
        hidden = self.out(states[batch.taught]) * self.scales[1]
        columns = self._place[batch.ids]
        has = columns >= 0
        rows = batch.rows[has]
        total, picked = Scores.apply(
            hidden, self.embedding, self.bias, rows, columns[has]
        )
        weights, pointed = self._point(states, batch)
        own = torch.zeros(len(batch.ids))
        own[has] = (picked - total[rows]).exp()
        chances = own * (1 - pointed[batch.rows])
        chances = chances.index_add(0, *self._match(batch, weights * pointed[:, None]))
        return (chances + 1e-9).log()

    def _point(self, states: torch.Tensor, batch: Batch) -> Pair:
        """Return the pointer's weights [N, T] and its total probability."""
        query, key, gate = self.pointer(states).split(
            [self.size.pointer, self.size.pointer, 1], -1
        )
        scores = query @ key.mT / self.size.pointer**0.5
        length = scores.shape[-1]
        later = torch.ones(length, length, dtype=torch.bool).triu()
        scores = scores.masked_fill(later, -1e4)[batch.taught]
        return scores.softmax(-1), gate[batch.taught][:, 0].sigmoid()

    def _match(self, batch: Batch, weights: torch.Tensor) -> Pair:
        """Return the ids in the batch that the pointer selects, and the weights."""
        followed = torch.cat([batch.tokens[:, 1:], batch.tokens[:, :1]], 1)
        text = batch.taught.nonzero()[:, 0]
        numbers = torch.arange(len(text))[:, None] * len(self.inputs)
        wanted = (numbers + followed[text]).flatten()
        ids = batch.rows * len(self.inputs) + batch.ids
        at = torch.searchsorted(ids, wanted).clamp(max=len(ids) - 1)
        hit = ids[at] == wanted
        return at[hit], weights.flatten()[hit]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of a file: int8 matrices with a scale per row."""
        gru, (read, wrote) = self.gru, self.scales.detach()
        weights = {
            "embedding": self.embedding,
            "given": gru.weight_ih_l0 * read,
            "kept": gru.weight_hh_l0,
            "out": self.out.weight * wrote,
            "pointer": self.pointer.weight,
            "bias": self.bias,
            "given_bias": gru.bias_ih_l0,
            "kept_bias": gru.bias_hh_l0,
            "out_bias": self.out.bias * wrote,
            "pointer_bias": self.pointer.bias,
        }
        small = np.uint16 if len(self.inputs) <= 1 << 16 else np.uint32
        found = {
            "inputs": self.inputs.astype(small),
            "columns": self.columns.astype(small),
        }
        for name, weight in weights.items():
            values = weight.detach().numpy()
            if values.ndim == 1:
                found[name] = values.astype(np.float16)
                continue
            scale = (np.abs(values).max(1) / LEVELS).astype(np.float16)
            steps = np.rint(
                values / np.maximum(scale, 1e-7).astype(np.float32)[:, None]
            )
            found[name] = steps.clip(-LEVELS, LEVELS).astype(np.int8)
            found[f"{name}_scale"] = scale
        return found


def save(student: Student, model: LanguageModel, path: Path) -> None:
    """Write the file of a draft."""
    about = {
        "version": 1,
        "summary": f"a small draft for {model.summary}",
        "template": model.tokenizer.chat_template or "",
        "stop": sorted(model.stop),
    }
    tokenizer = lzma.compress(model.tokenizer.backend_tokenizer.to_str().encode())
    texts = {"about": json.dumps(about).encode(), "tokenizer": tokenizer}
    parts = {name: np.frombuffer(text, np.uint8) for name, text in texts.items()}
    np.savez_compressed(path, **parts, **student.arrays())
