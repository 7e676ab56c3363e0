"""How priors are fitted, and what the built-in ones save."""

from functools import partial

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec._codec import prior_fit
from tests.drafts import held_out, load_drafts, load_languages

NAMES = {"smollm2": 49_152, "gemma3": 262_144, "llama3": 128_256}
NAMES |= {"qwen3": 151_936, "gpt2": 50_257}


def probabilities(prior, c=0):
    weights = prior._tables.weigh(c)
    return weights / weights.sum()


def mean_bits(prior, qs):
    codec = sqs.Codec(qs[0].vocab_size, qs[0].resolution, prior=prior)
    return float(np.mean([codec.bits(q) for q in qs]))


def zipf_text(rng, vocab_size, tokens):
    """Tokens with ids independent of their frequency."""
    chances = 1 / np.arange(1, vocab_size + 1)
    rng.shuffle(chances)
    return rng.choice(vocab_size, tokens, p=chances / chances.sum())


def drafts(rng, vocab_size, n, parts):
    """Distributions, each within one of several parts of a vocabulary."""
    codec = sqs.Codec(vocab_size, 50)
    part = np.arange(vocab_size) % parts
    found = []
    now = 0
    for _ in range(n):
        if rng.random() < 0.1:
            now = int(rng.integers(parts))
        logits = rng.normal(0, 2, vocab_size)
        logits[part != now] -= 12
        found.append(codec.quantize(logits, sqs.TopK(12)))
    return found


# Counts


def test_weights_of_frequent_ids_match_frequencies():
    rng = np.random.default_rng(1)
    counts = np.bincount(zipf_text(rng, 1000, 100_000), minlength=1000)
    prior = sqs.Prior.from_counts(counts)
    assert (prior.vocab_size, prior.classes) == (1000, 1)
    often = counts > 500
    ratio = probabilities(prior)[often] / (counts[often] / counts.sum())
    assert 0.9 < ratio.min() <= ratio.max() < 1.1


@pytest.mark.parametrize("tokens", [30, 1000, 30_000])
def test_smoothing_is_chosen_from_the_tokens(tokens):
    """No amount of smoothing does much better on other text of the same kind."""
    rng = np.random.default_rng(tokens)
    text = zipf_text(rng, 500, 2 * tokens + 20_000)
    seen, other = text[:tokens], text[tokens:]
    counts = np.bincount(seen, minlength=500)
    prior = sqs.Prior.from_counts(counts)
    bits = -np.log2(probabilities(prior)[other]).mean()
    added = 10.0 ** np.arange(-3, 3, 0.1)
    best = min(-np.log2((counts + a) / (tokens + 500 * a))[other].mean() for a in added)
    assert bits < best + 0.3


@pytest.mark.parametrize(
    "counts",
    [
        *([0, 1], [1] * 3, np.arange(1 << 20)),
        *(np.full(7, 1 << 62), np.arange(20, dtype=np.uint8)[::2]),
    ],
    ids=["one token", "ties", "most ids", "large", "strided"],
)
def test_any_counts_make_a_prior(counts):
    array = np.asarray(counts)
    array.flags.writeable = False
    prior = sqs.Prior.from_counts(array)
    assert prior.vocab_size == array.size
    assert sqs.Prior.from_bytes(prior.to_bytes()) == prior
    q = sqs.SparseDistribution([0, 1], [1, 1], array.size)
    codec = sqs.Codec(array.size, 2, prior=prior)
    assert codec.decode(codec.encode(q)) == q


# Drafts


@pytest.mark.parametrize("classes", [None, 8])
def test_existing_classes_are_found(classes):
    """And how likely each is to follow itself."""
    rng = np.random.default_rng(2)
    qs = drafts(rng, 400, 3000, 4)
    fitted, others = qs[:2500], qs[2500:]
    counts = np.bincount(np.concatenate([q.token_ids for q in fitted]), minlength=400)
    plain = mean_bits(sqs.Prior.from_counts(counts), others)
    prior = sqs.Prior.fit(fitted, classes=classes)
    assert prior.classes > 1
    # 12 ids of 100 in place of 400: nearly two bits each; the class takes one.
    assert mean_bits(prior, others) < plain - 15
    chances = prior._tables.chances[1:].astype(float)
    stays = np.diag(chances / chances.sum(1, keepdims=True))
    frequent = np.argsort(-prior._tables.chances[0].astype(int))[:4]
    assert stays[frequent].mean() > 0.5


def test_no_classes_are_invented():
    rng = np.random.default_rng(3)
    qs = drafts(rng, 300, 1500, 1)
    prior = sqs.Prior.fit(qs[:1000])
    with_classes = sqs.Prior.fit(qs[:1000], classes=16)
    assert mean_bits(prior, qs[1000:]) <= mean_bits(with_classes, qs[1000:]) + 0.5


def test_class_0_has_the_overall_weights():
    rng = np.random.default_rng(7)
    qs = drafts(rng, 400, 2000, 4)
    counts = np.bincount(np.concatenate([q.token_ids for q in qs]), minlength=400)
    whole = probabilities(sqs.Prior.fit(qs, classes=8))
    ratio = whole / (counts / counts.sum())
    assert 0.6 < np.quantile(ratio, 0.05) <= np.quantile(ratio, 0.95) < 1.6
    supports = prior_fit.Supports(q.token_ids for q in qs)
    for of_class_0 in (0, 1000, 2000):
        assigned = np.arange(2000) >= of_class_0
        found = prior_fit.count_classes(supports, assigned.astype(int), 2, whole, 10)
        assert np.array_equal(found.tables[0], whole)


@pytest.mark.parametrize("is_foreign", [False, True])
@pytest.mark.parametrize(("n", "most"), [(1, 1.03), (4, 1.03), (10, 1.01), (25, 1.01)])
def test_drafts_plus_text_match_the_better_of_the_two(n, most, is_foreign):
    rng = np.random.default_rng(n)

    def draft():
        ids = np.unique((1000 * rng.random(5) ** 3).astype(int))
        counts = [101 - ids.size] + [1] * (ids.size - 1)
        return sqs.SparseDistribution(ids, counts, 1000)

    text = np.bincount((1000 * rng.random(200_000) ** 3).astype(int), minlength=1000)
    if is_foreign:
        rng.shuffle(text)
    others = [draft() for _ in range(300)]
    both, alone = [], []
    for _ in range(10):
        few = [draft() for _ in range(n)]
        both.append(mean_bits(sqs.Prior.fit(few, text, classes=1), others))
        alone.append(mean_bits(sqs.Prior.fit(few, classes=1), others))
    better = min(np.mean(alone), mean_bits(sqs.Prior.from_counts(text), others))
    assert np.mean(both) < most * better


@pytest.mark.parametrize("vocab_size", [48, 49, 49_152, 49_153])
def test_unseen_ids_are_as_likely_as_their_neighbors(vocab_size):
    text = np.bincount([0] * 100, minlength=vocab_size)
    near = prior_fit.neighbors(text.astype(float))
    assert near[-1] == near[-2]


@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_few_drafts_make_a_prior(n):
    qs = [sqs.SparseDistribution([0, 2], [1, 3], 3)] * n
    for classes in (None, 1, 3):
        prior = sqs.Prior.fit(qs, classes=classes)
        assert prior.vocab_size == 3
        codec = sqs.Codec(3, 4, prior=prior)
        for q in (qs[0], sqs.SparseDistribution([1], [4], 3)):
            assert codec.decode(codec.encode(q)) == q


def test_fitting_twice_gives_the_same():
    qs = drafts(np.random.default_rng(6), 300, 400, 3)
    assert sqs.Prior.fit(qs, classes=4) == sqs.Prior.fit(iter(qs), classes=4)


def test_real_drafts_save_bits_on_other_prompts():
    rows = load_drafts()
    codec = sqs.Codec(rows.vocab_size, 100)
    out = held_out(rows)
    quantize = partial(codec.quantize, keep=sqs.TopK(64), temperature=0.7)
    halves = np.flatnonzero(~out), np.flatnonzero(out)
    fitted, others = ([quantize(rows.row(i)) for i in half] for half in halves)
    prior = sqs.Prior.fit(fitted)
    assert mean_bits(prior, others) < 0.96 * mean_bits(None, others)


# Built-in priors


@pytest.mark.parametrize("name", NAMES)
def test_a_built_in_prior_is_small_and_covers_all_ids(name):
    prior = sqs.Prior.builtin(name)
    assert prior.vocab_size == NAMES[name]
    assert len(prior.to_bytes()) < 300_000
    for c in range(prior.classes):
        assert 1 << 30 < prior._tables.weigh(c).sum() <= 1 << 31


def test_gemma3_saves_bits_in_every_language():
    rows = load_languages()
    with_prior = sqs.Codec(rows.vocab_size, prior=sqs.Prior.builtin("gemma3"))
    without = sqs.Codec(rows.vocab_size)
    ratios = {}
    for language in sorted(set(rows.language.tolist())):
        places = np.flatnonzero(rows.language == language)[::4]
        qs = [
            without.quantize(rows.row(i), sqs.TopK(64), temperature=0.7) for i in places
        ]
        sums = [sum(map(codec.bits, qs)) for codec in (with_prior, without)]
        ratios[language] = sums[0] / sums[1]
    assert ratios["en"] < 0.8
    assert max(ratios.values()) < 0.9
