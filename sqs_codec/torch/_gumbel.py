"""Verification with shared random numbers on tensors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sqs_codec._base import checks
from sqs_codec._base.exp2 import LOG2_E
from sqs_codec._codec import gumbel
from sqs_codec._codec.sampling import Sampling, checked
from sqs_codec._codec.target import check_shape
from sqs_codec._codec.verify import Verdict
from sqs_codec.torch import _tensors
from sqs_codec.torch._tensors import is_on_host

BLOCK = 64
"""Tokens per block; a block's smallest number is computed first."""

OPENED = 64
"""Blocks whose numbers are all computed. The rare rows that need more blocks are
computed again with all of them."""

MARGIN = 1 - 1e-12
"""A factor for the bounds of blocks that allows for the rounding of exp2."""

LN_2 = 0.6931471805599453
LOW = 0xFFFFFFFF


def gumbel_verify(
    drafted: Sequence[int],
    logits: torch.Tensor,
    key: bytes,
    position: int,
    *,
    sampling: Sampling | None = None,
) -> Verdict:
    """Accept the drafted tokens that the target samples itself; return its next one.

    `sqs_codec.gumbel_verify` for tensors, as `gumbel_verify_rounds` takes them.

    Examples
    --------
    >>> rows = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    >>> gumbel_verify([0], rows, bytes(16), 0)
    Verdict(accepted=1, token=0)
    """
    names = "drafted", "key", "position"
    own = checked(sampling)
    return _verify(names, [drafted], logits, [key], [position], own)[0]


def gumbel_verify_rounds(
    drafted: Sequence[Sequence[int]],
    logits: torch.Tensor,
    keys: Sequence[bytes],
    positions: Sequence[int],
    *,
    sampling: Sampling | Sequence[Sampling] | None = None,
) -> list[Verdict]:
    """Verify the drafts of many completions, each with its own key.

    Verdicts and errors are those of `sqs_codec.gumbel_verify`, to the bit, on any
    device; errors name the row. For any number of completions, this waits for an
    accelerator once, rarely twice, and once more for each different sampling that
    truncates without `top_k`.

    Parameters
    ----------
    drafted : sequence of sequences of int
        Token ids, at most 256 per completion.
    logits : torch.Tensor of float16, bfloat16, float32 or float64 [N, V]
        The concatenated rows of the completions, L+1 for L drafted tokens. On any
        device, contiguous or not; gradients are ignored. ``-inf`` masks a token.
    keys : sequence of bytes [16]
        One per completion.
    positions : sequence of int
        The position of each completion's first drafted token, in [0, 2**64).
    sampling : Sampling or sequence of Sampling, optional
        One for all completions, or one per completion.

    Examples
    --------
    >>> rows = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
    >>> gumbel_verify_rounds([[0], []], rows, [bytes(16)] * 2, [0, 5])
    [Verdict(accepted=1, token=0), Verdict(accepted=0, token=2)]
    """
    names = "drafted[{}]", "keys[{}]", "positions[{}]"
    return _verify(names, drafted, logits, keys, positions, sampling)


class _Place(NamedTuple):
    key: NDArray[np.uint32]
    position: int
    temperature: float


def _verify(
    names: Sequence[str],
    drafted: Sequence[Sequence[int]],
    logits: torch.Tensor,
    keys: Sequence[bytes],
    positions: Sequence[int],
    sampling: Sampling | Sequence[Sampling] | None,
) -> list[Verdict]:
    drafts = [checks.integers(names[0].format(i), one) for i, one in enumerate(drafted)]
    counts = [len(draft) + 1 for draft in drafts]
    rows = _tensors.detached("logits", logits)
    check_shape("logits", rows.shape, sum(counts), None)
    for name, values in ("keys", keys), ("positions", positions):
        if len(values) != len(counts):
            raise ValueError(
                f"{name} must be one for each of {len(counts)} texts, got {len(values)}"
            )
    samplings = _tensors.of_rows(counts, sampling, "sampling", checked)
    left, places = iter(samplings), list[_Place]()
    for i, (draft, count) in enumerate(zip(drafts, counts, strict=True)):
        of_draft, of_key, of_position = (name.format(i) for name in names)
        gumbel.check_draft(of_draft, draft, rows.shape[1])
        key = gumbel.check_key(of_key, keys[i])
        first = gumbel.check_position(of_position, positions[i], count)
        each = enumerate(islice(left, count), first)
        places += [_Place(key, at, own.temperature) for at, own in each]
    if not drafts:
        return []
    draw = _draw_on_host if is_on_host(rows) else _draw_on_device
    drawn = iter(draw(_tensors.truncated(rows, samplings), places))
    pairs = zip(drafts, counts, strict=True)
    return [gumbel.settle(draft, [*islice(drawn, n)]) for draft, n in pairs]


def _draw_on_host(rows: torch.Tensor, places: Sequence[_Place]) -> list[int]:
    drawn: list[int] = []

    def name_row(_: int) -> str:
        return f"logits[{len(drawn)}]"

    array = _tensors.as_array(rows)
    checks.no_probabilities(array[0])
    for place, row in zip(places, array, strict=True):
        decided = place.temperature, place.key, place.position
        ((best, _),) = gumbel.race(row[None], *decided, 1, name_row)
        drawn += best
    return drawn


# The rest repeats the core's operations in float64 and int64; see docs/theory.md.


def _draw_on_device(rows: torch.Tensor, places: Sequence[_Place]) -> list[int]:
    tokens, sure, maxima = _race(rows, places, OPENED)
    moved = torch.stack([tokens.double(), sure.double(), maxima]).cpu().numpy()
    _tensors.check_maxima(rows, moved[2], "logits[{}]".format)
    drawn: list[int] = moved[0].astype(int).tolist()
    again: list[int] = np.flatnonzero(moved[1] == 0).tolist()
    if again:
        index = torch.tensor(again).to(rows.device)
        tokens, *_ = _race(rows[index], [places[i] for i in again], rows.shape[1])
        for i, token in zip(again, tokens.tolist(), strict=True):
            drawn[i] = token
    return drawn


def _race(
    rows: torch.Tensor, places: Sequence[_Place], opened: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return each row's winner in `opened` blocks, if it is sure, and largest logit."""
    maxima = _block_maxima(rows)
    blocks = maxima.shape[1]
    top = maxima.amax(1, keepdim=True)
    scale, greedy, generators = _columns(places, rows.device)
    block = torch.arange(blocks, device=rows.device)
    high, low = _words(generators, (0, 2), block[None])
    least, place = _exponential(high, low // BLOCK, 26) / BLOCK, low % BLOCK
    bounds = _scores(least, (maxima - top) * scale)
    count = min(opened, blocks)
    use = bounds.topk(count, dim=1, largest=False).indices.sort(1).values
    left = bounds.scatter(1, use, torch.inf).amin(1)
    # Tokens of these blocks, in ascending order.
    inside = torch.arange(BLOCK, device=rows.device)
    ids = (use[:, :, None] * BLOCK + inside).flatten(1)
    high, low = _words(generators, (1, 3), ids)
    first = least.gather(1, use).repeat_interleave(BLOCK, 1)
    is_first = (inside == place.gather(1, use)[:, :, None]).flatten(1)
    numbers = torch.where(is_first, first, first + _exponential(high, low, 32))
    logits = rows.gather(1, ids.clamp(max=rows.shape[1] - 1)).double()
    logits = logits.masked_fill(ids >= rows.shape[1], -torch.inf)
    score, at = _scores(numbers, (logits - top) * scale).min(1)
    won = ids.gather(1, at[:, None])[:, 0]
    tokens = torch.where(greedy, rows.argmax(1), won)
    return tokens, greedy | (score <= left * MARGIN), top[:, 0]


def _block_maxima(rows: torch.Tensor) -> torch.Tensor:
    """Return the largest logits of blocks of 64 tokens, as float64."""
    whole = rows.shape[1] // BLOCK
    maxima = rows[:, : whole * BLOCK].reshape(len(rows), whole, BLOCK).amax(2)
    if rows.shape[1] % BLOCK:
        rest = rows[:, whole * BLOCK :].amax(1, keepdim=True)
        maxima = torch.cat([maxima, rest], 1)
    return maxima.double()


def _columns(
    places: Sequence[_Place], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Return 1/T [N, 1], whether T counts as 0 [N], and each row's words [N, 1]."""
    greedy = [place.temperature < gumbel.LEAST_TEMPERATURE for place in places]
    scale = [
        [LOG2_E / (1.0 if cold else place.temperature)]
        for place, cold in zip(places, greedy, strict=True)
    ]
    words = [
        (place.position & LOW, place.position >> 32, *place.key.tolist())
        for place in places
    ]
    columns = torch.from_numpy(np.array(words, np.int64).T[:, :, None])
    at, above, k0, k1, k2, k3 = columns
    r0, r1, r2, r3 = _philox((at, above, k2, k3), k0, k1)
    generators = torch.stack([r0, r1, r2, r3]).to(device, non_blocking=True)
    return (
        torch.tensor(scale, dtype=torch.float64).to(device, non_blocking=True),
        torch.tensor(greedy).to(device, non_blocking=True),
        [*generators],
    )


def _philox(
    counter: Sequence[torch.Tensor], k0: torch.Tensor, k1: torch.Tensor
) -> list[torch.Tensor]:
    """Return the four words of Philox4x32-10; products wrap modulo 2**64."""
    c0, c1, c2, c3 = counter
    for _ in range(10):
        p, q = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1 = (q >> 32 & LOW) ^ c1 ^ k0, q & LOW
        c2, c3 = (p >> 32 & LOW) ^ c3 ^ k1, p & LOW
        k0, k1 = k0 + 0x9E3779B9 & LOW, k1 + 0xBB67AE85 & LOW
    return [c0, c1, c2, c3]


def _words(
    generators: Sequence[torch.Tensor], streams: tuple[int, int], k: torch.Tensor
) -> list[torch.Tensor]:
    """Return words k [N, n] of two streams of each row."""
    k0, k1, r2, r3 = generators
    stream = torch.tensor(streams).to(k.device, non_blocking=True)[:, None, None]
    call = k // 64 * 16 + k % 16
    w0, w1, w2, w3 = _philox((call, stream, r2, r3), k0, k1)
    which = k // 16 % 4
    words = torch.where(
        which < 2, torch.where(which == 0, w0, w1), torch.where(which == 2, w2, w3)
    )
    return [*words]


def _exponential(high: torch.Tensor, low: torch.Tensor, bits: int) -> torch.Tensor:
    """Return -ln(1 - v), where v has 32 high bits and `bits` low ones."""
    unit = 2.0 ** (-32 - bits)  # int64 * float would be float32
    v = high.double() * 2.0**-32 + (low.double() + 0.5) * unit
    u = (LOW - high).double() * 2.0**-32 + ((2**bits - 1 - low).double() + 0.5) * unit
    return _minus_log(v, u)


def _minus_log(v: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Return -ln(1 - v) = -ln(u), as 2 artanh of the more precise argument."""
    bits = u.view(torch.int64)
    exponent = (bits + 0x95F6FD21FF2E5 >> 52) - 1023  # 0.7071 <= z < 2 * 0.7071
    z = (bits - (exponent << 52)).view(torch.float64)
    near = v < 0.25
    s = torch.where(near, v / (2 - v), (1 - z) / (1 + z))
    k = exponent.masked_fill(near, 0).double()
    q = s * s
    p = torch.full_like(q, 1 / 21)
    for divisor in range(19, 1, -2):
        p = p * q + 1 / divisor
    return 2 * (s + s * q * p) - k * LN_2


def _scores(numbers: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Return numbers times 2**-t; inf where t < -100, or NaN."""
    return torch.where(
        t >= -100, numbers * _tensors.exp2(-t.clamp(min=-101)), torch.inf
    )
