"""The codec on PyTorch tensors (the extra ``[torch]``).

`quantize` and `encode_logits` take a batch of logits on any device, `to_dense` makes
whole rows for models and metrics, and `verify` and `verify_batch` take the target's
logits. What crosses between an accelerator and the host is a few numbers per row and
per token kept, never a whole row.

The device must compute in float64. Apple's MPS does not, so its tensors are
copied to the CPU first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

try:
    import torch
except ModuleNotFoundError as error:
    from sqs_codec._base.install import needs

    raise needs("sqs_codec.torch", error, "torch") from error

from sqs_codec._backend import frozen
from sqs_codec._base import checks
from sqs_codec._codec.calls import Calls
from sqs_codec._codec.codec import Codec
from sqs_codec._codec.distribution import SparseDistribution, as_distribution
from sqs_codec._codec.keep import Keep, TopK, count_kept, rule
from sqs_codec._codec.round import Round
from sqs_codec._codec.verify import Verdict, judge
from sqs_codec._target import (
    check_draws,
    check_rounds,
    check_shape,
    count_rows,
    row_namer,
    spans,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["encode_logits", "quantize", "to_dense", "verify", "verify_batch"]

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

LEAST_SUM = 2.0**-900
"""Of a residual, whose row has 1 as its largest value. Less is a rounding error, and
would not scale to integers."""


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
        found = codec._calls.quantize_rows(_array(rows), shape, keep, temperature, 1)
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
        found = codec._calls.encode_rows(_array(rows), shape, keep, temperature, 1)
    else:
        drafts = _quantize_on_device(codec, rows, shape, keep, temperature)
        found = [codec.encode(q) for q in drafts]
    return _nest(iter(found), shape)


def quantize_row(
    codec: Codec, logits: torch.Tensor, keep: Keep, temperature: float, *, mass: bool
) -> SparseDistribution:
    """Return `quantize` of one row, maybe without dropped mass. For `Drafter`."""
    values = _values("logits", logits)
    if values.shape != (codec.vocab_size,):
        raise ValueError(
            f"logits must have shape [{codec.vocab_size}], got {list(values.shape)}"
        )
    if _is_on_host(values) and values.dtype != torch.bfloat16:  # which numpy lacks
        return codec._calls.quantize(values.numpy(), keep, temperature, mass=mass)
    q: SparseDistribution = quantize(codec, values, keep, temperature=temperature)
    return q


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
    _check_maxima(maxima, lambda row: _name_row(row, shape))
    width = max([2, *sizes.astype(int)])
    narrow = Calls(width, codec.resolution, codec.coding, None)
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


def _name_row(row: int, shape: Sequence[int]) -> str:
    """Return what errors call a row of logits that had other dimensions."""
    index = [int(i) for i in np.unravel_index(row, shape)] if shape else ""
    return f"logits{index}"


def _select(
    rows: torch.Tensor, keep: Keep, temperature: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return rows in descending order, their tokens, which are kept, dropped masses.

    The sort is stable, so that equal logits are in the order of their ids.
    """
    logits, token_ids = rows.sort(dim=-1, descending=True, stable=True)
    scale = _scale(temperature, torch.float64)
    unnormalised = _unnormalised(logits, scale, torch.float64)
    if temperature == 0:
        unnormalised[:, 1:] = 0
    unmasked = (logits > -torch.inf).sum(-1)
    kind, value = rule(keep if temperature else TopK(1))
    count = count_kept(kind, value, unnormalised, unmasked)
    ranks = torch.arange(rows.shape[-1], device=rows.device)
    kept = ranks < count[:, None]
    dropped = unnormalised.masked_fill(kept, 0).sum(-1) / unnormalised.sum(-1)
    return logits, token_ids, kept, dropped


def _unnormalised(
    rows: torch.Tensor, scale: torch.Tensor | float, dtype: torch.dtype
) -> torch.Tensor:
    """Return softmax(rows * scale) up to a factor: the largest is 1."""
    x = rows.to(dtype)
    return (x - x.amax(-1, keepdim=True)).mul_(scale).exp_()


def _scale(temperature: float, dtype: torch.dtype) -> float:
    """Return 1 / temperature, where neither 0 nor -inf times it is NaN; 1 for 0."""
    limits = torch.finfo(dtype)
    return min(max(1 / (temperature or 1.0), limits.tiny), limits.max)


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
    ``softmax(target_logits / temperature)``, so the text is distributed as the
    target's at this temperature. The softmax is computed in float64 for logits in
    float64 and in float32 for all others; everything after it in float64.

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
        Asked once for L+1 float64, on its own device, for which that is one more
        wait. Number i decides about drafted token i, and the number after the last
        one used draws the next token. The rest go unused, so that a round takes the
        same from the generator whatever its outcome. If None, the CPU's default
        generator, which `torch.manual_seed` seeds.

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
    n = count_rows(round_)
    check_shape("target_logits", rows.shape, n, round_.vocab_size)
    temperatures = [checks.temperature(temperature)] * n
    draws = np.array(_uniforms(n, generator))
    (verdict,) = _verify(
        [round_], rows, draws, temperatures, lambda row: f"target_logits[{row}]"
    )
    return verdict


def verify_batch(
    rounds: Sequence[Round | None],
    target_logits: torch.Tensor,
    draws: ArrayLike,
    *,
    temperature: float | Sequence[float],
) -> list[Verdict]:
    """Verify many rounds, of any lengths, by numbers that the caller draws.

    As `sqs_codec.verify_batch`, on logits as `verify` takes them. This waits for an
    accelerator twice, whatever the number of rounds: once for the probabilities of
    the drafted tokens, once for the tokens that follow.

    Parameters
    ----------
    rounds : sequence of Round or None
        Of one vocabulary. None is a round without drafted tokens: its one number
        draws the next token from its one row.
    target_logits : torch.Tensor of float16, bfloat16, float32 or float64 \
[N, vocab_size]
        The rows of the rounds one after the other, L+1 for a round of L tokens.
    draws : array_like of float64 [N]
        A number in [0, 1) for each row, on the host, independent of those that drew
        the drafted tokens. In a round, number i decides about token i, and the
        number after the last one used draws the next token.
    temperature : float or sequence of float
        The target's for all rounds, or one for each.

    Returns
    -------
    list of Verdict
        One for each round.

    Raises
    ------
    ValueError
        If a shape or a vocabulary doesn't fit, a number is not in [0, 1), or a row
        holds NaN or +inf or nothing but -inf; it names the round and the row.
    TypeError
        If `rounds` holds something else, `target_logits` isn't a tensor of one of
        the dtypes above or `draws` isn't float64.

    Examples
    --------
    >>> import torch
    >>> from sqs_codec import Round, SparseDistribution
    >>> q = SparseDistribution([0, 2], [3, 1], vocab_size=3)
    >>> logits = torch.tensor([[2.0, 0.0, 3.0], [0.0, 5.0, 1.0], [1.0, 9.0, 0.0]])
    >>> rounds, draws = [Round([q], [2]), None], [0.5, 0.5, 0.5]
    >>> verify_batch(rounds, logits, draws, temperature=[0, 1.0])
    [Verdict(accepted=1, token=1), Verdict(accepted=0, token=1)]
    """
    vocab_size, n = check_rounds(rounds)
    rows = _values("target_logits", target_logits)
    check_shape("target_logits", rows.shape, n, vocab_size)
    numbers = check_draws(draws, n)
    temperatures = _temperatures(rounds, temperature)
    if not rounds:
        return []
    name_row = row_namer("target_logits", rounds)
    return _verify(rounds, rows, numbers, temperatures, name_row)


def _temperatures(
    rounds: Sequence[Round | None], temperature: float | Sequence[float]
) -> list[float]:
    """Return a temperature for each row of rounds."""
    if not isinstance(temperature, Sequence):
        temperature = [temperature] * len(rounds)
    if len(temperature) != len(rounds):
        raise ValueError(
            f"temperature must be one for all {len(rounds)} rounds or one for each, "
            f"got {len(temperature)}"
        )
    return [
        value
        for round_, value in zip(
            rounds, map(checks.temperature, temperature), strict=True
        )
        for _ in range(count_rows(round_))
    ]


def _verify(
    rounds: Sequence[Round | None],
    rows: torch.Tensor,
    draws: NDArray[np.float64],
    temperatures: Sequence[float],
    name_row: Callable[[int], str],
) -> list[Verdict]:
    """Verify rounds that are checked, each row at its temperature."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    scale = {t: _scale(t, dtype) for t in set(temperatures)}
    by_row = temperatures if len(scale) > 1 else [*scale]  # one serves all rows
    scales = _move([[scale[t]] for t in by_row], rows, dtype)
    greedy = [row for row, t in enumerate(temperatures) if t == 0]
    where = _verify_on_host if _is_on_host(rows) else _verify_on_device
    return where(rounds, rows, scales, greedy, draws, name_row)


def _verify_on_host(
    rounds: Sequence[Round | None],
    rows: torch.Tensor,
    scales: torch.Tensor,
    greedy: Sequence[int],
    draws: NDArray[np.float64],
    name_row: Callable[[int], str],
) -> list[Verdict]:
    """Verify rounds by the core."""
    if not greedy:
        # One contiguous tensor for all: new memory takes as long as the arithmetic.
        probs = torch.empty(rows.shape, dtype=scales.dtype, device=rows.device)
        torch.mul(rows, scales, out=probs)
        torch.softmax(probs, -1, out=probs)
        try:
            return judge(rounds, probs.numpy(), draws, name_row)
        except ValueError:  # of NaN: logits are bad, or scaling them has overflowed
            pass
    _check_maxima(rows.amax(-1).double().numpy(), name_row)
    probs = _unnormalised(rows, scales, scales.dtype).contiguous()
    probs /= probs.sum(-1, keepdim=True)
    _set_greedy(probs, rows, greedy)
    return judge(rounds, probs.numpy(), draws, name_row)


def _set_greedy(probs: torch.Tensor, rows: torch.Tensor, greedy: Sequence[int]) -> None:
    """Give the first of the largest of some rows all probability."""
    if greedy:
        index = _move(greedy, rows, torch.int64)
        probs[index] = 0
        probs[index, rows[index].argmax(-1)] = 1


def _move(values: ArrayLike, like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return numbers on the device of a tensor, without a wait for it."""
    moved = torch.tensor(values, dtype=dtype, device="cpu")
    return moved.to(like.device, non_blocking=True)


def _verify_on_device(
    rounds: Sequence[Round | None],
    rows: torch.Tensor,
    scales: torch.Tensor,
    greedy: Sequence[int],
    draws: NDArray[np.float64],
    name_row: Callable[[int], str],
) -> list[Verdict]:
    """Verify rounds where the rows are."""
    unnormalised = _unnormalised(rows, scales, scales.dtype)
    _set_greedy(unnormalised, rows, greedy)
    maxima, totals, weights = _sum_up(rounds, rows, unnormalised)
    _check_maxima(maxima, name_row)
    accepted = _count_accepted(rounds, totals, weights, draws)
    following = [
        _following(round_, span, count, totals, draws)
        for round_, span, count in zip(rounds, spans(rounds), accepted, strict=True)
    ]
    return [*map(Verdict, accepted, _draw(unnormalised, following))]


def _sum_up(
    rounds: Sequence[Round | None],
    rows: torch.Tensor,
    unnormalised: torch.Tensor,
) -> list[NDArray[np.float64]]:
    """Move what acceptance depends on to the host.

    The largest logit of each row, which is NaN if one is, the sums of the rows, and
    what these have for each drafted token.
    """
    drafted = [
        (row, token)
        for round_, span in zip(rounds, spans(rounds), strict=True)
        if round_ is not None
        for row, token in enumerate(round_.tokens, span.start)
    ]
    places, tokens = _move(np.reshape(drafted, (-1, 2)).T, rows, torch.int64)
    moved = torch.cat(
        [
            rows.amax(-1).double(),
            unnormalised.sum(-1, dtype=torch.float64),
            unnormalised[places, tokens].double(),
        ]
    )
    return np.split(moved.cpu().numpy(), [len(rows), 2 * len(rows)])


def _count_accepted(
    rounds: Sequence[Round | None],
    totals: NDArray[np.float64],
    weights: NDArray[np.float64],
    draws: NDArray[np.float64],
) -> list[int]:
    """Return how many tokens of each round are accepted, with chance min(1, p / q).

    `weights` are the drafted tokens' in rows that sum to `totals`.
    """
    accepted = []
    for round_, span in zip(rounds, spans(rounds), strict=True):
        if round_ is None:
            accepted.append(0)
            continue
        size = len(round_)
        own = slice(span.start, span.start + size)
        asked = draws[own] * np.array(round_.counts, np.float64) * totals[own]
        rejected = asked >= weights[:size] * round_.resolution
        accepted.append(int(rejected.argmax()) if rejected.any() else size)
        weights = weights[size:]
    return accepted


class _Following(NamedTuple):
    """Where the token that follows is drawn from: a row less a distribution."""

    row: int
    draw: float
    token_ids: NDArray[np.uint32]
    amounts: NDArray[np.float64]


def _following(
    round_: Round | None,
    span: slice,
    accepted: int,
    totals: NDArray[np.float64],
    draws: NDArray[np.float64],
) -> _Following:
    """Return what the next token of a round is drawn from."""
    row = span.start + accepted
    if round_ is None or accepted == len(round_):
        return _Following(row, draws[row], np.empty(0, np.uint32), np.empty(0))
    q = round_.distributions[accepted]
    # The rejected token's number is spent; the next token takes the one after.
    return _Following(row, draws[row + 1], q.token_ids, q.probs * totals[row])


def _draw(unnormalised: torch.Tensor, following: Sequence[_Following]) -> list[int]:
    """Draw a token from each row less its distribution, where that is above 0.

    A rejection means that q exceeds p at one token, so p exceeds q at another. If
    the two are nearly the same, though, rounding may hide that; p serves as well
    then. Sums are of integers: these don't depend on the order, which a device is
    free to choose.
    """
    rows, draws, token_ids, amounts = zip(*following, strict=True)
    owners = np.repeat(np.arange(len(rows)), [*map(len, token_ids)])
    owner = _move(owners, unnormalised, torch.int64)
    taken_at = owner, _move(np.concatenate(token_ids), unnormalised, torch.int64)
    weights = unnormalised[_move(rows, unnormalised, torch.int64)].double()
    most = _move(np.concatenate(amounts), unnormalised, torch.float64)
    taken = torch.minimum(weights[taken_at], most)
    weights[taken_at] -= taken
    weights[taken_at] += taken * (weights.sum(-1) < LEAST_SUM)[owner]
    sums = (weights * (2.0**62 / weights.sum(-1, keepdim=True))).long().cumsum(-1)
    totals = sums[:, -1:]
    goals = _move(draws, unnormalised, torch.float64)[:, None] * totals.double()
    goals = torch.minimum(goals.long(), totals - 1)
    found = torch.searchsorted(sums, goals, right=True).flatten()
    tokens: list[int] = found.cpu().tolist()
    return tokens


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


def _check_maxima(maxima: NDArray[np.floating], name_row: Callable[[int], str]) -> None:
    """Find the first bad row by its largest value, which is NaN if one is."""
    bad = np.flatnonzero(~np.isfinite(maxima))
    if bad.size == 0:
        return
    name, largest = name_row(int(bad[0])), maxima[bad[0]]
    if largest == -np.inf:
        raise ValueError(f"{name}: every token is masked (-inf)")
    raise ValueError(f"{name}: holds {largest}; values must be finite or -inf")


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
