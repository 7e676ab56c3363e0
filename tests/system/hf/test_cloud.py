"""The verifier on one box: many sessions in one Hugging Face model."""

import gc
import threading
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec import Sampling
from sqs_codec._codec import truncation
from sqs_codec.system import session as judging
from sqs_codec.system.session import Read, VerifyHints, VerifyRound
from tests.refusals import refuses

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from sqs_codec.system import hf  # noqa: E402 (see above)
from sqs_codec.system.hf import _engine  # noqa: E402
from sqs_codec.system.hf._cloud import BLOCK, TEXT  # noqa: E402
from sqs_codec.system.hf._models import without_layers  # noqa: E402
from sqs_codec.system.hf._sampling import verify_jobs  # noqa: E402
from sqs_codec.torch._tensors import truncated  # noqa: E402

V = 50
SEED = 11
ALL = Sampling()
KEY = bytes(range(16))


def tiny(kind="Llama", seed=SEED, **options):
    """A model with random weights, large enough to give peaked distributions."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": V, "hidden_size": 32, "intermediate_size": 32, "head_dim": 8}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"num_hidden_layers": 3, "max_position_embeddings": 512}
    more = {"initializer_range": 0.3, "eos_token_id": None, **options}
    config = getattr(transformers, f"{kind}Config")(**sizes | more)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture
def rng():
    return np.random.default_rng(SEED)


CLOSE = 5e-6
"""Total variation by rounding in float32: sums are split up by how many tokens there
are, and these weights, much larger than a trained model's, make more of it."""


def text_of(rng, n, vocab=V):
    return rng.integers(0, vocab, n).tolist()


def probs_of(model, tokens, rows):
    """The result of transformers for a single text, without a KV cache."""
    with torch.inference_mode():
        logits = model(torch.tensor([list(tokens)])).logits[0, -rows:, :V]
    return logits.double().softmax(-1).numpy()


def draft(rng, n, vocab=V):
    codec, rows = sqs.Codec(vocab, resolution=20), 2 * rng.standard_normal((n, vocab))
    qs = [codec.quantize(row, sqs.TopK(20)) for row in rows]
    return sqs.Round(qs, [q.sample(rng) for q in qs]) if n else None


def any_sampling(rng, *choices):
    temperature, top_k, *shares = (rng.choice(each) for each in choices)
    return Sampling(float(temperature), int(top_k), *map(float, shares))


def job_of(rng, session, text, vocab=V):
    """A round, hints, or a text that is only to be read."""
    n, kind = int(rng.choice([0, 1, 2, 4, 32])), rng.integers(5)
    choices = [0, 0.5, 1, 2], [0, 3, 10**9], [0.8, 1], [0, 0.05]
    sampling = any_sampling(rng, *choices)
    if kind == 0:
        return Read(session, text)
    if kind == 1:
        return VerifyHints(session, text, text_of(rng, n, vocab), KEY, sampling)
    drafted, draws = draft(rng, n, vocab), rng.random(n + 1)
    return VerifyRound(session, text, drafted, draws, sampling)


def changing_jobs(rng, longest, vocab=V):
    """Yield jobs of eight sessions, with other texts, shorter ones and repeats."""
    texts = [text_of(rng, n, vocab) for n in (1, 5, 20, 60, 100, 150, 9, longest)]
    for _ in range(50):
        some = rng.permutation(8)[: rng.integers(1, 9)]
        for i in some:
            change, size = rng.integers(6), int(rng.integers(1, 20))
            if change == 0:
                texts[i] = text_of(rng, 10 * size, vocab)
            elif change == 1:
                del texts[i][size:]
            elif change == 2:
                del texts[i][max(1, len(texts[i]) - 2 * size) :]
            elif change == 3:
                texts[i] = [*texts[i], *text_of(rng, size, vocab)][:longest]
        yield [job_of(rng, b"%d" % i, [*texts[i]], vocab) for i in some]


def jobs_of(rng, lengths):
    """A round for each session, with texts of these lengths."""
    jobs = []
    for i, length in enumerate(lengths):
        text, drafted, draws = text_of(rng, length), draft(rng, i % 5), i % 5 + 1
        jobs.append(VerifyRound(b"%d" % i, text, drafted, rng.random(draws), ALL))
    return jobs


def rows_of(model, job):
    """Transformers' probabilities for a job."""
    return probs_of(model, [*job.text, *job.drafted], job.wanted)


def expected(model, job):
    """The verdict by transformers' own probabilities."""
    with np.errstate(divide="ignore"):
        logits = np.log(rows_of(model, job)) if job.wanted else np.zeros((0, V))
    return judging.verify_jobs([job], logits)[0]


class Watch:
    """The input and output of a cloud.

    Attributes
    ----------
    tokens : list of int
        How many each forward read.
    rows : dict from session to ndarray of float64 [L+1, V]
        The probabilities of the last job.
    """

    def __init__(self, cloud, monkeypatch):
        self.tokens = []
        self.rows = {}
        own = hf._cloud.verify_jobs

        def verify(jobs, logits):
            parts = torch.split(logits, [job.wanted for job in jobs])
            for job, part in zip(jobs, parts, strict=True):
                self.rows[job.session] = part.double().softmax(-1).numpy()
            return own(jobs, logits)

        monkeypatch.setattr(hf._cloud, "verify_jobs", verify)
        cloud._model._model.register_forward_pre_hook(
            lambda _, __, given: self.tokens.append(given["input_ids"].shape[1]),
            with_kwargs=True,
        )

    def error(self, model, jobs):
        apart = (self.rows[job.session] - rows_of(model, job) for job in jobs)
        errors = (np.abs(rows).sum(-1).max(initial=0) / 2 for rows in apart)
        return float(max(errors, default=0))


WINDOW = {"sliding_window": 4}
GPT2 = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 512}


def test_skipped_layers_do_not_change_the_others():
    kinds = ["sliding_attention", "full_attention"] * 2
    options = {"num_hidden_layers": 4, "layer_types": kinds}
    model, text = tiny("Gemma3Text", **WINDOW, **options), [*range(20)]
    thin = without_layers(model, (0,))
    model.model.layers[0].register_forward_hook(lambda _, given, __: given[0])
    rows = (probs_of(each, text, len(text)) for each in (thin, model))
    np.testing.assert_allclose(*rows, atol=CLOSE)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Llama", {}),
        ("Llama", {"num_key_value_heads": 4, "attention_bias": True}),
        ("Mistral", WINDOW),
        ("Gemma3Text", WINDOW | {"num_hidden_layers": 6}),
        ("Qwen3", {}),
        ("GPT2", GPT2),
    ],
)
def test_a_session_gets_the_logits_of_a_single_session(kind, options, monkeypatch):
    model, rng = tiny(kind, **options), np.random.default_rng(SEED)
    cloud = hf.Cloud(model)
    watch = Watch(cloud, monkeypatch)
    jobs = jobs_of(rng, [1, 40, 3, 17, 9, 2])
    assert cloud.verify(jobs) == [expected(model, job) for job in jobs]
    assert watch.error(model, jobs) < CLOSE
    # Once more, with the KV cache of now.
    jobs = [replace(job, text=[*job.text, *text_of(rng, 3)]) for job in jobs]
    assert cloud.verify(jobs) == [expected(model, job) for job in jobs]
    assert watch.error(model, jobs) < CLOSE
    assert len(watch.tokens) == 2


def test_half_precision(monkeypatch):
    model = tiny(initializer_range=0.1).to(torch.bfloat16)
    cloud = hf.Cloud(model)
    watch = Watch(cloud, monkeypatch)
    jobs = jobs_of(np.random.default_rng(SEED), [1, 40, 3, 17, 9])
    cloud.verify(jobs)
    assert watch.error(model, jobs) < 0.01


def test_any_job_is_self_contained(model, monkeypatch, rng):
    """Whatever came before, and whichever sessions are forgotten or evicted."""
    room = 5 * BLOCK  # of 8 sessions
    cloud = hf.Cloud(model, max_memory=room * bytes_of_token(model), batch_tokens=16)
    watch = Watch(cloud, monkeypatch)
    for jobs in changing_jobs(rng, 250):
        cloud.forget(b"%d" % rng.integers(8))
        assert cloud.verify(jobs) == [expected(model, job) for job in jobs]
        assert watch.error(model, [job for job in jobs if job.wanted]) < CLOSE


def bytes_of_token(model):
    """The KV cache per token: all layers, and one more to grow."""
    config = model.config
    values = 2 * config.num_key_value_heads * config.head_dim
    return (config.num_hidden_layers + 1) * values * 4


def test_kv_caches_stay_within_their_memory(model, monkeypatch, rng):
    alive = []
    most = 0
    own = torch.empty

    def empty(*shape, **options):
        nonlocal most
        made = own(*shape, **options)
        if made.ndim == 3:
            alive.append(weakref.ref(made))
            tensors = [ref() for ref in alive]
            most = max(most, sum(t.nbytes for t in tensors if t is not None))
        return made

    bound = 4 * BLOCK * bytes_of_token(model)
    cloud = hf.Cloud(model, max_memory=bound)
    monkeypatch.setattr(torch, "empty", empty)
    for length in (10, 40, 60, 100, 200, 230, 20):
        jobs = jobs_of(rng, [length] * 5)
        assert cloud.verify(jobs) == [expected(model, job) for job in jobs]
    assert bound / 2 < most <= bound


def test_half_the_memory_keeps_half_of_the_kv_caches(model, monkeypatch, rng):
    """Sessions in turn don't evict each other just before they are needed."""
    cloud = hf.Cloud(model, max_memory=4 * BLOCK * bytes_of_token(model))
    jobs = [Read(b"%d" % i, text_of(rng, 50)) for i in range(8)]
    cloud.verify(jobs)
    watch = Watch(cloud, monkeypatch)
    for _ in range(3):
        cloud.verify(jobs)
    assert sum(watch.tokens) <= 3 * 4 * 55


def test_long_prefills_run_in_chunks_after_rounds(model, monkeypatch, rng):
    cloud = hf.Cloud(model, batch_tokens=16)
    watch = Watch(cloud, monkeypatch)
    reading = Read(b"long", text_of(rng, 70))
    rounds = [
        VerifyRound(b"%d" % i, text_of(rng, 2), draft(rng, 3), rng.random(4), ALL)
        for i in range(3)
    ]
    order = []
    own = hf.Cloud._take

    def take(self, group):
        taken = own(self, group)
        order.append([task.job.session for task, _ in taken])
        return taken

    monkeypatch.setattr(hf.Cloud, "_take", take)
    verdicts = cloud.verify([reading, *rounds])
    assert verdicts == [None, *(expected(model, job) for job in rounds)]
    assert {*order[0]} == {b"0", b"1", b"2", b"long"}
    assert watch.tokens == [16] * 5 + [5]
    longer = VerifyRound(b"long", [*reading.text, 3], None, np.array([0.5]), ALL)
    assert cloud.verify([longer]) == [expected(model, longer)]
    assert watch.tokens[6:] == [1]


def test_forget_from_another_thread(model, monkeypatch, rng):
    """A cache in use is kept until then, and computed again when needed."""
    cloud = hf.Cloud(model)
    watch = Watch(cloud, monkeypatch)
    jobs = jobs_of(rng, [20, 30])

    def forget(*_):
        thread = threading.Thread(target=cloud.forget, args=(b"0",))
        thread.start()
        thread.join(60)
        assert not thread.is_alive()

    handle = cloud._model._model.register_forward_pre_hook(forget)
    assert cloud.verify(jobs) == [expected(model, job) for job in jobs]
    handle.remove()
    assert cloud.verify(jobs) == [expected(model, job) for job in jobs]
    assert watch.tokens == [20 + 31, 20 + 2]
    cloud.forget(b"1")
    cloud.forget(b"nobody")
    cloud.verify(jobs[1:])
    assert watch.tokens[2:] == [31]


def test_an_exception_leaves_correct_kv_caches(model, rng):
    cloud = hf.Cloud(model)
    jobs = jobs_of(rng, [20, 30, 4])
    cloud.verify(jobs)
    # In the last layer: the KV caches of others are written by then.
    layer = cloud._model._model.model.layers[2]

    def fail(*_):
        raise MemoryError("no more")

    others = [replace(job, text=[*job.text[:3], *text_of(rng, 9)]) for job in jobs]
    handle = layer.register_forward_pre_hook(fail)
    refuses("no more", cloud.verify, others, error=MemoryError)
    handle.remove()
    assert cloud.verify(jobs) == [expected(model, job) for job in jobs]
    assert cloud.verify(others) == [expected(model, job) for job in others]


def test_two_clouds_leave_their_model_unchanged(model, rng):
    before = model.config._attn_implementation, probs_of(model, [1, 2, 3], 1)
    clouds = [hf.Cloud(model), hf.Cloud(model)]
    for _ in range(2):
        jobs = jobs_of(rng, [20, 30, 4])
        wanted = [expected(model, job) for job in jobs]
        assert all(cloud.verify(jobs) == wanted for cloud in clouds)
    assert model.config._attn_implementation == before[0]
    np.testing.assert_allclose(probs_of(model, [1, 2, 3], 1), before[1], atol=CLOSE)
    own = {p.data_ptr() for p in model.parameters()}
    assert {p.data_ptr() for p in clouds[0]._model._model.parameters()} == own


def test_a_cloud_frees_its_memory(model):
    cloud = hf.Cloud(model)
    cloud.verify(jobs_of(np.random.default_rng(SEED), [4]))
    ref = weakref.ref(cloud._model._model)
    del cloud
    gc.collect()
    assert ref() is None


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(0.7, top_k=5),
        Sampling(1.3, top_p=0.8),
        Sampling(0.9, min_p=0.1),
        Sampling(1.1, top_k=30, top_p=0.9, min_p=0.05),
        Sampling(0.5, top_p=0.0),
        Sampling(0.5, top_k=10**9, min_p=1.0),
        Sampling(1e-320, top_k=2, top_p=0.5, min_p=0.5),
    ],
)
def test_sampling_matches_transformers(sampling):
    rows = 3 * torch.randn(20, V, generator=torch.Generator().manual_seed(SEED))
    options = {k: v for k, v in sampling.config().items() if v != ALL.config()[k]}
    options["temperature"] = max(sampling.temperature, 1e-30)
    config = transformers.GenerationConfig(do_sample=True, **{"top_k": 0} | options)
    model = tiny()
    warpers = model._get_logits_processor(config)
    wanted = warpers(torch.zeros(20, 1, dtype=torch.int64), rows).softmax(-1)
    ours = truncated(rows, [sampling] * len(rows)) / options["temperature"]
    assert torch.allclose(ours.softmax(-1), wanted, atol=1e-6)
    assert torch.equal(ours == -torch.inf, wanted == 0)


def test_ties_at_a_cut_agree_with_the_core(monkeypatch, rng):
    """In every type, for few and for many tokens left; sorted only where needed."""
    monkeypatch.setattr(truncation, "FIRST_LOOK", 8)
    for i in range(160):
        dtype = [torch.float16, torch.bfloat16, torch.float32, torch.float64][i % 4]
        logits = np.round(rng.normal(0, 6, (3, 200))) / 2
        logits[rng.random(logits.shape) < 0.1] = -np.inf
        rows = torch.from_numpy(logits).to(dtype)
        temperatures = [1e-320, 0.7, 1.0, 9.0]
        shares = [0, 0.5, 0.9, 0.99, 1], [0, 0.05, 0.3, 1]
        sampling = any_sampling(rng, temperatures, [0, 1, 7, 60, 10**9], *shares)
        kept = truncation.truncate(rows.double().numpy(), sampling)
        assert np.array_equal(truncated(rows, [sampling] * 3).double(), kept)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_verdicts_match_those_on_arrays(dtype, rng):
    """Of rounds, hints and texts that are only read, each by a sampling of its own."""
    jobs = [job_of(rng, b"a session", text_of(rng, 3)) for _ in range(400)]
    rows = rng.normal(0, 2, (sum(job.wanted for job in jobs), V)).astype(dtype)
    found = verify_jobs(jobs, torch.from_numpy(rows))
    assert found == judging.verify_jobs(jobs, rows)
    assert {verdict and verdict.accepted for verdict in found} >= {None, 0, 1, 2}
    for few in rows[1:], rows[:0]:
        with pytest.raises(ValueError, match=f"rows of logits, got {len(few)}$"):
            verify_jobs(jobs, torch.from_numpy(few))


def test_padded_vocabularies_are_cropped(model):
    cloud = hf.Cloud(model, vocab_size=40)
    job = VerifyRound(b"s", [1, 2, 3], None, np.array([0.9]), ALL)
    probs = probs_of(model, job.text, 1)[:, :40]
    assert cloud.vocab_size == 40
    assert cloud.verify([job]) == sqs.verify_rounds(
        [None], probs / probs.sum(), job.draws
    )
    with pytest.raises(ValueError, match=r"ids must be in \[0, 40\), got 3 to 45"):
        cloud.verify([replace(job, text=[3, 45])])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": []}, r"jobs\[0\]: the text must have at least one token"),
        ({"text": [-1]}, r"ids must be in \[0, 50\), got -1 to -1"),
        ({"text": [1] * 513}, r"have 513 tokens, the limit is 512 \(the model"),
        ({"hints": [1] * 33}, "a draft has at most 32 tokens, got 33"),
    ],
)
def test_bad_jobs(model, change, message):
    job, cloud = VerifyHints(b"s", [1, 2], [], KEY, ALL), hf.Cloud(model)
    refuses(message, cloud.verify, [replace(job, **change)])
    refuses("of different sessions", cloud.verify, [job, job])
    assert cloud.verify([]) == []
    other = VerifyRound(
        b"s", [1, 2], draft(np.random.default_rng(0), 1, 60), np.zeros(2), ALL
    )
    message = "the round has a vocabulary of 60 tokens, the model one of 50"
    refuses(message, cloud.verify, [other])


def test_memory_limits_the_length(model):
    token = bytes_of_token(model)
    cloud = hf.Cloud(model, max_memory=100 * token)
    assert cloud.max_text == 100
    job = Read(b"s", [1] * 101)
    refuses("max_memory has room for 100", cloud.verify, [job])
    assert cloud.verify([replace(job, text=[1] * 100)]) == [None]
    for places in (1, 3):
        cloud = hf.Cloud(model, max_memory=places * TEXT * token)
        assert cloud.places == places
        jobs = [Read(b"%d" % i, [1] * 512) for i in range(2 * places)]
        cloud.verify(jobs)
        assert not any(map(cloud.unread, jobs))
    with pytest.raises(ValueError, match="max_memory must be at least"):
        hf.Cloud(model, max_memory=BLOCK * token - 1)


def test_bad_parameters(model):
    refuses(r"vocab_size must be in \[2, 50\], got 51", hf.Cloud, model, vocab_size=51)
    refuses("batch_tokens must be at least 1", hf.Cloud, model, batch_tokens=0)
    refuses("max_memory must be at least 1", hf.Cloud, model, max_memory=0)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("Mamba", {"state_size": 4, "num_hidden_layers": 1}, "recurrent state"),
        ("Bloom", {"n_layer": 1, "n_head": 4}, "attention of only 0 can be replaced"),
        ("Gemma2", {"query_pre_attn_scalar": 8}, "capped attention scores"),
        ("Llama", {"layer_types": ["chunked_attention"] * 3}, "chunked_attention"),
    ],
)
def test_models_that_cannot_be_served(kind, options, message):
    refuses(message, hf.Cloud, tiny(kind, **options), error=hf.ModelError)
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    config = transformers.T5Config(vocab_size=V, **sizes)
    with pytest.raises(hf.ModelError, match="has an encoder"):
        hf.Cloud(transformers.T5ForConditionalGeneration(config))


@pytest.mark.parametrize(
    ("ignored", "message"),
    [
        ("logits_to_keep", "gives 2 rows of logits where 1 was asked for"),
        ("position_ids", "gives other logits once its attention is replaced"),
        (None, "unexpected keyword argument"),
    ],
)
def test_models_that_ignore_arguments_are_refused(model, ignored, message):
    class Deaf(transformers.LlamaForCausalLM):
        def forward(self, *given, **options):
            if ignored is None:
                raise TypeError("unexpected keyword argument")
            options.pop(ignored, None)
            return super().forward(*given, **options)

    refuses(message, hf.Cloud, Deaf(model.config).eval(), error=hf.ModelError)


def test_texts_end_before_rotary_angles_change():
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
        "original_max_position_embeddings": 128,
    }
    assert hf.Cloud(tiny(rope_parameters=rope)).max_text == 128


def test_fingerprints_of_tokenizers():
    def tokenizer(*tokens):
        vocabulary = {token: i for i, token in enumerate(tokens)}
        return SimpleNamespace(get_vocab=lambda: vocabulary, eos_token_id=None)

    prints = {
        hf.Tokenizer(tokenizer(*tokens)).fingerprint
        for tokens in (("a", "b"), ("b", "a"), ("a", "b", "c"), ("a", "bc"), ())
    }
    assert len(prints) == 5
    assert {len(p) for p in prints} == {8}
    # Gemma 3 has a token for pictures that its small models have no logits for.
    model = tiny()
    words = [f"word{i}" for i in range(model.config.vocab_size)]
    own, more = tokenizer(*words), tokenizer(*words, "<image>")
    drafts = [hf.Draft(model, each) for each in (own, more)]
    clouds = [hf.Cloud(model, tokenizer=each) for each in (own, more)]
    known = [cloud.fingerprint for cloud in clouds]
    assert {*known, *(draft.tokenizer.fingerprint for draft in drafts)} == {known[0]}
    assert len({each.vocab_size for each in (*drafts, *clouds)}) == 1


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("times", "few"),
    [
        ({4: 9.0, 2: 5.0, 1: 6.0}, 2),
        ({4: 9.0, 2: 5.0, 1: 4.0}, 1),
        ({4: 3.0, 2: 5.0}, 4),  # with a large model, a single one isn't waited for
    ],
)
@pytest.mark.usefixtures("four_threads")
def test_short_passes_use_the_fastest_number_of_threads(times, few, monkeypatch):
    tried = []

    def threads(cloud, tokens):
        cloud.verify([VerifyRound(b"one", [0] * tokens, None, np.zeros(1), ALL)])
        return torch.get_num_threads()

    def pass_seconds(cloud):
        tried.append(threads(cloud, 1))
        return times[tried[-1]]

    monkeypatch.setattr(_engine, "pass_seconds", pass_seconds)
    cloud = _engine.ThreadedCloud(tiny())
    assert tried == [*times]
    assert [threads(cloud, tokens) for tokens in (1, 41, 42)] == [few, 4, few]
