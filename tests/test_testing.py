"""Loops that are right pass the check, and those with a mistake are told which."""

from __future__ import annotations

import math
import re
import sys
from functools import partial

import numpy as np
import pytest

from sqs_codec.testing import LossyError, check_lossless
from sqs_codec.testing._check import _excess, _tables
from sqs_codec.testing._mistakes import MISTAKES
from sqs_codec.testing._toy import DRAFT, LENGTH, PROMPT, TARGET, row_after

V = DRAFT.vocab_size


def pick(p, u):
    """Return the token whose part of [0, 1) has a number."""
    ends = np.cumsum(p / p.sum())
    ends[np.flatnonzero(p)[-1] :] = 2.0  # whatever the sum is rounded to
    return int(np.searchsorted(ends, u, "right"))


def race(p, noise):
    """Return the token that a race by p draws with some noise."""
    return int(np.argmin(np.where(p > 0, noise / np.maximum(p, 1e-9), np.inf)))


def top(p, k):
    kept = np.where(np.argsort(np.argsort(-p)) < k, p, 0)
    return kept / kept.sum()


def play(mistake, drafted, prompt, draft, target, rng):
    """Return the tokens of a round, with a mistake or without."""
    text, sent, numbers = list(prompt), [], []
    for _ in range(drafted):
        q = draft(text)
        sent.append(top(q, 3) if mistake == "off the support" else q)
        drawn = top(q, 3) if mistake == "another q" else q
        one_noise = mistake == "one noise"
        numbers.append(rng.exponential(size=V) if one_noise else rng.random())
        text.append((race if one_noise else pick)(drawn, numbers[-1]))
    tokens = text[len(prompt) :]
    begun = list(prompt) if mistake == "prompt returned" else []
    rows = [target(text[: len(prompt) + i]) for i in range(drafted + 1)]
    for i, (token, q, number) in enumerate(zip(tokens, sent, numbers, strict=True)):
        p = rows[i + (mistake == "shifted row")]
        u = number if mistake == "one seed" else rng.random()
        above, under = (q, p) if mistake == "q/p" else (p, q)
        accept = u < (1.7 if mistake == "too lenient" else 1) * above[token] / max(
            under[token], 1e-9
        )
        if mistake == "greedy":
            accept = token == p.argmax()
        if accept:
            continue
        replaces = np.maximum(p - q, 0)
        if mistake == "residual of logits":
            replaces = np.maximum(np.log(p + 1e-9) - np.log(q + 1e-9), 0)
        if mistake == "replaced from p" or not replaces.any():
            replaces = p
        if mistake == "one noise":
            return [*begun, *tokens[:i], race(replaces, number)]
        u = u if mistake == "one number twice" else rng.random()
        return [*begun, *tokens[:i], pick(replaces, u)]
    return [*begun, *tokens, pick(rows[-1 - (mistake == "bonus token")], rng.random())]


def play_text(mistake, prompt, draft, target, rng):
    """Return a text of rounds of one drafted token."""
    text = list(prompt)
    while len(text) < len(prompt) + LENGTH:
        text += play(mistake, 1, text, draft, target, rng)
    return text[len(prompt) :]


LOOPS = {
    "one token": lambda mistake: partial(play, mistake, 1),
    "three tokens": lambda mistake: partial(play, mistake, 3),
    "a text": lambda mistake: partial(play_text, mistake),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_right_loop_passes(name):
    report = check_lossless(LOOPS[name](None), trials=3000)
    assert report.method == ("sum" if name == "one token" else "chi2")
    assert 0 <= report.distance < 0.1
    rate = np.minimum(DRAFT.rows[0], TARGET.rows[0]).sum()
    assert report.acceptance == (
        None if name == "a text" else pytest.approx(rate, abs=0.04)
    )
    assert "Nothing was seen to be cut" in report.note


def test_two_tokens_are_summed():
    report = check_lossless(partial(play, None, 2), exact=True)
    assert report.distance == 0


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_found_and_named(mistake, name):
    exact = name == "one token" and mistake != "one noise"
    trials = 20_000 if exact or mistake == "one noise" else 4000
    with pytest.raises(LossyError, match=r"total variation [01]\.\d") as caught:
        check_lossless(LOOPS[name](mistake), exact=exact, trials=trials)
    assert [m for m, it in MISTAKES.items() if it in str(caught.value)] == [mistake]


# Faults of others, as their threads say.


def raw_q(prompt, draft, target, rng):
    """Issue 47932 of transformers: drawn after top-k, accepted by all of q."""
    q = draft(prompt)
    return accept(int(rng.choice(V, p=top(q, 2))), q, target(prompt), rng)


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
    return accept(int(rng.choice(V, p=coarse / coarse.sum())), q, p, rng)


def accept(token, q, p, rng):
    if rng.random() < p[token] / q[token]:
        return [token]
    residual = np.maximum(p - q, 0)
    return [int(rng.choice(V, p=residual / residual.sum()))]


def matched(prompt, draft, target, rng):
    """mlx-swift-lm 459: kept while a sample of the target is what was drafted."""
    drawn = rng.choice(V, p=draft(prompt))
    sample = rng.choice(V, p=target(prompt))
    if sample != drawn:
        return [sample]
    return [sample, rng.choice(V, p=target([*prompt, sample]))]


def matched_or_residual(prompt, draft, target, rng):
    """The same, if what replaces a token were of the residual."""
    q, p = draft(prompt), target(prompt)
    drawn = rng.choice(V, p=q)
    if rng.choice(V, p=p) == drawn:
        return [drawn]
    residual = np.maximum(p - q, 0)
    return [rng.choice(V, p=residual / residual.sum())]


@pytest.mark.parametrize(
    ("decode", "words"),
    [
        (raw_q, MISTAKES["another q"]),
        (greedy_draft, MISTAKES["another q"]),
        (partial(rounded, 2), "total variation 0.02"),
        (partial(rounded, 8), "total variation 0.00"),
        (matched_or_residual, "20000 texts"),
    ],
)
def test_public_faults(decode, words):
    with pytest.raises(LossyError, match=re.escape(words)):
        check_lossless(decode)


def test_what_is_no_fault():
    """Who writes the target's own sample keeps the law: mlx-swift-lm does."""
    report = check_lossless(matched, exact=True)
    assert report.acceptance == pytest.approx(DRAFT.rows[0] @ TARGET.rows[0], abs=1e-4)
    assert "min(1, p/q) would accept" in report.note


def test_counting_does_not_show_bfloat16():
    report = check_lossless(partial(rounded, 8), exact=False, trials=5000)
    assert report.method == "chi2"


# Whatever loops do with random numbers.


def by_seed(prompt, draft, target, rng, other=0):
    seed = rng.integers(2**32)
    a, b = (np.random.default_rng(seed + i) for i in (0, other))
    q = draft(prompt)
    return accept(int(a.choice(V, p=q)), q, target(prompt), b)


def by_race(prompt, draft, target, rng):
    return [race(target(prompt), np.array([-math.log(rng.random()) for _ in range(V)]))]


def half_its_own(prompt, draft, target, rng):
    q = draft(prompt)
    return accept(int(rng.choice(V, p=q)), q, target(prompt), np.random.default_rng())


def in_float32(prompt, draft, target, rng):
    text = list(prompt)
    for _ in range(2):
        p = np.exp(target.logits(text), dtype=np.float32) / 3
        text.append(rng.choice(V, p=p / p.sum()))
    return text[len(prompt) :]


def at_once(prompt, draft, target, rng):
    text = list(prompt)
    for _ in range(2):
        text.append(int(rng.choice(V, p=draft(text).astype(np.float32))))
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
        (at_once, "chi2"),
        (in_float32, "sum"),
        (partial(by_seed, other=1), "chi2"),
        (by_race, "chi2"),
        (half_its_own, "chi2"),
        (lambda p, _, t, rng: [rng.multinomial(1, t(p)).argmax()], "chi2"),
        (lambda p, _, t, rng: [np.random.default_rng().choice(V, p=t(p))], "chi2"),
    ],
)
def test_what_cannot_be_summed_is_counted(decode, method):
    assert check_lossless(decode, trials=2000).method == method


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
        check_lossless(by_seed, trials=300)


def alarms(checks, trials, seed=0):
    """Return how many right loops the test calls wrong, and how near others come."""
    rng, excess = np.random.default_rng(seed), []
    for _ in range(checks):
        texts = np.empty((trials, LENGTH), int)
        for i in range(LENGTH):
            rows = row_after(texts[:, i - 1] if i else texts[:, 0] * 0, len(PROMPT) + i)
            ends = np.cumsum(TARGET.rows, 1)
            for row in np.unique(rows):
                here = rows == row
                draws = rng.random(here.sum())
                texts[here, i] = ends[row].searchsorted(draws, "right")
        tables = _tables(texts, np.ones(trials))
        excess.append(max(map(_excess, tables)))
    return sum(x > 1 for x in excess), max(excess)


@pytest.mark.parametrize("trials", [1000, 20_000])
def test_right_loops_raise_no_alarm(trials):
    number, highest = alarms(200_000 // trials, trials)
    assert number == 0
    assert 0.5 < highest < 0.9


if __name__ == "__main__":  # a campaign: python -m tests.test_testing 1000000
    print(*(alarms(int(sys.argv[1]), trials) for trials in (1000, 20_000)))
