"""Rounds within budgets, rollback, and the conformal threshold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sqs_codec as sqs
from tests.kit import CODECS, Given, make_codec, normal_rows
from tests.refusals import refuses

V = 200
LEARNS = sqs.Conformal(alpha=0.01, eta=0.1, beta=0.02)


def rows(seed, n):
    return normal_rows(seed, n, V)


def drafter(keep=None, codec=None, **options):
    own = codec or sqs.Codec(V), keep or sqs.TopK(16)
    return sqs.Drafter(*own, rng=np.random.default_rng(1), **options)


@given(
    st.integers(1, 1500),
    st.integers(0, 50),
    st.sampled_from([1, 3, 8]),
    st.sampled_from(CODECS),
    st.sampled_from([2, 50, 100, 400]),
)
def test_packets_stay_within_the_budget(budget, seed, max_tokens, name, resolution):
    codec = make_codec(name, V, resolution)
    edge = drafter(codec=codec, budget_bits=budget, max_tokens=max_tokens)
    drafted = [edge.push(row) for row in rows(seed, max_tokens + 1)]
    tokens = [x for x in drafted if x is not None]
    data = edge.finish()
    assert 1 <= len(tokens) <= max_tokens
    assert drafted[: len(tokens)] == tokens
    found = codec.decode_round(data)
    assert list(found.tokens) == tokens
    assert len(tokens) == 1 or 8 * len(data) <= budget
    if len(tokens) < max_tokens:  # one more might not have fitted
        row = rows(seed, max_tokens + 1)[len(tokens)]
        q = codec.quantize(row, sqs.TopK(16))
        sizes = [
            len(codec.encode_round([*found.distributions, q], [*tokens, int(x)]))
            for x in q.token_ids
        ]
        assert 8 * max(sizes) > budget


@pytest.mark.parametrize("name", CODECS)
def test_near_the_budget_the_rarest_token_decides(name):
    """Whether to draft never depends on the token that would be drawn."""
    codec, keep = make_codec(name, V, 1000), sqs.TopK(16)
    unequal = 0
    for seed in range(10):
        first, second = rows(seed, 2)
        given = [codec.quantize(row, keep, temperature=0.4) for row in (first, second)]
        start = int(given[0].token_ids[0])
        sizes = [
            8 * len(codec.encode_round(given, [start, int(x)]))
            for x in given[1].token_ids
        ]
        unequal += min(sizes) < max(sizes)
        q, budget = given[1], max(sizes)
        for x, number in zip(q.token_ids, np.cumsum(q.counts) - q.counts, strict=True):
            for most, expected in (budget, x), (budget - 1, None):
                rng = Given([0, number])
                edge = sqs.Drafter(codec, keep, rng=rng, budget_bits=most)
                assert edge.push(first, temperature=0.4) == start
                assert edge.push(second, temperature=0.4) == expected
    assert name not in ("entropy", "prior") or unequal > 0


def test_a_round_stays_within_the_support_limit():
    edge = drafter(sqs.TopK(10), sqs.Codec(V, 1000), max_survivors=35)
    drafted = [edge.push(row) for row in rows(0, 5)]
    assert [x is not None for x in drafted] == [True] * 3 + [False] * 2
    edge = drafter(sqs.TopK(10), sqs.Codec(V, 1000), max_survivors=9)
    drafted = [edge.push(row) for row in rows(0, 2)]
    assert [x is not None for x in drafted] == [True, False]


@pytest.mark.parametrize("name", CODECS)
def test_a_refused_push_changes_nothing(name):
    codec = make_codec(name, V)
    edge = drafter(LEARNS, codec, budget_bits=1)
    assert edge.push(rows(0, 1)[0]) is not None
    beta, rng_state = edge.state, edge.rng.bit_generator.state
    assert edge.push(rows(1, 1)[0]) is None
    assert edge.push(rows(2, 1)[0]) is None
    assert (edge.state, edge.rng.bit_generator.state) == (beta, rng_state)
    assert len(codec.decode_round(edge.finish())) == 1


@pytest.mark.parametrize("accepted", [*range(6), sqs.Verdict(1, 17)])
def test_rollback(accepted):
    edge = drafter(LEARNS, max_tokens=5)
    betas = [edge.state]
    for row in rows(0, 5):
        edge.push(row)
        betas.append(edge.state)
    assert len(set(betas)) == 6
    edge.finish()
    edge.feedback(accepted)
    # The accepted tokens count, and so does the position that was resampled.
    n = accepted.accepted if isinstance(accepted, sqs.Verdict) else accepted
    assert edge.state == betas[min(n + 1, 5)]


@pytest.mark.parametrize("pushes", [0, 1, 3])
@pytest.mark.parametrize("finish", [False, True])
def test_an_aborted_round(pushes, finish):
    """Its updates are rolled back, and the next round is like any other."""
    edge = drafter(LEARNS, max_tokens=3, budget_bits=2000)
    edge.push(rows(0, 1)[0])
    edge.finish()
    edge.feedback(1)
    before = edge.state
    for row in rows(1, pushes):
        edge.push(row)
    assert pushes == 0 or edge.state != before
    if finish and pushes:
        edge.finish()
    edge.abort()
    edge.abort()  # again does no harm
    assert edge.state == before
    refuses("finish comes first", edge.feedback, 0, error=RuntimeError)
    drafted = [edge.push(row) for row in rows(2, 4)]
    assert [x is not None for x in drafted] == [True] * 3 + [False]
    assert edge.codec.decode_round(edge.finish()).tokens == tuple(drafted[:3])


def test_calls_out_of_order():
    edge = drafter()
    refuses("finish: nothing was drafted", edge.finish, error=RuntimeError)
    refuses("feedback: finish comes first", edge.feedback, 0, error=RuntimeError)
    edge.push(rows(0, 1)[0])
    refuses("feedback: finish comes first", edge.feedback, 0, error=RuntimeError)
    edge.finish()
    refuses("finish: already called", edge.finish, error=RuntimeError)
    refuses("push: the round is finished", edge.push, rows(0, 1)[0], error=RuntimeError)
    for wrong in (-1, 2):
        refuses(r"accepted must be in \[0, 1\]", edge.feedback, wrong)
    for wrong in (0.5, None, (1, 5)):
        refuses("accepted must be an integer", edge.feedback, wrong, error=TypeError)
    edge.feedback(0)


def test_ready_distributions_draft_like_their_logits():
    """Budget, draws and what the rule learns are the same."""
    ours, theirs = (drafter(LEARNS, budget_bits=500) for _ in range(2))
    for row in rows(3, 8):
        given = {"temperature": 0.8, "dropped_mass": True}
        q = theirs.codec.quantize(row, sqs.Threshold(theirs.state), **given)
        assert theirs.push(q) == ours.push(row, temperature=0.8)
        assert theirs.state == ours.state
    assert 1 < len(ours.tokens) < 8
    assert theirs.distributions == ours.distributions
    assert theirs.finish() == ours.finish()


def test_bad_logits_or_rules_change_nothing():
    """Ready distributions, bad logits, rows too large, and a rule that fails."""
    codec = sqs.Codec(V)
    q = codec.quantize(rows(0, 1)[0], sqs.TopK(5))
    decoded = codec.decode(codec.encode(q))
    edge = drafter(LEARNS)
    before = edge.state, edge.rng.bit_generator.state
    refuses("nan", edge.push, np.full(V, np.nan, np.float32))
    refuses(r"Conformal.* learns .*dropped_mass is None", edge.push, decoded)
    with pytest.raises(TypeError, match="a temperature applies to logits only, not"):
        edge.push(q, temperature=1.0)
    for other in (sqs.Codec(V, 99), sqs.Codec(V + 1)):
        row = normal_rows(0, 1, other.vocab_size)[0]
        with pytest.raises(ValueError, match="doesn't fit the codec"):
            edge.push(other.quantize(row, sqs.TopK(5), dropped_mass=True))
    small = drafter(sqs.Conformal(beta=-1), sqs.Codec(4000, 1 << 16, "enumerative"))
    flat = normal_rows(1, 1, 4000)[0] / 30
    refuses("at most 1024 tokens", small.push, flat)
    assert small.state == -1
    assert small.push(100 * flat) is not None
    assert (edge.state, edge.rng.bit_generator.state) == before
    assert edge.tokens == ()
    assert drafter().push(decoded) in decoded.token_ids  # TopK needs no mass

    class Stubborn(sqs.Conformal):
        def next(self, state, dropped_mass):
            raise RuntimeError("no")

    edge = drafter(Stubborn())
    refuses("no", edge.push, rows(0, 1)[0], error=RuntimeError)
    refuses("nothing was drafted", edge.finish, error=RuntimeError)


def test_a_full_round_of_large_supports_ends_the_draft():
    """Their squares sum to 2^23 or, with entropy coding, they sum to 2^20."""
    for vocab_size, coding, k, most in [
        (2000, "enumerative", 1024, 8),
        (65536, "entropy", 65536, 16),
    ]:
        codec = sqs.Codec(vocab_size, 1 << 16, coding)
        rng = np.random.default_rng(0)
        edge = sqs.Drafter(codec, sqs.TopK(k), rng=rng, max_tokens=most + 2)
        flat = np.linspace(0, 0.1, vocab_size) * (coding == "enumerative")
        assert sum(edge.push(flat) is not None for _ in range(most + 2)) == most
        assert len(codec.decode_round(edge.finish())) == most


# The conformal threshold


@given(
    st.floats(0, 0.5),
    st.floats(1e-4, 1.0),
    st.floats(-0.5, 1.0),
    st.integers(0, 2**32),
    st.sampled_from(["flat", "peaked", "mixed"]),
)
def test_mean_dropped_mass_is_within_the_bound(alpha, eta, beta, seed, kind):
    """For any distributions, with the real selection in the loop."""
    keep = sqs.Conformal(alpha, eta, beta)
    threshold = keep.start()
    codec = sqs.Codec(50)
    rng = np.random.default_rng(seed)
    dropped = []
    for step in range(60):
        peaked = kind == "peaked" or (kind == "mixed" and step % 7 < 4)
        rule = sqs.Threshold(threshold)
        logits = rng.normal(0, 9 if peaked else 0.3, 50)
        q = codec.quantize(logits, rule, dropped_mass=True)
        dropped.append(q.dropped_mass)
        threshold = keep.next(threshold, q.dropped_mass)
        assert threshold <= 1
        bound = sqs.theory.conformal_bound(alpha, eta, beta, step + 1)
        assert np.mean(dropped) <= bound + 1e-6


def test_threshold_settles_where_the_target_is_met():
    keep = sqs.Conformal(alpha=0.02, eta=0.02)
    threshold, codec = keep.start(), sqs.Codec(V, 1000)
    dropped = []
    for row in rows(5, 3000):
        q = codec.quantize(row, sqs.Threshold(threshold), dropped_mass=True)
        threshold = keep.next(threshold, q.dropped_mass)
        dropped.append(q.dropped_mass)
    assert np.mean(dropped[500:]) == pytest.approx(0.02, rel=0.05)


def test_keep_rules_are_immutable_values():
    assert sqs.Threshold(np.float32(0.5)) == sqs.Threshold(0.5)
    fixed = (sqs.TopK(3), "k"), (sqs.Threshold(0.5), "beta")
    learned = ((sqs.Conformal(), name) for name in ("alpha", "eta", "beta"))
    for rule, name in [*fixed, *learned]:
        with pytest.raises(AttributeError):
            setattr(rule, name, 0)
    assert len({*map(sqs.Conformal, (0.25, np.float32(0.5), 0.5))}) == 2
