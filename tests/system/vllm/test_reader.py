"""Texts read inside vLLM: it tells what transformers does, in any order of steps."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sqs_codec import Codec, SparseRows, TopK, distill
from sqs_codec.distill._header import EXTRAS
from sqs_codec.distill._tasks import Comparing, Counting
from sqs_codec.system import hf
from sqs_codec.system.vllm import ModelReader
from sqs_codec.system.vllm._tasks import do_task, pack_task, unpack_answer
from tests.system.vllm.kit import SEED, V, all_end, save_tiny

CHUNK = 64
"""Tokens that vLLM reads in a step."""

KEPT = 768
"""Bytes of KV cache per token: 3 layers, a head of 32."""

OPTIONS = {"max_num_batched_tokens": CHUNK, "kv_cache_memory_bytes": 1 << 20}
HEADER = distill.Header(Codec(V, 32), temperature=0.8, extras=(*EXTRAS,))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("model"), "Llama")


@pytest.fixture(scope="module")
def reader(path):
    with ModelReader(path, options=OPTIONS) as it:
        yield it


def tasks_of(sizes):
    """Tasks of both kinds on texts of any length, of the second half or all of it."""
    rng = np.random.default_rng(SEED)
    found = []
    for i, size in enumerate(sizes):
        text = rng.integers(0, V, size).tolist()
        places = range(size // 2 * (i % 2), size - i % 3 // 2, 1 + (i % 5 > 3))
        if i % 3:
            own = np.random.default_rng([SEED, i])
            found.append(Counting(i, text, places, HEADER, own))
        else:
            rows = HEADER.codec.quantize_rows(
                rng.normal(0, 3, (len(places), V)), TopK(3)
            )
            found.append(Comparing(i, text_of(text, places, rows)))
    return found


def text_of(tokens, places, rows):
    return distill.Text(np.array(tokens), np.array(places), rows, 1.0, False, {})


def read(reader, tasks):
    for task, part in reader.read(tasks):
        task.tell(part)


def check(reader, path, sizes):
    """Compare its rows for texts with those of transformers."""
    ours, theirs = tasks_of(sizes), tasks_of(sizes)
    read(reader, ours)
    read(hf.ModelReader(hf.load_model(path)), theirs)
    equal = []
    for own, other in zip(ours, theirs, strict=True):
        told, expected = own.answer.told, other.answer.told
        assert [*told] == [*expected]
        for name in ("token_logprobs", "likeliest"):
            np.testing.assert_allclose(told[name], expected[name], atol=1e-3)
        if isinstance(own, Counting) and isinstance(other, Counting):
            rows = own.answer.rows, other.answer.rows
            same = [a == b for a, b in zip(*rows, strict=True)]
            equal += same
            assert own.rng.random() == other.rng.random()
            if not all(same):
                continue
        np.testing.assert_allclose(told["logprobs"], expected["logprobs"], atol=1e-3)
    assert np.mean(equal) > 0.98


def refuse(reader):
    """Have it do a task of another vocabulary, which fails in the worker."""
    rows = SparseRows([1] * 300, [9] * 300, range(301), 7, 9)
    bad = Comparing(300, text_of([1] * 300, range(300), rows))
    with pytest.raises(ValueError, match=r"text 300: logits must have shape \[n, 7\]"):
        read(reader, [*tasks_of([9]), bad, *tasks_of([300] * 4)])


def test_a_reader_describes_its_model(reader, path):
    other = hf.ModelReader(hf.load_model(path))
    for name in ("name", "max_tokens"):
        assert getattr(reader, name) == getattr(other, name)
    one, two = reader.tokenizer, other.tokenizer
    assert (one.vocab_size, one.fingerprint) == (two.vocab_size, two.fingerprint)
    assert one.bos == two.bos
    assert one.encode("w5") == two.encode("w5") == [5]


def test_rows_match_transformers(reader, path):
    """Also of texts longer than a step, and of more than memory has room for."""
    sizes = [512, *range(1, 40), 400, 65, 64, 63, *[500] * 6]
    assert sum(sizes) * KEPT > OPTIONS["kv_cache_memory_bytes"]
    check(reader, path, sizes)


def test_a_failing_text_does_not_end_vllm(reader, path, monkeypatch):
    with monkeypatch.context() as patch:
        junk = {"task": b"junk", "wanted": 2}
        patch.setattr("sqs_codec.system.vllm._reader.pack_task", lambda task: junk)
        with pytest.raises(ValueError, match=r"^text 1: .*pickle"):
            read(reader, tasks_of([9] * 20)[1:])
    refuse(reader)
    other = SimpleNamespace(tokens=[1], places=np.arange(1), vocab_size=V, batch=0)
    with pytest.raises(TypeError, match="knows Counting and Comparing, got namespace"):
        read(reader, [*tasks_of([9]), other])
    assert not reader._llm.has_unfinished_requests()
    check(reader, path, [30, 20])


def test_two_workers_run_and_end(tmp_path):
    path = save_tiny(tmp_path, "Qwen3")
    it = ModelReader(path, options={"tensor_parallel_size": 2})
    [core] = it._llm.engine_core.resources.engine_manager.processes
    with all_end(core.pid):
        refuse(it)
        check(it, path, [300, 300, 20, 300])
        it.close()
        it.close()
        with pytest.raises(RuntimeError, match="is closed"):
            read(it, tasks_of([5]))


def told(task, logits):
    """Return the answer of a task that crosses."""
    packed = pack_task(task)["task"]
    return unpack_answer(task, do_task(packed, logits, lambda rows: rows))


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.Philox, np.random.MT19937])
def test_generators_survive_serialization(kind):
    logits = torch.tensor(np.random.default_rng(SEED).normal(0, 3, (3, V)))
    here, there = (
        Counting(0, [1, 2, 3], range(3), HEADER, np.random.Generator(kind(7)))
        for _ in range(2)
    )
    here.tell(logits)
    found = told(there, logits)
    assert found.rows == here.answer.rows
    for name, value in found.told.items():
        assert here.answer.told[name].tolist() == value.tolist()


def test_logits_that_are_nan():
    logits = torch.tensor([[0.0] * V, [torch.nan] * V])
    rows = SparseRows([1, 2], [9, 9], [0, 1, 2], V, 9)
    found = told(Comparing(0, text_of([1, 2], [0, 1], rows)), logits).told
    assert np.isnan(found["logprobs"]).tolist() == [False, True]
    rng = np.random.default_rng(SEED)
    with pytest.raises(ValueError, match="is nan"):
        told(Counting(0, [1, 2], [0, 1], HEADER, rng), logits)
