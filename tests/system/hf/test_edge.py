"""The codec in Hugging Face's loops: the edge, custom_generate."""

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import sqs_codec as sqs
from sqs_codec import Sampling
from sqs_codec.cli.options import SMOLLM2_FINGERPRINT as SMOLLM2
from sqs_codec.system import hf
from sqs_codec.system.edge import Edge, FixedPlan
from sqs_codec.system.engine import BatchEngine
from sqs_codec.system.hf import (
    CachedModel,
    Cloud,
    Draft,
    ModelError,
    _models,
    custom_generate,
    load_model,
)
from sqs_codec.system.hf._models import LanguageModel, place
from sqs_codec.system.session import LinkError, LocalLink, Setting
from tests.cli.test_demo import WORDS, save_model
from tests.refusals import refuses
from tests.system.contracts import check_draft, check_words
from tests.system.hf.test_cloud import tiny as tiny_of
from tests.system.serve.kit import serving

VOCAB_SIZE = 16
PROMPT = torch.tensor([[3, 4, 5]])
DOCS = Path(__file__).parents[3] / "docs"
PLEA = "Tell me of a fox."
LENGTH = 12


def tiny(seed):
    """A model small enough to be made here, which never stops."""
    return tiny_of(seed=seed, vocab_size=VOCAB_SIZE, bos_token_id=0, pad_token_id=0)


def link_to(model, vocab_size, tokenizer=None):
    cloud = Cloud(model, vocab_size=vocab_size, tokenizer=tokenizer)
    return LocalLink(cloud, tokenizer=cloud.fingerprint)


@lru_cache(maxsize=1)
def greedy(model, prompt, length):
    """The model's own greedy text, a token at a time."""
    cached = CachedModel(model, 49_152)
    text = [*prompt]
    for _ in range(length):
        text.append(int(cached.logits(text)[0].argmax()))
    return text[len(prompt) :]


@pytest.mark.parametrize(
    "plan",
    [FixedPlan(4), FixedPlan(0), None],
    ids=["drafts", "alone", "the planner's choice"],
)
def test_completion_is_smollm2s(smollm2, plan):
    prompt = smollm2.encode(PLEA)
    edge = Edge(Draft(smollm2.draft, smollm2.tokenizer), planner=plan)
    link = link_to(smollm2.target, 49_152, smollm2.tokenizer)
    steps = edge.generate(prompt, link, max_tokens=LENGTH, sampling=Sampling(0))
    text = [token for step in steps for token in step.tokens]
    assert text == greedy(smollm2.target, tuple(prompt), LENGTH)
    metrics = edge.metrics
    if metrics.drafted and plan is not None:  # hints may come too late
        assert 0 < metrics.accepted <= metrics.drafted
        assert 0.3 < metrics.acceptance_rate <= 1


def load_these(smollm2, monkeypatch):
    """Let pages load what is there."""
    rest = smollm2.tokenizer, smollm2.vocab_size, smollm2.stop, ""
    both = ((0, smollm2.target), (2, smollm2.draft))
    models = {dropped: LanguageModel(model, *rest) for dropped, model in both}
    monkeypatch.setattr(
        hf, "load_model", lambda _, drop_layers=0, **__: models[drop_layers]
    )


def test_tutorial_and_session_by_hand_run(smollm2, monkeypatch, capsys):
    """The Python of both pages, each from its first line to its last."""
    pages = (
        (DOCS / name).read_text() for name in ("tutorial.md", "serving/session-api.md")
    )
    load_these(smollm2, monkeypatch)
    cloud = Cloud(smollm2.target, tokenizer=smollm2.tokenizer)
    with serving(BatchEngine(cloud, tokenizer=cloud.fingerprint)) as server:
        for page in pages:
            code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.S))
            exec(code.replace("localhost:8743", server.address), names := {})
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("drafted ") for line in lines) == 4
    assert any(line.startswith("Verdict(accepted=") for line in lines)
    assert any(line.startswith("EdgeMetrics(tokens=") for line in lines)
    # The hello, the prompt and a round of four.
    up = [int(line.split()[1]) for line in lines if line.startswith("up ")]
    assert up[1] == 83
    assert 20 < up[2] < 120
    # Three tokens that the cloud decodes, in up to three forward passes.
    assert 1 <= sum("accepted=0, drafted=0" in line for line in lines) <= 3
    start, text = names["prompt"], names["text"]  # over links that can be renewed
    assert text[: len(start)] == start != text


def test_how_tos_run(smollm2, monkeypatch, capsys):
    """The Python of the how-to about Hugging Face models, from its first line on."""
    load_these(smollm2, monkeypatch)
    text = (DOCS / "serving/hugging-face.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    code = re.sub("(max_(?:new_)?tokens)=[0-9]+", r"\1=3", "\n".join(blocks))
    given = smollm2.target, 49_152, smollm2.tokenizer
    connect = "sqs_codec.system.serve._connect.connect"
    monkeypatch.setattr(connect, lambda *_, **__: link_to(*given))
    exec(code, {})
    printed = capsys.readouterr().out
    assert re.search(r"^\[.*EdgeMetrics\(tokens=3, drafted=[0-9]", printed)
    assert printed.endswith(" bits per drafted token\n")


def test_a_broken_link_without_renewal_ends_the_completion():
    model = tiny(0)
    link = link_to(model, VOCAB_SIZE)
    edge = tiny_edge(model)
    steps = edge.generate([1, 2], link, max_tokens=40, sampling=Sampling(0))
    next(steps)
    link.close()
    refuses("closed", list, steps, error=LinkError)


# From transformers' generate


def tiny_edge(model):
    setting = Setting(sqs.Codec(VOCAB_SIZE), sqs.TopK(4))
    return Edge(Draft(model), settings=[setting], planner=FixedPlan(3))


def written(draft, edge, target, **options):
    """The completion of the draft model's generate with a cloud."""
    text = draft.generate(
        PROMPT,
        attention_mask=torch.ones_like(PROMPT),
        custom_generate=custom_generate,
        edge=edge,
        link=lambda: link_to(target, VOCAB_SIZE),
        **{"max_new_tokens": 20, "do_sample": False, **options},
    )
    return [int(token) for token in getattr(text, "sequences", text)[0, 3:]]


def plain(target, **options):
    text = target.generate(
        PROMPT, attention_mask=torch.ones_like(PROMPT), do_sample=False, **options
    )
    return [int(token) for token in text[0, 3:]]


def test_generate_writes_the_greedy_completion_and_stops():
    draft, target = tiny(1), tiny(0)
    edge = tiny_edge(draft)
    expected = plain(target, max_new_tokens=20)
    assert written(draft, edge, target) == expected
    assert written(draft, edge, target, return_dict_in_generate=True) == expected
    assert edge.metrics.tokens == 40
    stop = expected[9]
    stopped = expected[: expected.index(stop) + 1]
    assert written(draft, edge, target, eos_token_id=stop) == stopped
    five = [lambda ids, scores, **_: ids.shape[1] >= 8]
    criteria = transformers.StoppingCriteriaList(five)
    assert written(draft, edge, target, stopping_criteria=criteria) == expected[:5]


def test_generate_samples_within_the_targets_top_k():
    draft, target = tiny(1), tiny(0)
    torch.manual_seed(0)
    text = written(
        draft, tiny_edge(draft), target, do_sample=True, temperature=2.0, top_k=2
    )
    ids = [*PROMPT[0].tolist(), *text]
    logits = target(torch.tensor([ids])).logits[0, 2:-1]
    ranks = (logits > logits.gather(-1, torch.tensor(text)[:, None])).sum(-1)
    assert ranks.max() == 1  # both of the two come up


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"repetition_penalty": 1.3}, "RepetitionPenaltyLogitsProcessor"),
        ({"num_return_sequences": 2, "do_sample": True}, "expected one text, got 2"),
    ],
)
def test_generate_refuses_unsupported_options(options, said):
    draft = tiny(1)
    refuses(said, written, draft, tiny_edge(draft), tiny(0), **options)
    refuses("another model", written, draft, tiny_edge(tiny(2)), tiny(0))


# Models

CPU, CUDA, MPS = {"cpu"}, {"cpu", "cuda"}, {"cpu", "mps"}


@pytest.mark.parametrize(
    ("asked", "found", "chosen"),
    [
        ("auto auto", CPU, "cpu float32"),
        ("auto auto", CUDA, "cuda auto"),
        ("auto auto", MPS, "mps auto"),
        ("auto auto", CUDA | MPS, "cuda auto"),
        ("auto bfloat16", CPU, "cpu bfloat16"),
        ("auto float32", CUDA, "cuda float32"),
        ("cpu auto", CUDA, "cpu float32"),
        ("cpu float16", CUDA, "cpu float16"),
    ],
)
def test_a_model_gets_a_device_and_type(asked, found, chosen):
    assert place(*asked.split(), found=found) == tuple(chosen.split())


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("cuda auto", "no cuda here: PyTorch .* finds only cpu and mps"),
        ("nope auto", "no nope here"),
        ("cpu int8", r"dtype must be one of \['auto', 'float32', 'bfloat16', "),
    ],
)
def test_impossible_devices_and_types_are_refused(asked, words):
    refuses(words, place, *asked.split(), found=MPS)


@pytest.mark.parametrize("free", [10_000, 1 << 40])
def test_a_model_that_does_not_fit(free, tmp_path, monkeypatch):
    """Whether that is foreseen, or PyTorch finds no memory."""

    def load(*_, **__):
        assert free > 10_000
        return torch.empty(1 << 60)

    folder = save_model(tmp_path, 16, WORDS)
    assert load_model(folder, dtype="bfloat16").placement == "on cpu in bfloat16, 0 MiB"
    automatic = transformers.AutoModelForCausalLM
    monkeypatch.setattr(automatic, "from_pretrained", load)
    monkeypatch.setattr(_models, "_free", lambda _: free)
    words = (
        f"doesn't fit in float32: its weights take .* GiB, and cpu has {free >> 30}.0"
    )
    refuses(words, load_model, folder, error=ModelError)


def test_a_cpu_holds_weights_in_16_bits(tmp_path, monkeypatch):
    if torch.backends.quantized.engine not in _models.HALF_ENGINES:
        pytest.skip("PyTorch has no engine for it here")
    folder = save_model(tmp_path, 16, WORDS)
    whole, half = (load_model(folder, dtype="auto", drafts=d) for d in (False, True))
    said = "on cpu in float32, weights in float16, 0 MiB"
    assert (half.placement, whole.placement) == (said, "on cpu in float32, 0 MiB")
    assert load_model(folder, dtype="float16").placement == said
    rows = [CachedModel(m.model, 13).logits([3, 4, 5]) for m in (whole, half)]
    np.testing.assert_allclose(*rows, rtol=0, atol=0.02 * rows[0].std())
    assert not np.array_equal(*rows)
    # Who shares the parameters has them as they were; a layer that doesn't fit is left.
    thin = _models.share(whole.model)
    with torch.no_grad():
        thin.model.layers[0].mlp.up_proj.weight[0, 0] = 1e5
    before = CachedModel(whole.model, 13).logits([3, 4, 5])
    _models.halve(thin)
    np.testing.assert_array_equal(
        CachedModel(whole.model, 13).logits([3, 4, 5]), before
    )
    assert type(thin.model.layers[0].mlp.up_proj) is torch.nn.Linear
    assert isinstance(thin.model.layers[1].mlp.up_proj, _models.HalfLinear)
    monkeypatch.setattr(_models, "HALF_ENGINES", ())
    elsewhere = load_model(folder, dtype="auto", drafts=True)
    assert elsewhere.placement == "on cpu in float32, 0 MiB"


def test_draft_shares_the_targets_weights(smollm2):
    originals = {id(p) for p in smollm2.target.parameters()}
    assert {id(p) for p in smollm2.draft.parameters()} < originals
    assert len(smollm2.draft.model.layers) == len(smollm2.target.model.layers) - 2
    assert smollm2.target.config.num_hidden_layers == len(smollm2.target.model.layers)


def test_logits_of_several_positions_match_single_calls(smollm2):
    draft, text = Draft(smollm2.draft, smollm2.tokenizer), [1, 5, 3, 7]
    assert (draft.vocab_size, draft.tokenizer.fingerprint) == (49_152, SMOLLM2)
    rows = [draft.logits(text[:n])[0] for n in (3, 4)]
    np.testing.assert_allclose(draft.logits(text, last=2), rows, atol=2e-3)
    assert len(draft) == 4
    refuses("last must be", draft.logits, [1, 2], last=3)
    check_words(draft.tokenizer, smollm2.tokenizer)


WINDOW = {"sliding_window": 4, "num_hidden_layers": 6}


@pytest.mark.parametrize(
    ("kind", "options", "at_once"),
    [
        ("Llama", {}, True),
        ("Gemma3Text", WINDOW, True),
        ("Mistral", WINDOW, False),  # it doesn't state the window of each layer
    ],
)
def test_branches_share_a_forward_pass(kind, options, at_once):
    model, fed = tiny_of(kind, **options), list[tuple[int, int]]()
    draft = Draft(model)
    assert draft._reads_trees == at_once
    model.register_forward_pre_hook(
        lambda *given: fed.append(2 * given[2]["input_ids"].shape[1:]), with_kwargs=True
    )
    check_draft(draft, 60, error=1e-4, fed=fed if at_once else None)
    assert len(draft) < 100


@pytest.mark.parametrize("name", ["position_ids", "attention_mask", None])
def test_a_model_that_cannot_share_branches(name):
    model = tiny_of()

    def forget(_, args, given):
        if name is None and "attention_mask" in given:
            raise TypeError("expected a mask [1, tokens]")
        return args, {key: given[key] for key in given if key != name}

    model.register_forward_pre_hook(forget, with_kwargs=True)
    cached = CachedModel(model, 50)
    assert not cached._reads_trees
    rows = cached.branches([[1, 2], [1, 3]])
    np.testing.assert_allclose(rows[1:], cached.logits([1, 3]), atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1])
def test_the_kv_cache_is_right_after_an_interrupt(layer):
    model = tiny_of()

    def interrupt(*_):
        raise KeyboardInterrupt

    for tail in ([[7, 8]], [[7], [8]]):
        cached = CachedModel(model, 50)
        cached.branches([[1, 2, 3], [1, 2, 4]])
        handle = model.model.layers[layer].register_forward_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            cached.branches([[1, 2, 3, *end] for end in tail])
        handle.remove()
        expected = CachedModel(model, 50).logits([1, 2, 5])
        np.testing.assert_allclose(cached.logits([1, 2, 5]), expected, atol=1e-4)
