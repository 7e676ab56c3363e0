"""C, Numba and the reference make the same bytes of the same logits."""

import numpy as np
import pytest

import sqs_codec as sqs
from tests.kit import (
    CODINGS,
    RULES,
    as_lists,
    random_keep,
    random_logits,
    reference_quantize,
)
from tests.reference import sqs_reference as reference

pytestmark = pytest.mark.usefixtures("backend")

TEMPERATURES = [0, 1e-40, 0.3, 0.7, 1.0, 5.0]


@pytest.mark.parametrize("seed", range(400))
def test_awkward_logits(seed):
    rng = np.random.default_rng(seed)
    vocab_size = int(rng.choice([2, 3, 15, 16, 17, 64, 65, 300, 1200]))
    resolution = int(rng.choice([1, 2, 3, 100, 1000, 1 << 16]))
    coding = CODINGS[seed % 2]
    codec = sqs.Codec(vocab_size, resolution, coding)
    row, keep = random_logits(rng, vocab_size), random_keep(rng)
    temperature = float(rng.choice(TEMPERATURES))
    q = codec.quantize(row, keep, temperature)
    expected = reference_quantize(row, keep, temperature, resolution)
    assert as_lists(q) == expected
    ids, counts, _ = expected
    if len(ids) <= codec.max_support:
        packet = reference.encode(ids, counts, vocab_size, resolution, coding)
        assert codec.encode(q) == packet
        assert as_lists(codec.decode(packet)) == (ids, counts, None)


@pytest.mark.parametrize("seed", range(100))
def test_probabilities(seed):
    rng = np.random.default_rng(seed)
    vocab_size = int(rng.choice([2, 17, 300]))
    probs = rng.dirichlet(np.full(vocab_size, rng.choice([0.01, 1, 100])))
    probs[probs < 1e-9] = 0
    probs = probs.astype(rng.choice([np.float32, np.float64]))
    codec, keep = sqs.Codec(vocab_size, 100), random_keep(rng)
    expected = reference.quantize_probs(probs, RULES[keep._kind], keep._value, 100)
    assert as_lists(codec.quantize_probs(probs, keep)) == expected


@pytest.mark.parametrize(
    "keep", [sqs.TopK(64), sqs.Threshold(1e-3), sqs.TopP(0.95), sqs.MinP(0.01)]
)
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_real_drafts(real_rows, keep, temperature):
    codec = sqs.Codec(49152)
    for row in real_rows:
        q = codec.quantize(row, keep, temperature)
        ids, counts, dropped = reference_quantize(row, keep, temperature, 100)
        assert as_lists(q) == (ids, counts, dropped)
        assert codec.encode(q) == reference.encode(
            ids, counts, 49152, 100, "enumerative"
        )


def test_dtype_of_the_logits_does_not_matter(real_rows):
    codec = sqs.Codec(49152)
    half = real_rows[0].astype(np.float16)
    packets = {
        codec.encode(codec.quantize(half.astype(dtype), sqs.TopK(64), 0.7))
        for dtype in (np.float16, np.float32, np.float64)
    }
    assert len(packets) == 1


def test_every_float16_widens_exactly():
    """All bit patterns: the count of one of two tokens tells the last bit."""
    patterns = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    codec = sqs.Codec(2, 1 << 16)
    for value in patterns[np.isfinite(patterns)]:
        row = np.array([value, 0], np.float16)
        temperature = abs(float(value)) or 1.0
        half = codec.quantize(row, sqs.TopK(2), temperature)
        single = codec.quantize(row.astype(np.float32), sqs.TopK(2), temperature)
        assert half == single
