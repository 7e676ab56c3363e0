"""The promises of quantizing, against an independent float64 computation."""

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec import bits
from tests.kit import Both, Given, independent_counts, layouts, softmax
from tests.refusals import refuses


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0])
def test_lattice_points_match_a_float64_computation(real_rows, temperature):
    codec = sqs.Codec(49152)
    for row in real_rows:
        keep = sqs.TopK(64)
        q = codec.quantize(row, keep, temperature=temperature, dropped_mass=True)
        counts, margin = independent_counts(row, 64, temperature, 100)
        assert np.array_equal(q.to_dense(np.float64), counts / 100) or margin < 1e-9
        kept = np.argsort(-row, kind="stable")[:64]
        dropped = 1 - softmax(row, temperature)[kept].sum()
        assert q.dropped_mass == pytest.approx(dropped, rel=1e-4, abs=1e-9)


def test_a_threshold_keeps_tokens_above_it(real_rows):
    # At this resolution every token kept has a count, so supports can be compared.
    codec = sqs.Codec(49152, 1 << 16)
    for row in real_rows:
        q = codec.quantize(row, sqs.Threshold(1e-3))
        expected = np.flatnonzero(softmax(row, 1.0) >= 1e-3)
        assert q.token_ids.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (sqs.Threshold(0.25), [0, 1, 3]),
        (sqs.Threshold(0.2500001), [1]),
    ],
)
def test_a_token_equal_to_the_bound_is_kept(keep, kept):
    """Powers of two, so that nothing is rounded."""
    codec = sqs.Codec(5, 1000)
    probs = np.array([0.25, 0.5, 0, 0.25, 0])
    assert codec.quantize_probs(probs, keep).token_ids.tolist() == kept


def test_ties_go_to_the_lower_id():
    flat = np.zeros(10, np.float32)
    codec = sqs.Codec(10, 3)
    # Each of eight tokens is worth 3/8 and rounds to 0; three tokens get a unit.
    q = codec.quantize(flat, sqs.TopK(8))
    assert (q.token_ids.tolist(), q.counts.tolist()) == ([0, 1, 2], [1, 1, 1])
    # Each of six is worth 1/2 and rounds to 1; three tokens lose it again.
    q = codec.quantize(flat, sqs.TopK(6))
    assert (q.token_ids.tolist(), q.counts.tolist()) == ([0, 1, 2], [1, 1, 1])
    # Of four tokens for three units the last is left out; of two, the first gains.
    assert codec.quantize(flat, sqs.TopK(4)).token_ids.tolist() == [0, 1, 2]
    assert codec.quantize(flat, sqs.TopK(2)).counts.tolist() == [2, 1]
    assert codec.quantize(flat, sqs.TopK(1)).token_ids.tolist() == [0]
    assert codec.quantize(flat, sqs.Threshold(2)).token_ids.tolist() == [0]
    assert codec.quantize(flat, sqs.TopK(5), temperature=0).token_ids.tolist() == [0]
    assert codec.quantize(-0.0 * flat, sqs.TopK(1)).token_ids.tolist() == [0]


def test_temperature_zero_is_the_argmax():
    codec = sqs.Codec(5, 100)
    row = np.array([0, 3, 9, 9, -np.inf], np.float32)
    for keep in (sqs.TopK(3), sqs.Threshold(0.1), sqs.Conformal()):
        q = codec.quantize(row, keep, temperature=0, dropped_mass=True)
        assert (q.token_ids.tolist(), q.counts.tolist()) == ([2], [100])
        assert q.dropped_mass == 0


def test_masked_tokens_are_never_kept():
    codec = sqs.Codec(6, 100)
    row = np.array([-np.inf, 1, -np.inf, 1, -np.inf, -np.inf])
    for keep in (sqs.TopK(6), sqs.Threshold(-1), sqs.Threshold(0)):
        assert codec.quantize(row, keep).token_ids.tolist() == [1, 3]


def test_a_million_tiny_probabilities_are_summed():
    """A million tokens, each of 2^-62: single precision goes far enough for them.

    Tokens in the lane of the kept one are lost next to its 1: one in sixteen.
    """
    row = np.full(1 << 20, -43, np.float32)
    row[7] = 0
    q = sqs.Codec(1 << 20).quantize(row, sqs.TopK(1), dropped_mass=True)
    expected = 15 / 16 * (1 << 20) * np.exp(-43)
    assert q.dropped_mass == pytest.approx(expected, rel=2e-3, abs=0)


def test_nothing_dropped_is_zero():
    """To the last bit, as the conformal guarantee assumes, masked tokens or not."""
    codec = sqs.Codec(1000, 1000)
    rng = np.random.default_rng(0)
    for scale in (0.1, 3, 30):
        row = rng.normal(0, scale, 1000)
        row[rng.random(1000) < 0.3] = -np.inf
        for keep in (sqs.TopK(10**400), sqs.Threshold(-1), sqs.Threshold(0)):
            assert codec.quantize(row, keep, dropped_mass=True).dropped_mass == 0


def test_dropped_mass_is_set_for_learning_rules_or_on_request():
    codec, row = sqs.Codec(4), np.log([0.5, 0.25, 0.125, 0.125])

    class Learning(sqs.TopK):
        def next(self, state, dropped_mass):
            return state

    for call, values in (
        (codec.quantize, row),
        (codec.quantize_probs, np.exp(row)),
    ):
        for keep in (sqs.TopK(2), sqs.Threshold(0.2)):
            assert call(values, keep).dropped_mass is None
            found = call(values, keep, dropped_mass=True).dropped_mass
            assert found == pytest.approx(0.25)
        learning = sqs.Conformal(beta=0.2), Learning(2)
        for keep in learning:
            assert call(values, keep).dropped_mass == pytest.approx(0.25)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_layout_of_the_input_does_not_matter(dtype):
    codec, keep = sqs.Codec(50), sqs.TopK(8)
    row = np.random.default_rng(0).normal(0, 3, 50).astype(dtype)
    expected = codec.quantize(row, keep)
    for same in (*layouts(row), row.astype(row.dtype.newbyteorder())):
        assert codec.quantize(same, keep) == expected
    if dtype == np.float64:
        assert codec.quantize(row.tolist(), keep) == expected


def test_input_is_not_changed():
    codec = sqs.Codec(50)
    row = np.random.default_rng(0).normal(0, 3, 50).astype(np.float32)
    before = row.copy()
    keep = sqs.Conformal()
    q = codec.quantize(row, keep)
    assert np.array_equal(row, before)
    ids, counts = q.token_ids.copy(), q.counts.copy()
    codec.quantize(row[::-1], keep)
    assert np.array_equal(q.token_ids, ids)
    assert np.array_equal(q.counts, counts)


def test_custom_keep_rules():
    """Every function accepts both limits of a rule, or explains why not."""
    row = np.log(np.array([0.4, 0.3, 0.2, 0.1]))
    codec = sqs.Codec(4, 1 << 16)
    rng = np.random.default_rng(0)
    for keep, kept in (Both(2, 0.15), [0, 1]), (Both(9, 0.15), [0, 1, 2]):
        edge = sqs.Drafter(codec, keep, rng=rng)
        edge.push(row)
        (point,) = bits.measure(row[None], [keep], [1 << 16])
        assert point.tokens == len(kept)
        for q in (
            *edge.distributions,
            *codec.quantize_rows(row[None], keep),
            codec.quantize(row, keep),
            codec.quantize_probs(np.exp(row), keep),
        ):
            assert q.token_ids.tolist() == kept
    for wrong in (0, 0.1), (4, np.nan), (4, np.inf), (4.5, 0.1), ("4", 0.1), (4, "0.1"):
        for call in (codec.quantize, codec.quantize_probs):
            refuses(r"limits\(\) must be an integer", call, row, Both(*wrong))
    keep = Both(4, 0.1)
    for wrong in None, 4, (4,):
        keep.both = wrong
        refuses(r"limits.* got (None|4|\(4,\))$", codec.quantize, row, keep)

    class Bare(sqs.Keep):
        pass

    refuses(r"abstract class Bare.* '?limits", Bare, error=TypeError)


def test_probabilities_in_place_of_logits_are_noticed():
    probs, keep = np.float32([0.3, *[0.1] * 7]), sqs.TopK(3)
    cut = sqs.Sampling(top_k=3)
    calls = (
        lambda codec: codec.quantize(probs, keep),
        lambda codec: codec.quantize_rows(probs[None], keep),
        lambda codec: bits.measure(probs[None], [keep], [codec.resolution]),
        lambda codec: sqs.Drafter(codec, keep, rng=np.random.default_rng(0)).push(
            probs
        ),
        lambda _: sqs.gumbel_draw(probs, bytes(16), 0, sampling=cut),
        lambda _: sqs.gumbel_guess(probs, bytes(16), 0, 2),
        lambda _: sqs.gumbel_verify([], probs[None], bytes(16), 0, sampling=cut),
    )
    for call in calls:
        codec = sqs.Codec(8)
        codec.quantize(np.log(probs), keep)  # whatever it has met before
        with pytest.warns(UserWarning, match="look like probabilities") as caught:
            call(codec)
        assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "logits",
    [
        *(np.log([0.3, *[0.1] * 7]), np.array([0.6, *[0.2] * 7]), np.eye(8)[0]),
        *(np.zeros(8), np.full(8, 1 / 8), np.arange(8) * 2e307),
    ],
    ids=["log", "double", "one", "zero", "equal", "huge"],
)
def test_logits_are_not_mistaken_for_probabilities(logits):
    sqs.Codec(8).quantize(logits, sqs.TopK(3))  # a warning would be an error


def test_logits_in_place_of_probabilities_are_noticed():
    codec, keep, hint = sqs.Codec(3), sqs.TopK(3), "if they are logits"
    for logits in [1.0, 2.0, -1.0], [1.0, 2.0, 3.0], [1.0, -np.inf, 0.0]:
        with pytest.raises(ValueError, match=f"{hint}, Codec.quantize takes them$"):
            codec.quantize_probs(np.array(logits), keep)
        q = sqs.SparseDistribution([0], [1], 3)
        with pytest.raises(ValueError, match=f"{hint}, take their softmax$"):
            sqs.verify(
                sqs.Round([q], [0]), np.array([logits] * 2), np.random.default_rng(0)
            )


def test_distributions_are_values():
    q = sqs.SparseDistribution(np.array([1, 5]), np.array([3, 1]), 8)
    same = sqs.SparseDistribution([1, 5], [3, 1], 8, dropped_mass=0.1)
    assert q == same
    assert hash(q) == hash(same)
    assert q != sqs.SparseDistribution([1, 5], [2, 2], 8)
    assert q != sqs.SparseDistribution([1, 6], [3, 1], 8)
    assert q != sqs.SparseDistribution([1, 5], [3, 1], 9)
    assert q != "q"
    assert q.to_dense().dtype == np.float32
    assert q.to_dense(np.float64).tolist() == [0, 0.75, 0, 0, 0, 0.25, 0, 0]
    assert [q.prob(token) for token in (0, 1, 5, 7)] == [0, 0.75, 0.25, 0]


def test_samples_have_the_probabilities_of_the_counts():
    """One draw from every integer that the generator can give."""
    q = sqs.SparseDistribution([2, 3, 9], [1, 4, 2], 10)
    rng = Given(range(7))
    assert [q.sample(rng) for _ in range(7)] == [2, 3, 3, 3, 3, 9, 9]
