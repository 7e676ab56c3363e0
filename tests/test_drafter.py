"""Rounds within budgets, rollback, and the conformal threshold."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sqs_codec as sqs
from tests.kit import CODECS, SEEDS, Draws, make_codec, normal_rows

pytestmark = pytest.mark.usefixtures("backend")

V = 200


def rows(seed, n):
    return normal_rows(seed, n, V)


def drafter(keep=None, codec=None, **options):
    return sqs.Drafter(
        codec or sqs.Codec(V),
        keep or sqs.TopK(16),
        rng=np.random.default_rng(1),
        **options,
    )


def started(codec):
    """Return both ends of a stream after some packets, or the codec for both."""
    if codec.coding != "entropy":
        return codec, codec
    edge, cloud = sqs.StreamEncoder(codec), sqs.StreamDecoder(codec)
    for row in rows(0, 6):
        q = codec.quantize(row, sqs.TopK(16))
        cloud.decode_round(edge.encode_round([q], [int(q.token_ids[0])]))
    return edge, cloud


def with_stream(options, encoder):
    if isinstance(encoder, sqs.StreamEncoder):
        options["stream"] = encoder
    return options


@settings(deadline=None)
@given(
    st.integers(1, 1500),
    st.integers(0, 50),
    st.sampled_from([1, 3, 8]),
    st.sampled_from(CODECS),
    st.booleans(),
)
def test_budget_is_kept_by_the_bytes(budget, seed, max_tokens, name, streaming):
    codec = make_codec(name, V)
    encoder, decoder = started(codec) if streaming else (codec, codec)
    before = copy.deepcopy(encoder)
    options = with_stream({"max_tokens": max_tokens}, encoder)
    edge = drafter(codec=codec, budget_bits=budget, **options)
    drafted = [edge.push(row) for row in rows(seed, max_tokens + 1)]
    tokens = [x for x in drafted if x is not None]
    data = edge.finish()
    assert 1 <= len(tokens) <= max_tokens
    assert drafted[: len(tokens)] == tokens
    found = decoder.decode_round(data)
    assert list(found.tokens) == tokens
    assert len(tokens) == 1 or 8 * len(data) <= budget
    if len(tokens) < max_tokens:  # one more might not have fitted
        row = rows(seed, max_tokens + 1)[len(tokens)]
        q = codec.quantize(row, sqs.TopK(16))
        sizes = [
            len(
                copy.deepcopy(before).encode_round(
                    [*found.distributions, q], [*tokens, int(x)]
                )
            )
            for x in q.token_ids
        ]
        assert 8 * max(sizes) > budget


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_budget_is_kept_where_a_stream_misleads(seed):
    """Rare ids in a row take few bits, unless others that are rare were remembered.

    They may then take four times as many, so that what a distribution takes alone
    says little of what it takes in a round.
    """
    rng = np.random.default_rng(seed)
    codec = sqs.Codec(49152, 1000)
    stream = sqs.StreamEncoder(codec)
    low, high = rng.choice([(40, 2), (40, 10), (100, 2), (100, 10)])
    for i in range(rng.integers(1, 30)):
        ids = [*range(i, i + 7 * low, 7), *range(49152 - high, 49152)]
        counts = [1] * (len(ids) - 1) + [1001 - len(ids)]
        stream.encode_round([sqs.SparseDistribution(ids, counts, 49152)], [49151])
    first, second = np.full((2, 49152), -np.inf, np.float32)
    first[49151] = 0
    start, k = int(rng.integers(48000, 48900)), int(rng.integers(20, 200))
    second[start : start + k] = 0
    q = codec.quantize(second, sqs.TopK(200))
    one_hot = codec.quantize(first, sqs.TopK(1))
    tokens = [49151, int(q.token_ids[q.counts.argmin()])]
    bits = 8 * len(copy.copy(stream).encode_round([one_hot, q], tokens))
    for budget in (bits, bits - 1, int(rng.integers(1, bits))):
        edge = sqs.Drafter(
            codec,
            sqs.TopK(200),
            rng=np.random.default_rng(seed),
            budget_bits=budget,
            stream=copy.copy(stream),
        )
        edge.push(first)
        assert (edge.push(second) is not None) == (budget == bits)
        assert budget < bits or 8 * len(edge.finish()) <= bits


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("budget", [200, 250, 300, 350])
def test_whether_to_draft_never_depends_on_the_token(name, streaming, budget):
    """All tokens of a distribution are drawn or none, and each of them fits."""
    codec = make_codec(name, V)
    encoder, _ = started(codec) if streaming else (codec, codec)
    prefix = []
    for n, row in enumerate(rows(3, 8), 1):
        q = codec.quantize(row, sqs.TopK(16))
        one_of_each = (np.cumsum(q.counts) - q.counts).tolist()
        drawn = []
        for number in one_of_each:
            edge = sqs.Drafter(
                codec,
                sqs.TopK(16),
                rng=Draws([*prefix, number]),
                budget_bits=budget,
                **with_stream({}, copy.deepcopy(encoder)),
            )
            *_, token = [edge.push(earlier) for earlier in rows(3, n)]
            drawn.append(token)
            assert token is None or n == 1 or 8 * len(edge.finish()) <= budget
        if None in drawn:
            break
        assert drawn == q.token_ids.tolist()
        prefix.append(one_of_each[n % len(one_of_each)])
    assert 1 < n < 8
    assert set(drawn) == {None}


@pytest.mark.parametrize("name", CODECS)
def test_a_refused_push_changes_nothing(name):
    codec = make_codec(name, V)
    keep = sqs.Conformal(alpha=0.01, eta=0.1)
    encoder, decoder = started(codec)
    edge = drafter(keep, codec, budget_bits=1, **with_stream({}, encoder))
    assert edge.push(rows(0, 1)[0]) is not None
    beta, rng_state = keep.threshold, edge.rng.bit_generator.state
    assert edge.push(rows(1, 1)[0]) is None
    assert edge.push(rows(2, 1)[0]) is None
    assert (keep.threshold, edge.rng.bit_generator.state) == (beta, rng_state)
    assert len(decoder.decode_round(edge.finish())) == 1


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


def test_feedback_takes_a_verdict():
    thresholds = []
    for answer in (1, sqs.Verdict(1, 17)):
        keep = sqs.Conformal(alpha=0.01, eta=0.1, beta=0.02)
        edge = drafter(keep)
        for row in rows(0, 5):
            edge.push(row)
        edge.finish()
        edge.feedback(answer)
        thresholds.append(keep.threshold)
    assert thresholds[0] == thresholds[1]


@pytest.mark.parametrize("pushes", [0, 1, 3])
@pytest.mark.parametrize("finish", [False, True])
def test_a_round_that_is_given_up(pushes, finish):
    """What was learned from it is taken back, and the next round is like any."""
    keep = sqs.Conformal(alpha=0.01, eta=0.1, beta=0.02)
    codec = make_codec("prior", V)
    stream, cloud = started(codec)
    edge = drafter(keep, codec, max_tokens=3, stream=stream, budget_bits=2000)
    edge.push(rows(0, 1)[0])
    cloud.decode_round(edge.finish())
    edge.feedback(1)
    before = keep.threshold
    for row in rows(1, pushes):
        edge.push(row)
    assert pushes == 0 or keep.threshold != before
    lost = None
    if finish and pushes:
        lost = edge.finish()
    edge.abort()
    edge.abort()  # again does no harm
    assert keep.threshold == before
    with pytest.raises(RuntimeError, match="finish or segment comes first"):
        edge.feedback(0)
    # The cloud gets on, whether what was given up has reached it or not.
    for other in [cloud, copy.copy(cloud)][: 1 if lost is None else 2]:
        if other is not cloud:
            other.decode_round(lost)
        twin = copy.deepcopy(edge)
        assert [twin.push(row) is not None for row in rows(2, 4)] == [True] * 3 + [
            False
        ]
        data = twin.finish()
        assert len(other.decode_round(data)) == 3
        # Only if there was a packet does the stream begin again.
        assert (data[0] == 0) == (lost is not None)


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
    with pytest.raises(RuntimeError, match="feedback: finish or segment comes first"):
        edge.feedback(0)
    edge.push(rows(0, 1)[0])
    with pytest.raises(RuntimeError, match="feedback: finish or segment comes first"):
        edge.feedback(0)
    edge.finish()
    with pytest.raises(RuntimeError, match="finish: already called"):
        edge.finish()
    with pytest.raises(RuntimeError, match="push: the round is finished"):
        edge.push(rows(0, 1)[0])
    for wrong in (-1, 2):
        with pytest.raises(ValueError, match=r"accepted must be in \[0, 1\]"):
            edge.feedback(wrong)
    for wrong in (0.5, None, (1, 5)):
        with pytest.raises(TypeError, match="accepted must be an integer"):
            edge.feedback(wrong)
    edge.feedback(0)


def conformal():
    return sqs.Conformal(alpha=0.01, eta=0.1, beta=0.02)


def test_a_round_in_segments_is_the_round_in_one():
    one, parts = drafter(conformal()), drafter(conformal())
    rounds, betas = [], [parts.keep.threshold]
    for i, row in enumerate(rows(0, 5)):
        assert one.push(row) == parts.push(row)
        betas.append(parts.keep.threshold)
        if i in (0, 2, 4):
            rounds.append(parts.segment())
    assert [len(part) for part in rounds] == [1, 2, 2]
    assert sum((part.tokens for part in rounds), ()) == parts.tokens == one.tokens
    whole = one.codec.decode_round(one.finish())
    assert sum((part.distributions for part in rounds), ()) == whole.distributions
    one.feedback(2)
    parts.feedback(2)
    assert parts.keep.threshold == one.keep.threshold == betas[3]


@pytest.mark.parametrize(
    ("accepted", "learned"), [(0, 1), (1, 2), (2, 3), (sqs.Verdict(1, 17), 2), (3, 3)]
)
def test_an_answer_to_an_early_segment(accepted, learned):
    """What was drafted after it is given up, and taught nothing."""
    edge = drafter(conformal())
    betas = [edge.keep.threshold]
    for i, row in enumerate(rows(0, 5)):
        edge.push(row)
        betas.append(edge.keep.threshold)
        if i == 2:
            edge.segment()
    with pytest.raises(ValueError, match=r"accepted must be in \[0, 3\], got 4"):
        edge.feedback(4)
    edge.feedback(accepted)
    assert edge.keep.threshold == betas[learned]
    assert edge.tokens == ()
    edge.push(rows(0, 1)[0])
    assert edge.segment().tokens == edge.tokens


def test_segments_out_of_order():
    edge = drafter()
    with pytest.raises(RuntimeError, match="segment: nothing new was drafted"):
        edge.segment()
    edge.push(rows(0, 1)[0])
    edge.segment()
    with pytest.raises(RuntimeError, match="segment: nothing new was drafted"):
        edge.segment()
    with pytest.raises(RuntimeError, match="finish: the round leaves in segments"):
        edge.finish()
    edge.abort()
    with pytest.raises(RuntimeError, match="feedback: finish or segment comes first"):
        edge.feedback(0)
    edge.push(rows(0, 1)[0])
    edge.finish()
    with pytest.raises(RuntimeError, match="segment: the round is finished"):
        edge.segment()
    edge = drafter(stream=sqs.StreamEncoder(sqs.Codec(V)))
    edge.push(rows(0, 1)[0])
    with pytest.raises(RuntimeError, match="segment: a stream's rounds leave whole"):
        edge.segment()


def test_ready_distributions_are_drafted_as_their_logits():
    """Budget, draws and what the rule learns are the same."""
    ours, theirs = (drafter(conformal(), budget_bits=500) for _ in range(2))
    for row in rows(3, 8):
        before = theirs.keep.threshold, theirs.rng.bit_generator.state
        q = theirs.quantize(row, temperature=0.8)
        assert (theirs.keep.threshold, theirs.rng.bit_generator.state) == before
        assert theirs.push(q) == ours.push(row, temperature=0.8)
        assert theirs.keep.threshold == ours.keep.threshold
    assert 1 < len(ours.tokens) < 8
    assert theirs.distributions == ours.distributions
    assert theirs.finish() == ours.finish()


def test_ready_distributions_that_do_not_fit_change_nothing():
    codec = sqs.Codec(V)
    q = codec.quantize(rows(0, 1)[0], sqs.TopK(5))
    decoded = codec.decode(codec.encode(q))
    edge = drafter(conformal())
    before = edge.keep.threshold, edge.rng.bit_generator.state
    with pytest.raises(ValueError, match=r"Conformal.* learns .*dropped_mass is None"):
        edge.push(decoded)
    with pytest.raises(TypeError, match="a temperature goes with logits, not with a"):
        edge.push(q, temperature=1.0)
    for other in (sqs.Codec(V, 99), sqs.Codec(V + 1)):
        row = normal_rows(0, 1, other.vocab_size)[0]
        with pytest.raises(ValueError, match="doesn't fit the codec"):
            edge.push(other.quantize(row, sqs.TopK(5)))
    assert (edge.keep.threshold, edge.rng.bit_generator.state) == before
    assert edge.tokens == ()
    assert drafter().push(decoded) in decoded.token_ids  # TopK needs no mass


def test_a_full_round_of_large_supports_ends_the_draft():
    """Whose squares sum to 2^23 or, in the entropy coding, who sum to 2^20."""
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


def test_rounds_of_a_stream():
    """Later rounds take less, and a restart within one is heeded."""
    codec = sqs.Codec(V)
    stream, cloud = started(codec)
    edge = drafter(codec=codec, stream=stream, max_tokens=3)
    sizes = []
    for _ in range(6):
        tokens = [edge.push(row) for row in rows(7, 3)]
        data = edge.finish()
        sizes.append(len(data))
        assert cloud.decode_round(data).tokens == tuple(tokens)
        edge.feedback(2)
    assert sizes[-1] < 0.9 * sizes[0]
    edge.push(rows(7, 1)[0])
    stream.restart()
    data = edge.finish()
    assert len(sqs.StreamDecoder(codec).decode_round(data)) == 1


def test_a_rule_that_fails_leaves_the_round_as_it_was():
    class Stubborn(sqs.Conformal):
        def update(self, dropped_mass):
            raise RuntimeError("no")

    edge = drafter(Stubborn())
    with pytest.raises(RuntimeError, match="no"):
        edge.push(rows(0, 1)[0])
    with pytest.raises(RuntimeError, match="nothing was drafted"):
        edge.finish()


def test_feedback_takes_a_verdict_and_nothing_like_one():
    edge = drafter()
    edge.push(np.zeros(V))
    edge.finish()
    with pytest.raises(
        TypeError, match=r"feedback: Wanted\(position=0\) is no verdict"
    ):
        edge.feedback(sqs.Wanted(0))
    edge.feedback(sqs.Verdict(accepted=1, token=2))


def test_bad_options():
    with pytest.raises(TypeError, match="keep must be a rule"):
        sqs.Drafter(sqs.Codec(V), 5, rng=np.random.default_rng(0))
    with pytest.raises(TypeError, match="codec must be a Codec, got int"):
        sqs.Drafter(V, sqs.TopK(5), rng=np.random.default_rng(0))
    with pytest.raises(TypeError, match=r"numpy\.random\.Generator, got int"):
        sqs.Drafter(sqs.Codec(V), sqs.TopK(5), rng=0)
    with pytest.raises(ValueError, match="budget_bits must be at least 1, got 0"):
        drafter(budget_bits=0)
    with pytest.raises(TypeError, match="stream must be a StreamEncoder, got Codec"):
        drafter(stream=sqs.Codec(V))
    with pytest.raises(ValueError, match="expected a stream of"):
        drafter(stream=sqs.StreamEncoder(sqs.Codec(V, 99)))
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


def test_what_cannot_be_sent_is_refused_before_anything_has_changed():
    codec = sqs.Codec(4000, 1 << 16, "enumerative")
    edge = sqs.Drafter(
        codec, sqs.Conformal(beta=-1), rng=np.random.default_rng(0), max_tokens=3
    )
    flat = np.random.default_rng(1).normal(0, 0.1, 4000)
    with pytest.raises(ValueError, match="at most 1024 tokens"):
        edge.push(flat)
    assert edge.keep.threshold == -1
    assert edge.push(100 * flat) is not None
    assert len(codec.decode_round(edge.finish())) == 1
