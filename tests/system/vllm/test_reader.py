"""Texts read inside vLLM: it tells what transformers does, in any order of steps."""

from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from sqs_codec import Codec, distill
from sqs_codec.system import hf
from sqs_codec.system.vllm import ModelReader
from sqs_codec.system.vllm._tasks import do_task, pack_task, unpack_answer
from tests.system.vllm.kit import SEED, V, save_tiny

CHUNK = 64
"""Tokens that vLLM reads in a step."""

KEPT = 768
"""Bytes of keys and values of a token: 3 layers, a head of 32."""

OPTIONS = {"max_num_batched_tokens": CHUNK, "kv_cache_memory_bytes": 1 << 20}
NUMBERS = (*distill.NUMBERS,)
HEADER = distill.Header(Codec(V, 32), temperature=0.8, numbers=NUMBERS)


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
            found.append(distill.Counting(i, text, places, HEADER, own))
        else:
            each = np.full(len(places), 3)
            ids = rng.integers(0, V, 3 * len(places)).astype(np.uint32)
            found.append(distill.Comparing(i, text, places, V, ids, each))
    return found


def check(reader, path, sizes):
    """Compare what it tells of texts with what transformers tells."""
    ours, theirs = tasks_of(sizes), tasks_of(sizes)
    reader.read(ours)
    hf.ModelReader(hf.load_model(path)).read(theirs)
    equal = []
    for own, other in zip(ours, theirs, strict=True):
        told, expected = own.answer, other.answer
        assert [*told] == [*expected]
        for name in ("token_logprobs", "likeliest"):
            np.testing.assert_allclose(told[name], expected[name], atol=1e-3)
        if isinstance(own, distill.Counting) and isinstance(other, distill.Counting):
            same = [a == b for a, b in zip(own.rows()[0], other.rows()[0], strict=True)]
            equal += same
            assert own.rng.random() == other.rng.random()
            if not all(same):
                continue
        np.testing.assert_allclose(told["logprobs"], expected["logprobs"], atol=1e-3)
    assert np.mean(equal) > 0.98


def refuse(reader):
    """Have it do a task of another vocabulary, which fails where the logits are."""
    none, sizes = np.zeros(0, np.uint32), np.zeros(300, np.int64)
    bad = distill.Comparing(300, [1] * 300, range(300), 7, none, sizes)
    with pytest.raises(ValueError, match=r"text 300: logits must have shape \[n, 7\]"):
        reader.read([*tasks_of([9]), bad, *tasks_of([300] * 4)])


def test_what_it_says_of_its_model(reader, path):
    other = hf.ModelReader(hf.load_model(path))
    for name in ("name", "vocab_size", "tokenizer_fingerprint", "max_tokens", "bos"):
        assert getattr(reader, name) == getattr(other, name)
    assert reader.tokenize("w5") == other.tokenize("w5") == [5]


def test_it_tells_what_transformers_tells(reader, path):
    """Also of texts longer than a step, and of more than memory has room for."""
    sizes = [512, *range(1, 40), 400, 65, 64, 63, *[500] * 6]
    assert sum(sizes) * KEPT > OPTIONS["kv_cache_memory_bytes"]
    check(reader, path, sizes)


def test_what_fails_does_not_end_vllm(reader, path, monkeypatch):
    with monkeypatch.context() as patch:
        junk = {"task": b"junk", "wanted": 2}
        patch.setattr("sqs_codec.system.vllm._reader.pack_task", lambda task: junk)
        with pytest.raises(ValueError, match=r"^text 1: .*pickle"):
            reader.read(tasks_of([9] * 20)[1:])
    refuse(reader)
    with pytest.raises(ValueError, match="text 0: 513 tokens are more than the 512"):
        reader.read(tasks_of([513]))
    other = SimpleNamespace(tokens=[1], places=np.arange(1), vocab_size=V)
    with pytest.raises(TypeError, match="knows Counting and Comparing, got namespace"):
        reader.read([*tasks_of([9]), other])
    assert not reader._llm.has_unfinished_requests()
    check(reader, path, [30, 20])


def test_two_workers_and_their_end(tmp_path):
    path = save_tiny(tmp_path, "Qwen3")
    it = ModelReader(path, options={"tensor_parallel_size": 2})
    [core] = it._llm.engine_core.resources.engine_manager.processes
    processes = [psutil.Process(core.pid)]
    processes += processes[0].children(recursive=True)
    refuse(it)
    check(it, path, [300, 300, 20, 300])
    it.close()
    it.close()
    with pytest.raises(RuntimeError, match="is closed"):
        it.read(tasks_of([5]))
    _, left = psutil.wait_procs(processes, timeout=30)
    assert not left


def told(task, logits):
    """Return the answer of a task that crosses."""
    packed = pack_task(task)["task"]
    return unpack_answer(do_task(packed, logits, lambda rows: rows))


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.Philox, np.random.MT19937])
def test_generators_cross_whole(kind):
    logits = torch.tensor(np.random.default_rng(SEED).normal(0, 3, (3, V)))
    here, there = (
        distill.Counting(0, [1, 2, 3], range(3), HEADER, np.random.Generator(kind(7)))
        for _ in range(2)
    )
    here.tell(logits)
    for name, value in told(there, logits).items():
        assert here.answer[name].tolist() == value.tolist()


def test_logits_that_are_nan():
    logits = torch.tensor([[0.0] * V, [torch.nan] * V])
    ids, sizes = np.array([1, 2], np.uint32), np.array([1, 1])
    found = told(distill.Comparing(0, [1, 2], [0, 1], V, ids, sizes), logits)
    assert np.isnan(found["logprobs"]).tolist() == [False, True]
    rng = np.random.default_rng(SEED)
    with pytest.raises(ValueError, match="is nan"):
        told(distill.Counting(0, [1, 2], [0, 1], HEADER, rng), logits)
