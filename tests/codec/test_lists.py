"""Lists of the likeliest tokens, with the tail as a count."""

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec._base.exp2 import LOG2_E
from tests.reference import sqs_reference as reference

V = 1000
CODEC = sqs.Codec(V + 1, resolution=4096)


def random_lists(rng, rows=40, most=64):
    """Return ids and log-probabilities, of 1 to `most` tokens a row."""
    ids, logprobs = [], []
    for i in range(rows):
        logits = rng.normal(0, rng.uniform(0.1, 6), V)
        log = logits - np.log(np.exp(logits).sum())
        ids.append(np.argsort(-log)[: 1 + i * most // rows])
        logprobs.append(
            log[ids[-1]].astype([np.float64, np.float32, np.float16][i % 3])
        )
    return ids, logprobs


def by_hand(ids, logprobs, codec):
    """Return a row's tokens and counts, as the reference rounds them."""
    pairs = sorted(zip(ids.tolist(), logprobs.tolist(), strict=True))
    probs = [reference.exp2_f64(log * LOG2_E) for _, log in pairs]
    total = 0.0
    for p in probs:
        total += p
    probs = [p / max(total, 1) for p in probs] + [max(1 - total, 0)]
    counts = reference.lattice(probs, codec.resolution)
    tokens = [*(token for token, _ in pairs), codec.vocab_size - 1]
    return [(x, b) for x, b in zip(tokens, counts, strict=True) if b]


@pytest.mark.parametrize("resolution", [1, 50, 4096, 65536])
def test_counts_match_the_reference(resolution):
    codec = sqs.Codec(V + 1, resolution)
    ids, logprobs = random_lists(np.random.default_rng(resolution))
    rows = codec.quantize_top_logprobs_rows(ids, logprobs)
    for q, *row in zip(rows, ids, logprobs, strict=True):
        pairs = zip(q.token_ids.tolist(), q.counts.tolist(), strict=True)
        assert list(pairs) == by_hand(*row, codec)
        assert codec.decode(codec.encode(q)) == q


def test_a_row_depends_only_on_its_own_list():
    rng = np.random.default_rng(2)
    ids, logprobs = random_lists(rng)
    rows = CODEC.quantize_top_logprobs_rows(ids, logprobs)
    padded_ids = np.full((40, 80), -1)
    padded = np.full((40, 80), -np.inf)
    for i in range(40):
        places = rng.permutation(80)[: ids[i].size]
        padded_ids[i, places], padded[i, places] = ids[i], logprobs[i]
    assert CODEC.quantize_top_logprobs_rows(padded_ids, padded) == rows
    lists = [x.tolist() for x in ids], [x.tolist() for x in logprobs]
    assert CODEC.quantize_top_logprobs_rows(*lists) == rows
    assert CODEC.quantize_top_logprobs_rows(ids[9:10], logprobs[9:10]) == rows[9:10]
    assert CODEC.quantize_top_logprobs_rows([], []) == rows[:0]
    assert CODEC.quantize_top_logprobs_rows(padded_ids[:0], padded[:0]) == rows[:0]


def test_the_tail_is_the_rest_of_the_mass():
    ids = [[4, 2], [4, 2], [4], [4], [4]]
    logprobs = [np.log([0.25, 0.5]), np.log([0.5, 0.51]), [-9999.0], [0.0], [0.015]]
    rows = CODEC.quantize_top_logprobs_rows(ids, logprobs)
    assert [q.prob(V) for q in rows] == [0.25, 0, 1, 0, 0]
    assert rows[1].probs == pytest.approx([0.51 / 1.01, 0.5 / 1.01], abs=1e-4)
    assert rows[3].token_ids.tolist() == rows[4].token_ids.tolist() == [4]
