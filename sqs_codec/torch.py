"""The codec on PyTorch tensors (the extra ``[torch]``).

Four functions mirror the core's: `quantize` and `encode_logits` take a batch of
logits on any device, `to_dense` makes whole rows for models and metrics, and
`verify` takes the target's logits. What crosses between an accelerator and the
host is a few tokens per row, never a batch of whole rows.

The device must compute in float64. Apple's MPS does not, so its tensors are
copied to the CPU first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    import torch
except ModuleNotFoundError as error:
    raise ImportError(
        "sqs_codec.torch needs PyTorch: pip install 'sqs-codec[torch]'"
    ) from error

from sqs_codec import _checks as checks
from sqs_codec._backend import frozen
from sqs_codec._codec import Codec
from sqs_codec._distribution import (
    Round,
    SparseDistribution,
    as_arrays,
    as_distribution,
)
from sqs_codec._engine import Engine
from sqs_codec._keep import Keep, TopK, count_kept, rule
from sqs_codec._verify import Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["encode_logits", "quantize", "to_dense", "verify"]

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


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
        Which tokens to keep. The same state serves all rows and isn't changed.
    temperature : float
        At 0 the most probable token gets all counts.

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
    rows, shape = _rows(codec, logits)
    temperature = checks.temperature(temperature)
    rule(keep)  # says what is wrong with it
    if _is_on_host(rows):
        found = codec._engine.quantize_rows(_array(rows), shape, keep, temperature, 1)
    else:
        found = _quantize_on_device(codec, rows, shape, keep, temperature)
    return _nest(iter(found), shape)


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
    rows, shape = _rows(codec, logits)
    temperature = checks.temperature(temperature)
    rule(keep)  # says what is wrong with it
    if _is_on_host(rows):
        found = codec._engine.encode_rows(_array(rows), shape, keep, temperature, 1)
    else:
        drafts = _quantize_on_device(codec, rows, shape, keep, temperature)
        found = [codec.encode(q) for q in drafts]
    return _nest(iter(found), shape)


def _rows(codec: Codec, logits: torch.Tensor) -> tuple[torch.Tensor, Sequence[int]]:
    """Return logits as rows [B, V], and the shape that these had."""
    values = _values("logits", logits)
    if values.ndim == 0 or values.shape[-1] != codec.vocab_size:
        raise ValueError(
            f"logits must have shape [..., {codec.vocab_size}], "
            f"got {list(values.shape)}"
        )
    shape = values.shape[:-1]
    return values.reshape(shape.numel(), codec.vocab_size), shape


def _is_on_host(rows: torch.Tensor) -> bool:
    return rows.device.type == "cpu"


def _array(rows: torch.Tensor) -> NDArray[Any]:
    """Return rows as cores take them, without a copy if they can be seen so."""
    if rows.dtype == torch.bfloat16:  # numpy lacks it, and cores take it so
        return checks.contiguous_rows(rows.view(torch.int16).numpy().view(np.uint16))
    return checks.contiguous_rows(rows.numpy())


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
    logits, token_ids, kept, dropped = _select(rows, keep, temperature)
    places = kept.nonzero(as_tuple=True)
    # Everything fits float64 exactly, so that it can move at once.
    moved = torch.cat(
        [
            rows.amax(-1).double(),  # NaN if one is, wherever a device sorts that
            dropped,
            kept.sum(-1).double(),
            token_ids[places].double(),
            logits[places].double(),
        ]
    )
    heads, tails = np.split(moved.cpu().numpy(), [3 * len(rows)])
    maxima, masses, sizes = heads.reshape(3, -1)
    _check_maxima("logits", maxima, shape)
    width = max([2, *sizes.astype(int)])
    narrow = Engine(width, codec.resolution, codec.coding, None)
    ends = np.cumsum(sizes).astype(int)
    distributions = []
    for chosen, mass in zip(
        np.split(tails.reshape(2, -1), ends, axis=1),
        masses.tolist(),
        strict=False,  # an empty part follows the last row's
    ):
        ids, values = chosen[:, chosen[0].argsort()]
        row = np.full(width, -np.inf)
        row[: ids.size] = values
        q = narrow.quantize(row, TopK(width), temperature, mass=False)
        distributions.append(
            as_distribution(
                frozen(ids.astype(np.uint32)[q.token_ids]),
                q.counts,
                codec.vocab_size,
                codec.resolution,
                mass,
            )
        )
    return distributions


def _select(
    rows: torch.Tensor, keep: Keep, temperature: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return rows in descending order, their tokens, which are kept, dropped masses.

    The sort is stable, so that equal logits are in the order of their ids.
    """
    logits, token_ids = rows.sort(dim=-1, descending=True, stable=True)
    unnormalised = _unnormalised(logits, temperature)
    unmasked = (logits > -torch.inf).sum(-1)
    kind, value = rule(keep if temperature else TopK(1))
    count = count_kept(kind, value, unnormalised, unmasked)
    ranks = torch.arange(rows.shape[-1], device=rows.device)
    kept = ranks < count[:, None]
    dropped = unnormalised.masked_fill(kept, 0).sum(-1) / unnormalised.sum(-1)
    return logits, token_ids, kept, dropped


def _unnormalised(rows: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return softmax(rows / temperature) up to a factor: the largest is 1.

    In float64. At temperature 0 the first of the largest has all of it.
    """
    if temperature == 0:
        unnormalised = torch.zeros_like(rows, dtype=torch.float64)
        return unnormalised.scatter_(-1, rows.argmax(-1, keepdim=True), 1)
    scale = min(1 / temperature, sys.float_info.max)  # so that 0 * scale is 0
    x = rows.double()
    return ((x - x.amax(-1, keepdim=True)) * scale).exp()


def to_dense(
    distributions: SparseDistribution | list[Any] | tuple[Any, ...],
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return the probabilities of the whole vocabulary.

    Only the supports move to the device; they are spread out there.

    Parameters
    ----------
    distributions : SparseDistribution, or nested lists or tuples of them
        Of one vocabulary; lists of one depth have one length. What
        `quantize` returns is of this form, and so is ``round_.distributions``.
    device : torch.device or str, optional
        Torch's default device if None.
    dtype : torch.dtype
        A floating-point one.

    Returns
    -------
    torch.Tensor [..., vocab_size]

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
    if not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating-point one, got {dtype}")
    shape, flat = _flatten(distributions)
    vocab_size = flat[0].vocab_size
    if any(q.vocab_size != vocab_size for q in flat):
        sizes = sorted({q.vocab_size for q in flat})
        raise ValueError(f"distributions must share one vocabulary, got {sizes}")
    starts = np.arange(len(flat), dtype=np.int64) * vocab_size
    places = np.concatenate(
        [start + q.token_ids for start, q in zip(starts, flat, strict=True)]
    )
    probs = np.concatenate([q.probs for q in flat])
    dense = torch.zeros(len(flat) * vocab_size, dtype=dtype, device=device)
    dense.scatter_(
        0,
        torch.from_numpy(places).to(dense.device),
        torch.from_numpy(probs).to(dtype).to(dense.device),
    )
    return dense.reshape(*shape, vocab_size)


def verify(
    round_: Round,
    target_logits: torch.Tensor,
    *,
    temperature: float,
    generator: torch.Generator | None = None,
) -> Verdict:
    """Accept a prefix of the drafted tokens and draw the next token.

    The test and the residual are those of `sqs_codec.verify`, on
    ``softmax(target_logits / temperature)`` in float64, so the text is
    distributed as the target's at this temperature. From an accelerator come
    first the drafted tokens' probabilities, then the one row from which the
    next token is drawn: two waits for the device, and a third if the generator
    is on one.

    Parameters
    ----------
    round_ : Round
        L drafted tokens with their distributions.
    target_logits : torch.Tensor of float16, bfloat16, float32 or float64 \
[L+1, vocab_size]
        Row i holds the target's for the position of token i; the last row those
        for the position after them all. On any device, contiguous or not;
        gradients are ignored. ``-inf`` is probability 0.
    temperature : float
        The target's; at 0 it has its most probable token and nothing else.
    generator : torch.Generator, optional
        Asked once for L+1 float64, on its own device. Number i decides about
        drafted token i, and the number after the last one used draws the next
        token. The rest go unused, so that a round takes the same from the
        generator whatever its outcome. If None, the CPU's default generator,
        which `torch.manual_seed` seeds.

    Returns
    -------
    Verdict

    Raises
    ------
    ValueError
        If the shape doesn't fit, or a row holds NaN or +inf or nothing but
        -inf; it names the row.
    TypeError
        If `target_logits` isn't a tensor of one of the dtypes above, or `generator`
        is no `torch.Generator`.

    Examples
    --------
    >>> import torch
    >>> from sqs_codec import Round, SparseDistribution
    >>> q = SparseDistribution([0, 2], [3, 1], vocab_size=3)
    >>> logits = torch.tensor([[2.0, 0.0, 3.0], [0.0, 5.0, 1.0]])
    >>> verify(Round([q], [2]), logits, temperature=0)
    Verdict(accepted=1, token=1)
    >>> seeded = torch.Generator().manual_seed(0)
    >>> verify(Round([q], [0]), logits, temperature=1.0, generator=seeded)
    Verdict(accepted=0, token=2)
    """
    checks.instance("round_", round_, Round, "a Round")
    if generator is not None:
        checks.instance("generator", generator, torch.Generator, "a torch.Generator")
    rows = _values("target_logits", target_logits)
    length = len(round_)
    expected = (length + 1, round_.distributions[0].vocab_size)
    if rows.shape != expected:
        raise ValueError(
            f"target_logits must have shape {list(expected)} (a row for each drafted "
            f"token and one for the token after), got {list(rows.shape)}"
        )
    unnormalised = _unnormalised(rows, checks.temperature(temperature))
    drafted = torch.tensor(round_.tokens, device=rows.device)
    moved = torch.cat(
        [
            rows.amax(-1).double(),
            unnormalised.sum(-1),
            unnormalised[:-1].gather(-1, drafted[:, None]).flatten(),
        ]
    )
    maxima, totals, weights = np.split(
        moved.cpu().numpy(), [length + 1, 2 * length + 2]
    )
    _check_maxima("target_logits", maxima, (length + 1,))
    uniforms = _uniforms(length + 1, generator)
    *_, positions = as_arrays(round_)
    accepted = 0
    while accepted < length and _accepts(
        round_.distributions[accepted],
        int(positions[accepted]),
        weights[accepted],
        totals[accepted],
        uniforms[accepted],
    ):
        accepted += 1
    row = unnormalised[accepted].cpu().numpy()
    if accepted < length:
        row = _residual(row, totals[accepted], round_.distributions[accepted])
    # A rejected token's number is spent; the next token takes the one after.
    return Verdict(accepted, _draw(row, uniforms[min(accepted + 1, length)]))


def _accepts(
    q: SparseDistribution, position: int, p: float, total: float, u: float
) -> bool:
    """Say whether a drafted token is accepted, with probability min(1, p / q).

    `p` is its target probability in a row that sums to `total`, `u` a draw
    from [0, 1).
    """
    return u * int(q.counts[position]) * total < p * q.resolution


def _residual(
    row: NDArray[np.float64], total: float, q: SparseDistribution
) -> NDArray[np.float64]:
    """Return max(0, p - q) up to a factor; p itself where that rounds to zero.

    A rejection means that q exceeds p at one token, so p exceeds q at another. If
    the two are nearly the same, though, rounding may hide that.
    """
    weights = row.copy()
    rest = weights[q.token_ids] - q.probs * total
    weights[q.token_ids] = np.maximum(rest, 0)
    return weights if weights.any() else row


def _draw(weights: NDArray[np.float64], u: float) -> int:
    """Draw an index in proportion to weights, some of which are positive."""
    cumulative = np.cumsum(weights)
    index = int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))
    if index < weights.size:
        return index
    return int(np.flatnonzero(weights)[-1])  # u * sum rounded up to the sum


def _uniforms(n: int, generator: torch.Generator | None) -> list[float]:
    """Draw n numbers from [0, 1)."""
    drawn: list[float] = torch.rand(
        n,
        dtype=torch.float64,
        generator=generator,
        device="cpu" if generator is None else generator.device,
    ).tolist()
    return drawn


def _values(name: str, logits: torch.Tensor) -> torch.Tensor:
    """Return logits without gradients, where float64 can be computed with."""
    if not isinstance(logits, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(logits).__name__}")
    if logits.dtype not in DTYPES:
        raise TypeError(
            f"{name} must be float16, bfloat16, float32 or float64, got {logits.dtype}"
        )
    values = logits.detach().resolve_neg()
    return values.cpu() if values.device.type == "mps" else values


def _check_maxima(
    name: str, maxima: NDArray[np.floating], shape: Sequence[int]
) -> None:
    """Find the first bad row by its largest value, which is NaN if one is."""
    bad = np.flatnonzero(~np.isfinite(maxima))
    if bad.size == 0:
        return
    index = [int(i) for i in np.unravel_index(bad[0], shape)] if shape else ""
    largest = maxima[bad[0]]
    if largest == -np.inf:
        raise ValueError(f"{name}{index}: every token is masked (-inf)")
    raise ValueError(f"{name}{index}: holds {largest}; values must be finite or -inf")


def _nest(flat: Iterator[Any], shape: Sequence[int]) -> Any:
    if not shape:
        return next(flat)
    return [_nest(flat, shape[1:]) for _ in range(shape[0])]


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
