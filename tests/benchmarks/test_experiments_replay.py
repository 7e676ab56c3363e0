"""Replayed texts: the distribution of accepted tokens.

No model is loaded: rows are random, and texts are drawn from the target's.
"""

import numpy as np
import pytest

import sqs_codec as sqs
from benchmarks.experiments.speculate import judge
from benchmarks.schemes import Row
from sqs_codec import theory


@pytest.mark.parametrize("keep", [sqs.TopK(3), sqs.Threshold(0.1), sqs.TopK(5)])
@pytest.mark.parametrize("seed", range(5))
def test_replayed_verdicts_match_speculative_decoding(keep, seed):
    # Summed over the token that the text has, and over the cells into which its numbers
    # in [0, 1) fall: the middle of each small cell stands for all of it.
    rng, steps = np.random.default_rng(seed), 400
    target = 3 * rng.standard_normal(5, np.float32)
    row = Row(target + rng.standard_normal(5, np.float32), target, 1.0)
    q = row.send(keep, 7).q
    accepted, drafted = 0.0, np.zeros(5)
    middles = (np.arange(steps) + 0.5) / steps
    for token in range(5):
        for first in middles:
            verdict, x = judge(row, q, token, first, 0.5)
            accepted += verdict * row.p[token] / steps
            drafted[x] += verdict * row.p[token] / steps
        rejected = [judge(row, q, token, 1 - 1e-12, u) for u in middles]
        share = max(0.0, row.p[token] - q.prob(token))
        for verdict, x in rejected:
            drafted[x] += (not verdict) * share / steps
    assert accepted == pytest.approx(theory.acceptance_rate(row.p, q), abs=5 / steps)
    assert drafted == pytest.approx(q.to_dense(np.float64), abs=5 / steps)
