"""Drafting and verifying give the target's distribution, exactly.

Not only with a histogram: the first test sums over every outcome of the random numbers.
"""

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec.testing import check_lossless
from tests.kit import Given, make_codec
from tests.testing.eighths import assert_lossless

pytestmark = pytest.mark.usefixtures("backend")


@pytest.mark.parametrize(
    ("name", "resolution", "options"),
    [
        ("entropy", 4, {}),
        ("entropy", 64, {"budget_bits": 80}),
        ("prior", 64, {"budget_bits": 80}),
    ],
    ids=["all", "budget", "prior"],
)
def test_any_draft_gives_the_target_distribution(name, resolution, options):
    """Drafted, encoded, decoded, verified: the text is the target's.

    Exactly so where all is drafted; a budget needs distributions that differ.
    """
    vocab_size = 64 if options else 4
    codec, lengths = make_codec(name, vocab_size, resolution), set()

    def decode(prompt, draft, target, rng):
        text = list(prompt)
        edge = sqs.Drafter(codec, sqs.TopK(4), rng=rng, max_tokens=2, **options)
        row = draft.logits(text)
        while (token := edge.push(row)) is not None:
            text.append(token)
            row = draft.logits(text) * (1 if not options else 1 + 30 * (token == 63))
        round_ = codec.decode_round(edge.finish())
        rows = [target(text[:i]) for i in range(len(prompt), len(text) + 1)]
        verdict = sqs.verify(round_, np.array(rows), rng)
        lengths.add(len(round_))
        return [*round_.tokens[: verdict.accepted], verdict.token]

    if options:
        check_lossless(decode, trials=5000)
    else:
        assert assert_lossless(decode) == 8192
    assert lengths == ({1, 2} if options else {2})


def test_residual_that_rounds_to_zero():
    """The target equals the draft up to rounding, and yet one token was rejected."""
    q = sqs.SparseDistribution([0, 1], [1, 2], 3)
    p = np.array([1 / 3 + 1e-12, 2 / 3 - 1e-12, 0])
    target = np.array([p, p])
    high = 1 - 2.0**-53
    verdict = sqs.verify(sqs.Round([q], [1]), target, Given([high, 0.0]))
    assert verdict == sqs.Verdict(0, 0)
    # With no residual at all the target itself is drawn from: 1/93 * 93 < 1.
    q = sqs.SparseDistribution(np.arange(93), np.ones(93, int), 100)
    target = np.array([q.to_dense(np.float64)] * 2)
    for i in range(93):
        numbers = Given([high, (i + 0.5) / 93])
        assert sqs.verify(sqs.Round([q], [7]), target, numbers) == sqs.Verdict(0, i)
    # Even a draw at the far end picks a token that has probability.
    target = np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
    q = sqs.SparseDistribution([2], [4], 3)
    assert sqs.verify(sqs.Round([q], [2]), target, Given([0.5, high])).token == 1


def first_beyond(weights, numerator, denominator):
    """Return the first token beyond the share of the draw."""
    reached = np.cumsum(weights) * denominator
    return int(np.searchsorted(reached, numerator * int(weights.sum()), "right"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(30))
def test_tokens_are_drawn_with_integers(seed, dtype):
    """Where all sums are exact, the token is the one that integers give."""
    rng = np.random.default_rng(seed)
    vocab_size = int(rng.choice([2, 255, 256, 257, 1000, 5000]))
    kept = np.sort(rng.permutation(vocab_size)[: rng.integers(1, 8)])
    counts = np.ones(kept.size, np.int64)
    counts[rng.integers(kept.size)] += 64 - kept.size
    drafted = rng.choice(kept)  # and rejected, for any random number
    others = np.setdiff1d(np.arange(vocab_size), drafted)
    few = rng.permutation(others)[: rng.integers(1, 40)]
    weights = np.zeros(vocab_size, np.int64)  # with long runs of zeros
    total = (1 << 20) + rng.integers(-500, 500)
    weights[few] = rng.multinomial(total, rng.dirichlet(np.ones(few.size)))
    rest = weights * 64
    rest[kept] = np.maximum(rest[kept] - counts * total, 0)
    q = sqs.SparseDistribution(kept, counts, vocab_size)
    after_one = sqs.Round([q], [drafted])
    target = np.stack([weights, weights]).astype(dtype) / dtype(1 << 20)
    sure = sqs.SparseDistribution([kept[0]], [1], vocab_size)
    after_all = sqs.Round([sure], [kept[0]])
    accepted = target.copy()
    accepted[0] = np.arange(vocab_size) == kept[0]
    for number in {0, 1, 1023, *rng.integers(0, 1024, 20).tolist()}:
        script = Given([0.5, number / 1024])
        expected = first_beyond(rest, number, 1024)
        assert sqs.verify(after_one, target, script) == sqs.Verdict(0, expected)
        script = Given([0.5, number / 1024])
        expected = first_beyond(weights, number, 1024)
        assert sqs.verify(after_all, accepted, script) == sqs.Verdict(1, expected)


@pytest.mark.parametrize("seed", range(50))
def test_rounding_never_draws_an_impossible_token(seed):
    p = np.zeros((2, 256))
    p[0, 0] = 1
    p[1, :200] = np.random.default_rng(seed).random(200)
    p[1] /= p[1].sum()
    q = sqs.SparseDistribution([0], [1], 256)
    for draw in (0.0, np.nextafter(1, 0)):
        verdict = sqs.verify(sqs.Round([q], [0]), p, Given([0.0, draw]))
        assert p[1, verdict.token] > 0


def test_verify_draws_one_number_per_row():
    q = sqs.SparseDistribution([0], [1], 2)
    ours, theirs = np.random.default_rng(0), np.random.default_rng(0)
    sqs.verify(sqs.Round([q] * 3, [0] * 3), np.tile([0.0, 1.0], (4, 1)), ours)
    theirs.random(4)
    assert ours.random() == theirs.random()
