"""Texts that are found by their tokens, and rows as lists."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sqs_codec as sqs
from sqs_codec import distill
from sqs_codec.distill._lists import NOTHING
from tests.refusals import refuses

V = 6
CODEC = sqs.Codec(V, 8)


def store(path, texts):
    rng = np.random.default_rng(0)
    with distill.Writer(path, distill.Header(CODEC)) as writer:
        for text in texts:
            logits = rng.normal(0, 2, (len(text), V))
            writer.write(text, CODEC.quantize_unbiased_rows(logits, rng=rng))
    return distill.load(path)


TEXTS = st.lists(st.integers(0, V - 1), min_size=1, max_size=6)


@settings(max_examples=50)
@given(st.lists(TEXTS, min_size=1, max_size=8), TEXTS)
def test_lookup_finds_a_prefix_or_the_first_mismatch(tmp_path_factory, texts, asked):
    data = store(tmp_path_factory.mktemp("x") / "teacher.parquet", texts)
    lookup = distill.Lookup(data)
    there = [i for i, text in enumerate(texts) if text[: len(asked)] == asked]
    if there:
        first = data[min(there, key=lambda i: (texts[i], i))]
        found = lookup.find(asked)
        assert found.tokens.tolist() == first.tokens.tolist()
        assert found.rows == first.rows
        begun, n = lookup.start(asked), len(asked) - 1
        assert begun.tokens.tolist() == asked[:n]
        assert begun.places.tolist() == [*range(n)]
        assert begun.rows == first.rows[:n]
    else:
        with pytest.raises(distill.MissError) as info:
            lookup.find(np.array(asked))
        n = info.value.position
        assert any(text[:n] == asked[:n] for text in texts)
        assert not any(text[: n + 1] == asked[: n + 1] for text in texts)
        assert str(info.value).endswith(f"token {asked[n]} at position {n}")


def test_only_requested_rows_are_decoded(tmp_path, monkeypatch):
    asked, decode = [], sqs.Codec.decode_sequence

    def counted(*given, **limits):
        asked.append(limits)
        return decode(*given, **limits)

    data = store(tmp_path / "teacher.parquet", [[1, 2] * 50])
    lookup = distill.Lookup(data)
    monkeypatch.setattr(sqs.Codec, "decode_sequence", counted)
    for n in 2, 3, 99:
        assert len(lookup.start(([1, 2] * 50)[:n]).rows) == n - 1
    most = CODEC.max_survivors
    assert asked == [{"length": n, "max_survivors": n * most} for n in (1, 2, 98)]
    refuses("length must be at least 0, got -1", data.start, 0, -1)
    refuses("one token at least", lookup.find, [])
    refuses("tokens", lookup.find, [0.5], error=(TypeError, ValueError))


def test_rows_of_a_different_file_are_not_found(tmp_path):
    """It has the same size and layout, so that no checksum tells them apart."""
    rows, lookups = sqs.SparseRows([5, 5], [8, 8], [0, 1, 2], V, 8), []
    for texts in ([1, 2], [3, 4]), ([3, 4], [1, 2]):
        with distill.Writer(tmp_path / "new", distill.Header(CODEC)) as writer:
            for text in texts:
                writer.write(text, rows)
        os.replace(tmp_path / "new", tmp_path / "teacher")
        lookups.append(distill.Lookup(distill.load(tmp_path / "teacher")))
    refuses("isn't the file that it was", lookups[0].find, [1, 2])


def test_lists_cover_the_whole_row():
    rng = np.random.default_rng(1)
    rows = CODEC.quantize_unbiased_rows(rng.normal(0, 1, (50, V)), rng=rng)
    ids, logprobs = distill.top_lists(rows, 8)
    dense = np.zeros((50, V))
    np.add.at(dense, (np.arange(50)[:, None], ids), np.exp(logprobs))
    np.testing.assert_allclose(dense, rows.to_dense(), atol=1e-6)
    assert (np.diff(logprobs, axis=1) <= 0).all()
    tied = (np.diff(logprobs, axis=1) == 0) & (logprobs[:, 1:] > NOTHING)
    assert (np.diff(ids, axis=1)[tied] > 0).all()
    refuses("lists were to have 1: 8 are enough", distill.top_lists, rows, 1)


def test_lists_leave_the_tail_out():
    rows = sqs.SparseRows([0, 4, 5, 5], [3, 1, 4, 8], [0, 3, 4], V, 8)
    ids, logprobs = distill.top_lists(rows, 2, tail=True)
    assert ids.tolist() == [[0, 4], [0, 0]]
    np.testing.assert_allclose(np.exp(logprobs), [[3 / 8, 1 / 8], [0, 0]], rtol=1e-6)
