"""Loops that are right pass the check, and those with a mistake are told which."""

from __future__ import annotations

import math
import sys
from functools import partial

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec.testing import LossyError, check_lossless
from sqs_codec.testing._check import _excess
from sqs_codec.testing._mistakes import MISTAKES, play
from sqs_codec.testing._toy import LENGTH, TARGET_LAW


def play_text(mistake, prompt, draft, target, rng):
    """Return a text of rounds of one drafted token."""
    text = list(prompt)
    while len(text) < len(prompt) + LENGTH:
        text += play(mistake, 1, text, draft, target, rng)
    return text[len(prompt) :]


LOOPS = {
    "one token": lambda mistake: partial(play, mistake, 1),
    "two tokens": lambda mistake: partial(play, mistake, 2),
    "a text": lambda mistake: partial(play_text, mistake),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_right_loop_passes(name):
    assert check_lossless(LOOPS[name](None)).method == "sum"
    report = check_lossless(LOOPS[name](None), exact=False, trials=2000)
    assert report.method == "chi2"
    assert 0 < report.distance < 0.1


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_found_and_named(mistake, name, exact):
    with pytest.raises(LossyError, match=r"total variation 0\.[1-6]") as caught:
        check_lossless(LOOPS[name](mistake), exact=exact, trials=4000)
    assert [m for m, it in MISTAKES.items() if it in str(caught.value)] == [mistake]


def ours(prompt, draft, target, rng, rows_of=lambda rows: rows):
    """Our own loop: drafted, encoded, decoded, verified."""
    text, codec = list(prompt), sqs.Codec(4, resolution=4)
    edge = sqs.Drafter(codec, sqs.TopK(4), rng=rng, max_tokens=2)
    while (token := edge.push(draft.logits(text))) is not None:
        text.append(token)
    round_ = codec.decode_round(edge.finish())
    rows = [target(text[:i]) for i in range(len(prompt), len(text) + 1)]
    verdict = sqs.verify(round_, np.array(rows_of(rows)), rng)
    return [*round_.tokens[: verdict.accepted], verdict.token]


def test_compiled_code_is_summed_by_eighths():
    assert check_lossless(ours) == ("eighths", 8192, 0.0)
    wrong = partial(ours, rows_of=lambda rows: [*rows[:2], rows[1]])
    with pytest.raises(ValueError, match="decides about floats at others than eighths"):
        check_lossless(wrong, exact=True)
    with pytest.raises(LossyError, match="comes from the row of the last drafted one"):
        check_lossless(wrong, trials=3000)


# Faults of others, as their threads say.


def raw_q(prompt, draft, target, rng):
    """Issue 47932 of transformers: drawn after top-k, accepted by all of q."""
    q, p = draft(prompt), target(prompt)
    kept = np.where(np.argsort(np.argsort(-q, kind="stable")) < 2, q, 0)
    token = int(rng.choice(4, p=kept / kept.sum()))
    return accept(token, q, p, rng)


def greedy_draft(prompt, draft, target, rng):
    """The same: the most probable token, accepted by all of q."""
    q = draft(prompt)
    return accept(int(q.argmax()), q, target(prompt), rng)


def rounded(bits, prompt, draft, target, rng):
    """DeepSpec 31: drawn from probabilities of few bits, accepted by those of many.

    Of these toys all probabilities are exact in bfloat16, so they are at a temperature.
    """
    q, p = draft(prompt) ** 0.7, target(prompt)
    q /= q.sum()
    exponents = np.floor(np.log2(np.maximum(q, 1e-9)))
    coarse = np.round(q * 2.0 ** (bits - 1 - exponents)) * 2.0 ** (exponents + 1 - bits)
    return accept(int(rng.choice(4, p=coarse / coarse.sum())), q, p, rng)


def accept(token, q, p, rng):
    if rng.random() < p[token] / q[token]:
        return [token]
    residual = np.maximum(p - q, 0)
    return [int(rng.choice(4, p=residual / residual.sum()))]


def matched(prompt, draft, target, rng):
    """mlx-swift-lm 459: kept while a sample of the target is what was drafted."""
    drawn = rng.choice(4, p=draft(prompt))
    sample = rng.choice(4, p=target(prompt))
    if sample != drawn:
        return [sample]
    return [sample, rng.choice(4, p=target([*prompt, sample]))]


def matched_or_residual(prompt, draft, target, rng):
    """The same, if what replaces a token were of the residual."""
    q, p = draft(prompt), target(prompt)
    drawn = rng.choice(4, p=q)
    if rng.choice(4, p=p) == drawn:
        return [drawn]
    residual = np.maximum(p - q, 0)
    return [rng.choice(4, p=residual / residual.sum())]


@pytest.mark.parametrize(
    ("decode", "words"),
    [
        (raw_q, MISTAKES["another q"]),
        (greedy_draft, "total variation 0.25"),
        (partial(rounded, 2), "total variation 0.02"),
        (partial(rounded, 8), "total variation 0.00"),
        (matched_or_residual, "No mistake known here fits"),
    ],
)
def test_public_faults(decode, words):
    with pytest.raises(LossyError, match=words):
        check_lossless(decode)


def test_what_is_no_fault():
    """Who writes the target's own sample keeps the law: mlx-swift-lm does."""
    assert check_lossless(matched).method == "sum"


def test_counting_does_not_show_bfloat16():
    assert check_lossless(partial(rounded, 8), exact=False).method == "chi2"


# Whatever loops do with random numbers.


def by_seed(prompt, draft, target, rng, other=0):
    seed = rng.integers(2**32)
    a, b = (np.random.default_rng(seed + i) for i in (0, other))
    q = draft(prompt)
    return accept(int(a.choice(4, p=q)), q, target(prompt), b)


def by_race(prompt, draft, target, rng):
    arrivals = [-math.log(rng.random()) / x if x else 99 for x in target(prompt)]
    return [int(np.argmin(arrivals))]


def half_its_own(prompt, draft, target, rng):
    q = draft(prompt)
    return accept(int(rng.choice(4, p=q)), q, target(prompt), np.random.default_rng())


def in_float32(prompt, draft, target, rng):
    text = list(prompt)
    for _ in range(2):
        p = np.exp(target.logits(text), dtype=np.float32) / 3
        text.append(rng.choice(4, p=p / p.sum()))
    return text[len(prompt) :]


def at_once(prompt, draft, target, rng):
    text = list(prompt)
    for _ in range(2):
        text.append(int(rng.choice(4, p=draft(text).astype(np.float32))))
    tokens, n = text[len(prompt) :], len(prompt)
    q = np.array([draft(text[: n + i]) for i in range(2)])
    p = np.array([target(text[: n + i]) for i in range(3)])
    right = rng.random(2) < p[[0, 1], tokens] / q[[0, 1], tokens]
    n = 2 if right.all() else int(np.argmin(right))
    rest = np.maximum(p[n] - q[n], 0) if n < 2 else p[n]
    ends = np.cumsum(rest / rest.sum())
    return np.array([*tokens[:n], (rng.random() > ends).sum()], np.uint8)


@pytest.mark.parametrize(
    ("decode", "method"),
    [
        (at_once, "sum"),
        (in_float32, "sum"),
        (partial(by_seed, other=1), "chi2"),
        (by_race, "chi2"),
        (half_its_own, "chi2"),
        (lambda p, _, t, rng: [rng.multinomial(1, t(p)).argmax()], "chi2"),
        (lambda p, _, t, rng: [np.random.default_rng().choice(4, p=t(p))], "chi2"),
    ],
)
def test_what_cannot_be_summed_is_counted(decode, method):
    assert check_lossless(decode, trials=3000).method == method


@pytest.mark.parametrize(
    ("decode", "words"),
    [
        (by_seed, MISTAKES["one seed"]),
        (lambda p, _, t, rng: [t(p).argmax()], "summed over 1 ways"),
    ],
)
def test_one_seed_at_both_ends_and_no_numbers_at_all(decode, words):
    with pytest.raises(LossyError, match=words):
        check_lossless(decode, trials=3000)


def endless(prompt, draft, target, rng):
    while rng.random() < 0.5:
        pass
    return [rng.choice(4, p=target(prompt))]


def test_a_loop_without_end_is_counted():
    assert check_lossless(endless, trials=3000).method == "chi2"
    with pytest.raises(ValueError, match="decide more than 1000 times"):
        check_lossless(endless, exact=True)


@pytest.mark.parametrize("written", [[], [4], [-1], [0.5], [[1, 2]], None])
def test_what_are_no_tokens(written):
    with pytest.raises(ValueError, match=r"must return tokens of \[0, 4\), not"):
        check_lossless(lambda *_: written)


def test_errors_of_the_loop_are_its_own():
    with pytest.raises(ZeroDivisionError):
        check_lossless(lambda *_: 1 // 0)


def test_too_few_texts_are_refused():
    with pytest.raises(ValueError, match="300 trials don't show '"):
        check_lossless(by_seed, trials=300)


def alarms(checks, trials, seed=0):
    """Return how many right loops the test calls wrong, and how near others come."""
    rng = np.random.default_rng(seed)
    found = rng.multinomial(trials, TARGET_LAW.ravel(), size=checks)
    excess = [_excess(counts.reshape(TARGET_LAW.shape)) for counts in found]
    return sum(x > 1 for x in excess), max(excess)


@pytest.mark.parametrize("trials", [1000, 20_000])
def test_right_loops_raise_no_alarm(trials):
    number, highest = alarms(1000, trials)
    assert number == 0
    assert 0.4 < highest < 0.9


if __name__ == "__main__":  # a campaign: python -m tests.test_testing 1000000
    print(*(alarms(int(sys.argv[1]), trials) for trials in (1000, 20_000)))
