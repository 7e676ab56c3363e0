"""Estimates of a divergence, compared with exact sums."""

import itertools
import math
import threading

import numpy as np
import pytest
import torch

import sqs_codec as sqs
from sqs_codec import distill
from sqs_codec.distill import _divergence, _header, _make, _tasks
from sqs_codec.torch import _distill
from tests.kit import Given
from tests.refusals import refuses

V, N, L = 300, 40, 32
NAMES = (*_header.EXTRAS,)


def logits_of(tokens, *, noise=0.0):
    """Return rows of logits that hang on the text, peaked and flat ones."""
    rng = np.random.default_rng([*tokens])
    rows = rng.normal(0, 1, (len(tokens), V)) * rng.uniform(1, 5, (len(tokens), 1))
    return rows + np.random.default_rng(len(tokens)).normal(0, noise, rows.shape)


def logs_of(tokens, *, noise=0.0):
    """Return their logarithms as probabilities."""
    rows = logits_of(tokens, noise=noise)
    return rows - np.logaddexp.reduce(rows, 1, keepdims=True)


class Letters:
    """A tokenizer of bytes."""

    def __init__(self, bos=None):
        self.bos, self.vocab_size, self.fingerprint = bos, V, b"12345678"

    def encode(self, text, *, special=True):
        """Return a token for each byte, or what "<s>" spells."""
        return [*(text.replace("<s>", "\0") if special else text).encode()]


class Toy:
    """A reader that gives logits in parts, as arrays or tensors."""

    max_tokens = N

    def __init__(self, noise=0.0, bos=None):
        self.noise, self.tokenizer, self.at_once = noise, Letters(bos), 3 * N

    def read(self, texts):
        """Yield logits by threes."""
        for text in texts:
            rows = logits_of(text.tokens, noise=self.noise)[text.places]
            for i in range(0, len(rows), 3):
                part = rows[i : i + 3]
                yield text, torch.tensor(part) if i % 2 else part


TEXTS = [
    bytes(np.random.default_rng(i).integers(1, 128, N).tolist()).decode()
    for i in range(40)
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("kld") / "ref.parquet"
    distill.make(path, sqs.Codec(V, L), Toy(), TEXTS, extras=NAMES)
    return distill.load(path)


def dense(data, noise):
    """Return the mean divergence of all rows."""
    found = []
    for one in data:
        p, q = (logs_of(one.tokens.tolist(), noise=n) for n in (0.0, noise))
        found.append((np.exp(p) * (p - q)).sum(1))
    return float(np.mean(found))


@pytest.mark.parametrize("noise", [0.05, 0.3, 1.0])
def test_the_estimate_is_within_its_errors(data, noise):
    found, true = distill.measure(data, Toy(noise)), dense(data, noise)
    assert abs(found.mean.value - true) < 3.5 * found.mean.reference
    assert found.mean.reference < 0.05 * true
    assert found.is_trusted
    assert (found.rows, found.contexts, found.infinite_rows) == (40 * N, 40, 0)
    again = distill.kld(data, (logits_of(s.tokens.tolist(), noise=noise) for s in data))
    assert again.mean == pytest.approx(found.mean, rel=1e-4)


@pytest.mark.parametrize(
    ("p", "q", "resolution"),
    [([40, 13, 6, 3, 1, 1], [20, 20, 8, 12, 3, 1], 5), ([63, 1], [62, 2], 32)],
)
def test_both_estimators_are_exact_on_average(p, q, resolution, monkeypatch):
    """Probabilities of whole 64ths: the counts are the same within each 64th."""
    monkeypatch.setattr(
        _divergence, "step_of", lambda rows: np.full(rows.counts.size, 1e-9)
    )
    p, q = np.array(p) / 64, np.array(q) / 64
    codec, found, times = sqs.Codec(len(p), resolution), [], 64 * resolution
    for i in range(times):
        rng = Given([(2 * i + 1) * 2**64 // (2 * times)])
        rows = codec.quantize_unbiased_rows(np.log(p)[None], rng=rng)
        blank = np.zeros(1)
        numbers = {"token_logprobs": blank, "likeliest": blank}
        own = numbers | {"logprobs": np.log(p)[rows.token_ids]}
        told = numbers | {"logprobs": np.log(q)[rows.token_ids]}
        ones = np.ones(1, np.uint32), np.zeros(1, np.int64), rows, 1.0, False, own
        found.append(_divergence.estimate_rows(distill.Text(*ones), told))
    every = np.concatenate(found)
    assert every["plain"].mean() == pytest.approx(float(p @ np.log(p / q)), abs=1e-6)
    assert every["control"].mean() == pytest.approx(0, abs=1e-6)
    # Where a row has two ids, half of the roundings show but one, and nothing apart.
    least = 0.99 if len(p) == 2 else 0.7  # the chance of the last count is known
    assert every["plain_variance"].mean() > least * every["plain"].var()


def test_figures_on_the_observed_text_are_exact(data):
    found = distill.measure(data, Toy(0.5))
    own, other, differ, same = [], [], [], []
    for one in data:
        text = one.tokens.tolist()
        p, q = (logs_of(text, noise=n) for n in (0.0, 0.5))
        at = np.arange(N - 1), text[1:]
        own.append(p[at])
        other.append(q[at])
        differ.append(np.exp(q[at]) - np.exp(p[at]))
        same.append(p.argmax(1) == q.argmax(1))
    ratios = np.mean(own, 1) - np.mean(other, 1)
    ppl, reference_ppl = np.exp(-np.mean(other)), np.exp(-np.mean(own))
    assert found.log_ratio.value == pytest.approx(ratios.mean(), rel=1e-3)
    text = 1.0331 * ratios.std(ddof=1) / 40**0.5  # 40 contexts: Student's t
    assert found.log_ratio.text == pytest.approx(text, rel=1e-3)
    assert found.perplexity.value == pytest.approx(ppl, rel=1e-3)
    assert found.reference_perplexity.value == pytest.approx(reference_ppl, rel=1e-3)
    assert found.mean_difference.value == pytest.approx(np.mean(differ), abs=1e-5)
    rms = np.sqrt(np.mean(np.square(differ)))
    assert found.rms_difference.value == pytest.approx(rms, rel=1e-3)
    assert found.same_likeliest.value == np.mean(same)


@pytest.mark.parametrize("contexts", [2, 3, 5, 9])
def test_two_standard_errors_cover_95_percent(contexts):
    rng, at = np.random.default_rng(contexts), np.arange(contexts)
    found = [_divergence._mean(rng.normal(0, 1, contexts), at) for _ in range(3000)]
    covered = np.mean([abs(mean) <= 2 * text for mean, text, _ in found])
    assert 0.94 < covered < 0.965


@pytest.mark.parametrize("rounding", ["random", "nearest"])
def test_divergence_of_a_confident_model_from_itself_is_small(rounding):
    """Next to p = 1 the nearest step is always 0, and the estimate is no divergence."""
    n, rng, miss = 20_000, np.random.default_rng(0), np.geomspace(1e-7, 1e-1, 20_000)
    p = np.stack([1 - miss, miss / 2, miss / 2], 1)
    codec = sqs.Codec(3, L)
    rows = codec.quantize_unbiased_rows(np.log(p), rng=rng)
    logs = np.log(p)[np.repeat(np.arange(n), np.diff(rows.offsets)), rows.token_ids]
    up = rng.random(logs.size) if rounding == "random" else 0.5
    kept = _header.of_steps(rows, _header.in_steps(rows, logs, up))
    blank = {"token_logprobs": np.zeros(n), "likeliest": np.zeros(n)}
    ones = np.ones(n, np.uint32), np.arange(n), rows, 1.0, False
    own = distill.Text(*ones, blank | {"logprobs": kept})
    told = blank | {"logprobs": logs}
    found = _divergence.summarize([_divergence.estimate_rows(own, told)])
    far = [abs(x.value) > 3 * x.reference for x in (found.mean, found.control)]
    assert far == 2 * [rounding == "nearest"]


def test_a_file_records_the_rounding_of_logprobs(data):
    said = data.header.to_json()
    assert said.pop("log_rounding") == "random"
    refuses("log_rounding is None, but 'random' was", distill.Header.from_json, said)


def test_rounding_a_reference_is_repeatable(data, tmp_path):
    for name in "a", "b":
        distill.make(tmp_path / name, sqs.Codec(V, L), Toy(), TEXTS[:9], extras=NAMES)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    off = []
    for sequence in data:
        rows, p = sequence.rows, logs_of(sequence.tokens.tolist())
        at = np.repeat(np.arange(len(rows)), np.diff(rows.offsets)), rows.token_ids
        off.append((sequence.extras["logprobs"] - p[at]) / _header.step_of(rows))
    every = np.concatenate(off)
    assert abs(every.mean()) < 4 * every.std() / every.size**0.5
    assert every.var() == pytest.approx(1 / 6, rel=0.05)
    assert 0.9 < abs(every).max() < 1.001


def test_a_very_different_model_is_reported(data):
    found = distill.kld(data, (logits_of([*s.tokens, 1])[:-1] for s in data))
    assert not found.is_trusted
    assert not found.is_controlled


def test_infinite_rows_are_counted(data):
    def broken(i, one):
        rows = logits_of(one.tokens.tolist(), noise=0.1)
        if i == 3:
            rows[5, one.rows[5].token_ids[0]] = -np.inf
            rows[6, one.rows[6].token_ids[0]] -= 200  # which is less than 1e-80
            rows[7, 0] = np.nan
        return rows

    found = distill.kld(data, (broken(i, one) for i, one in enumerate(data)))
    assert (found.infinite_rows, found.nan_rows) == (2, 1)
    assert found.mean.value == math.inf
    assert 0 < found.finite_mean.value < 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("far", [True, False])
def test_tensors_give_the_lookups_of_arrays(dtype, far, monkeypatch):
    monkeypatch.setattr(_tasks, "AT_ONCE", 2 * V)
    monkeypatch.setattr(_tasks, "_is_far", lambda x: far and _tasks._is_tensor(x))
    rows = torch.tensor(logits_of(range(9))).to(dtype)
    rows[4, 7] = -torch.inf
    sizes = np.array([3, 1, 5, 4, 3, 3, 3, 3, 2])
    ends = np.cumsum([0, *sizes])
    ids = np.concatenate([np.sort(np.arange(n) * 11 + 7) for n in sizes])
    counts = np.concatenate([[L - n + 1, *[1] * (n - 1)] for n in sizes])
    counts = sqs.SparseRows(ids, counts, ends, V, L)
    following = np.array([5, 6, -1, 7, 7, 9, 9, 9, -1])
    for temperature in 1.0, 0.5:
        a, b = (
            _tasks.look_up(x, counts, following, temperature=temperature)
            for x in (rows, rows.double().numpy())
        )
        for name in NAMES:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-5)
    assert a["token_logprobs"][[2, 4, 8]].tolist() == [0, -np.inf, 0]
    given = counts, following
    refuses("temperature above 0", _tasks.look_up, rows, *given, temperature=0)
    rows = np.ma.array(rows.double().numpy())
    refuses("whose mask would be", _tasks.look_up, rows, *given, error=TypeError)


def test_incomparable_models_are_refused(data, tmp_path):
    toy = Toy()
    toy.tokenizer.fingerprint = b"87654321"
    refuses("the reference's tokenizer has", distill.measure, data, toy)
    toy.tokenizer.fingerprint, toy.tokenizer.vocab_size = b"", V + 1
    refuses("vocabulary of 300, but the reader has 301", distill.measure, data, toy)
    toy.tokenizer.vocab_size, toy.max_tokens = V, N - 1
    refuses("text 0 has 40 tokens, .* at most 39", distill.measure, data, toy)
    toy = Toy()
    toy.read = lambda texts: ((text, np.zeros((1, V))) for text in texts)
    refuses("text 0: got 1 of 40 rows", distill.measure, data, toy)
    path, said = tmp_path / "plain.parquet", "is not a reference: a reference has temp"
    distill.make(path, sqs.Codec(V, L), Toy(), TEXTS[:1])
    refuses(said, distill.measure, distill.load(path), Toy())
    longer = [np.zeros((N + 1, V))]
    refuses(r"shape \[n, 300\] .*got \[41, 300\]", distill.kld, data, longer)
    whole = [logits_of(one.tokens.tolist()) for one in data]
    refuses("got logits for 39 of 40", distill.kld, data, whole[:-1])
    refuses("for more than 40 sequences", distill.kld, data, itertools.cycle(whole))
    refuses("text 0: got 39 of 40 rows", distill.kld, data, [np.zeros((N - 1, V))])


def test_contexts_match_llama_perplexity():
    pieces = _make.contexts(Toy(), "abcdefghijk", 4)
    assert [bytes(piece.tokens) for piece in pieces] == [b"abcd", b"efgh"]
    assert [*pieces[0].places] == [2]
    pieces = _make.contexts(Toy(bos=1), "abcdefghijk", 5)
    assert [bytes(piece.tokens) for piece in pieces] == [b"\1bcde", b"\1ghij"]
    assert [*pieces[0].places] == [2, 3]
    # As llama-perplexity has it, a text spells no special token.
    assert bytes(_make.contexts(Toy(), "a<s>b", 4)[0].tokens) == b"a<s>"
    refuses("it has 3 tokens, and a context has 4", _make.contexts, Toy(), "abc", 4)


def test_accelerators_are_used_from_the_calling_thread(monkeypatch):
    monkeypatch.setattr(_tasks, "_is_far", lambda x: True)
    own, threads = _distill.look_up_part, set()

    def part(*given):
        threads.add(threading.get_ident())
        return own(*given)

    monkeypatch.setattr(_distill, "look_up_part", part)
    counts = sqs.SparseRows([1, 2], [L, L], [0, 1, 2], V, L)
    _tasks.look_up(torch.zeros(2, V), counts, np.array([3, -1]))
    assert threads == {threading.get_ident()}
