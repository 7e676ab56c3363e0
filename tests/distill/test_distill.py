"""Files of a teacher's distributions: written, interrupted, damaged and read."""

import contextlib
import functools
import itertools
import json
import multiprocessing
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from tokenizers import processors

import sqs_codec as sqs
from sqs_codec import distill
from sqs_codec.cli import main as cli
from sqs_codec.cli.distill import _own_tokenizer, text_of
from sqs_codec.distill import _dataset, _header, _make, _tasks, _writer
from sqs_codec.system.hf import CachedModel, _reader, load_model
from tests.cli.test_demo import WORDS, save_model
from tests.distill.test_kld import Letters, Toy
from tests.kit import likely_distribution, make_prior
from tests.refusals import refuses

V, L = 1000, 50
SETTING: dict[str, Any] = {
    "model": "a teacher",
    "temperature": 0.7,
    "tokenizer_fingerprint": b"12345678",
    "source": "seed 0",
}


@functools.cache
def text(i):
    """Return the i-th sequence: its tokens, their rows and the places of these."""
    rng = np.random.default_rng(i)
    n = int(rng.integers(1, 30))
    places = np.arange(n)
    if i % 3 == 0:  # of an answer, or the answers of a chat
        places = places[int(rng.integers(n)) :: 1 + i % 2]
        places = places[(places % 7 < 5) | (places == n - 1)]
    if i % 2 and len(places) > 1:  # without the last
        places = places[:-1]
    rows = [likely_distribution(rng, V, L, 12) for _ in places]
    return rng.integers(0, V, n), sqs.SparseRows.stack(rows), places


def numbers_of(rows):
    """Return numbers that a file keeps as they are."""
    rng, steps = np.random.default_rng(len(rows)), 16.0 * rows.counts
    return {
        "logprobs": np.float32(-rng.integers(0, 400, rows.counts.size) / steps),
        "token_logprobs": -rng.random(len(rows)).astype(np.float16),
        "likeliest": rng.integers(0, V, len(rows)),
    }


def new(path, codec=None, identity="", **said):
    """Return a writer of a file with these header fields."""
    header = distill.Header(codec or sqs.Codec(V, L), **said)
    return distill.Writer(path, header, identity=identity)


class Crash(BaseException):
    """An end in the middle."""


def begin(path, n, **other):
    """Write n sequences, and crash."""
    with contextlib.suppress(Crash):
        write(path, n, crashes=True, **other)


def write(path, n=40, codec=None, *, crashes=False, **other):
    with new(path, codec, **SETTING | other) as writer:
        for i in range(len(writer), n):
            rows, names = text(i)[1], writer.header.extras
            numbers = {name: x for name, x in numbers_of(rows).items() if name in names}
            writer.write(*text(i), extras=numbers)
        if crashes:
            raise Crash


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    """Let a row group have about four sequences."""
    monkeypatch.setattr(_writer, "ROW_GROUP", 1000)


@pytest.fixture
def path(tmp_path):
    """Return a file of 40 sequences."""
    write(tmp_path / "teacher.parquet")
    return tmp_path / "teacher.parquet"


def same(sequence, i):
    tokens, rows, places = text(i)
    numbers = numbers_of(rows)
    return (
        np.array_equal(sequence.tokens, tokens)
        and np.array_equal(sequence.places, places)
        and sequence.rows == rows
        and (sequence.temperature, sequence.tail) == (0.7, False)
        and all(np.array_equal(x, numbers[n]) for n, x in sequence.extras.items())
    )


def test_written_sequences_are_read_back(path):
    assert os.listdir(path.parent) == [path.name]
    dataset = distill.load(path)
    assert [same(sequence, i) for i, sequence in enumerate(dataset)] == [True] * 40
    again = pickle.loads(pickle.dumps(dataset))
    for i in np.random.default_rng(0).integers(-40, 40, 60).tolist():
        assert same(again[i], i % 40)
    for i in (40, -41):
        with pytest.raises(IndexError):
            dataset[i]
    assert dataset.header == distill.Header(sqs.Codec(V, L), **SETTING)
    texts = [text(i) for i in range(40)]
    sizes = dataset.sizes()
    assert sizes[:3] == (
        40,
        sum(len(tokens) for tokens, _, _ in texts),
        sum(len(rows) for _, rows, _ in texts),
    )
    assert pq.read_metadata(path).num_row_groups == 8  # tokens count in their size
    assert sizes.column_bytes["packet"] < sizes.file_bytes == path.stat().st_size


def test_an_empty_file_may_need_a_prior(tmp_path):
    prior = make_prior(V, 2)
    path = tmp_path / "teacher.parquet"
    write(path, 0, sqs.Codec(V, L, prior=prior))
    dataset = distill.load(path, prior=prior)
    assert (len(dataset), list(dataset)) == (0, [])
    assert dataset.sizes()[:3] == (0, 0, 0)
    assert dataset.header.codec.prior == prior
    refuses(f"needs the prior '{prior.digest.hex()}'", distill.load, path)
    other = make_prior(V, 5)
    refuses(f"got {other.digest.hex()}", distill.load, path, prior=other)
    words = "prior must be a Prior, got int"
    refuses(words, distill.load, path, prior=3, error=TypeError)


ROWS = sqs.SparseRows([2, 7, 5], [30, 20, 50], [0, 2, 3], V, L)
WIDER = sqs.SparseRows([2, 7, 5], [30, 20, 50], [0, 2, 3], V + 1, L)
NUMBERS = (*numbers_of(ROWS),)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (([1, 2, V - 1], ROWS), r"tokens\[2\] must be below 999, got 999"),
        (([1, -2, 3], ROWS), "tokens must fit 32 bits"),
        (([1, 2, 3], ROWS, [-1, 2]), "places must fit 32 bits"),
        (([1, 2, 3], ROWS, [2, 3]), r"3 tokens and the places \[2 3\]"),
        (([1, 2, 3], ROWS, [1, 1]), r"ascending .* the places \[1 1\]"),
        (([1, 2, 3], ROWS, [1]), r"one place for each, .* the places \[1\]"),
        (([1], ROWS), r"2 distributions, 1 tokens and the places \[0 1\]"),
        (([1, 2, 3], ROWS[:0]), "one distribution or more, .* got 0 distributions"),
        (([1, 2, 3], list(ROWS)), "rows must be SparseRows, got list"),
        (([1, 2], WIDER), "fit the codec"),
        ({"logprobs": [-1, -2, 0.5]}, r"logprobs must be in \[-2047, 0\], got 0.5"),
        ({"logprobs": [-1, np.nan, -1]}, r"logprobs must be in .*, got nan"),
        ({"logprobs": [-1, -2]}, r"logprobs must have shape \(3,\), got \(2,\)"),
        ({"logprobs": [-1, -2, -41]}, r"logprobs\[2\] is -41.0, too far from its c"),
        ({"logprobs": np.ma.array([-1, -2, -3])}, "logprobs must be .* a MaskedArray"),
        ({"token_logprobs": [-1, -3000]}, r"token_logprobs must be in .*, got -3000"),
        ({"token_logprobs": [[-1, -1]]}, r"must have shape \(2,\), got \(1, 2\)"),
        ({"likeliest": [1, V]}, r"likeliest\[1\] must be below 999, got 1000"),
        ({"entropy": [1, 2]}, r"be the file's, \('logprobs', .*'entropy'\)"),
    ],
)
def test_mismatched_input_is_refused_and_nothing_is_lost(given, words, tmp_path):
    path, numbers = tmp_path / "teacher.parquet", numbers_of(ROWS)
    more = given if isinstance(given, dict) else {}
    given = ([1, 2, 3], ROWS) if more else given
    with new(path, tail=True, extras=NUMBERS) as writer:
        writer.write([1, 2, 3], ROWS, extras=numbers)
        with pytest.raises((ValueError, TypeError), match=words):
            writer.write(*given, extras=numbers | more)
        writer.write([3, 2, 1], ROWS, [0, 2], extras=numbers)
    assert [(s.tokens[0], s.places.tolist(), s.tail) for s in distill.load(path)] == [
        (1, [0, 1], True),
        (3, [0, 2], True),
    ]
    refuses("closed", writer.write, [1, 2, 3], ROWS)


@pytest.mark.parametrize("names", [NUMBERS, NUMBERS[1:], NUMBERS[:1]])
def test_a_file_has_the_requested_extras(names, tmp_path, monkeypatch):
    path, parted = tmp_path / "teacher.parquet", tmp_path / "parted.parquet"
    write(path, 12, extras=names)
    monkeypatch.setattr(_writer, "MINUTE", 0)
    for n in range(12):  # goes on after each
        begin(parted, n, extras=names)
    write(parted, 12, extras=names)
    assert parted.read_bytes() == path.read_bytes()
    dataset = distill.load(path)
    assert [same(sequence, i) for i, sequence in enumerate(dataset)] == [True] * 12
    assert [(*sequence.extras,) for sequence in dataset] == [names] * 12
    assert dataset.sizes().column_bytes.keys() >= {"packet", *names}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"coding": "bitpack"}, "coding 'entropy', got 'bitpack'"),
        ({"temperature": -1}, "temperature must be"),
        ({"model": 1}, "model must be a string"),
        ({"source": "\ud800"}, "source must be text in UTF-8"),
        ({"extras": ("likeliest", "logprobs")}, "must be some of logp.*, in this ord"),
        ({"tokenizer_fingerprint": "12"}, "tokenizer_fingerprint must be bytes"),
    ],
)
def test_a_refused_writer_leaves_no_file(other, words, tmp_path):
    codec = sqs.Codec(V, L, other.pop("coding", "entropy"))
    with pytest.raises((TypeError, ValueError), match=words):
        write(tmp_path / "teacher.parquet", codec=codec, **other)
    assert os.listdir(tmp_path) == []


def interrupted(path, monkeypatch, name, when, after):
    """Write, and end at a call of a function of `os`; return whether it was reached."""
    calls, call = itertools.count(), getattr(os, name)

    def crash(*args, **options):
        now = next(calls)
        if now >= when:  # once and for all
            if after and now == when:
                call(*args, **options)
            raise Crash
        return call(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, crash)
        try:
            write(path, 12)
        except Crash:
            return True
    return False


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", ["open", "fsync", "replace", "unlink", "rmdir"])
def test_interrupted_writing_resumes(name, after, tmp_path, monkeypatch):
    for when in itertools.count():
        path = tmp_path / f"{when}.parquet"
        crashed = interrupted(path, monkeypatch, name, when, after)
        if path.exists():  # and only what was kept in addition is left
            if crashed:
                refuses("finished", write, path, 12, error=FileExistsError)
        else:
            write(path, 12)
        assert [same(s, i) for i, s in enumerate(distill.load(path))] == [True] * 12
        assert sorted(os.listdir(tmp_path)) == sorted(
            p.name for p in tmp_path.glob("*.parquet")
        )
        if not crashed:
            break
    assert when >= (1 if name == "rmdir" else 2)


def test_a_missing_or_foreign_part_is_named(tmp_path):
    path = tmp_path / "teacher.parquet"
    begin(path, 20)
    for other, words in [
        ({"temperature": 1}, "its temperature is 0.7, but 1.0 was expected"),
        ({"codec": sqs.Codec(V, 49)}, "its codec is .*, but .* was expected"),
        ({"tail": True}, "its tail is False, but True was expected"),
    ]:
        refuses(f"000000.parquet: {words}", write, path, **other)
    part = tmp_path / "teacher.parquet.parts" / "000001.parquet"
    data = part.read_bytes()
    part.write_bytes(data[:-1])
    refuses(r"000001\.parquet: truncated, damaged", write, path)
    part.write_bytes(data[:50] + b"x" + data[51:])
    refuses(r"000001\.parquet: truncated, damaged", write, path)
    part.unlink()
    refuses(r"000001\.parquet, before it, is missing", write, path)
    part.write_bytes(data)
    write(path)
    assert all(same(s, i) for i, s in enumerate(distill.load(path)))


def test_only_the_model_that_began_a_file_continues_it(path, tmp_path):
    begun = tmp_path / "begun"
    begin(begun, 20, identity="one")
    said = (
        r"000000\.parquet: .* its identity is 'one', but this one's is '{}'.*remove .*"
    )
    for other in "another", "":
        refuses(said.format(other) + r"begun\.parts", write, begun, identity=other)
    write(begun, identity="one")
    assert begun.read_bytes() == path.read_bytes()
    refuses("finished", write, begun, error=FileExistsError, identity="another")
    words = "identity must be a string, got int"
    refuses(words, write, tmp_path / "none", identity=1, error=TypeError)


def test_one_writer_at_a_time(tmp_path):
    path = tmp_path / "teacher.parquet"
    with new(path, **SETTING) as writer:
        refuses("in use by another", write, path, error=BlockingIOError)
        folder = tmp_path / "teacher.parquet.parts"
        (folder / "mine").touch()
        (folder / ".000000.parquet.9.9").touch()  # of one that was killed
        for i in range(40):
            writer.write(*text(i))
    assert os.listdir(folder) == ["mine"]
    refuses("finished", write, path, error=FileExistsError)
    refuses("its model is 'a teacher', but 'b' was", write, path, model="b")
    path.write_text("mine")
    refuses("not a Parquet file", write, path)
    assert path.read_text() == "mine"


NOT_A_FILE = "must be your own regular file without hard links: remove it"
PLANTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "link": (lambda folder: (folder / "whole").symlink_to("../mine"), NOT_A_FILE),
    "FIFO": (lambda folder: os.mkfifo(folder / "lock"), NOT_A_FILE),
    "name": (lambda folder: os.link(folder.parent / "mine", folder / "a"), NOT_A_FILE),
    "folder": (lambda folder: (folder / "lock").mkdir(), NOT_A_FILE),
    "mode": (lambda folder: folder.chmod(0o777), "others may write in .*chmod go-w it"),
    "all": (
        lambda folder: folder.symlink_to(folder.rename(folder.parent / "b")),
        "parts must be your own folder: choose another path",
    ),
    "owner": (lambda _: None, "parts must be your own folder"),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_folder_is_refused_before_anything_is_written(
    plant, tmp_path, monkeypatch
):
    path, folder = tmp_path / "teacher.parquet", tmp_path / "teacher.parquet.parts"
    (tmp_path / "mine").write_text("mine")
    folder.mkdir(0o755)
    make, words = PLANTS[plant]
    make(folder)
    if plant == "owner":
        other = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: other)
    before = sorted(tmp_path.rglob("*"))
    refuses(words, write, path)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "mine").read_text() == "mine"


def test_the_mode_of_a_replaceable_folder_is_ignored(tmp_path):
    """As on a file system without modes, or in a folder of a group."""
    folder = tmp_path / "teacher.parquet.parts"
    folder.mkdir()
    folder.chmod(0o775)
    tmp_path.chmod(0o1775)
    refuses("others may write in", write, tmp_path / "teacher.parquet")
    tmp_path.chmod(0o775)
    write(tmp_path / "teacher.parquet", 3)


@pytest.mark.parametrize("kind", ["link", "FIFO", "second name", "no end"])
def test_another_file_at_the_path_is_not_read(kind, tmp_path):
    path, other = tmp_path / "teacher.parquet", tmp_path / "other.parquet"
    begin(path, 1)
    write(other, 1)
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "second name":
        path.hardlink_to(other)
    else:
        path.symlink_to(other if kind == "link" else "nowhere")
    refuses("another user's", write, path, error=FileExistsError)
    path.unlink()
    with new(path, **SETTING) as writer:
        assert len(writer) == 1


def test_a_file_that_appeared_meanwhile_is_kept(tmp_path):
    path = tmp_path / "teacher.parquet"
    writer = new(path, **SETTING)
    writer.write(*text(0))
    path.write_text("mine")
    refuses("file appeared", writer.close, error=FileExistsError)
    assert path.read_text() == "mine"
    path.unlink()
    writer.close()
    assert same(distill.load(path)[0], 0)


def test_a_killed_process_loses_at_most_a_row_group(tmp_path):
    path, kept = tmp_path / "teacher.parquet", "teacher.parquet.parts/000003.parquet"
    fork, given = multiprocessing.get_context("fork"), (path, 10**5)
    endless = fork.Process(target=write, args=given)
    endless.start()
    while not (tmp_path / kept).exists():
        assert endless.is_alive()
    endless.kill()
    endless.join()
    with new(path, **SETTING) as writer:
        n = len(writer)
        writer.write(*text(n))
    assert n > 12
    assert [same(s, i) for i, s in enumerate(distill.load(path))] == [True] * (n + 1)


def test_a_row_group_is_kept_each_minute(path, tmp_path, monkeypatch):
    monkeypatch.setattr(_writer, "MINUTE", 0)
    other = tmp_path / "other.parquet"
    with new(other, **SETTING) as writer:
        for i in range(40):
            writer.write(*text(i))
            kept = Path(f"{other}.parts").glob("*.parquet")
            assert sum(pq.read_metadata(part).num_rows for part in kept) == i + 1
    assert other.read_bytes() == path.read_bytes()


def test_a_truncated_file_is_refused(path):
    rng = np.random.default_rng(1)
    for size in sorted(rng.integers(0, path.stat().st_size, 20), reverse=True):
        os.truncate(path, size)
        refuses("parquet: truncated, damaged or not a Parquet", distill.load, path)


def foot(data):
    """Return the position of a file's footer."""
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")


def test_any_flipped_bit_is_noticed_or_harmless(path):
    data, rng = path.read_bytes(), np.random.default_rng(2)
    start = foot(data) - 4
    header = distill.load(path).header
    places = [*rng.integers(0, start, 30), *range(start, len(data), 53)]
    errors = []
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            dataset = distill.load(path)
            found = list(dataset)
        except ValueError as error:
            errors.append(str(error))
        else:
            assert [same(s, i) for i, s in enumerate(found)] == [True] * 40
            assert dataset.header == header
    assert len(errors) > 30
    assert all(error.startswith(f"{path}: ") for error in errors)


def test_columns_that_would_crash_arrow_are_refused(path):
    data, errors = path.read_bytes(), []
    for place in range(foot(data), foot(data) + 400):
        if data[place] & 15 == 6:  # of a list of numbers, how many there are
            path.write_bytes(
                data[:place] + bytes([data[place] ^ 64]) + data[place + 1 :]
            )
            try:
                distill.load(path).sizes()
            except ValueError as error:
                errors.append(str(error))
    assert any("histogram size mismatch" in error for error in errors)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"version": 2}, "has version 2, but this release"),
        ({"codec": {}}, "config must have the keys"),
        ({"codec": 5}, "config must be a mapping"),
        ({"fingerprint": "00"}, "its fingerprint is '00', but"),
        ({"temperature": 1.0}, "its check is"),
        ({"tail": 1}, "tail must be a bool"),
        ({"more": 1}, "its more is 1, but None was expected"),
        (None, "has no metadata of sqs_codec.distill"),
    ],
)
def test_a_file_of_something_else_is_refused(changed, words, path):
    table = pq.read_table(path)
    said = json.loads(table.schema.metadata[_header.KEY])
    text = "5" if changed is None else json.dumps(said | changed)
    pq.write_table(table.replace_schema_metadata({_header.KEY: text}), path)
    refuses(f"{path}: .*{words}", distill.load, path)


OTHER_PAGES = "a Writer didn't make it"
DELTA = {"tokens.list.element": "DELTA_BINARY_PACKED"}


def write_20_000_tokens(path, kind, lies):
    """Write a file of one sequence; if `lies`, the footer claims a single value."""
    table = pq.read_table(path)[:1]
    field = table.schema.field(0)
    table = table.set_column(0, field, pa.array([[7] * 20_000], field.type))
    pq.write_table(table, path, **_writer.PARQUET | kind)
    data = path.read_bytes()
    end = foot(data)
    if lies:  # of 20 000 values, twice 20 000 in seven bits a byte
        path.write_bytes(data[:end] + data[end:].replace(b"\xc0\xb8\2", b"\x82\x80\0"))
    values = pq.read_metadata(path).row_group(0).column(0).num_values
    assert values == (1 if lies else 20_000)


@pytest.mark.parametrize("lies", [False, True])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ({"use_dictionary": True, "column_encoding": None}, OTHER_PAGES),
        ({"data_page_version": "2.0"}, OTHER_PAGES),
        ({"column_encoding": DELTA}, OTHER_PAGES),
        ({}, "tokens.list.element has 1 rows with 20000 values in 8.* most 9999 of"),
    ],
)
def test_a_file_of_few_bytes_and_many_tokens_is_refused(
    kind, words, lies, path, monkeypatch
):
    """Before Arrow reads anything of it."""
    monkeypatch.setattr(_dataset, "MOST_VALUES", 9999)
    write_20_000_tokens(path, kind, lies)
    assert path.stat().st_size < 3000
    dataset = distill.load(path)
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", None)
    with pytest.raises(ValueError, match=f"{path}: sequence 0: {words}"):
        dataset[0]


def test_pages_that_contradict_the_footer_are_refused(path):
    write_20_000_tokens(path, {}, lies=True)
    refuses("sequence 0: its pages contradict", distill.load(path).start, 0, 1)


def test_the_length_of_a_sequence_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(_header, "MOST_TOKENS", 3)
    with new(tmp_path / "teacher.parquet") as writer:
        writer.write([1, 2, 7], ROWS)
        refuses("may have 3 tokens, but has 4", writer.write, [1, 2, 7, 7], ROWS)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("starts", [1, 1], "2 starts and 1 lengths of .* are no runs of"),
        ("starts", [60_000], "place for each, ascending and below"),
        ("lengths", [0], "of 0 distributions are no runs"),
        ("lengths", [2**32 - 1], "1 lengths of 4294967295 distributions are no"),
        ("tokens", [V] * 29, r"tokens\[0\] must be below 1000, got 1000"),
        ("logprobs", [3], r"logprobs must have shape \(\d+,\), got \(1,\)"),
        ("likeliest", [V] * 27, r"likeliest\[0\] must be below 1000, got 1000"),
        ("packet", b"", "packet of 0 bytes: "),
        ("packet", "longer", r"bytes: it has more survivors|its packet has"),
    ],
)
def test_an_impossible_sequence_is_named(column, value, words, tmp_path):
    path = tmp_path / "teacher.parquet"
    write(path, extras=NUMBERS)
    table = pq.read_table(path)
    values = table[column].to_pylist()
    if value == "longer":
        rows = sqs.SparseRows.stack([text(4)[1][0]] * 60)
        value = sqs.Codec(V, L).encode_sequence(rows)
    values[7] = value
    place = table.schema.get_field_index(column)
    kind = table.schema.field(place)
    changed = table.set_column(place, kind, pa.array(values, kind.type))
    pq.write_table(changed, path, **_writer.PARQUET)
    dataset = distill.load(path)
    assert same(dataset[6], 6)
    with pytest.raises(ValueError, match=f"{path}: sequence 7: .*({words})") as caught:
        list(dataset)
    assert isinstance(caught.value, sqs.PacketError) == (value == b"")


def test_a_tokenizer_is_compared(tmp_path):
    ids, file = {"a": 0, "b": 1}, tmp_path / "words.parquet"
    mine, other = (SimpleNamespace(get_vocab=x.copy) for x in (ids, ids | {"a": 2}))
    write(file, 1, tokenizer_fingerprint=sqs.vocabulary_fingerprint(ids))
    assert len(distill.load(file, tokenizer=mine)) == 1
    refuses("tokenizer has the fing", distill.load, file, tokenizer=other)
    with pytest.raises(TypeError, match=r"^tokenizer .* with get_vocab\(\), got str"):
        distill.load(file, tokenizer="gpt2")
    write(tmp_path / "none.parquet", 1, tokenizer_fingerprint=b"")
    nameless = tmp_path / "none.parquet"
    refuses("doesn't name its tokenizer", distill.load, nameless, tokenizer=mine)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_batches_in_order(path, workers):
    dataset = distill.load(path)
    assert same(dataset[20], 20)  # the workers have its row group at hand
    loader = torch.utils.data.DataLoader(
        dataset,  # type: ignore[arg-type]  # it needn't be torch's own
        batch_size=8,
        num_workers=workers,
        collate_fn=distill.collate,
    )
    seen = 0
    for batch in loader:
        tokens, rows, places = zip(*map(text, range(seen, seen + 8)), strict=True)
        assert (batch.temperature, batch.tail) == (0.7, False)
        width = max(map(len, tokens))
        filled = [[1] * len(own) + [0] * (width - len(own)) for own in tokens]
        assert batch.attention_mask.tolist() == filled
        assert batch.tokens[batch.attention_mask > 0].tolist() == [*chain(*tokens)]
        starts = [own + b * width for b, own in enumerate(places)]
        assert batch.places.tolist() == [*chain(*starts)]
        arrays = (x.numpy() for x in (batch.token_ids, batch.counts, batch.offsets))
        size, resolution = batch.vocab_size, batch.resolution
        found = sqs.SparseRows(*arrays, size, resolution)
        assert found == sqs.SparseRows.concatenate(rows)
        seen += 8
    assert seen == 40


def test_a_batch_of_mixed_sequences_is_refused(path, tmp_path):
    other = tmp_path / "other.parquet"
    write(other, 1, temperature=1)
    for items in ([], [distill.load(path)[0], distill.load(other)[0]]):
        refuses("of one resolution, vocabulary, temp", distill.collate, items)


W1, W2 = (2, 5, 16, 12), (12, 1)
"""Tokens of the pieces that are read as a whole."""

TEXTS = ["the fox", "", "a dog and the fox", "the " * 40, "fox"]


@pytest.fixture(scope="module")
def teacher():
    with tempfile.TemporaryDirectory() as folder:
        yield save_model(Path(folder), len(WORDS) + 3, WORDS)


def sqs_distill(command, *arguments):
    return cli.main(["distill", command, *map(str, arguments)])


def test_make_resumes_after_an_interrupt(teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_writer, "ROW_GROUP", 60)
    monkeypatch.setattr(_reader, "CHUNK", 12)  # the texts of 16 tokens are longer
    monkeypatch.setattr(_reader, "WINDOW", 2)
    read, batches = [], _reader.batches
    monkeypatch.setattr(
        _reader, "batches", lambda n, most: read.append(n) or batches(n, most)
    )
    texts, lines = tmp_path / "texts.txt", tmp_path / "texts.jsonl"
    with_mark = "utf-8-sig"  # as editors on Windows write it
    texts.write_text("\n".join(TEXTS), with_mark)
    lines.write_text("\n".join(json.dumps({"text": t}) for t in TEXTS), with_mark)
    options = ["--model", teacher, "--max-length", 16, "--device", "cpu", "--texts"]
    for source in texts, lines:
        whole, parted = (tmp_path / f"{source.suffix}{i}" for i in range(2))
        assert sqs_distill("make", *options, source, "-o", whole) == 0
        said = capsys.readouterr().out
        for when in range(2):
            assert sqs_distill_interrupted(when, *options, source, "-o", parted) == 130
        assert sqs_distill("make", *options, source, "-o", parted) == 0
        assert capsys.readouterr().out == said
        assert whole.read_bytes() == parted.read_bytes()
    # Side by side with the same ones, wherever it goes on: the last bits are the same.
    assert [*map(tuple, read)] == 2 * [W1, W2, W1, W1, W1, W2]
    assert [len(s.rows) for s in distill.load(whole)] == [*W1, *W2]
    assert f"6 sequences of {2 + 5 + 40 + 1} tokens, 48 distributions" in said
    assert sqs_distill("check", whole, "--tokenizer", teacher) == 0
    assert "6 sequences with 48 distributions are valid" in capsys.readouterr().out
    assert sqs_distill("make", *options, texts, "-o", whole) == 1
    assert "its source is 'texts.jsonl (" in capsys.readouterr().err


def test_only_answers_of_chats_teach(teacher, tmp_path, caplog):
    chat = [{"role": "user", "content": "the ran"}]
    chat += [{"role": "assistant", "content": "fox the"}]
    found = [{"messages": chat}, {"text": "the fox"}, {"messages": 3 * chat}] * 3
    names = ("a.jsonl", "template", "whole")
    lines, template, whole = (tmp_path / name for name in names)
    lines.write_text("\n".join(map(json.dumps, found)))
    template.write_text("{% for m in messages %}{{ m['content'] }} </s> {% endfor %}")
    options = ["--texts", lines, "--chat-template", template, "--model", teacher]
    options += ["--max-length", 16, "--device", "cpu"]
    assert sqs_distill("make", *options, "-o", whole) == 0
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    assert "3 rows are left out: they are beyond 16 tokens" in caplog.text
    with lines.open("a") as file:
        file.write('\n{"messages": []}')
    assert sqs_distill("make", *options, "-o", tmp_path / "bad") == 1
    assert not (tmp_path / "bad.parts").exists()  # it was seen at once
    assert "a.jsonl template (" in distill.load(whole).header.source
    the, ran, fox = map(WORDS.index, ("the", "ran", "fox"))
    turns = [the, ran, 1, fox, the, 1]
    for i, sequence in enumerate(distill.load(whole)):
        assert (sequence.tokens.tolist(), sequence.places.tolist()) == [
            (turns, [2, 3, 4]),
            ([the, fox], [0, 1]),
            ((3 * turns)[:16], [2, 3, 4, 8, 9, 10, 14, 15]),
        ][i % 3]


TOY = sqs.Codec(Letters().vocab_size, L)


@pytest.mark.parametrize("bos", [None, 0, 7])
@pytest.mark.parametrize("length", [2, 3, 16, 17])
def test_pieces_begin_with_bos_and_have_two_tokens(length, bos):
    for size in range(1, 70):
        tokens = [0, *range(100, 99 + size)]
        pieces = [*_make.cut(tokens, length, bos)]
        first = [0] * (bos == 0)
        assert [*first, *chain(*(p[len(first) :] for p in pieces))] == tokens
        assert all(piece[: len(first)] == first for piece in pieces)
        sizes = [*map(len, pieces)]
        assert set(sizes[:-2]) <= {length}
        assert max(sizes) <= length
        if len(sizes) > 1:
            assert sizes[-1] <= sizes[-2] <= sizes[-1] + 1
            assert sizes[-1] >= 2 or (length, bos == 0) == (2, False)
    assert [*_make.cut([], length, bos)] == []


NEVER, UNTOLD = Toy(), Toy()
NEVER.read = partial(map, lambda text: pytest.fail(f"{text} is read"))
UNTOLD.read = partial(map, lambda text: (text.tokens, np.zeros(V)))


@pytest.mark.parametrize(
    ("said", "reader", "texts", "options"),
    [
        ("texts must be several, got one string", NEVER, "ab", {}),
        ("of 300, the codec 99", NEVER, ["ab"], {"codec": sqs.Codec(99, L)}),
        ("yield the tasks", UNTOLD, ["ab"], {}),
        (r"in \[2, 40\], got 1", Toy(bos=5), ["ab"], {"max_length": 1}),
        # As a writer refuses them, but before they are read
        ("ascending and below", NEVER, [([1, 2], [2])], {}),
        (r"tokens\[1\] must be below 300", NEVER, [([1, 300], [0])], {}),
    ],
)
def test_make_names_the_expected_input(said, reader, texts, options, tmp_path):
    given = {"path": tmp_path / "a", "codec": TOY, "reader": reader, "texts": texts}
    both = TypeError, ValueError
    refuses(said, distill.make, error=both, **given | options)


def test_a_seed_with_the_random_numbers_of_another_is_refused(tmp_path):
    given, words = (tmp_path / "a", TOY, Toy(), ["ab"]), rf"\[0, {2**32 - 1}\], got"
    for seed in -1, 2**32:
        refuses(f"seed must be in {words}", distill.make, *given, seed=seed)
    assert os.listdir(tmp_path) == []
    distill.make(*given, seed=2**32 - 1)


def own_rows(model, codec, seed, text, places=slice(None)):
    """Return the distributions of a single text."""
    logits = CachedModel(model.model, model.vocab_size).logits(text, len(text))
    rng = np.random.default_rng(seed)
    return codec.quantize_unbiased_rows(logits[places], rng=rng)


def add_bos(teacher, folder):
    """Copy a model, and let its tokenizer begin texts with BOS; return its path."""
    shutil.copytree(teacher, folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    special = [("<s>", 0)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=special
    )
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_rows_of_a_split_text_match_its_pieces(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(_reader, "CHUNK", 16)  # so that each piece is read on its own
    model, text = load_model(add_bos(teacher, tmp_path / "bos")), "the fox and " * 39
    codec = sqs.Codec(model.vocab_size, L)
    path, reader = tmp_path / "made", _reader.ModelReader(model)
    distill.make(path, codec, reader, ["the", text], max_length=16, seed=3)
    dataset, the = distill.load(path), [*model.tokenizer.encode("the")]
    assert the[0] == reader.tokenizer.bos == 0
    found = [sequence.tokens.tolist() for sequence in dataset]
    assert [*map(len, found)] == [2, *[16] * 6, 15, 14]
    assert found == [the, *_make.cut(model.tokenizer.encode(text), 16, 0)]
    for i, sequence in enumerate(dataset):
        assert sequence.rows == own_rows(model, codec, [3, i], found[i])


def test_special_tokens_in_texts_are_parsed_on_request(teacher, tmp_path, monkeypatch):
    model = load_model(add_bos(teacher, tmp_path / "bos"))
    tokenizer = _reader.ModelReader(model).tokenizer
    the, fox, unknown = map(WORDS.index, ("the", "fox", "<unk>"))
    assert tokenizer.encode("the</s>fox") == [0, the, 1, fox]
    plain = tokenizer.encode("the</s>fox", special=False)
    assert [*dict.fromkeys(plain)] == [0, the, unknown, fox]
    assert tokenizer.encode("the</s>fox") == [0, the, 1, fox]
    encode = model.tokenizer.encode

    def never(text, *, split_special_tokens=False, **how):
        if split_special_tokens:
            raise ValueError("not supported")
        return encode(text, **how, split_special_tokens=True)

    monkeypatch.setattr(model.tokenizer, "encode", never)  # as mistral-common does it
    assert tokenizer.encode("the</s>fox", special=False) == plain


class Backwards(Toy):
    """Reads three texts at a time, the last first; fails on one of the worst letter."""

    def read(self, texts):
        """Yield the logits of the last of three texts first."""
        while three := [*itertools.islice(texts, 3)]:
            if 122 in three[0].tokens:
                raise ValueError("a z")
            yield from super().read(reversed(three))


def test_texts_are_written_in_order_for_any_order_of_logits(tmp_path):
    texts = [f"{i:02}" for i in range(9)]
    given = {"codec": TOY, "extras": ("likeliest",)}  # one of those that are looked up
    for name, reader in ("one", Toy()), ("three", Backwards()):
        distill.make(tmp_path / name, reader=reader, texts=texts, **given)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "three").read_bytes()
    given |= {"reader": Backwards(), "texts": [*texts[:6], "zz", "zz"]}
    refuses("a z", distill.make, tmp_path / "bad", **given)
    with distill.Writer(tmp_path / "bad", distill.load(tmp_path / "one").header) as it:
        assert len(it) == 6


def test_a_reader_without_templates_reads_no_chat():
    chat, path = b'{"messages": [5]}', Path("a.jsonl")
    args, reader = SimpleNamespace(model="toy.gguf"), SimpleNamespace(name="toy")
    with pytest.raises(ValueError, match=r"line 3, has no usable chat: toy is a GGUF"):
        text_of(chat, path, 3, lambda _: _own_tokenizer(args, reader))


def sqs_distill_interrupted(when, *arguments):
    """Run ``make`` and interrupt it after some sequences."""
    with pytest.MonkeyPatch.context() as patch:
        write, calls = distill.Writer.write, itertools.count()

        def stop(*args, **options):
            if next(calls) == when + 1:
                raise KeyboardInterrupt
            write(*args, **options)

        patch.setattr(distill.Writer, "write", stop)
        return sqs_distill("make", *arguments)


def test_batches_have_similar_lengths_and_a_limit():
    assert [*_reader.batches([200, 100, 1000, 90, 256], 512)] == [[3, 1], [0, 4], [2]]


@pytest.mark.parametrize("is_called", [True, False])
def test_the_last_layer_runs_only_at_wanted_positions(teacher, is_called, monkeypatch):
    model, rng = load_model(teacher), np.random.default_rng(0)
    head, seen = model.model.get_output_embeddings(), []
    if is_called:
        head.register_forward_hook(lambda _, given, __: seen.append(given[0].shape))
    else:
        monkeypatch.setattr(model.model, "get_output_embeddings", torch.nn.Identity)
    header = distill.Header(sqs.Codec(model.vocab_size, L))
    texts = [rng.integers(3, len(WORDS), n).tolist() for n in (40, 9, 60)]
    places = [38, 39], [1, 2, 5], [0, 30, 59]
    chats = [
        _tasks.Counting(i, *own, header, np.random.default_rng(i))
        for i, own in enumerate(zip(texts, places, strict=True))
    ]
    for chat, logits in _reader.ModelReader(model).read(chats):
        chat.tell(logits)
    assert [shape[:-1].numel() for shape in seen] == [8] * is_called
    for i, (text, at) in enumerate(zip(texts, places, strict=True)):
        own = own_rows(model, header.codec, i, text, at).to_dense(float)
        moved = abs(own - chats[i].answer.rows.to_dense(float)).sum(1)  # by last bits
        assert moved.max() * L < 2.5


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("a.jsonl", b'{"text": 5}', 'line 2, must be an object with a "text"'),
        ("a.jsonl", b"[]", 'line 2, must be an object with a "text"'),
        ("a.jsonl", b"{", 'line 2, must be an object with a "text"'),
        ("a.jsonl", b"[" * 100_000, 'line 2, must be an object with a "text"'),
        (
            "a.jsonl",
            b'{"messages": []}',
            "line 2, has no usable .* chat template",
        ),
        ("a.jsonl", b'{"messages": [5], "tools": [1]}', "line 2, .* chats with .tools"),
        ("a.JSONL", b'{"text": "\\ud800"}', "line 2, .* of valid Unicode"),
        ("a.txt", b"", "nothing to keep is in "),
        ("a.txt", b"\xff", "line 2, is not UTF-8"),
    ],
)
def test_make_names_a_bad_line(name, line, words, teacher, tmp_path, capsys):
    (tmp_path / name).write_bytes(b"\n" + line)
    options = ["--texts", tmp_path / name, "-o", tmp_path / "o", "--model", teacher]
    assert sqs_distill("make", *options) == 1
    error = capsys.readouterr().err
    assert name in error
    assert re.search(words, error)
    assert os.listdir(tmp_path) == [name]
    (tmp_path / name).write_bytes(b"")
    assert sqs_distill("make", *options, "--max-length", 257) == 1
    assert "max_length must be in [1, 256], got 257" in capsys.readouterr().err


def test_files_cannot_control_the_terminal(tmp_path, capsys):
    path = tmp_path / "teacher.parquet"
    write(path, 1, model="a\nmodel: another\x1b[2J", source="x" * 10**5)
    assert sqs_distill("info", path) == 0
    out = capsys.readouterr().out
    assert "model: a<0a>model: another<1b>[2J\n" in out
    assert len(out) < 3000
    assert sqs_distill("check", path, "--prior", "none") == 0


def test_check_prints_only_the_error(path, teacher, capsys):
    assert sqs_distill("check", path, "--tokenizer", teacher) == 1
    assert "but this tokenizer has" in capsys.readouterr().err
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert sqs_distill("check", path) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"sqs distill check: {path}: sequence ")
    assert err.count("\n") == 1
