"""Small drafts: a network of NumPy, its file, and the texts that it has read."""

import contextlib
import io
import json
import lzma
import re
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sqs_codec.cli import main as cli
from sqs_codec.cli.options import SMOLLM2_FINGERPRINT as SMOLLM2
from sqs_codec.system._base.kinds import SMALL
from sqs_codec.system.engine import BatchEngine
from sqs_codec.system.small import Draft, _draft
from sqs_codec.system.small._file import SHAPES
from sqs_codec.system.small._network import Network
from tests.kit import softmax
from tests.refusals import refuses
from tests.system.contracts import check_draft, check_words
from tests.system.serve.kit import serving

V, C = 49_152, 64
QUESTIONS = [
    "Explain in plain words why bread dough rises.",
    "Write a short story about a lighthouse keeper who finds a message in a bottle.",
    "Write a Python function that counts the vowels in a string, and explain it.",
]


SIZES = {"C": C, "e": 8, "g": 72, "h": 24, "p": 9}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Write a draft of random weights, with SmolLM2's tokenizer."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("small") / "draft.npz"
    with np.load(SMALL) as own:
        arrays = {name: own[name] for name in ("about", "tokenizer")}
    columns = np.sort(rng.choice(V, C, replace=False))
    arrays |= {"inputs": rng.integers(0, C, V).astype(np.uint16), "columns": columns}
    arrays["inputs"][columns] = np.arange(C)
    for name, shape in SHAPES.items():
        weights = rng.normal(0, 0.3, [SIZES[letter] for letter in shape])
        arrays[name] = weights.astype(np.float16)
        if len(shape) == 2:
            arrays[f"{name}_scale"] = np.full(len(weights), 1 / 32, np.float16)
            arrays[name] = np.rint(32 * weights).clip(-31, 31).astype(np.int8)
    np.savez_compressed(path, **arrays)
    return path


@pytest.fixture(scope="module")
def text(path):
    columns = Draft(path)._network.columns
    return [int(t) for t in np.random.default_rng(1).choice(columns, 80)]


def test_earlier_calls_do_not_change_logits(path, text, monkeypatch):
    monkeypatch.setattr(_draft, "SEEN", 8)
    monkeypatch.setattr(_draft, "RECENT", 16)
    check_draft(Draft(path), 150)
    draft = Draft(path)
    for other in (text, text[:50], text[:1], text):  # longer than the kept context
        fresh = Draft(path).logits(other)
        np.testing.assert_array_equal(draft.logits(other), fresh)


def test_a_twin_does_not_affect_its_draft(path, text, monkeypatch):
    draft = Draft(path)
    row = draft.logits(text)
    draft.twin().logits(text[:30])
    monkeypatch.setattr(Network, "step", pytest.fail)
    np.testing.assert_array_equal(draft.logits(text), row)


def test_a_repeated_branch_is_not_computed_again(path, text, monkeypatch):
    draft, read, step = Draft(path), [], Network.step

    def count(network, token, state):
        read.append(token)
        return step(network, token, state)

    draft.branches([[*text, 1], [*text, 2]])
    monkeypatch.setattr(Network, "step", count)
    for tails in ([[1, 3]], [[1, 3, 4], [2, 5]], [[2, 5, 6]], [[1, 3, 4, 7], [2, 8]]):
        draft.branches([[*text, *tail] for tail in tails])
    assert read == [3, 4, 5, 6, 7, 8]


def test_a_step_costs_the_same_after_a_long_text(path, text):
    lines = {}
    for length in (256, 4096):
        draft, long = Draft(path), (text * length)[:length]
        draft.branches([[*long, 1], [*long, 2]])
        for name, tails in (("goes on", [[1, 3], [2, 4]]), ("opens", [[1, 5], [6]])):
            found = count_lines(draft.branches, [[*long, *tail] for tail in tails])
            lines.setdefault(name, []).append(found)
    for few, many in lines.values():
        assert many < 1.2 * few


def count_lines(call, *given):
    """Return how many lines of Python a call runs."""
    lines, before = [], sys.gettrace()

    def trace(frame, event, value):
        lines.append(event)
        return trace

    sys.settrace(trace)
    try:
        call(*given)
    finally:
        sys.settrace(before)
    return len(lines)


def test_a_long_text_uses_its_last_tokens(path, text, monkeypatch):
    monkeypatch.setattr(_draft, "SEEN", 8)
    other = [text[1], *text[1:]]
    near = [Draft(path).logits(each) for each in (text, other)]
    assert np.abs(np.exp(near[0]) - np.exp(near[1])).max() < 0.05
    refuses(re.escape("one token or more"), Draft(path).logits, [])
    refuses(r"a token must be .*49151", Draft(path).logits, [V])


def test_tokenization_matches_transformers(path, smollm2_tokenizer):
    draft = Draft(path)
    assert (draft.vocab_size, draft.tokenizer.fingerprint) == (V, SMOLLM2)
    check_words(draft.tokenizer, smollm2_tokenizer)


def test_a_failing_template_is_reported(path, tmp_path):
    for template, said in (
        ("{{ ''.__class__.__mro__ }}", "fails"),
        ("{{ raise }}{{ 1 / 0 }}", "fails: division by zero"),
        ("", "no chat template"),
    ):
        own = Draft(changed(path, tmp_path, template=template)).tokenizer
        refuses(said, own.encode_chat, [{"role": "user", "content": "hello"}])
    assert own.encode_prompt("hello") == own.encode("hello")


PADDING = {
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "x",
}


def wide(size):
    """Pack the tokenizer so that a dictionary of this size unpacks it."""

    def change(packed):
        own = lzma.decompress(packed.tobytes())
        old = lzma.compress(own, format=lzma.FORMAT_ALONE, preset=0)
        new = old[:1] + size.to_bytes(4, "little") + old[5:]
        return np.frombuffer(new, np.uint8)

    return {"tokenizer": change}


def changed(path, folder, **about):
    """Return another file with arrays, or entries of "about", replaced."""
    with np.load(path) as file:
        arrays = dict(file)
    own = json.loads(arrays["about"].tobytes())
    for name, value in about.items():
        if name in arrays:
            arrays[name] = value(arrays[name])
        else:
            own[name] = value
    arrays["about"] = np.frombuffer(json.dumps(own).encode(), np.uint8)
    np.savez_compressed(folder / "changed.npz", **arrays)
    return folder / "changed.npz"


LARGEST = {
    "embedding": lambda a: np.zeros((1 << 15, 900), np.int8),
    "embedding_scale": lambda a: np.ones(1 << 15, np.float16),
}


def tokenizer_with(**fields):
    def change(packed):
        own = json.loads(lzma.decompress(packed.tobytes())) | fields
        return np.frombuffer(
            lzma.compress(json.dumps(own).encode(), preset=0), np.uint8
        )

    return {"tokenizer": change}


LISTS = "JSON lists (an object counts as 8); the limit is 1048576"
PRECOMPILED = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
REPLACE = {"type": "Replace", "pattern": {"String": ""}, "content": "x"}
FUSE = {"type": "Fuse"}
STRIP = {"type": "Strip", "content": " ", "start": 0, "stop": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "it is of version 2, and this package reads version 1"),
        ({"stop": ["end"]}, "invalid literal"),
        ({"bias": lambda a: a * np.nan}, "bias has values that are not finite"),
        ({"bias": lambda a: a[1:]}, "bias has the shape (63,)"),
        ({"kept": lambda a: a.T}, "kept has the shape (24, 72)"),
        ({"kept": lambda a: a[:0]}, "kept has the shape (0, 24)"),
        ({"pointer": lambda a: a[1:]}, "pointer_scale has the shape (9,)"),
        ({"inputs": lambda a: a + 1}, "inputs has ids outside 0 to 63"),
        ({"columns": lambda a: a[:-1]}, "63 columns, not 64"),
        ({"columns": lambda a: a + np.uint16(40_000)}, "columns has ids outside"),
        ({"bias": lambda a: a.astype(object)}, "Object arrays cannot be loaded"),
        ({"tokenizer": lambda a: a[:-9]}, "cut or damaged"),
        ({"tokenizer": lambda a: a[:0]}, "cut or damaged"),
        ({"summary": None}, None),
        # These panic at once, at the first text, and at the first special token.
        (tokenizer_with(normalizer=PRECOMPILED), "isn't a small draft"),
        (tokenizer_with(normalizer=REPLACE), "isn't a small draft"),
        (tokenizer_with(decoder={"type": "Sequence", "decoders": [FUSE, STRIP]}), " "),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else None,
)
def test_a_bad_file_is_refused(path, tmp_path, change, said):
    read_or_refuse(changed(path, tmp_path, **change), said)


def read_or_refuse(file, said):
    if said is None:
        assert Draft(file).tokenizer.encode("hello")
        return
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        Draft(file)
    assert "changed.npz isn't a small draft: " in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (tokenizer_with(version=" " * (1 << 24)), "is larger than 16777216 bytes"),
        (tokenizer_with(extra=[[]] * (1 << 20)), LISTS),
        (tokenizer_with(decoder=[{}] * (1 << 17)), LISTS),
        (tokenizer_with(padding={"strategy": {"Fixed": 1 << 40}} | PADDING), None),
        (LARGEST, "bias has the shape (64,)"),
        ({"embedding": lambda a: np.zeros((1 << 20, 32), np.int8)}, "bytes, unpacked"),
        ({"inputs": lambda a: np.zeros(1 << 24, np.uint8)}, "vocab_size must be"),
        ({"summary": "x" * (1 << 20)}, "bytes about itself; the limit is 1048576"),
        (wide(1 << 31), "Memory usage limit exceeded"),
        (wide(64 << 20), None),  # as of the highest preset
    ],
)
def test_a_small_file_takes_little_memory(path, tmp_path, change, said):
    file = changed(path, tmp_path, **change)
    assert file.stat().st_size < 2_500_000
    tracemalloc.start()
    try:
        read_or_refuse(file, said)
        assert tracemalloc.get_traced_memory()[1] < 250e6
    finally:
        tracemalloc.stop()


def test_a_file_truncated_anywhere_is_refused(path, tmp_path):
    data, cut = path.read_bytes(), tmp_path / "cut.npz"
    for length in (0, 1, 100, len(data) // 2, len(data) - 1):
        cut.write_bytes(data[:length])
        refuses(r"cut.npz isn't a small draft", Draft, cut)
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(data), 40):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        cut.write_bytes(damaged)
        # Some bits are in no sum, as a member's time.
        with contextlib.suppress(ValueError):
            Draft(cut)


def test_a_file_that_needs_too_much_memory_is_refused(path, tmp_path):
    bomb = tmp_path / "bomb.npz"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("about.npy", bytes(1 << 29))
    refuses("has 536870912 bytes, unpacked; the limit is", Draft, bomb)
    header = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (1 << 50,)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(bomb, "w") as file:
        file.writestr("about.npy", header.getvalue())
    refuses(r"bomb.npz isn't a small draft", Draft, bomb)
    with pytest.raises(FileNotFoundError):
        Draft(tmp_path / "none.npz")
    refuses("is a folder", Draft, tmp_path)


# The one that comes with the package.


def test_the_built_in_draft_fits_smollm2(smollm2):
    from sqs_codec.system.hf import CachedModel

    draft, accepted = Draft(), []
    assert Path(SMALL).stat().st_size < 2_500_000
    assert (draft.vocab_size, draft.tokenizer.fingerprint) == (V, SMOLLM2)
    assert draft.tokenizer.stop == smollm2.stop
    for question in QUESTIONS:
        text = smollm2.encode(question)
        assert draft.tokenizer.encode_prompt(question) == text
        target = CachedModel(smollm2.model, V)
        for _ in range(24):
            rows = np.stack([target.logits(text)[-1], draft.logits(text)[0]])
            p, q = (softmax(row, 0.7) for row in rows)
            accepted.append(np.minimum(p, q).sum())
            text = [*text, int(p.argmax())]
    assert np.mean(accepted) > 0.25


def test_the_built_in_draft_needs_no_transformers(smollm2, monkeypatch, capsys):
    from sqs_codec.system.hf import Cloud

    cloud = Cloud(smollm2.model, vocab_size=V, tokenizer=smollm2.tokenizer)
    texts = {}
    engine = BatchEngine(cloud, summary="SmolLM2", tokenizer=cloud.fingerprint)
    with serving(engine) as server:
        monkeypatch.setitem(sys.modules, "transformers", None)
        given = ["--server", server.address, "--insecure", "--seed", "7"]
        for way in ("alone", "hints"):
            command = ["generate", *given, "--max-tokens", "16", "--mode", way]
            assert cli.main([*command, QUESTIONS[0]]) == 0
            texts[way], err = capsys.readouterr()
            assert "Drafting with a small draft for SmolLM2" in err
    assert texts["alone"] == texts["hints"]
