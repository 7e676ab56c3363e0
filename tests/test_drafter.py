"""Rounds within budgets, rollback, and the conformal threshold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sqs_codec as sqs

V = 200


def rows(seed, n):
    return np.random.default_rng(seed).normal(0, 3, (n, V)).astype(np.float32)


def drafter(keep=None, coding="enumerative", **options):
    return sqs.Drafter(
        sqs.Codec(V, 100, coding),
        keep or sqs.TopK(16),
        rng=np.random.default_rng(1),
        **options,
    )


@given(st.integers(1, 1500), st.integers(0, 50), st.sampled_from([1, 3, 8]))
def test_budget_is_kept_by_the_bytes(budget, seed, max_tokens):
    edge = drafter(budget_bits=budget, max_tokens=max_tokens)
    drafted = [edge.push(row) for row in rows(seed, max_tokens + 1)]
    tokens = [x for x in drafted if x is not None]
    data = edge.finish()
    assert 1 <= len(tokens) <= max_tokens
    assert drafted[: len(tokens)] == tokens
    assert list(edge.codec.decode_round(data).tokens) == tokens
    assert len(tokens) == 1 or 8 * len(data) <= budget
    if len(tokens) < max_tokens:  # one more would not have fitted
        free = drafter(max_tokens=max_tokens)
        for row in rows(seed, len(tokens) + 1):
            free.push(row)
        assert 8 * len(free.finish()) > budget


@pytest.mark.parametrize("coding", ["bitpack", "enumerative"])
def test_a_refused_push_changes_nothing(coding):
    keep = sqs.Conformal(alpha=0.01, eta=0.1)
    edge = drafter(keep, coding, budget_bits=1)
    assert edge.push(rows(0, 1)[0]) is not None
    beta, rng_state = keep.threshold, edge.rng.bit_generator.state
    assert edge.push(rows(1, 1)[0]) is None
    assert edge.push(rows(2, 1)[0]) is None
    assert (keep.threshold, edge.rng.bit_generator.state) == (beta, rng_state)
    edge.finish()


def test_bad_logits_change_nothing():
    keep = sqs.Conformal(alpha=0.01, eta=0.1)
    edge = drafter(keep)
    edge.push(rows(0, 1)[0])
    beta, rng_state = keep.threshold, edge.rng.bit_generator.state
    with pytest.raises(ValueError, match="nan"):
        edge.push(np.full(V, np.nan, np.float32))
    assert (keep.threshold, edge.rng.bit_generator.state) == (beta, rng_state)
    edge.push(rows(0, 1)[0])
    assert len(edge.codec.decode_round(edge.finish())) == 2


def test_whether_to_draft_never_depends_on_the_token():
    """Under every seed a budget admits the same number of drafts."""
    lengths = set()
    for seed in range(50):
        edge = sqs.Drafter(
            sqs.Codec(V),
            sqs.TopK(16),
            rng=np.random.default_rng(seed),
            budget_bits=250,
        )
        lengths.add(sum(edge.push(row) is not None for row in rows(3, 8)))
    assert len(lengths) == 1


@pytest.mark.parametrize("accepted", range(6))
def test_rollback(accepted):
    keep = sqs.Conformal(alpha=0.01, eta=0.1, beta=0.02)
    edge = drafter(keep, max_tokens=5)
    betas = [keep.threshold]
    for row in rows(0, 5):
        edge.push(row)
        betas.append(keep.threshold)
    assert len(set(betas)) == 6
    edge.finish()
    edge.feedback(accepted)
    # The accepted tokens count, and so does the position that was resampled.
    assert keep.threshold == betas[min(accepted + 1, 5)]


def test_rounds_follow_each_other():
    edge = drafter(max_tokens=2)
    for _ in range(3):
        assert edge.push(rows(0, 1)[0]) is not None
        assert len(edge.codec.decode_round(edge.finish())) == 1
        edge.feedback(1)


def test_calls_out_of_order():
    edge = drafter()
    with pytest.raises(RuntimeError, match="finish: nothing was drafted"):
        edge.finish()
    with pytest.raises(RuntimeError, match="feedback: finish comes first"):
        edge.feedback(0)
    edge.push(rows(0, 1)[0])
    with pytest.raises(RuntimeError, match="feedback: finish comes first"):
        edge.feedback(0)
    edge.finish()
    with pytest.raises(RuntimeError, match="finish: already called"):
        edge.finish()
    with pytest.raises(RuntimeError, match="push: the round is finished"):
        edge.push(rows(0, 1)[0])
    for wrong in (-1, 2):
        with pytest.raises(ValueError, match=r"accepted must be in \[0, 1\]"):
            edge.feedback(wrong)
    with pytest.raises(TypeError):
        edge.feedback(0.5)
    edge.feedback(0)


def test_a_full_round_of_large_supports_ends_the_draft():
    codec = sqs.Codec(2000, 1 << 16)
    edge = sqs.Drafter(
        codec, sqs.TopK(1024), rng=np.random.default_rng(0), max_tokens=10
    )
    flat = np.linspace(0, 0.1, 2000)
    assert sum(edge.push(flat) is not None for _ in range(10)) == 8
    assert len(codec.decode_round(edge.finish())) == 8


def test_a_rule_that_fails_leaves_the_round_as_it_was():
    class Stubborn(sqs.Conformal):
        def update(self, dropped_mass):
            raise RuntimeError("no")

    edge = drafter(Stubborn())
    with pytest.raises(RuntimeError, match="no"):
        edge.push(rows(0, 1)[0])
    with pytest.raises(RuntimeError, match="nothing was drafted"):
        edge.finish()


def test_bad_options():
    with pytest.raises(TypeError, match="keep must be a rule"):
        sqs.Drafter(sqs.Codec(V), 5, rng=np.random.default_rng(0))
    with pytest.raises(TypeError, match="codec must be a Codec, got int"):
        sqs.Drafter(V, sqs.TopK(5), rng=np.random.default_rng(0))
    with pytest.raises(TypeError, match=r"numpy\.random\.Generator, got int"):
        sqs.Drafter(sqs.Codec(V), sqs.TopK(5), rng=0)
    with pytest.raises(ValueError, match="budget_bits must be at least 1, got 0"):
        drafter(budget_bits=0)
    for wrong in (0, 257):
        with pytest.raises(ValueError, match=r"max_tokens must be in \[1, 256\]"):
            drafter(max_tokens=wrong)


# The conformal threshold


@given(
    st.floats(0, 0.5),
    st.floats(1e-4, 1.0),
    st.floats(-0.5, 1.0),
    st.integers(0, 2**32),
    st.sampled_from(["flat", "peaked", "mixed"]),
)
def test_mean_dropped_mass_is_within_the_bound(alpha, eta, beta, seed, kind):
    """Whatever the distributions, with the real selection in the loop."""
    keep = sqs.Conformal(alpha, eta, beta)
    codec = sqs.Codec(50)
    rng = np.random.default_rng(seed)
    dropped = []
    for step in range(60):
        peaked = kind == "peaked" or (kind == "mixed" and step % 7 < 4)
        q = codec.quantize(rng.normal(0, 9 if peaked else 0.3, 50), keep)
        dropped.append(q.dropped_mass)
        keep.update(q.dropped_mass)
        assert keep.threshold <= 1
        bound = sqs.theory.conformal_bound(alpha, eta, beta, step + 1)
        assert np.mean(dropped) <= bound + 1e-6


def test_threshold_settles_where_the_target_is_met():
    keep = sqs.Conformal(alpha=0.02, eta=0.02)
    codec = sqs.Codec(V, 1000)
    dropped = []
    for row in rows(5, 3000):
        q = codec.quantize(row, keep)
        keep.update(q.dropped_mass)
        dropped.append(q.dropped_mass)
    assert np.mean(dropped[500:]) == pytest.approx(0.02, rel=0.05)


def test_certain_drafts_do_not_wind_the_threshold_up():
    keep = sqs.Conformal(alpha=0.1, eta=0.5)
    for _ in range(1000):
        keep.update(0.0)
    assert keep.threshold == 1
    keep.update(1.0)
    assert keep.threshold == pytest.approx(0.55)


def test_conformal_arguments():
    for arguments, message in [
        ({"alpha": -0.1}, "alpha must be finite and in"),
        ({"alpha": float("nan")}, "alpha must be finite"),
        ({"eta": 0}, "eta must be above 0"),
        ({"eta": 1.5}, r"eta must be finite and in \[0, 1\]"),
        ({"beta": 1.5}, "beta must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            sqs.Conformal(**arguments)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="dropped_mass must be finite and in"):
            sqs.Conformal().update(wrong)
    for rule, wrong in [
        (sqs.TopK, 0),
        (sqs.TopP, 0),
        (sqs.TopP, 1.1),
        (sqs.MinP, -0.1),
        (sqs.MinP, 1.1),
        (sqs.Threshold, float("inf")),
    ]:
        with pytest.raises(ValueError, match=r"must be"):
            rule(wrong)
    with pytest.raises(TypeError):
        sqs.TopK(2.5)
    with pytest.raises(TypeError, match=r"beta must be a number, got '0\.5'"):
        sqs.Threshold("0.5")
    assert sqs.TopP(np.float32(0.5)) == sqs.TopP(0.5)
    with pytest.raises(TypeError, match="abstract"):
        sqs.Keep()
    for rule, name in [
        (sqs.TopK(3), "k"),
        (sqs.TopP(0.5), "p"),
        (sqs.MinP(0.5), "p"),
        (sqs.Threshold(0.5), "beta"),
        (sqs.Conformal(), "alpha"),
        (sqs.Conformal(), "eta"),
        (sqs.Conformal(), "threshold"),
    ]:
        with pytest.raises(AttributeError):
            setattr(rule, name, 0)
    with pytest.raises(ValueError, match="state must be finite"):
        sqs.Conformal().rollback(float("nan"))


def test_rules_without_state_have_nothing_to_learn():
    for keep in (sqs.TopK(3), sqs.Threshold(0.1), sqs.TopP(0.9), sqs.MinP(0.1)):
        before = repr(keep)
        state = keep.checkpoint()
        keep.update(0.5)
        keep.rollback(state)
        assert repr(keep) == before
