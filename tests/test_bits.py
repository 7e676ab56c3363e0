"""`sqs_codec.bits` from Python; tests/cli/test_bits.py computes its figures again."""

import dataclasses
import re

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec import bits


def test_requested_settings_and_rows_are_measured():
    logits = np.random.default_rng(3).normal(0, 3, (9, 60))
    steered = sqs.Conformal(alpha=0.2, eta=0.5, beta=0.01)
    rules = (rule for rule in (steered, sqs.TopK(9)))
    low, high, *others = bits.measure(logits, rules, iter((5, 50)), most_rows=3)
    expected = [(sqs.TopK(9), 5), (sqs.TopK(9), 50)]
    assert [(p.keep, p.resolution) for p in others] == expected
    # It learns in the order of the rows, again at each resolution.
    assert low.dropped_mass == high.dropped_mass > 0
    (same,) = bits.measure(logits[[0, 4, 8]], [steered], [50])
    assert same == dataclasses.replace(high, keep=same.keep)


def test_probabilities_cause_one_warning():
    probs = np.random.default_rng(5).dirichlet(np.ones(20), 3)
    with pytest.warns(UserWarning, match="these logits look like prob") as caught:
        bits.measure(probs, [sqs.TopK(4), sqs.TopK(8)], [10, 20])
    (one,) = caught
    assert one.filename == __file__


def test_any_temperature_above_0_is_measured():
    logits = np.random.default_rng(6).normal(0, 3, (3, 9))
    for temperature in (5e-324, 5e-4, 1e300):
        (point,) = bits.measure(logits, [sqs.TopK(9)], [9], temperature=temperature)
        assert point.tokens == (1 if temperature < 1 else 9)
        assert point.tv == pytest.approx(0, abs=1e-9)


def test_unmeasurable_points_are_reported():
    for logits, options, said in (
        (np.zeros(9), {}, "logits must have shape [N, V], got [9]"),
        (np.zeros((0, 9)), {}, "logits must have shape [N, V], got [0, 9]"),
        (np.zeros((2, 9)), {"temperature": 0.0}, "temperature must be finite and abo"),
        (np.zeros((2, 9)), {"most_rows": 0}, "most_rows must be"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            bits.measure(logits, **options)
    with pytest.raises(TypeError, match=r"a rule must be one such as .*, got int"):
        bits.measure(np.zeros((2, 9)), [4])


def test_a_prior_is_measured_on_held_out_rows():
    rng, codec = np.random.default_rng(4), sqs.Codec(400, 50)
    logits = rng.normal(np.arange(400) % 9, 2, (43, 400))
    rows = [codec.quantize(row, sqs.TopK(9)) for row in logits]
    drafts = rows[:40], rows[40:]
    text = rng.integers(300, 400, 500)
    saving = bits.prior_saving(400, drafts, [text], classes=2)
    fitted, held = rows[:32] + rows[40:], rows[32:40]
    counts = np.bincount(text[:400], minlength=400)
    prior = sqs.Prior.fit(fitted, counts, classes=2)
    for mean, known in ((saving.without, None), (saving.with_prior, prior)):
        asked = sqs.Codec(400, 50, prior=known)
        assert mean == np.mean([asked.bits(q) for q in held])
    assert saving.held_out == 8
    assert bits.prior_saving(400, [drafts[1]], [text[:4]]) is None
    assert bits.prior_saving(400, drafts, [text.tolist()], classes=2) == saving
    for bad, said in (
        ([1, 400], r"texts\[1\] must hold ids below 400, got 400"),
        ([-1], r"texts\[1\] must fit 32 bits without sign"),
    ):
        with pytest.raises(ValueError, match=said):
            bits.prior_saving(400, texts=[text, bad])
