"""Conversion of logits to distributions, and of distributions to dense rows."""

from collections.abc import Sequence

import numpy as np
import torch

from sqs_codec._backend import frozen, rounder
from sqs_codec._base import checks
from sqs_codec._codec.codec import Codec, row_name
from sqs_codec._codec.distribution import SparseDistribution, as_distribution
from sqs_codec._codec.keep import Keep, count_kept, limits_of
from sqs_codec._codec.rows import SparseRows, as_rows
from sqs_codec._codec.sampling import Sampling
from sqs_codec.torch import _tensors
from sqs_codec.torch._tensors import is_on_host


def quantize(
    codec: Codec,
    logits: torch.Tensor,
    keep: Keep,
    *,
    temperature: float = 1.0,
    dropped_mass: bool = False,
) -> SparseDistribution:
    """Sparsify and quantize ``softmax(logits / temperature)``.

    `quantize_rows` for one row [vocab_size], with the `dropped_mass` as in
    `Codec.quantize`.

    Examples
    --------
    >>> from sqs_codec import Codec, TopK
    >>> q = quantize(Codec(5, resolution=10), torch.tensor([0, 3, 2, 0, 0.0]), TopK(2))
    >>> q.token_ids, q.counts
    (array([1, 2], dtype=uint32), array([7, 3], dtype=uint32))
    """
    return quantize_row(codec, logits, keep, temperature, dropped_mass)


def quantize_rows(
    codec: Codec, logits: torch.Tensor, keep: Keep, *, temperature: float = 1.0
) -> SparseRows:
    """Sparsify and quantize ``softmax(logits / temperature)``, row by row.

    A tensor on the CPU isn't copied if its rows are contiguous with a fixed stride. On
    an accelerator, the device selects the tokens, and only those move to the host. For
    any batch this waits for the device twice: for the number of tokens and for the
    tokens.

    With `TopK`, tokens and counts are bit-exact on every device. The other rules
    compare sums of exponentials, which devices round differently: a token within
    rounding error of the limit may be kept on one device only. The output distribution
    stays exact, because the token is sampled from the distribution that is sent. The
    `dropped_mass` of `quantize` agrees to about 1e-6.

    Parameters
    ----------
    codec, keep, temperature
        As for `Codec.quantize_rows`, with its errors.
    logits : torch.Tensor of float16, bfloat16, float32 or float64 [..., vocab_size]
        On any device, contiguous or not; gradients are ignored. ``-inf`` masks
        a token. Leading dimensions are flattened.

    Examples
    --------
    >>> from sqs_codec import Codec, TopK
    >>> codec = Codec(vocab_size=5, resolution=10)
    >>> logits = torch.tensor([[0, 3, 2, 0, 0], [1, 0, 0, 1, 1]]).bfloat16()
    >>> for q in quantize_rows(codec, logits, TopK(2)):
    ...     print(q.token_ids, q.counts)
    [1 2] [7 3]
    [0 3] [5 5]
    """
    rows, shape = rows_of(codec, logits)
    if is_on_host(rows):
        ready = checks.Rows(_tensors.as_array(rows), shape)
        return codec.quantize_rows(ready, keep, temperature=temperature)
    return _quantize_on_device(codec, rows, shape, limits_of(keep), temperature)[0]


def quantize_row(
    codec: Codec,
    logits: torch.Tensor,
    keep: Keep,
    temperature: float,
    mass: bool = False,
    sampling: Sampling | None = None,
    state: float | None = None,
) -> SparseDistribution:
    """`Codec._quantize` for tensors; `Drafter` calls it."""
    row = row_of(codec, logits)
    if sampling is not None:
        row = _tensors.truncated(row[None], [sampling])[0]
    if is_on_host(row):
        ready = checks.Rows(_tensors.as_array(row[None])[0], ())
        return codec._quantize(ready, keep, temperature, mass, state=state)
    limits = limits_of(keep, state)
    found, masses = _quantize_on_device(codec, row[None], (), limits, temperature)
    dropped = masses[0] if mass or keep._learns else None
    shape = codec.vocab_size, codec.resolution
    return as_distribution(found.token_ids, found.counts, *shape, dropped)


def row_of(codec: Codec, logits: torch.Tensor) -> torch.Tensor:
    checks.instance("codec", codec, Codec, "a Codec")
    row = _tensors.detached("logits", logits)
    if row.shape != (codec.vocab_size,):
        raise ValueError(
            f"logits must have shape [{codec.vocab_size}], got {list(row.shape)}"
        )
    return row


def rows_of(codec: Codec, logits: torch.Tensor) -> tuple[torch.Tensor, Sequence[int]]:
    """Return logits as rows [B, V], and their leading dimensions."""
    checks.instance("codec", codec, Codec, "a Codec")
    values = _tensors.detached("logits", logits)
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
    limits: tuple[int, float],
    temperature: float,
) -> tuple[SparseRows, list[float]]:
    """Select tokens on the device and round them with the core; also return masses."""
    temperature = checks.temperature(temperature)
    kept, dropped = _select(rows, limits, temperature)
    places = kept.nonzero(as_tuple=True)
    floats = torch.cat([rows.amax(-1).double(), dropped, rows[places].double()])
    # One transfer moves everything, floats as their bits.
    moved = torch.cat([kept.sum(-1), places[1], floats.view(torch.int64)])
    n, m = len(rows), len(places[0])
    sizes, ids, bits = np.split(moved.cpu().numpy(), [n, n + m])
    maxima, masses, values = np.split(bits.view(np.float64), [n, 2 * n])
    _tensors.check_maxima(rows, maxima, lambda row: row_name(row, shape))
    width = 1 << max(1, int(sizes.max(initial=0) - 1).bit_length())
    filled = np.arange(width) < sizes[:, None]
    padded, all_ids = np.full(filled.shape, -np.inf), np.zeros(filled.shape, np.uint32)
    padded[filled], all_ids[filled] = values, ids
    core = rounder(width, codec.resolution)
    _, _, at, counts, sizes = core.quantize_rows(padded, temperature, (width, 0.0))
    ids = frozen(all_ids[np.repeat(np.arange(n), sizes), at])
    found = as_rows(ids, counts, sizes, codec.vocab_size, codec.resolution)
    return found, masses.tolist()


def _select(
    rows: torch.Tensor, limits: tuple[int, float], temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a mask of the kept tokens (ties by id), and the dropped masses."""
    logits, token_ids = rows.sort(dim=-1, descending=True, stable=True)
    scale = _tensors.scale_of(temperature, torch.float64)
    unnormalized = _tensors.exponentials(logits, scale, torch.float64)
    if temperature == 0:
        unnormalized[:, 1:] = 0
    unmasked = (logits > -torch.inf).sum(-1)
    most, least = limits if temperature else (1, 0.0)
    count = count_kept(most, least, unnormalized, unmasked)
    ranks = torch.arange(rows.shape[-1], device=rows.device)
    kept = ranks < count[:, None]
    dropped = unnormalized.masked_fill(kept, 0).sum(-1) / unnormalized.sum(-1)
    return torch.empty_like(kept).scatter_(-1, token_ids, kept), dropped


def to_dense(
    distributions: SparseDistribution | Sequence[SparseDistribution],
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return dense probabilities on a device.

    The shape is [vocab_size] for one distribution, [N, vocab_size] for several.

    Parameters
    ----------
    distributions : SparseDistribution, SparseRows or sequence of SparseDistribution
        From `quantize` or `quantize_rows`, or ``round_.distributions``.
    device : torch.device or str, optional
        Torch's default device if None. Only the supports move to it.
    dtype : torch.dtype
        A floating-point one.

    Examples
    --------
    >>> from sqs_codec import SparseDistribution
    >>> to_dense([SparseDistribution([0, 2], [3, 1], vocab_size=3)])
    tensor([[0.7500, 0.0000, 0.2500]])
    """
    checks.instance("dtype", dtype, torch.dtype, "a torch.dtype")
    if not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating-point one, got {dtype}")
    if isinstance(distributions, SparseDistribution):
        return to_dense([distributions], device, dtype)[0]
    rows = SparseRows.stack(distributions)
    n, vocab_size = len(rows), rows.vocab_size
    places = np.repeat(np.arange(n) * vocab_size, np.diff(rows.offsets))
    dense = torch.zeros(n * vocab_size, dtype=dtype, device=device)
    probs = torch.from_numpy(rows.counts / np.float64(rows.resolution)).to(dense)
    dense.scatter_(0, torch.from_numpy(places + rows.token_ids).to(dense.device), probs)
    return dense.reshape(n, vocab_size)
