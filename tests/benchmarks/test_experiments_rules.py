"""Experiments with rules, drafts and languages, held to what is really sent."""

import json
import math
from collections import Counter

import numpy as np
import pytest

import sqs_codec as sqs
from benchmarks.data.make_corpus import TEXTS as FITTED
from benchmarks.data.make_corpus import read_texts
from benchmarks.rate.schemes import Row

pytest.importorskip("transformers")

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.experiments import languages, mismatch, rules
from benchmarks.experiments.experiment import Options
from benchmarks.experiments.models import TEXTS
from benchmarks.experiments.speculate import Edge, replay
from tests.cli.test_demo import WORDS, save_model

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


def test_the_conformal_rule_learns_from_all_that_it_keeps(rows, monkeypatch):
    """Also where that is more than the sweep sends."""
    monkeypatch.setattr(rules, "MOST", 16)
    sweep, name = rules.Sweep([sqs.Codec(V, 32)]), rules.FASTER
    keep = rules.make(name, rules.GRIDS[name][-1])
    most = 0
    for row in rows:
        most = max(most, kept := row.kept(keep))
        assert sweep.add(row)[name][-1, 0, 1] == kept
        keep.update(row.dropped_mass(kept))
    assert most > rules.MOST
    assert sweep._learning[name][-1].threshold == keep.threshold


def test_rules_meet_the_bits_they_are_compared_at(rows):
    resolutions = (32, 128, rules.FINE)
    sweep = rules.Sweep([sqs.Codec(V, r) for r in resolutions])
    sums = [sweep.add(row) for row in rows]
    for name, grid in rules.GRIDS.items():
        every = np.array([one[name] for one in sums])
        bits = every[:, :, -1, 0].mean(0)
        target = (bits.min() + bits.max()) / 2
        point = rules.at_bits(grid, resolutions, every, np.ones(len(rows)), target)
        assert point.means[0, 0] == pytest.approx(target)
        weights = np.ones((2, len(rows)))
        weights[1, ::2] = 0  # the bits are the same on other prompts
        drawn = every, np.ones(len(rows)), target, weights
        [all_, half] = rules.at_bits(grid, resolutions, *drawn).means
        assert all_ == pytest.approx(point.means[0])
        assert half[0] == pytest.approx(target)
        assert half[3] != all_[3]
        beyond = rules.at_bits(grid, resolutions, every, np.ones(len(rows)), 1e5)
        assert beyond is None


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


@pytest.mark.parametrize("length", [1, 3, 8])
def test_rounds_are_counted_as_they_come(length):
    """With acceptances that are certain."""
    rng = np.random.default_rng(length)
    accepted, bits = rng.random(200) < 0.7, rng.uniform(20, 300, 200)
    done = rounds = drafted = size = 0
    while done < 200:
        part = slice(done, min(done + length, 199))
        right = accepted[part]
        rounds, drafted = rounds + 1, drafted + len(right)
        size += 4 + math.ceil(bits[part].sum() / 8)
        done += 1 + (len(right) if right.all() else int(right.argmin()))
    found = mismatch.count(accepted.astype(float), bits, length)
    assert found == pytest.approx((rounds, drafted, size))


def test_a_bigram_table_gives_probabilities():
    bigram = mismatch.Bigram.of([[1, 2, 1, 2, 1, 3], [5]], V)
    for token in (1, 2, 3, 7):
        assert bigram.probs(token).sum() == pytest.approx(1)
    assert bigram.probs(1).argmax() == 2
    assert np.array_equal(bigram.probs(7), bigram.singles)
    assert bigram.probs(7).min() > 0


def test_rounding_alters_a_copy_of_layers_and_less_by_more_bits():
    torch.manual_seed(0)
    sizes = {"vocab_size": 8, "hidden_size": 64, "intermediate_size": 64}
    config = LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=1)
    model = LlamaForCausalLM(config)
    layer = model.model.layers[0].mlp.up_proj
    before = layer.weight.detach().clone()
    errors = []
    for bits in (12, 8, 4):
        coarse = mismatch.rounded(model, bits)
        assert coarse.model.embed_tokens.weight is model.model.embed_tokens.weight
        assert coarse.lm_head.weight is model.lm_head.weight
        after = coarse.model.layers[0].mlp.up_proj.weight
        errors.append(float((after - before).abs().max().detach()))
    assert errors == sorted(errors)
    assert 0 < errors[0] < 1e-3 < errors[2]
    assert torch.equal(layer.weight, before)


def record_of(draft, tv, prompt, counts):
    sums = {"rows": 48, "tv": 48 * tv, "acceptance": 48 * (1 - tv), "bits": 800.0}
    cell = {"model": "smollm2", "temperature": 0.7, "prompt": prompt}
    return cell | {"draft": draft, "step": 0.015, "counts": counts} | sums


def test_a_better_draft_is_to_draft_more(tmp_path):
    """From the file of a run: JSON has no keys but text."""
    records = []
    for draft, accepted in (("good", 0.99), ("poor", 0.3)):
        for prompt in range(3):
            counts = [
                mismatch.count(np.full(48, accepted), np.full(48, 80.0), n)
                for n in mismatch.LENGTHS
            ]
            records.append(record_of(draft, 1 - accepted, prompt, counts))
    read = json.loads(json.dumps(records))
    cell = mismatch.summary(read, Options(tmp_path, quick=True))["cells"][0]
    good, poor = cell["drafts"]
    assert (good["draft"], poor["draft"]) == ("good", "poor")
    for best, worse in zip(good["best"], poor["best"], strict=True):
        assert best["length"] >= worse["length"]
        assert best["near"][0] <= best["length"] <= best["near"][1]
        assert best["speed"]["value"] >= best["alone"] * (1 - 1e-9)
    assert good["best"][-1]["length"] >= 8
    assert poor["best"][0]["length"] == 0


def test_drafts_of_a_given_pair_are_judged_on_texts_they_have_not_seen(tmp_path):
    """The target hardly looks at its text: to copy from it would be noticed."""
    words = [*WORDS, *(f"w{i}" for i in range(100))]
    folders = [save_model(tmp_path / str(n), 128, words, n) for n in range(2)]
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("the fox\nfar away\nfrom home\nslept\n")
    options = Options(tmp_path, True, 0, prompts, *folders)
    records = mismatch.measure(options, "given", 0.7)
    by_draft = {}
    for record in records:
        one = mismatch.LENGTHS.index(1)
        found = record["rows"], record["acceptance"], record["counts"][one][0]
        by_draft[record["draft"]] = by_draft.get(record["draft"], 0) + np.array(found)
    assert set(by_draft) == {"itself", "8 bits", "the given draft", "bigram"}
    for draft, (rows, acceptance, rounds) in by_draft.items():
        # A round of one gives a token, and another one if it is accepted.
        assert rows / rounds - 1 == pytest.approx(acceptance / rows, abs=0.15), draft


# Languages


def test_texts_of_languages_are_known_to_no_prior():
    lines = TEXTS.read_text("utf-8").splitlines()
    texts = [line.split("\t") for line in lines if not line.startswith("#")]
    assert set(Counter(kind for kind, _ in texts).values()) == {8}
    assert {kind for kind, _ in texts} == {*read_texts(held_out=True)} - {"chat"}
    fitted = {line.split("\t")[-1] for line in FITTED.read_text("utf-8").splitlines()}
    assert not fitted & {text for _, text in texts}


def test_bytes_of_rounds_are_those_of_packets(rows):
    tokens = [int(row.p.argmax()) for row in rows]
    draws = np.random.default_rng(0).random((len(rows), 2))
    edge = Edge(languages.KEEP, languages.RESOLUTION, languages.LENGTH)
    rounds = list(replay(edge, rows, tokens, draws))
    one = sqs.Codec(V, languages.RESOLUTION)
    found = languages._rounds(rounds, {"no_prior": one})
    stream, decoder = sqs.StreamEncoder(one), sqs.StreamDecoder(one)
    size = 0
    for round_ in rounds:
        qs = [draft.sent.q for draft in round_.drafts]
        data = stream.encode_round(qs, [draft.token for draft in round_.drafts])
        assert decoder.decode_round(data).distributions == tuple(qs)
        size += len(data) + 61
    assert found["bytes_no_prior"] == size
    assert found["drafted"] == sum(len(round_.drafts) for round_ in rounds)
    assert 0 < found["stream_no_prior"] < 8 * size


def test_the_formula_and_the_codec_count_the_same_distributions(rows):
    one = sqs.Codec(V, languages.RESOLUTION)
    found = languages._distributions(rows, {"no_prior": one})
    qs = [row.send(languages.KEEP, languages.RESOLUTION).q for row in rows]
    assert found["single_no_prior"] == sum(map(one.bits, qs))
    assert found["single_no_prior"] < found["k_formula"]
    assert found["c_single_no_prior"] < found["c_formula"]
    assert 0 < found["c_acceptance"] <= found["rows"] == len(rows)
