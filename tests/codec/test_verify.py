"""Many rounds at once, and verdicts as bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sqs_codec as sqs
from tests.kit import SEEDS, Given, layouts, random_distribution
from tests.refusals import refuses

pytestmark = pytest.mark.usefixtures("backend")


def random_round(rng, vocab_size, length):
    """Return a round and target rows near its distributions."""
    resolutions = rng.choice([1, 7, 100], 2)
    distributions = [
        random_distribution(
            rng, vocab_size, ell, int(rng.integers(1, min(ell, vocab_size, 6) + 1))
        )
        for ell in resolutions[[0] * length if rng.random() < 0.5 else [1] * length]
    ]
    tokens = [q.sample(rng) for q in distributions]
    rows = [
        (q.to_dense(np.float64) * 4 + rng.dirichlet(np.ones(vocab_size))) / 5
        for q in distributions
    ]
    return sqs.Round(distributions, tokens), rows


def random_batch(seed):
    rng = np.random.default_rng(seed)
    vocab_size = int(rng.choice([2, 3, 50, 300]))
    rounds, rows = [], []
    for _ in range(rng.integers(1, 7)):
        length = int(rng.integers(0, 6))
        round_ = None
        if length:
            round_, near = random_round(rng, vocab_size, length)
            rows += near
        rows.append(rng.dirichlet(np.ones(vocab_size)))
        rounds.append(round_)
    rows = np.array(rows, rng.choice([np.float32, np.float64]))
    return rounds, rows, rng.random(len(rows))


def one_by_one(rounds, rows, draws):
    """Return the verdicts of `verify`; a round without tokens goes after a sure one."""
    vocab_size, dtype = rows.shape[1], rows.dtype
    sure = sqs.Round([sqs.SparseDistribution([0], [1], vocab_size)], [0])
    certain = np.eye(1, vocab_size, dtype=dtype)
    start, verdicts = 0, []
    for round_ in rounds:
        end = start + (len(round_) if round_ else 0) + 1
        own, numbers = rows[start:end], draws[start:end]
        if round_:
            verdicts.append(sqs.verify(round_, own, Given(numbers)))
        else:
            own = np.concatenate([certain, own])
            verdict = sqs.verify(sure, own, Given([0.5, *numbers]))
            verdicts.append(sqs.Verdict(0, verdict.token))
        start = end
    return verdicts


@given(SEEDS)
def test_a_batch_gives_the_verdicts_of_its_rounds(seed):
    rounds, rows, draws = random_batch(seed)
    expected = one_by_one(rounds, rows, draws)
    assert sqs.verify_rounds(rounds, rows, draws) == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_and_numbers_of_any_layout(dtype):
    rounds, rows, draws = random_batch(5)
    rows = rows.astype(dtype)
    expected = sqs.verify_rounds(rounds, rows, draws)
    assert len(rounds) > 1
    for same in layouts(rows):
        assert sqs.verify_rounds(rounds, same, draws) == expected
    same = np.broadcast_to(rows[0], rows.shape)
    expected_of_same = sqs.verify_rounds(rounds, same.copy(), draws)
    assert sqs.verify_rounds(rounds, same, draws) == expected_of_same
    every_other = np.repeat(draws, 2)[::2]
    assert sqs.verify_rounds(tuple(rounds), rows, every_other) == expected
    assert sqs.verify_rounds(rounds, rows, draws.tolist()) == expected


def test_empty_batches():
    assert sqs.verify_rounds([], np.empty((0, 7)), []) == []
    rows = np.eye(3)[[2, 0]]
    found = sqs.verify_rounds([None, None], rows, [0.0, 0.99])
    assert found == [sqs.Verdict(0, 2), sqs.Verdict(0, 0)]


def test_the_largest_batch_of_the_smallest_rounds():
    q = sqs.SparseDistribution([1], [1 << 16], 2)
    long = sqs.Round([q] * 256, [1] * 256)
    rows = np.tile([0.0, 1.0], (3 * 257, 1))
    found = sqs.verify_rounds([long] * 3, rows, np.full(3 * 257, 0.999))
    assert found == [sqs.Verdict(256, 1)] * 3


Q = sqs.SparseDistribution([0, 2], [2, 2], 3)
ROUND = sqs.Round([Q], [0])
ROWS = np.array([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0.0, 0.0, 1.0]])
DRAWS = np.array([0.1, 0.2, 0.3])


def changed(array, index, value):
    array = np.array(array)
    array[index] = value
    return array


OTHER = sqs.Round([sqs.SparseDistribution([0], [1], 4)], [0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": ROUND}, "rounds must be a sequence of rounds, got Rou"),
        ({"rounds": iter([])}, "rounds must be a sequence of rounds"),
        ({"rounds": [ROUND, "None"]}, r"\[1\] must be a Round or None"),
        ({"rounds": [ROUND, OTHER]}, r"rounds\[1\] must have vocabulary 3, .* got 4"),
        ({"rounds": [ROUND]}, r"must have shape \(2, 3\) .*got \(3, 3\)"),
        ({"rounds": []}, r"must have shape \(0, 3\) .*got \(3, 3\)"),
        ({"rounds": [None] * 3, "target_probs": np.ones((3, 1))}, r"got \(3, 1\)"),
        ({"rounds": [None] * 3, "target_probs": np.ones(3)}, r"ry\) .*got \(3,\)"),
        ({"target_probs": ROWS[:, :2]}, r"shape \(3, 3\) .*got \(3, 2\)"),
        ({"target_probs": ROWS.astype(np.float16)}, "got float16"),
        ({"target_probs": ROWS.tolist()}, "got list"),
        ({"target_probs": changed(ROWS, 2, 0.5)}, r"^rounds\[1\]: .*\[2\] .*got 1.5"),
        ({"target_probs": changed(ROWS, (1, 2), np.nan)}, r"^rounds\[0\]: .* is nan; "),
        ({"target_probs": changed(ROWS, (0, 0), np.inf)}, r"\[0\] is inf"),
        (
            {"target_probs": changed(ROWS, 0, [1e308, 1e308, 0])},
            "within 0.001, got inf",
        ),
        ({"target_probs": changed(ROWS, 0, [1.5, -0.5, 0])}, "-0.5; .* not negative"),
        ({"draws": DRAWS[:2]}, r"draws must have shape \(3,\) .*\(2,\)"),
        ({"draws": DRAWS[None]}, r"got \(1, 3\)"),
        ({"draws": DRAWS.astype(np.float32)}, "float64, got float32"),
        ({"draws": [0, 0, 0]}, "float64, got int64"),
        ({"draws": [0.1, 1.0, 0.1]}, r"draws\[1\] .*\[0, 1\), got 1.0"),
        ({"draws": [0.1, 0.1, -1e-9]}, r"draws\[2\] .*got -1e-09"),
        ({"draws": [np.nan, 0.1, 0.1]}, r"draws\[0\] .*got nan"),
    ],
)
def test_arguments_are_checked(change, message):
    arguments = {"rounds": [ROUND, None], "target_probs": ROWS, "draws": DRAWS}
    both = ValueError, TypeError
    refuses(message, sqs.verify_rounds, error=both, **{**arguments, **change})
    assert len(sqs.verify_rounds(**arguments)) == 2


# Verdicts as bytes


@given(st.integers(2, 1 << 20), st.integers(0, 256), st.data())
def test_verdicts_survive_serialization(vocab_size, accepted, data):
    verdict = sqs.Verdict(accepted, data.draw(st.integers(0, vocab_size - 1)))
    packet = verdict.to_bytes(vocab_size)
    assert len(packet) == (3 if accepted * vocab_size + verdict.token < 1 << 24 else 4)
    assert sqs.Verdict.from_bytes(packet, vocab_size) == verdict
    assert len(packet) == 3 or accepted > (1 << 24) // vocab_size - 1


@given(st.binary(max_size=6) | st.binary(min_size=3, max_size=4), SEEDS)
def test_bytes_of_no_verdict_are_refused(data, seed):
    vocab_size = int(np.random.default_rng(seed).choice([2, 3, 49152, 1 << 20]))
    fits = len(data) == 3 or (len(data) == 4 and data[0] > 0)
    if fits and int.from_bytes(data, "big") < 257 * vocab_size:
        verdict = sqs.Verdict.from_bytes(data, vocab_size)
        assert verdict.to_bytes(vocab_size) == data
        assert 0 <= verdict.accepted <= 256
    else:
        refuses("verdict must", sqs.Verdict.from_bytes, data, vocab_size)
