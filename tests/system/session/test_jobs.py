"""Verdicts on jobs by a target's logits, on arrays."""

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec import Sampling
from sqs_codec.system.session import Read, VerifyHints, VerifyRound, verify_jobs

ROW = np.float32([1, 0, 4, 3, 2])
GREEDY = Sampling(temperature=0)


def job_of(sampling, draw):
    return VerifyRound(b"s", [0], None, np.array([draw]), sampling)


def test_each_job_has_its_own_sampling():
    """The tokens of the smallest and of the largest random number."""
    tokens = {
        GREEDY: (2, 2),
        Sampling(): (0, 4),
        Sampling(9.0, top_k=1): (2, 2),
        Sampling(9.0, top_k=2): (2, 3),
        Sampling(top_p=0.6): (2, 2),
        Sampling(top_p=0.8): (2, 3),
        Sampling(min_p=0.1): (2, 4),
        Sampling(2.0, min_p=0.2): (0, 4),
        Sampling(1e-320): (2, 2),
    }
    jobs = [job_of(s, draw) for s in tokens for draw in (0.0, 1 - 2.0**-53)]
    jobs.insert(3, Read(b"reads", [0]))
    found = verify_jobs(jobs, np.tile(ROW, (len(jobs) - 1, 1)))
    assert found.pop(3) is None
    assert [v.token for v in found] == [x for pair in tokens.values() for x in pair]


def test_the_highest_temperature_draws_evenly():
    jobs = [job_of(sampling, 0.7) for sampling in (GREEDY, Sampling(1e46, top_k=3))]
    masked = np.where(ROW == 4, -np.inf, ROW)
    found = verify_jobs(jobs, np.stack([ROW, masked]))
    assert [verdict.token for verdict in found] == [2, 4]


def test_hints_are_verified_together_with_rounds():
    key, position = bytes(range(16)), 3
    rows = np.tile(ROW, (3, 1))
    for sampling in GREEDY, Sampling(2.0, top_k=3, top_p=0.9, min_p=0.1):
        token = sqs.gumbel_draw(ROW, key, position, sampling=sampling)
        hinted = VerifyHints(b"h", [0] * 3, [token], key, sampling)
        verdict = sqs.gumbel_verify([token], rows[:2], key, 3, sampling=sampling)
        found = verify_jobs([job_of(GREEDY, 0.5), hinted], rows)
        assert found == [sqs.Verdict(0, 2), verdict]
        assert verdict.accepted == 1


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(), Sampling(top_k=2)])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([0, np.nan], r"\[1\] is nan; values must be finite or -inf"),
        ([np.inf], r"\[0\] is inf; values must be finite or -inf"),
        ([-np.inf] * 5, r": every token is masked \(-inf\)"),
    ],
)
def test_bad_rows(sampling, bad, message):
    rows = np.tile(ROW, (3, 1))
    rows[2, : len(bad)] = bad
    hinted = VerifyHints(b"h", [0], (1,), bytes(16), sampling)
    drafted = sqs.Round([sqs.SparseDistribution([2], [1], 5)], [2])
    for job in VerifyRound(b"s", [0], drafted, np.zeros(2), sampling), hinted:
        with pytest.raises(ValueError, match=rf"^jobs\[1\]: logits\[1\]{message}$"):
            verify_jobs([job_of(GREEDY, 0.5), job], rows)
        with pytest.raises(TypeError, match=r"^logits must be float16, .*, got int64"):
            verify_jobs([job], np.ones((2, 5), np.int64))


def test_probabilities_in_place_of_logits_are_noticed():
    row, hinted = np.exp(ROW) / np.exp(ROW).sum(), Sampling(top_k=2)
    for job in (
        VerifyHints(b"h", [0], (), bytes(16), hinted),
        job_of(Sampling(), 0.5),
    ):
        with pytest.warns(UserWarning, match="look like probabilities") as caught:
            verify_jobs([job], row[None])
        assert caught[0].filename == __file__


@pytest.mark.parametrize("drafted", [0, 1])
def test_a_round_of_n_tokens_takes_n_plus_1_draws_and_rows(drafted):
    q = sqs.SparseDistribution([2], [1], 5)
    round_ = sqs.Round([q], [2]) if drafted else None
    for draws in np.zeros(drafted), np.zeros(drafted + 2):
        said = f"{drafted + 1} numbers for {drafted} drafted tokens, got {len(draws)}$"
        with pytest.raises(ValueError, match=said):
            VerifyRound(b"s", [0], round_, draws, GREEDY)
    job = VerifyRound(b"s", [0], round_, np.zeros(drafted + 1), GREEDY)
    for rows in drafted, drafted + 2:
        said = f"the jobs need {drafted + 1} rows of logits, got {rows}"
        with pytest.raises(ValueError, match=said):
            verify_jobs([job], np.tile(ROW, (rows, 1)))
