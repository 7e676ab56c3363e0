"""Base files of llama-perplexity, written here as it writes them."""

import struct
from types import SimpleNamespace

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec import distill
from sqs_codec.distill import _base_file, _header
from sqs_codec.distill._base_file import BaseFile
from tests.refusals import refuses

N, CHUNKS, RESOLUTION = 6, 3, 1000
ROWS = N - 1 - N // 2


def tokenizer(vocab_size):
    return SimpleNamespace(vocab_size=vocab_size, fingerprint=b"", bos=None)


def log_softmax(logits):
    """Return what llama.cpp writes of a row, and what it reads: its ``log_softmax``."""
    most = logits.max()
    least = np.maximum(logits.min(), most - np.float32(16))
    total = np.float32(np.log(np.exp(logits - most).sum(dtype=np.float64)))
    scale = np.float32((most - least) / np.float32(65535))
    steps = np.zeros(logits.size, np.uint16)
    if scale:
        above = np.rint((logits - least) * np.float32(1 / scale))
        steps = np.where(logits > least, above, 0).astype(np.uint16)
    start = np.float32(least - most - total)
    padded = np.append(steps, [np.uint16(9)] * (logits.size % 2))
    row = struct.pack("<ff", scale, start) + padded.astype("<u2").tobytes()
    return row, scale * steps.astype(np.float32) + start


def write_base(path, logits):
    """Write a file of logits [CHUNKS, ROWS, V]; return its tokens and logarithms."""
    size = logits.shape[-1]
    tokens = np.random.default_rng(1).integers(0, size, (CHUNKS, N), np.int32)
    made = [log_softmax(row) for row in logits.reshape(-1, size)]
    head = b"_logits_" + struct.pack("<iii", N, size, CHUNKS) + tokens.tobytes()
    path.write_bytes(head + b"".join(row for row, _ in made))
    return tokens, np.array([read for _, read in made]).reshape(logits.shape)


def make_reference(path, base):
    codec = sqs.Codec(base.tokenizer.vocab_size, RESOLUTION)
    distill.make(path, codec, base, base.contexts(), extras=(*_header.EXTRAS,))
    return distill.load(path)


def draw(size, spread):
    rng = np.random.default_rng(0)
    return rng.normal(0, spread, (CHUNKS, ROWS, size)).astype(np.float32)


@pytest.mark.parametrize("size", [40, 41])
@pytest.mark.parametrize("spread", [0, 1, 9])
def test_a_reference_has_the_values_of_the_file(tmp_path, size, spread, monkeypatch):
    monkeypatch.setattr(_base_file, "AT_ONCE", size)  # a row at a time
    logits = draw(size, spread)
    tokens, logs = write_base(tmp_path / "base.kld", logits)
    base = BaseFile(tmp_path / "base.kld", tokenizer(size))
    data = make_reference(tmp_path / "ref.parquet", base)
    is_clipped = logits <= logits.max(-1, keepdims=True) - 16
    assert is_clipped.any() == (spread == 9)
    p = np.where(is_clipped, 0, np.exp(logs))
    for i, own in enumerate(data):
        assert own.tokens.tolist() == tokens[i].tolist()
        assert own.places.tolist() == [3, 4]
        rows, shape = np.repeat([0, 1], np.diff(own.rows.offsets)), (ROWS, size)
        ids = own.rows.token_ids
        assert not is_clipped[i][rows, ids].any()
        shares = np.zeros(shape)
        shares[rows, ids] = own.rows.counts / RESOLUTION
        kept = p[i] / p[i].sum(1, keepdims=True)
        np.testing.assert_allclose(shares, kept, atol=1.01 / RESOLUTION)
        told = own.extras
        np.testing.assert_allclose(told["logprobs"], logs[i][rows, ids], atol=1 / 16)
        follows = logs[i][[0, 1], tokens[i][4:]]  # clipped or not
        np.testing.assert_allclose(told["token_logprobs"], follows, rtol=1e-3)
        assert told["likeliest"].tolist() == logits[i].argmax(1).tolist()


def test_a_model_adds_the_missing_metadata(tmp_path):
    tokens, _ = write_base(tmp_path / "base.kld", draw(41, 1))
    own = SimpleNamespace(vocab_size=38, fingerprint=b"12345678", bos=7)
    tokens[:] = np.minimum(tokens, 37)
    with (tmp_path / "base.kld").open("r+b") as file:
        file.seek(20)
        file.write(tokens.tobytes())
    base = BaseFile(tmp_path / "base.kld", own)
    data = make_reference(tmp_path / "ref.parquet", base)
    assert data.header.tokenizer_fingerprint == b"12345678"
    assert data.header.codec.vocab_size == 38
    for own, given in zip(data, tokens, strict=True):
        assert own.tokens.tolist() == [7, *given[1:]]
    said = "it is of 41 tokens, and the model has 42"
    refuses(said, BaseFile, tmp_path / "base.kld", tokenizer(42))


def test_bad_files_are_refused(tmp_path):
    path = tmp_path / "base.kld"
    write_base(path, draw(40, 1))
    whole = path.read_bytes()

    def number(place, value):
        return whole[:place] + struct.pack("<i", value) + whole[place + 4 :]

    for data, said in (
        (b"", "it doesn't begin as a base file"),
        (b"GGUF" + whole[4:], "it doesn't begin as a base file"),
        (whole[:19], "it is cut in its header"),
        (whole[:-1], r"it has \d+ bytes, and 3 contexts of 6 tokens of 40 take \d+"),
        (whole + b"0", "it has"),
        (number(8, -6), r"its n_ctx is -6, not in \[3, 65536\]"),
        (number(8, 2), "its n_ctx is 2"),
        (number(12, 1 << 30), "its n_vocab is 1073741824"),
        (number(12, 38), "it has"),
        (number(16, 0), "its n_chunk is 0"),
        (number(16, (1 << 31) - 1), "its n_chunk is 2147483647"),
        (number(20, 40), "its text has the token 40, and there are 40"),
        (number(24, -1), "its text has the token -1"),
    ):
        path.write_bytes(data)
        refuses(rf"base\.kld: {said}", BaseFile, path, tokenizer(40))
    with pytest.raises(FileNotFoundError):
        BaseFile(tmp_path / "none.kld", tokenizer(40))
    refuses("is a folder", BaseFile, tmp_path, tokenizer(40))


@pytest.mark.parametrize(
    ("scale", "least"),
    [("nan", -8), ("inf", -8), (-1e-4, -3), (1e-4, "nan"), (1e-4, "-inf"), (1e-4, 3)],
)
def test_damaged_rows_are_named(tmp_path, scale, least):
    path = tmp_path / "base.kld"
    write_base(path, draw(40, 1))
    with path.open("r+b") as file:
        file.seek(20 + 4 * N * CHUNKS + 3 * (8 + 80))  # the second context's second
        file.write(struct.pack("<ff", float(scale), float(least)))
    said = r"base\.kld, context 1: row 1 has the scale .* and the largest log p"
    base = BaseFile(path, tokenizer(40))
    refuses(said, make_reference, tmp_path / "ref.parquet", base)


def test_requests_beyond_the_file_are_refused(tmp_path):
    write_base(tmp_path / "base.kld", draw(40, 1))
    base = BaseFile(tmp_path / "base.kld", tokenizer(40))
    codec = sqs.Codec(40, RESOLUTION)
    first, second, third = base.contexts()
    for texts, options, said in (
        ([second], {}, "base.kld has another text 0"),
        ([first._replace(places=[0, 1])], {}, "base.kld has another text 0"),
        ([first, second, third, third], {}, "base.kld has another text 3"),
        ([first], {"temperature": 0.5}, "for a reference of temperature 1"),
    ):
        refuses(said, distill.make, tmp_path / said, codec, base, texts, **options)
    data = make_reference(tmp_path / "other.parquet", base)
    refuses("for a reference of temperature 1", distill.measure, data, base)
    given = tmp_path / "v.parquet", sqs.Codec(41, 9), base, base.contexts()
    refuses("vocabulary of 40, the codec 41", distill.make, *given)
