"""Replayed texts: the law of what is accepted.

No model is loaded: rows are random, and texts are drawn from the target's.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import sqs_codec as sqs
from benchmarks.experiments import traces
from benchmarks.experiments.experiment import Options
from benchmarks.experiments.speculate import Edge, draw, judge, replay
from benchmarks.schemes import Row
from sqs_codec import theory

LENGTH = 6


def rows(count, vocab, seed=0):
    rng = np.random.default_rng(seed)
    target = 3 * rng.standard_normal((count, vocab))
    draft = target + rng.standard_normal((count, vocab))
    pairs = zip(draft.astype(np.float32), target.astype(np.float32), strict=True)
    return [Row(d, p, 1.0) for d, p in pairs]


def written(monkeypatch, probs, stop, options):
    """Yield texts of models that always say the same: the draft, and the target."""
    with np.errstate(divide="ignore"):
        draft, target = np.log(np.array(probs, np.float32))
    model = SimpleNamespace(
        layout=SimpleNamespace(samples={}),
        read=lambda pieces: [torch.from_numpy(target)] * len(pieces),
    )
    monkeypatch.setattr(traces, "RaggedModel", lambda *_: model)
    model.config = SimpleNamespace(max_position_embeddings=64)
    models = SimpleNamespace(
        pair=SimpleNamespace(draft=model, target=model, stop=stop),
        vocab_size=len(target),
        prompts=[SimpleNamespace(tokens=(0,))] * 400,
    )
    row = Row(draft, target, 1.0)
    for i, tokens in enumerate(traces.write(models, 1.0, options)):
        n = len(tokens)
        rows = np.tile(target, (n, 1)), np.tile(draft, (n, 1))
        yield traces.Trace(i, "", tokens, *rows), [row] * n


def test_drafts_are_not_judged_by_what_drew_their_text(monkeypatch, tmp_path):
    # By the number that drew the token, none of the first would be rejected.
    q, stop = sqs.SparseDistribution([0, 1], [1, 3], vocab_size=2), {0, 1}
    probs = [0.25, 0.75], [0.5, 0.5]
    texts = list(written(monkeypatch, probs, stop, Options(tmp_path)))
    verdicts = [judge(r[0], q, t.tokens[0], *draw(0, t)[0]) for t, r in texts]
    rejected = np.mean([not accepted for accepted, _ in verdicts])
    assert rejected == pytest.approx(0.25, abs=0.1)


def test_the_token_that_ends_a_text_is_judged_too(monkeypatch, tmp_path):
    # Only that token is ever accepted: without it, all judged drafts would be rejected.
    probs = [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]
    edge = Edge(sqs.TopK(2), 2, LENGTH)
    made = [
        each
        for trace, rows in written(monkeypatch, probs, {0}, Options(tmp_path))
        for each in replay(edge, rows, trace.tokens, draw(0, trace))
    ]
    judged = [draft for each in made for draft in each.judged]
    assert [draft.rejection for draft in judged] == pytest.approx([0.5] * len(judged))
    rejected = sum(each.rejected for each in made)
    assert rejected / len(judged) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("keep", [sqs.TopK(3), sqs.Threshold(0.1), sqs.TopK(5)])
@pytest.mark.parametrize("seed", range(5))
def test_judge_has_the_law_of_speculative_decoding(keep, seed):
    # Summed over the token that the text has, and over the cells into which its numbers
    # in [0, 1) fall: the middle of each small cell stands for all of it.
    row, steps = rows(1, 5, seed)[0], 400
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
