"""Batches of stored teacher distributions, the loss, and probabilities to store."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sqs_codec._base import checks
from sqs_codec._codec.rows import SparseRows
from sqs_codec.torch._tensors import DTYPES, detached, scale_of

CHUNK = 1 << 23
"""Logits per chunk of the computation: 32 MiB in float32."""

INPUTS = {"input_ids": "tokens", "attention_mask": "attention_mask"}
"""Arguments of Hugging Face models, and the fields of a batch that they get."""


@dataclass(frozen=True, eq=False)
class TeacherBatch:
    """Texts and a teacher's distributions of their tokens, as tensors.

    ``model(**batch)`` passes ``input_ids`` and ``attention_mask`` to a Hugging Face
    model, as a dict with these keys would.

    Attributes
    ----------
    tokens : torch.Tensor of int64 [B, T]
        The padded texts, the student's input.
    attention_mask : torch.Tensor [B, T]
        1 where there is a token, 0 where there is padding.
    places : torch.Tensor of int64 [N]
        The row of the student's logits that each distribution is compared with:
        ``b * T + t`` for what follows ``tokens[b, :t + 1]``.
    token_ids, counts, offsets : torch.Tensor of integers [n], [n], [N + 1]
        The distributions, as in `SparseRows`.
    vocab_size : int
        The distributions' vocabulary.
    temperature : float
        The temperature of the teacher's distributions.
    tail : bool
        Whether id ``vocab_size - 1`` represents all tokens that a row doesn't list.
    """

    tokens: torch.Tensor
    attention_mask: torch.Tensor
    places: torch.Tensor
    token_ids: torch.Tensor
    counts: torch.Tensor
    offsets: torch.Tensor
    resolution: int
    vocab_size: int
    temperature: float = 1.0
    tail: bool = False

    def __post_init__(self) -> None:
        for name, value in self._tensors().items():
            checks.instance(name, value, torch.Tensor, "a torch.Tensor")
        checks.temperature(self.temperature)
        checks.instance("tail", self.tail, bool, "a bool")
        rows = SparseRows(
            self.token_ids.numpy(force=True),
            self.counts.numpy(force=True),
            self.offsets.numpy(force=True),
            self.vocab_size,
            self.resolution,
        )
        if self.tokens.ndim != 2 or self.attention_mask.shape != self.tokens.shape:
            raise ValueError(
                "tokens and attention_mask must have one shape [B, T], got "
                f"{list(self.tokens.shape)} and {list(self.attention_mask.shape)}"
            )
        if self.places.shape != (len(rows),) or self.places.dtype != torch.int64:
            raise ValueError(
                f"places must be int64 [{len(rows)}], one for each distribution, got "
                f"{self.places.dtype} {list(self.places.shape)}"
            )
        outside = (self.places < 0) | (self.places >= self.tokens.numel())
        if outside.any():
            row = int(outside.int().argmax())
            raise ValueError(
                f"places[{row}] must be in [0, {self.tokens.numel()}), got "
                f"{int(self.places[row])}"
            )

    # Not a collections.abc.Mapping: torch, accelerate and transformers would copy its
    # items only, without the distributions.
    def keys(self) -> Iterable[str]:
        """Return the names of the model's inputs."""
        return INPUTS.keys()

    def __getitem__(self, key: str) -> torch.Tensor:
        tensor: torch.Tensor = getattr(self, INPUTS[key])
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(INPUTS)

    def __len__(self) -> int:
        return len(INPUTS)

    def to(
        self, device: torch.device | str | int, *, non_blocking: bool = False
    ) -> TeacherBatch:
        """Return the batch with its tensors on a device."""
        return self._with(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> TeacherBatch:
        """Return the batch with its tensors in pinned memory, as a DataLoader asks."""
        return self._with(torch.Tensor.pin_memory)

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self)[:6]}

    def _with(self, move: Callable[[torch.Tensor], torch.Tensor]) -> TeacherBatch:
        """Return the batch with moved tensors, without checking them again."""
        moved = copy.copy(self)
        moved.__dict__.update({k: move(x) for k, x in self._tensors().items()})
        return moved


def as_batch(arrays: Iterable[NDArray[Any]], *others: Any) -> TeacherBatch:
    """Return the batch of a file's checked fields, the tensors first."""
    tensors = (torch.from_numpy(array.astype(np.int64)) for array in arrays)
    names = (field.name for field in fields(TeacherBatch))
    batch = TeacherBatch.__new__(TeacherBatch)
    batch.__dict__.update(zip(names, (*tensors, *others), strict=True))
    return batch


def distillation_loss(
    student_logits: torch.Tensor, batch: TeacherBatch, *, temperature: float = 1.0
) -> torch.Tensor:
    r"""Return the cross-entropy of a student to a teacher's counts.

    The mean over the distributions of the batch of

    .. math:: \sum_x \frac{b_x}{l} (-\log p(x)), \qquad
        p = \mathrm{softmax}(z / \text{temperature}),

    where b are a distribution's counts, l is its resolution and z the student's logits
    at its place. The loss is linear in the counts. With `Codec.quantize_unbiased`, the
    expected loss and gradient therefore equal those with the teacher's full softmax.
    The loss differs from the KL divergence by the teacher's entropy, a constant.

    For float16 and bfloat16 logits the computation uses float32, a few rows at a time,
    without a float32 copy of all logits. Backward allocates only the gradient. Forward
    and backward each wait once for an accelerator.

    Parameters
    ----------
    student_logits : torch.Tensor of float16, bfloat16, float32 or float64 [B, T, V']
        The model's output for ``batch.tokens``, not shifted. V' is at least the
        vocabulary of the batch. The teacher's probability of further columns is 0.
    batch : TeacherBatch
        On the same device. With ``batch.tail`` the last id has no column; its p is the
        student's total probability of the tokens that the row doesn't have. These
        include listed tokens whose count is 0, less than about 1/l each.
    temperature : float
        The student's temperature, above 0. At 1 the student learns the teacher's
        distribution at ``batch.temperature``. With ``temperature=batch.temperature``
        both have the same temperature, and the gradient is smaller by its square; some
        multiply the loss by that.

    Returns
    -------
    torch.Tensor of float32 []
        float64 for float64 logits. 0 for a batch without distributions. NaN if a
        compared row holds NaN; inf if it masks a token with a count.

    Raises
    ------
    ValueError
        If shapes or devices don't match, or the temperature isn't above 0.
    TypeError
        If the logits aren't a tensor of one of the dtypes above.

    Examples
    --------
    >>> import torch
    >>> batch = TeacherBatch(
    ...     tokens=torch.tensor([[5, 2, 7]]),
    ...     attention_mask=torch.ones(1, 3),
    ...     places=torch.tensor([0, 1]),
    ...     token_ids=torch.tensor([2, 7, 7]),
    ...     counts=torch.tensor([3, 1, 4]),
    ...     offsets=torch.tensor([0, 2, 3]),
    ...     resolution=4,
    ...     vocab_size=8,
    ... )
    >>> logits = torch.zeros(1, 3, 8, requires_grad=True)
    >>> loss = distillation_loss(logits, batch)
    >>> loss.backward()
    >>> loss.item(), logits.grad[0, 0, 2].item()  # log 8, (1/8 - 3/4) / 2
    (2.0794..., -0.3125)
    """
    _check(student_logits, batch)
    temperature = checks.temperature(temperature)
    if not temperature:
        raise ValueError("temperature must be above 0, got 0.0")
    loss: torch.Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        student_logits, batch, scale_of(temperature, _dtype(student_logits))
    )  # torch has no types for it
    return loss


def _check(logits: torch.Tensor, batch: TeacherBatch) -> None:
    checks.instance("student_logits", logits, torch.Tensor, "a torch.Tensor")
    checks.instance("batch", batch, TeacherBatch, "a TeacherBatch")
    if logits.dtype not in DTYPES:
        raise TypeError(
            "student_logits must be float16, bfloat16, float32 or float64, got "
            f"{logits.dtype}"
        )
    least = batch.vocab_size - batch.tail
    shape = logits.shape
    if shape[:-1] != batch.tokens.shape or shape[-1] < least:
        raise ValueError(
            f"student_logits must have shape {list(batch.tokens.shape)} of the tokens "
            f"and then {least} or more, got {list(shape)}"
        )
    if logits.device != batch.tokens.device:
        raise ValueError(
            f"student_logits are on {logits.device} and the batch is on "
            f"{batch.tokens.device}: batch.to(device) moves it"
        )


class _Chunk(NamedTuple):
    """Some rows to compare and the teacher's answer, with the tail after V' columns."""

    rows: slice
    x: torch.Tensor  # [rows, V' or V' + 1], logits over the temperature
    listed: tuple[torch.Tensor, torch.Tensor]  # row and column of each count
    weights: torch.Tensor  # of each count: its share


def _chunks(
    logits: torch.Tensor, batch: TeacherBatch, scale: float
) -> Iterator[_Chunk]:
    width = logits.shape[-1]
    ends = batch.offsets.tolist()
    dtype = _dtype(logits)
    step = max(CHUNK // width, 1)
    for start in range(0, len(batch.places), step):
        places = batch.places[start : start + step]
        at = places // logits.shape[1], places % logits.shape[1]
        x = logits.new_zeros(len(places), width + batch.tail, dtype=dtype)
        x[:, :width] = logits[at]  # a view of all rows may be a copy
        x *= scale
        rows = slice(start, start + len(places))
        cut = slice(ends[rows.start], ends[rows.stop])
        sizes = batch.offsets[rows.start : rows.stop + 1].diff()
        row = torch.arange(len(places), device=x.device).repeat_interleave(
            sizes, output_size=cut.stop - cut.start
        )
        ids = batch.token_ids[cut].long()
        if batch.tail:
            ids = ids.masked_fill(ids == batch.vocab_size - 1, width)
        yield _Chunk(
            rows, x, (row, ids), batch.counts[cut].to(dtype) / batch.resolution
        )


def _dtype(logits: torch.Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


class _CrossEntropy(torch.autograd.Function):
    """The loss, whose gradient is computed in chunks, in the logits' dtype."""

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, batch: TeacherBatch, scale: float
    ) -> torch.Tensor:
        """Return the loss; keep log-sum-exps of rows and of what they don't list."""
        width, rows = logits.shape[-1], len(batch.places)
        sums = logits.new_empty(2, rows, dtype=_dtype(logits))
        loss = sums.new_zeros(())
        for chunk in _chunks(logits, batch, scale):
            x, row = chunk.x, chunk.listed[0]
            whole = x[:, :width].logsumexp(-1)
            values = x[chunk.listed]
            if batch.tail:
                x[chunk.listed] = -torch.inf
                rest = x[:, :width].logsumexp(-1)
                values = torch.where(chunk.listed[1] == width, rest[row], values)
                sums[1, chunk.rows] = rest
            sums[0, chunk.rows] = whole
            loss += (chunk.weights * (whole[row] - values)).sum()
        ctx.save_for_backward(logits, sums)
        ctx.batch, ctx.scale = batch, scale
        return loss / max(rows, 1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Return p - b / l; a token that isn't listed has its part of the tail's."""
        if torch.is_grad_enabled():
            raise RuntimeError(
                "distillation_loss has only a first derivative: don't set create_graph"
            )
        logits, sums = ctx.saved_tensors
        batch, width = ctx.batch, logits.shape[-1]
        found = torch.zeros_like(logits, memory_format=torch.contiguous_format)
        flat = found.view(-1, width)
        factor = grad * (ctx.scale / max(len(batch.places), 1))
        for chunk in _chunks(logits, batch, ctx.scale):
            x, row = chunk.x, chunk.listed[0]
            whole, rest = sums[:, chunk.rows]
            of_listed = (x[chunk.listed] - whole[row]).exp() - chunk.weights
            least = torch.finfo(rest.dtype).min  # can be subtracted from -inf
            x -= (rest.clamp_min(least) if batch.tail else whole)[:, None]
            x.exp_()
            if batch.tail:
                to_tail = chunk.weights * (chunk.listed[1] == width)
                share = (rest - whole).exp().index_add(0, row, to_tail, alpha=-1)
                x *= share[:, None]
            x[chunk.listed] = of_listed
            x *= factor
            flat.index_add_(0, batch.places[chunk.rows], x[:, :width].to(flat.dtype))
        return found, None, None


def on_host(logits: torch.Tensor) -> NDArray[Any]:
    """Return logits as an array of float32 or float64."""
    values = detached("logits", logits)
    return values.to(torch.promote_types(values.dtype, torch.float32)).numpy()


def look_up_part(
    logits: torch.Tensor,
    rows: NDArray[np.int64],
    ids: NDArray[np.int64],
    following: NDArray[np.int64],
    temperature: float,
) -> tuple[NDArray[Any], ...]:
    """Return log-probabilities of ids in rows [n, V], and the most probable ids."""
    values = detached("logits", logits)
    where, asked = values.device, (rows, ids, following)
    at, given, next_ = (torch.from_numpy(x).to(where) for x in asked)
    with torch.inference_mode():
        x = values.to(torch.promote_types(values.dtype, torch.float32))
        largest, likeliest = x.max(1)
        y = (x - largest[:, None]).div_(temperature)
        own, follows = y[at, given], y.gather(1, next_.clamp(min=0)[:, None])[:, 0]
        logs = y.exp_().sum(1, dtype=torch.float64).log()
        found = (own - logs[at]).float(), (follows - logs).float(), likeliest
    return tuple(part.cpu().numpy() for part in found)
