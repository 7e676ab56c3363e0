"""From logits to distributions or packets, and from distributions to rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sqs_codec._backend import frozen
from sqs_codec._base import checks
from sqs_codec._codec.codec import Codec, row_name
from sqs_codec._codec.distribution import SparseDistribution, as_distribution
from sqs_codec._codec.keep import Keep, TopK, count_kept, rule
from sqs_codec._codec.rows import SparseRows
from sqs_codec.torch._tensors import (
    as_array,
    check_maxima,
    detached,
    exponentials,
    is_on_host,
    scale_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["encode_logits", "quantize", "quantize_row", "rows_of", "to_dense"]


def quantize(
    codec: Codec,
    logits: torch.Tensor,
    keep: Keep,
    *,
    temperature: float = 1.0,
) -> Any:
    """Sparsify and quantize ``softmax(logits / temperature)``, row by row.

    A tensor on the CPU goes to the core as it is, if it can be seen as rows of
    contiguous values a fixed distance apart; otherwise it is copied. On an
    accelerator the tokens are chosen there, and only those kept move. This waits
    for the device twice, whatever the batch: once for the number of tokens, once
    for the tokens.

    With `TopK`, the tokens and counts are the same on every device, to the bit.
    The other rules compare sums of exponentials, which devices round in their
    own ways, so a token within rounding of the rule's limit may be kept on one
    device and not on another. The output stays exact, as the token is drawn from
    the distribution that is sent. `dropped_mass` agrees to about 1e-6.

    Parameters
    ----------
    codec : Codec
    logits : torch.Tensor of float16, bfloat16, float32 or float64 [..., vocab_size]
        On any device, contiguous or not; gradients are ignored. ``-inf`` masks
        a token.
    keep : Keep
    temperature : float
        Both as for `Codec.quantize_rows`.

    Returns
    -------
    SparseDistribution, or nested lists of them
        One for a tensor [vocab_size]; otherwise lists that follow the leading
        dimensions, as `torch.Tensor.tolist` makes them.

    Raises
    ------
    ValueError
        If the last dimension isn't the codec's vocabulary, or a row holds NaN
        or +inf or nothing but -inf; it names the row.
    TypeError
        If `logits` isn't a tensor of one of the dtypes above.

    Examples
    --------
    >>> import torch
    >>> from sqs_codec import Codec, TopK
    >>> codec = Codec(vocab_size=5, resolution=10)
    >>> logits = torch.tensor([[0, 3, 2, 0, 0], [1, 0, 0, 1, 1]]).bfloat16()
    >>> for q in quantize(codec, logits, TopK(2)):
    ...     print(q.token_ids, q.counts)
    [1 2] [7 3]
    [0 3] [5 5]
    """
    rows, shape = rows_of(codec, logits)
    if is_on_host(rows):
        found = [*codec._quantize_rows(as_array(rows), shape, keep, temperature)]
    else:
        found = _quantize_on_device(codec, rows, shape, keep, temperature)
    return _nest(found, shape)


def encode_logits(
    codec: Codec,
    logits: torch.Tensor,
    keep: Keep,
    *,
    temperature: float = 1.0,
) -> Any:
    """Return the packets of what `quantize` makes of logits, row by row.

    As `Codec.encode_logits` is to `Codec.quantize`: the same bytes in less time.
    Parameters and errors are those of `quantize` and `Codec.encode`.

    Returns
    -------
    bytes, or nested lists of them
        As `quantize` nests distributions.

    Examples
    --------
    >>> import torch
    >>> from sqs_codec import Codec, TopK
    >>> codec = Codec(vocab_size=5, resolution=10)
    >>> packet = encode_logits(codec, torch.tensor([0, 3, 2, 0, 0]).half(), TopK(2))
    >>> codec.decode(packet).counts
    array([7, 3], dtype=uint32)
    """
    rows, shape = rows_of(codec, logits)
    if is_on_host(rows):
        found = codec._encode_rows(as_array(rows), shape, keep, temperature)
    else:
        drafts = _quantize_on_device(codec, rows, shape, keep, temperature)
        found = [codec.encode(q) for q in drafts]
    return _nest(found, shape)


def quantize_row(
    codec: Codec, logits: torch.Tensor, keep: Keep, temperature: float, *, mass: bool
) -> SparseDistribution:
    """Return `quantize` of one row, maybe without dropped mass. For `Drafter`."""
    values = detached("logits", logits)
    if values.shape != (codec.vocab_size,):
        raise ValueError(
            f"logits must have shape [{codec.vocab_size}], got {list(values.shape)}"
        )
    if is_on_host(values) and values.dtype != torch.bfloat16:  # which numpy lacks
        return codec._quantize(values.numpy(), keep, temperature, mass=mass)
    q: SparseDistribution = quantize(codec, values, keep, temperature=temperature)
    return q


def rows_of(codec: Codec, logits: torch.Tensor) -> tuple[torch.Tensor, Sequence[int]]:
    """Return logits as rows [B, V], and the shape that these had."""
    values = detached("logits", logits)
    if values.ndim == 0 or values.shape[-1] != codec.vocab_size:
        raise ValueError(
            f"logits must have shape [..., {codec.vocab_size}], "
            f"got {list(values.shape)}"
        )
    shape = values.shape[:-1]
    return values.reshape(shape.numel(), codec.vocab_size), shape


def _quantize_on_device(
    codec: Codec,
    rows: torch.Tensor,
    shape: Sequence[int],
    keep: Keep,
    temperature: float,
) -> list[SparseDistribution]:
    """Choose tokens on the device of `rows` and have the core round the rest.

    The counts depend on the logits of the tokens kept alone, so the core gets
    rows of these, padded with masked tokens to one width.
    """
    temperature = checks.temperature(temperature)
    rule(keep)  # says what is wrong with it, also where it isn't asked
    kept, dropped = _select(rows, keep, temperature)
    places = kept.nonzero(as_tuple=True)
    # Everything fits float64 exactly, so that it can move at once.
    moved = torch.cat(
        [
            rows.amax(-1).double(),  # NaN if one is, wherever a device sorts that
            dropped,
            kept.sum(-1).double(),
            places[1].double(),
            rows[places].double(),
        ]
    )
    heads, tails = np.split(moved.cpu().numpy(), [3 * len(rows)])
    maxima, masses, sizes = heads.reshape(3, -1)
    check_maxima(maxima, lambda row: row_name(row, shape))
    ids, values = tails.reshape(2, -1)
    width = max([2, *sizes.astype(int)])
    padded = np.full((len(rows), width), -np.inf)
    padded[np.arange(width) < sizes[:, None]] = values
    narrow = Codec(width, codec.resolution, codec.coding)
    found = narrow.quantize_rows(padded, TopK(width), temperature=temperature)
    own = np.split(ids.astype(np.uint32), sizes.cumsum().astype(int))
    return [
        as_distribution(
            frozen(ids[q.token_ids]), q.counts, codec.vocab_size, q.resolution, mass
        )
        for q, ids, mass in zip(found, own, masses.tolist(), strict=False)
    ]  # an empty part follows the last row's ids


def _select(
    rows: torch.Tensor, keep: Keep, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which tokens of rows are kept, and the dropped masses.

    The sort is stable, so that equal logits are in the order of their ids.
    """
    logits, token_ids = rows.sort(dim=-1, descending=True, stable=True)
    scale = scale_of(temperature, torch.float64)
    unnormalised = exponentials(logits, scale, torch.float64)
    if temperature == 0:
        unnormalised[:, 1:] = 0
    unmasked = (logits > -torch.inf).sum(-1)
    kind, value = rule(keep if temperature else TopK(1))
    count = count_kept(kind, value, unnormalised, unmasked)
    ranks = torch.arange(rows.shape[-1], device=rows.device)
    kept = ranks < count[:, None]
    dropped = unnormalised.masked_fill(kept, 0).sum(-1) / unnormalised.sum(-1)
    return torch.empty_like(kept).scatter_(-1, token_ids, kept), dropped


def to_dense(
    distributions: SparseDistribution | SparseRows | list[Any] | tuple[Any, ...],
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return the probabilities of the whole vocabulary.

    Only the supports move to the device; they are spread out there.

    Parameters
    ----------
    distributions : SparseDistribution, SparseRows, or nested lists or tuples
        Lists are of distributions of one vocabulary; those of one depth have one
        length. What `quantize` returns is of this form, and so is
        ``round_.distributions``.
    device : torch.device or str, optional
        Torch's default device if None.
    dtype : torch.dtype
        A floating-point one.

    Returns
    -------
    torch.Tensor [..., vocab_size]
        A row for each distribution.

    Raises
    ------
    ValueError
        If a list is empty, their lengths don't agree, or the vocabularies
        don't.
    TypeError
        If there is something else in them, or `dtype` isn't floating point.

    Examples
    --------
    >>> from sqs_codec import SparseDistribution
    >>> to_dense([SparseDistribution([0, 2], [3, 1], vocab_size=3)])
    tensor([[0.7500, 0.0000, 0.2500]])
    """
    checks.instance("dtype", dtype, torch.dtype, "a torch.dtype")
    if not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating-point one, got {dtype}")
    shape, vocab_size, sizes, token_ids, probs = _arrays(distributions)
    starts = np.arange(len(sizes), dtype=np.int64) * vocab_size
    places = np.repeat(starts, sizes) + token_ids
    dense = torch.zeros(len(sizes) * vocab_size, dtype=dtype, device=device)
    dense.scatter_(
        0,
        torch.from_numpy(places).to(dense.device),
        torch.from_numpy(probs).to(dtype).to(dense.device),
    )
    return dense.reshape(*shape, vocab_size)


def _arrays(
    distributions: SparseDistribution | SparseRows | list[Any] | tuple[Any, ...],
) -> tuple[tuple[int, ...], int, NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return their shape, vocabulary, support sizes, and all token ids and probs."""
    if isinstance(distributions, SparseRows):
        rows = distributions
        sizes, probs = np.diff(rows.offsets), rows.counts / np.float64(rows.resolution)
        return (len(rows),), rows.vocab_size, sizes, rows.token_ids, probs
    shape, flat = _flatten(distributions)
    vocab_sizes = sorted({q.vocab_size for q in flat})
    if len(vocab_sizes) > 1:
        raise ValueError(f"distributions must share one vocabulary, got {vocab_sizes}")
    sizes = np.array([q.token_ids.size for q in flat])
    ids = np.concatenate([q.token_ids for q in flat])
    return shape, vocab_sizes[0], sizes, ids, np.concatenate([q.probs for q in flat])


def _nest(flat: Sequence[Any], shape: Sequence[int]) -> Any:
    return np.fromiter(flat, object).reshape(shape).tolist()


def _flatten(
    nested: SparseDistribution | list[Any] | tuple[Any, ...],
) -> tuple[tuple[int, ...], list[SparseDistribution]]:
    """Undo `_nest`: return the shape and the distributions in order."""
    if isinstance(nested, SparseDistribution):
        return (), [nested]
    if not isinstance(nested, (list, tuple)):
        raise TypeError(
            f"expected a SparseDistribution or lists of them, "
            f"got {type(nested).__name__}"
        )
    if not nested:
        raise ValueError("expected at least one distribution, got none")
    parts = [_flatten(part) for part in nested]
    shapes = sorted({shape for shape, _ in parts})
    if len(shapes) > 1:
        raise ValueError(f"lists must have equal lengths, got shapes {shapes}")
    return (len(parts), *shapes[0]), [q for _, flat in parts for q in flat]
