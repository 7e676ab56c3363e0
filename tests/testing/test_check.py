"""Right loops pass the check, and mistakes of wrong ones are named."""

import re
import sys
from functools import partial

import numpy as np
import pytest

from sqs_codec.testing import LossyError, check_lossless
from sqs_codec.testing._check import Table, _excess, _noticeable, _tables
from sqs_codec.testing._mistakes import MISTAKES
from sqs_codec.testing._toy import DRAFT, LENGTH, PROMPT, TARGET, row_after
from tests.refusals import refuses
from tests.testing import loops

V = DRAFT.vocab_size


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
    assert "No truncation of the draft was seen" in report.note


# Faults of other projects, as in their issue threads.


def rounded(bits):
    """DeepSpec 31: drawn from probabilities of few bits, accepted by those of many."""
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
    refuses(re.escape(words), check_lossless, decode, error=LossyError)


def test_sampling_from_the_target_is_no_fault():
    """Writing the target's own sample keeps its distribution, as in mlx-swift-lm."""
    report = check_lossless(loops.equal, exact=True)
    assert report.acceptance == pytest.approx(DRAFT.rows[0] @ TARGET.rows[0], abs=1e-4)
    assert "min(1, p/q) would accept" in report.note


def test_exact_sums():
    two, cut = loops.Loop(2, draw=loops.invert), loops.Loop(1, "top-k", 5)
    assert check_lossless(two.each, exact=True).distance == 0
    note = check_lossless(cut.each, exact=True).note
    assert "No truncation of the draft was seen" not in note


# Loops with calls that depend on earlier ones.


def right_only_once():
    """Take the target's distribution the first time, and the draft's from then on."""
    cache = {}

    def decode(prompt, draft, target, rng):
        p = cache.get(len(prompt), target(prompt))
        cache[len(prompt)] = draft(prompt)
        return [loops.choose(p, rng)]

    return decode


@pytest.mark.parametrize(
    ("make", "exact"),
    [
        (right_only_once, None),
        (loops.lenience_that_grows, None),
        (loops.lenience_that_grows, False),
    ],
)
def test_a_loop_that_fails_from_its_second_call(make, exact):
    with pytest.raises(LossyError, match="keeps state between calls") as caught:
        check_lossless(make(), exact=exact)
    assert not any(advice in str(caught.value) for advice in MISTAKES.values())


def test_the_first_differing_call_is_named():
    words = (
        r"can't be summed over: the loop keeps state .* first probability 0\.\d{4} of "
        r"\d+ in 64, then probability 0\.\d{4} of \d+ in 64 \(.*loops.py:\d+\)"
    )
    refuses(words, check_lossless, right_only_once(), exact=True)
    tokens = iter([2])

    def decode(prompt, draft, target, rng):
        return [loops.choose(target(prompt), rng) for _ in range(next(tokens, 1))]

    refuses("first 2 random decisions, then 1", check_lossless, decode, exact=True)


def test_loading_models_in_the_first_call_is_no_state():
    models = []

    def decode(prompt, draft, target, rng):
        rng = np.random.default_rng(rng.integers(2**32))
        if not models:
            models.append(rng.random(10))
        return [loops.choose(target(prompt), rng)]

    assert "state" not in check_lossless(decode, trials=1000).note


def test_outputs_that_depend_on_earlier_calls():
    """Only what a call returns shows it: its random decisions are the same."""
    calls = iter(range(100_000))

    def decode(prompt, draft, target, rng):
        text = [*prompt, loops.choose(target(prompt), rng)]
        text.append(loops.choose(target(text), rng))
        return text[2:] if next(calls) < 500 else text[2:3]

    assert "then [" in check_lossless(decode, trials=1000).note


@pytest.mark.parametrize("trials", [1000, 20_000])
def test_a_deviation_above_noticeable_is_noticed(trials):
    """Half of the probability moves to the other half, which is hardest to notice."""
    rng, said, p = np.random.default_rng(1), _noticeable(trials), TARGET.rows[0]
    few = p * trials < 5
    half = p[order := rng.permutation(V)].cumsum() < 0.5
    off = np.where(half, 1, -1)[np.argsort(order)] * p
    off *= np.where(off > 0, 1 / off[off > 0].sum(), -1 / off[off < 0].sum())
    wrong = p + off * (said - p[few].sum())
    counts = rng.multinomial(trials, wrong / wrong.sum(), 200)
    tables = [Table(x[None], trials * p[None]) for x in counts]
    assert sum(_excess(table) > 1 for table in tables) >= 198
    assert np.abs(wrong - p).sum() / 2 == pytest.approx(said - p[few].sum())


def test_a_report_states_the_noticeable_deviation():
    assert check_lossless(loops.Loop().each).noticeable == 1e-6
    texts = check_lossless(loops.Loop(ends=loops.own).each, trials=1000)
    assert texts.noticeable == _noticeable(1000)


@pytest.mark.parametrize("loop", loops.UNNOTICED)
def test_undetected_mistakes_are_below_noticeable(loop):
    assert loops.UNNOTICED[loop] < check_lossless(loop, trials=2000).noticeable


# Whatever loops do with random numbers.


def in_float32(prompt, draft, target, rng):
    text = list(prompt)
    for _ in range(2):
        p = np.exp(target.logits(text), dtype=np.float32) / 3
        text.append(rng.choice(V, p=p / p.sum()))
    return np.array(text[len(prompt) :], np.uint8)


def endless(prompt, draft, target, rng):
    while rng.random() < 0.5:
        pass
    return [rng.choice(V, p=target(prompt))]


@pytest.mark.parametrize(
    ("decode", "method"),
    [
        (in_float32, "sum"),
        (lambda p, _, t, rng: [(rng.random() > t(p).cumsum()[:-1]).sum()], "sum"),
        (loops.Loop(ends=lambda rng: (rng, np.random.default_rng())).each, "chi2"),
        (lambda p, _, t, rng: [loops.invert(t(p), rng, 1 - rng.random())], "chi2"),
        (lambda p, _, t, rng: [rng.multinomial(1, t(p)).argmax()], "chi2"),
        (lambda p, _, t, rng: [loops.choose(t(p), loops.same(rng)[0])], "chi2"),
        (endless, "chi2"),
    ],
)
def test_each_loop_is_summed_or_counted(decode, method):
    assert check_lossless(decode, trials=2000).method == method


@pytest.mark.parametrize("written", [[], [V], [-1], [0.5], [[1, 2]], None])
def test_bad_tokens_are_refused(written):
    refuses(r"must return tokens of \[0, 64\), not", check_lossless, lambda *_: written)


@pytest.mark.parametrize(
    ("decode", "options", "error", "words"),
    [
        (lambda *_: 1 // 0, {}, ZeroDivisionError, "by zero"),
        (lambda p, _, t, rng: [rng.choice(V, p=t(p) / 2)], {}, ValueError, "sum to 1"),
        (lambda p, _, t, rng: [t(p).argmax()], {}, LossyError, "summed over 1 ways"),
        (endless, {"exact": True}, ValueError, "decide more than 1000 times"),
        (
            loops.Loop(ends=loops.same).each,
            {"trials": 300},
            ValueError,
            "300 trials miss a total variation of",
        ),
    ],
)
def test_a_check_that_fails(decode, options, error, words):
    refuses(words, check_lossless, decode, error=error, **options)


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
