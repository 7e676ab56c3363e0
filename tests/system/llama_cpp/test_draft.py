"""A GGUF file as a draft model: its logits, its cache, its vocabulary."""

import ctypes
import gc
import random
from types import SimpleNamespace

import llama_cpp as llama
import numpy as np
import pytest

from sqs_codec import vocabulary_fingerprint
from sqs_codec.cli.options import SMOLLM2_FINGERPRINT as SMOLLM2
from sqs_codec.system.hf import CachedModel, Tokenizer
from sqs_codec.system.hf._models import _smollm2_gguf
from sqs_codec.system.llama_cpp import Draft, _model
from tests.refusals import refuses
from tests.system.contracts import check_draft, check_words
from tests.system.llama_cpp.files import WORDS, write_model
from tests.system.streams import behind


@pytest.fixture(scope="module")
def draft():
    return Draft(_smollm2_gguf())


@pytest.fixture(scope="module")
def text(draft):
    text = draft.tokenizer.encode_prompt("Why is the sea salty?")
    for _ in range(30):
        text.append(int(draft.logits(text)[0].argmax()))
    return text


def distance(one, other):
    probs = [np.exp(np.float64(row - row.max())).ravel() for row in (one, other)]
    return (
        float(np.abs(probs[0] / probs[0].sum() - probs[1] / probs[1].sum()).sum()) / 2
    )


def test_logits_match_transformers(draft, text, smollm2):
    """Up to llama.cpp's rounding of activations, implied by the file's weights."""
    size = 30
    model = CachedModel(smollm2.target, smollm2.vocab_size)
    expected = model.logits(text, last=size)
    ends = range(len(text) - size + 1, len(text) + 1)
    found = [draft.logits(text[:end])[0].copy() for end in ends]
    distances = [distance(*rows) for rows in zip(found, expected, strict=True)]
    assert np.mean(distances) < 0.06
    same = [a.argmax() == b.argmax() for a, b in zip(found, expected, strict=True)]
    assert np.mean(same) > 0.85


@pytest.mark.parametrize("architecture", ["llama", "mamba"])
def test_logits_do_not_depend_on_earlier_calls(tmp_path, architecture, fed):
    draft = Draft(write_model(tmp_path / "model.gguf", architecture))
    together = architecture == "llama"
    check_draft(draft, 80, error=0.03, fed=fed if together else None)
    draft.logits([1, 3, 4])
    assert len(draft) == 3


def test_branches_without_room_are_computed_one_by_one(tmp_path):
    draft = Draft(write_model(tmp_path / "model.gguf", "llama"))
    long = [1, 3, 4, 5] * 15
    many = [[1, 3, 4, i, j] for i in range(3) for j in range(3)]
    for texts in (many, [long, [1, *long]], many[:2]):
        rows = draft.branches(texts)
        for row, text in zip(rows, texts, strict=True):
            np.testing.assert_allclose(row, draft.logits(text)[0], atol=0.03)
    refuses("expected one or more texts, got none", draft.branches, [])
    refuses("1 to 64 tokens .* got 0", draft.branches, [[1], []])


def test_branches_without_partial_removal_run_one_by_one(tmp_path, monkeypatch):
    draft = Draft(write_model(tmp_path / "model.gguf", "llama"))
    shared = [1, 3, 4, 5] * 10
    draft.logits(shared)
    with monkeypatch.context() as patch:
        patch.setattr(_model.llama, "llama_memory_seq_rm", lambda *_: False)
        rows = draft.branches([[*shared, 3], [*shared, 4]])
    for row, token in zip(rows, (3, 4), strict=True):
        expected = draft.logits([*shared, token])[0]
        np.testing.assert_allclose(row, expected, atol=0.03)


def test_long_prompts_are_prefilled_in_parts(text, draft, monkeypatch):
    whole = draft.logits(text).copy()
    few = SimpleNamespace(**{**vars(draft._model.options), "batch_size": 7})
    monkeypatch.setattr(draft._model, "options", few)
    for length in (len(text), 63, 64, 7, 8):
        parts = draft.twin().logits(text[:length])
        assert distance(parts, draft.logits(text[:length])) < 0.15
    assert distance(whole, draft.twin().logits(text)) < 0.15


def test_a_row_and_a_twin_outlive_a_draft(tmp_path):
    draft = Draft(write_model(tmp_path / "model.gguf", "llama"))
    row, twin = draft.logits([1, 3]), draft.twin()
    copy = row.copy()
    twin.logits([4])
    assert (len(draft), len(twin)) == (2, 1)
    del draft
    gc.collect()
    np.testing.assert_array_equal(row, copy)
    np.testing.assert_array_equal(twin.twin().logits([1, 3]), copy)


def test_unreadable_input_is_refused(tmp_path):
    path = write_model(tmp_path / "model.gguf", "llama")
    assert Draft(path).n_ctx == 64  # it was trained for no more
    draft = Draft(path, n_ctx=5, threads=1)
    for text in ([], [1] * 6):
        refuses(rf"1 to 5 tokens .* got {len(text)}", draft.logits, text)
    expected = draft.logits(np.array([1, 3, 4])).copy()
    with pytest.raises(RuntimeError, match=r"can't decode \(-1\): invalid token"):
        draft.logits([1, 3, 99])
    np.testing.assert_array_equal(draft.logits([1, 3, 4]), expected)
    for options in ({"n_ctx": 0}, {"threads": 0}):
        refuses(r"must be (at least 1|in \[1, 512\])", Draft, path, **options)


def test_unloadable_files_are_explained(tmp_path, capfd):
    whole = write_model(tmp_path / "whole.gguf", "llama").read_bytes()
    path = tmp_path / "model.gguf"
    refuses(r"there is no file .*model\.gguf", Draft, path, error=FileNotFoundError)
    for data, said in (
        (b"", "model.gguf: "),
        (b"root:x:0:0", "invalid magic characters"),
        (whole[:200], "remaining file size"),
        (whole[:-1000], "not within the file bounds"),
        (whole.replace(b"llama", b"lamia"), "unknown model architecture: 'lamia'"),
    ):
        path.write_bytes(data)
        refuses(said, Draft, path)
    assert capfd.readouterr() == ("", "")


def test_tokenization_matches_transformers(draft, smollm2):
    assert draft.vocab_size == smollm2.vocab_size
    own, theirs = draft.tokenizer, Tokenizer(smollm2.tokenizer)
    assert own.fingerprint == theirs.fingerprint == SMOLLM2
    assert own.stop >= smollm2.stop
    check_words(own, smollm2.tokenizer)


def test_a_prompt_may_have_more_tokens_than_bytes(tmp_path):
    words = [*WORDS[:3], *(f"<0x{i:02X}>" for i in range(256))]
    draft = Draft(write_model(tmp_path / "model.gguf", "llama", words))
    space = [3 + i for i in "\u2581".encode()]
    a, b = 3 + ord("a"), 3 + ord("b")
    assert draft.tokenizer.encode_prompt("a b") == [1, *space, a, *space, b]


@pytest.mark.parametrize("template", ["{{ messages[0].content }", "{{ 1 / 0 }}"])
def test_a_template_may_fail(tmp_path, template):
    path = write_model(tmp_path / "model.gguf", "llama", template=template)
    encode = Draft(path).tokenizer.encode_prompt
    refuses("the chat template fails: ", encode, "the")


def test_changes_of_a_converter_are_undone(tmp_path):
    draft = Draft(write_model(tmp_path / "model.gguf", "llama"))
    words = [*WORDS[:5], "\u2581\u2581"]
    assert draft.vocab_size == 6
    assert draft.logits([1]).shape == (1, 6)
    assert draft.tokenizer.fingerprint == vocabulary_fingerprint(
        {word: i for i, word in enumerate(words)}
    )
    assert draft.tokenizer.stop == {2}


def test_a_completion_decodes_as_in_llama_cpp(tmp_path):
    words = [*WORDS[:5], "\u2581", *(f"<0x{i:02X}>" for i in range(256))]
    draft = Draft(write_model(tmp_path / "model.gguf", "llama", words))
    rng, fox = random.Random(0), [6 + byte for byte in "\U0001f98a".encode()]
    for _ in range(300):
        tokens = [3, *rng.choices(range(len(words)), k=rng.randrange(12)), *fox]
        tokens += rng.choices([1, 3, 5, *fox], k=rng.randrange(60))
        cut = rng.randrange(1, len(tokens))
        stream, shown = draft.tokenizer.stream(tokens[:cut]), ""
        for token in tokens[cut:]:
            shown += stream.add([token])
        whole, prompt = (decoded(draft, ids) for ids in (tokens, tokens[:cut]))
        assert shown + stream.rest() == behind(prompt, whole)


def decoded(draft, ids):
    """Return the text of tokens as llama.cpp gives it."""
    given, vocab = (llama.llama_token * len(ids))(*ids), draft._model.vocab
    buffer = ctypes.create_string_buffer(999)
    n = llama.llama_detokenize(vocab, given, len(ids), buffer, 999, False, False)
    return buffer.raw[:n].decode(errors="replace")


def test_messages_cannot_spell_template_tokens(tmp_path):
    words = [*WORDS[:3], *(f"<0x{i:02X}>" for i in range(256)), "<a>", "<b>"]
    template = "{% for m in messages %}<a>{{ m.content }}{% endfor %}"
    path = write_model(tmp_path / "m.gguf", "llama", words, template=template)
    tiny = Draft(path).tokenizer
    assert tiny.encode_prompt("x <a>").count(words.index("<a>")) == 1
    assert tiny.encode_prompt("x <b>").count(words.index("<b>")) == 1


def test_a_file_gives_its_default_sampling(tmp_path):
    path = write_model(tmp_path / "one.gguf", "llama")
    assert Draft(path).tokenizer.sampling == {}
    sampling = {"temp": 0.5, "top_k": 20, "top_p": 0.75}
    path = write_model(tmp_path / "other.gguf", "llama", sampling=sampling)
    found = {"temperature": 0.5, "top_k": 20, "top_p": 0.75}
    assert Draft(path).tokenizer.sampling == found
