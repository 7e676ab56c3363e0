"""Verification of rounds with the target's logits as tensors."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sqs_codec._backend import backend
from sqs_codec._base import checks
from sqs_codec._codec import target
from sqs_codec._codec.round import Round
from sqs_codec._codec.verify import NO_ROUND, Verdict
from sqs_codec.torch import _tensors
from sqs_codec.torch._tensors import is_on_host

LEAST_SUM = 2.0**-900
"""The smallest sum of a residual if its row's largest value is 1. A smaller sum is a
rounding error, and can't be scaled to integers."""


def verify(
    round_: Round,
    target_logits: torch.Tensor,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Verdict:
    """Accept a prefix of the drafted tokens and sample the next token.

    `sqs_codec.verify` with ``softmax(target_logits / temperature)``: the output
    distribution is the target's at this temperature. The softmax uses float64 for
    float64 logits, else float32; the rest uses float64.

    Parameters
    ----------
    round_ : Round
        L drafted tokens with their distributions.
    target_logits : torch.Tensor of float16, bfloat16, float32 or float64 \
[L+1, vocab_size]
        On any device, contiguous or not; gradients are ignored. ``-inf`` is
        probability 0. Errors name the row that holds NaN, +inf or nothing but -inf.
    temperature : float
        The target's temperature; at 0 it chooses its most probable token.
    generator : torch.Generator, optional
        Called once for L+1 float64 on its own device, which costs one more wait; used
        as in `sqs_codec.verify`. If None, the CPU's default generator, which
        `torch.manual_seed` seeds.

    Examples
    --------
    >>> from sqs_codec import Round, SparseDistribution
    >>> q = SparseDistribution([0, 2], [3, 1], vocab_size=3)
    >>> logits = torch.tensor([[2.0, 0.0, 3.0], [0.0, 5.0, 1.0]])
    >>> verify(Round([q], [2]), logits, temperature=0)
    Verdict(accepted=1, token=1)
    >>> seeded = torch.Generator().manual_seed(0)
    >>> verify(Round([q], [0]), logits, generator=seeded)
    Verdict(accepted=0, token=2)
    """
    checks.instance("round_", round_, Round, "a Round")
    rows = _tensors.detached("target_logits", target_logits)
    n = target.count_rows(round_)
    target.check_shape("target_logits", rows.shape, n, round_.vocab_size)
    temperatures = [checks.temperature(temperature)] * n
    draws = np.array(_uniforms(n, generator))
    name_row = "target_logits[{}]".format
    return _verify([round_], rows, draws, temperatures, name_row)[0]


def verify_rounds(
    rounds: Sequence[Round | None],
    target_logits: torch.Tensor,
    draws: ArrayLike,
    *,
    temperature: float | Sequence[float] = 1.0,
) -> list[Verdict]:
    """Verify many rounds, of any lengths, with random numbers of the caller.

    `sqs_codec.verify_rounds` with logits, with the errors of `verify`, which name the
    round and the row. For any number of rounds this waits for an accelerator twice: for
    the probabilities of the drafted tokens and for the next tokens.

    Parameters
    ----------
    target_logits : torch.Tensor of float16, bfloat16, float32 or float64 \
[N, vocab_size]
        The concatenated rows of the rounds, L+1 for a round of L tokens.
    draws : array_like of float64 [N]
        On the host.
    temperature : float or sequence of float
        The target's temperature for all rounds, or one per round.

    Examples
    --------
    >>> from sqs_codec import Round, SparseDistribution
    >>> q = SparseDistribution([0, 2], [3, 1], vocab_size=3)
    >>> logits = torch.tensor([[2.0, 0.0, 3.0], [0.0, 5.0, 1.0], [1.0, 9.0, 0.0]])
    >>> rounds, draws = [Round([q], [2]), None], [0.5, 0.5, 0.5]
    >>> verify_rounds(rounds, logits, draws, temperature=[0, 1.0])
    [Verdict(accepted=1, token=1), Verdict(accepted=0, token=1)]
    """
    vocab_size, n = target.check_rounds(rounds)
    rows = _tensors.detached("target_logits", target_logits)
    target.check_shape("target_logits", rows.shape, n, vocab_size)
    numbers = target.check_draws("draws", draws, n)
    counts = [*map(target.count_rows, rounds)]
    temperatures = _tensors.of_rows(
        counts, temperature, "temperature", checks.temperature
    )
    if not rounds:
        return []
    name_row = target.row_namer("target_logits", rounds)
    return _verify(rounds, rows, numbers, temperatures, name_row)


def _verify(
    rounds: Sequence[Round | None],
    rows: torch.Tensor,
    draws: NDArray[np.float64],
    temperatures: Sequence[float],
    name_row: Callable[[int], str],
) -> list[Verdict]:
    """Verify checked rounds, each row at its temperature."""
    if is_on_host(rows) and rows.dtype != torch.float64 and backend() == "native":
        return _verify_by_core(rounds, rows, draws, temperatures, name_row)
    dtype = torch.promote_types(rows.dtype, torch.float32)
    scale = {t: _tensors.scale_of(t, dtype) for t in set(temperatures)}
    by_row = temperatures if len(scale) > 1 else [*scale]
    scales = _move([[scale[t]] for t in by_row], rows, dtype)
    greedy = [row for row, t in enumerate(temperatures) if t == 0]
    unnormalized = _tensors.exponentials(rows, scales, dtype)
    if greedy:  # the first of the largest logits gets all probability
        index = _move(greedy, rows, torch.int64)
        unnormalized[index] = 0
        unnormalized[index, rows[index].argmax(-1)] = 1
    maxima, totals, weights = _sum_up(rounds, rows, unnormalized)
    _tensors.check_maxima(rows, maxima, name_row)
    accepted = _count_accepted(rounds, totals, weights, draws)
    following = [
        _following(round_, span, count, totals, draws)
        for round_, span, count in zip(
            rounds, target.spans(rounds), accepted, strict=True
        )
    ]
    return [*map(Verdict, accepted, _draw(unnormalized, following))]


def _verify_by_core(
    rounds: Sequence[Round | None],
    rows: torch.Tensor,
    draws: NDArray[np.float64],
    temperatures: Sequence[float],
    name_row: Callable[[int], str],
) -> list[Verdict]:
    from sqs_codec._backend.native import Core  # missing without the C core

    array, verdicts = _tensors.as_array(rows), []
    checks.no_probabilities(array[0])
    for round_, span in zip(rounds, target.spans(rounds), strict=True):
        arrays = NO_ROUND if round_ is None else round_.arrays
        given = arrays, array[span], temperatures[span.start], draws[span]
        status, _, *verdict = Core.verify_logits(*given)
        if status:
            _tensors.check_maxima(rows, rows.amax(-1).double().numpy(), name_row)
            raise AssertionError(f"the C core rejected its arguments: status {status}")
        verdicts.append(Verdict(*verdict))
    return verdicts


def _move(values: ArrayLike, like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Move numbers to a tensor's device without waiting."""
    moved = torch.tensor(values, dtype=dtype, device="cpu")
    return moved.to(like.device, non_blocking=True)


def _sum_up(
    rounds: Sequence[Round | None], rows: torch.Tensor, unnormalized: torch.Tensor
) -> list[NDArray[np.float64]]:
    """Move rows' maxima and sums, and drafted tokens' values, to the host."""
    drafted = [
        (row, token)
        for round_, span in zip(rounds, target.spans(rounds), strict=True)
        if round_ is not None
        for row, token in enumerate(round_.tokens, span.start)
    ]
    places, tokens = _move(np.reshape(drafted, (-1, 2)).T, rows, torch.int64)
    maxima, totals = rows.amax(-1).double(), unnormalized.sum(-1, dtype=torch.float64)
    moved = torch.cat([maxima, totals, unnormalized[places, tokens].double()])
    return np.split(moved.cpu().numpy(), [len(rows), 2 * len(rows)])


def _count_accepted(
    rounds: Sequence[Round | None],
    totals: NDArray[np.float64],
    weights: NDArray[np.float64],
    draws: NDArray[np.float64],
) -> list[int]:
    accepted = []
    for round_, span in zip(rounds, target.spans(rounds), strict=True):
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


Following = tuple[int, float, NDArray[np.uint32], NDArray[np.float64]]
"""A row, the random number to sample with, ids, and amounts to subtract at the ids."""


def _following(
    round_: Round | None,
    span: slice,
    accepted: int,
    totals: NDArray[np.float64],
    draws: NDArray[np.float64],
) -> Following:
    """Return the distribution from which the round's next token is sampled."""
    row = span.start + accepted
    if round_ is None or accepted == len(round_):
        return row, draws[row], np.empty(0, np.uint32), np.empty(0)
    q = round_.distributions[accepted]
    # The rejection used one number; the next token takes the following one.
    return row, draws[row + 1], q.token_ids, q.probs * totals[row]


def _draw(unnormalized: torch.Tensor, following: Sequence[Following]) -> list[int]:
    """Sample from each residual, or from the row if its residual is 0."""
    rows, draws, token_ids, amounts = zip(*following, strict=True)
    owners = np.repeat(np.arange(len(rows)), [*map(len, token_ids)])
    owner = _move(owners, unnormalized, torch.int64)
    taken_at = owner, _move(np.concatenate(token_ids), unnormalized, torch.int64)
    weights = unnormalized[_move(rows, unnormalized, torch.int64)].double()
    most = _move(np.concatenate(amounts), unnormalized, torch.float64)
    taken = torch.minimum(weights[taken_at], most)
    weights[taken_at] -= taken
    weights[taken_at] += taken * (weights.sum(-1) < LEAST_SUM)[owner]
    sums = (weights * (2.0**62 / weights.sum(-1, keepdim=True))).long().cumsum(-1)
    totals = sums[:, -1:]
    goals = _move(draws, unnormalized, torch.float64)[:, None] * totals.double()
    goals = torch.minimum(goals.long(), totals - 1)
    found = torch.searchsorted(sums, goals, right=True).flatten()
    tokens: list[int] = found.cpu().tolist()
    return tokens


def _uniforms(n: int, generator: torch.Generator | None) -> list[float]:
    device = _tensors.device_of(generator)
    drawn = torch.rand(n, dtype=torch.float64, generator=generator, device=device)
    return [*map(float, drawn)]
