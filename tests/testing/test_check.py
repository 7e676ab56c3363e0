"""Loops that are right pass the check, and those with a mistake are told which."""

import re
import sys
from functools import partial

import numpy as np
import pytest

from sqs_codec.testing import LossyError, check_lossless
from sqs_codec.testing._check import _excess, _tables
from sqs_codec.testing._mistakes import MISTAKES
from sqs_codec.testing._toy import DRAFT, LENGTH, PROMPT, TARGET, row_after
from tests.testing import loops

V = DRAFT.vocab_size
EACH = {name.split(":")[0]: loop for name, loop in reversed(loops.WRONG.items())}


@pytest.mark.parametrize(
    ("decode", "method", "goes_on"),
    [
        *((loops.Loop().each, "sum", True), (loops.Loop(3).each, "chi2", True)),
        (partial(loops.whole, loops.Loop().each), "chi2", False),
    ],
)
def test_a_right_loop_passes(decode, method, goes_on):
    report = check_lossless(decode, trials=3000)
    assert report.method == method
    assert 0 <= report.distance < 0.1
    rate = np.minimum(DRAFT.rows[0], TARGET.rows[0]).sum()
    assert report.acceptance == (pytest.approx(rate, abs=0.04) if goes_on else None)
    assert "Nothing was seen to be cut" in report.note


def test_two_tokens_are_summed():
    report = check_lossless(loops.Loop(2, draw=loops.invert).each, exact=True)
    assert report.distance == 0


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_found_and_named(mistake, text):
    """In rounds and in texts of them, by fewer texts where that's enough."""
    decode = partial(loops.whole, EACH[mistake]) if text else EACH[mistake]
    trials = 20_000 if mistake == "one noise" else 2000
    with pytest.raises(LossyError, match=r"total variation [01]\.\d") as caught:
        check_lossless(decode, exact=False, trials=trials)
    assert [m for m, it in MISTAKES.items() if it in str(caught.value)] == [mistake]


# Faults of others, as their threads say.


def rounded(bits):
    """DeepSpec 31: drawn from probabilities of few bits, accepted by those of many.

    Of these toys all probabilities are exact in bfloat16, so they are at a temperature.
    """
    return loops.Loop(1, "bits", bits, 1 / 0.7, sent=lambda raw, q, cut: (cut, q)).each


def matched_or_residual(prompt, draft, target, rng):
    """mlx-swift-lm 459, if what replaces a token were of the residual."""
    q, p = draft(prompt), target(prompt)
    drawn = loops.choose(q, rng)
    if loops.choose(p, rng) == drawn:
        return [drawn]
    return [loops.choose(loops.residual(p, q), rng)]


@pytest.mark.parametrize(
    ("decode", "words"),
    [
        # Issue 47932 of transformers: drawn after top-k, or the most probable token
        (loops.Loop(1, "top-k", 2, **loops.RAW).each, MISTAKES["another q"]),
        (loops.Loop(1, "top-k", 1, **loops.RAW).each, MISTAKES["another q"]),
        (rounded(2), "total variation 0.02"),
        (rounded(8), "total variation 0.00"),
        (matched_or_residual, "20000 texts"),
    ],
)
def test_public_faults(decode, words):
    with pytest.raises(LossyError, match=re.escape(words)):
        check_lossless(decode)


def test_what_is_no_fault():
    """Who writes the target's own sample keeps the law: mlx-swift-lm does."""
    report = check_lossless(loops.equal, exact=True)
    assert report.acceptance == pytest.approx(DRAFT.rows[0] @ TARGET.rows[0], abs=1e-4)
    assert "min(1, p/q) would accept" in report.note


def test_cuts_are_seen_in_sums():
    report = check_lossless(loops.Loop(1, "top-k", 5).each, exact=True)
    assert "Nothing was seen to be cut" not in report.note


def test_chances_that_numpy_refuses():
    with pytest.raises(ValueError, match="do not sum to 1"):
        check_lossless(lambda p, _, t, rng: [rng.choice(V, p=t(p) / 2)])


def test_counting_does_not_show_bfloat16():
    report = check_lossless(rounded(8), exact=False, trials=5000)
    assert report.method == "chi2"


# Whatever loops do with random numbers.


def in_float32(prompt, draft, target, rng):
    text = list(prompt)
    for _ in range(2):
        p = np.exp(target.logits(text), dtype=np.float32) / 3
        text.append(rng.choice(V, p=p / p.sum()))
    return np.array(text[len(prompt) :], np.uint8)


@pytest.mark.parametrize(
    ("decode", "method"),
    [
        (in_float32, "sum"),
        (lambda p, _, t, rng: [(rng.random() > t(p).cumsum()[:-1]).sum()], "sum"),
        (loops.Loop(ends=lambda rng: (rng, np.random.default_rng())).each, "chi2"),
        (lambda p, _, t, rng: [loops.invert(t(p), rng, 1 - rng.random())], "chi2"),
        (lambda p, _, t, rng: [rng.multinomial(1, t(p)).argmax()], "chi2"),
        (lambda p, _, t, rng: [loops.choose(t(p), loops.same(rng)[0])], "chi2"),
    ],
)
def test_what_can_be_summed_and_what_is_counted(decode, method):
    assert check_lossless(decode, trials=2000).method == method


def test_no_numbers_at_all():
    with pytest.raises(LossyError, match="summed over 1 ways"):
        check_lossless(lambda p, _, t, rng: [t(p).argmax()])


def endless(prompt, draft, target, rng):
    while rng.random() < 0.5:
        pass
    return [rng.choice(V, p=target(prompt))]


def test_a_loop_without_end_is_counted():
    assert check_lossless(endless, trials=3000).method == "chi2"
    with pytest.raises(ValueError, match="decide more than 1000 times"):
        check_lossless(endless, exact=True)


@pytest.mark.parametrize("written", [[], [V], [-1], [0.5], [[1, 2]], None])
def test_what_are_no_tokens(written):
    with pytest.raises(ValueError, match=r"must return tokens of \[0, 64\), not"):
        check_lossless(lambda *_: written)


def test_errors_of_the_loop_are_its_own():
    with pytest.raises(ZeroDivisionError):
        check_lossless(lambda *_: 1 // 0)


def test_too_few_texts_are_refused():
    with pytest.raises(ValueError, match="300 trials don't show "):
        check_lossless(loops.Loop(ends=loops.same).each, trials=300)


def alarms(checks, trials, seed=0):
    """Return how many right loops the test calls wrong, and how near others come."""
    rng, excess = np.random.default_rng(seed), []
    for _ in range(checks):
        texts = np.empty((trials, LENGTH), int)
        for i in range(LENGTH):
            rows = row_after(texts[:, i - 1] if i else texts[:, 0] * 0, len(PROMPT) + i)
            ends = np.cumsum(TARGET.rows, 1)[rows]
            texts[:, i] = (ends < rng.random((trials, 1))).sum(1)
        tables = _tables(texts, np.ones(trials))
        excess.append(max(map(_excess, tables)))
    return sum(x > 1 for x in excess), max(excess)


@pytest.mark.parametrize("trials", [1000, 20_000])
def test_right_loops_raise_no_alarm(trials):
    number, highest = alarms(200_000 // trials, trials)
    assert number == 0
    assert 0.5 < highest < 0.9


if __name__ == "__main__":  # a campaign: python -m tests.testing.test_check 1000000
    print(*(alarms(int(sys.argv[1]), trials) for trials in (1000, 20_000)))
