"""Experiments with rules, drafts and languages, held to what is really sent."""

from collections import Counter

import numpy as np
import pytest

import sqs_codec as sqs
from benchmarks.data.make_corpus import TEXTS as FITTED
from benchmarks.data.make_corpus import read_texts
from benchmarks.rate.schemes import Row

pytest.importorskip("transformers")


from benchmarks.experiments import languages, mismatch, rules
from benchmarks.experiments.models import TEXTS

V = 3000


def make_rows(n, seed=0):
    """Rows of two models that differ somewhat, with a few likely tokens each."""
    rng = np.random.default_rng(seed)
    draft = rng.gumbel(size=(n, V)) * 2 + 3 * rng.random((n, 1))
    target = draft + 0.5 * rng.standard_normal((n, V))
    return draft.astype(np.float32), target.astype(np.float32)


@pytest.fixture(scope="module")
def rows():
    return [Row(q, p, 0.7) for q, p in zip(*make_rows(40), strict=True)]


# Rules


@pytest.mark.parametrize("name", [*rules.RULES[:4]])
def test_a_rule_keeps_what_it_would_keep_of_the_whole_row(rows, name):
    grid = np.array(rules.GRIDS[name])
    for row in rows:
        counts = rules.kept(name, grid, row.top(V)[1])
        for value, count in zip(grid, counts, strict=True):
            assert count == row.kept(rules.make(name, float(value))), (name, value)


def test_the_conformal_rule_learns_as_in_a_session(rows):
    """The sweep, position after position, gives what the codec and the rule do."""
    one = sqs.Codec(V, rules.FINE)
    sweep, name = rules.Sweep([one]), rules.FASTER
    place = len(rules.GRIDS[name]) // 2
    keep = rules.make(name, rules.GRIDS[name][place])
    for row, logits in zip(rows, make_rows(40)[0], strict=True):
        bits = sweep.add(row)[name][place, 0, 0]
        q = one.quantize(logits, keep, temperature=0.7)
        keep.update(q.dropped_mass)
        assert bits == one.bits(q)
    assert keep.threshold != sqs.Conformal().threshold


# Mismatch


def test_rounds_are_counted_as_they_would_be_drawn():
    rng = np.random.default_rng(0)
    accepted, bits = rng.random(20) ** 0.5, rng.integers(20, 300, 20).astype(float)
    for length in (1, 4, 30):
        drawn = []
        for _ in range(4000):
            accepts = rng.random(20) < accepted
            start = n = drafted = size = 0
            while start < 20:
                here = min(length, 19 - start)
                run = accepts[start : start + here]
                size += 4 + -(-int(bits[start : start + here].sum()) // 8)
                start += 1 + (here if run.all() else int(run.argmin()))
                n, drafted = n + 1, drafted + here
            drawn.append((n, drafted, size))
        mean, error = np.mean(drawn, 0), np.std(drawn, 0) / np.sqrt(len(drawn))
        counted = mismatch.count(accepted, bits, length)
        assert np.all(np.abs(mean - counted) <= 4 * error + 1e-9), (length, mean)


# Languages


def test_texts_of_languages_are_known_to_no_prior():
    lines = TEXTS.read_text("utf-8").splitlines()
    texts = [line.split("\t") for line in lines if not line.startswith("#")]
    assert set(Counter(kind for kind, _ in texts).values()) == {8}
    assert {kind for kind, _ in texts} == {*read_texts(held_out=True)} - {"chat"}
    fitted = {line.split("\t")[-1] for line in FITTED.read_text("utf-8").splitlines()}
    assert not fitted & {text for _, text in texts}


def test_the_formula_and_the_codec_count_the_same_distributions(rows):
    one = sqs.Codec(V, languages.RESOLUTION)
    found = languages._distributions(rows, {"no_prior": one})
    qs = [row.send(languages.KEEP, languages.RESOLUTION).q for row in rows]
    assert found["single_no_prior"] == sum(map(one.bits, qs))
    assert found["single_no_prior"] < found["k_formula"]
    assert found["c_single_no_prior"] < found["c_formula"]
    assert 0 < found["c_acceptance"] <= found["rows"] == len(rows)
