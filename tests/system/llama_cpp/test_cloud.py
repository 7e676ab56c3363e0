"""A GGUF file as a target: the sessions of many edges in one context."""

import gc
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest

from sqs_codec import Sampling
from sqs_codec.system.engine import EngineConfig, make_engine
from sqs_codec.system.llama_cpp import (
    Cloud,
    Draft,
    ModelReader,
    Options,
    _cloud,
    _engine,
)
from sqs_codec.system.llama_cpp._model import Context, llama
from sqs_codec.system.session import Read, VerifyHints, verify_jobs
from tests.system.hf.test_cloud import changing_jobs
from tests.system.llama_cpp.files import write_model

V = 6
SEED = 12
FLOAT32 = {"flash_attn": "off", "cache_type_k": "f32", "cache_type_v": "f32"}
REPEATABLE = {"repeatable": True, "batch_size": 101}


def reading(session, text):
    return Read(session, [*text])


def asking(session, text, hints=()):
    return VerifyHints(session, [*text], hints, bytes(16), Sampling())


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("m") / "m.gguf", "llama", context=512)


def open_cloud(path, **options):
    return Cloud(path, options=Options(**{"threads": 1, "batch_size": 64} | options))


@pytest.mark.parametrize(
    ("architecture", "options", "error"),
    [
        ("llama", FLOAT32, 1e-4),
        ("lfm2", FLOAT32, 1e-4),
        ("llama", REPEATABLE, 0),
        ("llama", REPEATABLE | {"flash_attn": "off"}, 0),
    ],
)
def test_a_job_is_self_contained(tmp_path, monkeypatch, architecture, options, error):
    """Its verdict and logits are those without a KV cache and other sessions."""
    rng, seen = np.random.default_rng(SEED), {}

    def judge(jobs, logits):
        ends = np.cumsum([job.wanted for job in jobs])
        for job, rows in zip(jobs, np.split(logits, ends), strict=False):
            seen[job.session] = rows.copy()
        cloud.forget(b"%d" % rng.integers(24))  # as another thread may
        return verify_jobs(jobs, logits)

    monkeypatch.setattr(_cloud, "verify_jobs", judge)
    path = write_model(tmp_path / "model.gguf", architecture, context=512)
    cloud = open_cloud(path, ctx_size=3 * 512, parallel=3, **options)
    alone = open_cloud(path, ctx_size=512, parallel=1, **{"batch_size": 512} | options)
    for jobs in changing_jobs(rng, 460, V):
        verdicts, rows = cloud.verify(jobs), dict(seen)
        for job, verdict in zip(jobs, verdicts, strict=True):
            alone.forget(job.session)
            assert alone.verify([job]) == [verdict]
            if job.wanted:
                expected = seen[job.session]
                np.testing.assert_allclose(rows[job.session], expected, 0, error)


def test_the_least_recent_session_is_evicted(path, fed):
    cloud = open_cloud(path, parallel=3, batch_size=512)
    for name in "abcad":  # the last one takes b's memory
        cloud.verify([reading(name.encode(), [3] * ord(name))])
    cloud.forget(b"d")
    cloud.verify([reading(b"e", [3] * ord("e"))])  # takes d's
    fed.clear()
    # Those that are cached go first.
    cloud.verify([asking(name.encode(), [3] * ord(name)) for name in "bcae"])
    assert fed == [(3, 3), (ord("b"), 1)]


def test_a_failure_leaves_nothing_cached(path, fed, monkeypatch):
    cloud, decode = open_cloud(path), llama.llama_decode
    jobs = [asking(b"%d" % i, [3 + i] * 50) for i in range(3)]
    expected = cloud.verify(jobs)

    monkeypatch.setattr(llama, "llama_decode", lambda *given: decode(*given) or -2)
    with pytest.raises(RuntimeError, match=r"llama.cpp can't decode \(-2\): "):
        cloud.verify([replace(job, text=[*job.text, 3]) for job in jobs])
    monkeypatch.setattr(llama, "llama_decode", decode)
    fed.clear()
    assert cloud.verify(jobs) == expected
    assert sum(size for size, _ in fed) == 3 * 50


def test_nan_logits_affect_only_their_session(tmp_path):
    words = np.ones((8, 32), np.float32)
    words[4] = np.nan
    spoiled = {"token_embd.weight": words}
    path = write_model(tmp_path / "model.gguf", "llama", context=512, tensors=spoiled)
    cloud = open_cloud(path, parallel=2, flash_attn="off")
    good, bad = asking(b"good", [3] * 9), asking(b"bad", [4] * 20)
    expected = cloud.verify([good])
    with pytest.raises(ValueError, match=r"logits\[0\]\[0\] is nan"):
        cloud.verify([bad, good])
    for name in (b"good", b"one", b"two"):
        assert cloud.verify([replace(good, session=name)]) == expected


def test_files_that_are_not_targets_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"recurrent state, .* roll back by 32"):
        Cloud(write_model(tmp_path / "mamba.gguf", "mamba"))
    with pytest.raises(ValueError, match="state: run it without repeatable"):
        open_cloud(write_model(tmp_path / "lfm2.gguf", "lfm2"), repeatable=True)
    path = write_model(tmp_path / "pooling.gguf", "llama", pooling=True)
    for kind in (Cloud, Draft, ModelReader):
        with pytest.raises(ValueError, match="isn't a causal language model"):
            kind(path)
    for given in ({"words": [f"[PAD{i}]" for i in range(8)]}, {"context": 0}, {}):
        path = write_model(tmp_path / "model.gguf", "llama", **given)
        if not given:
            kinds = {"return_value": llama.LLAMA_VOCAB_TYPE_NONE}
            monkeypatch.setattr(llama, "llama_vocab_type", Mock(**kinds))
        with pytest.raises(ValueError, match="lacks a vocabulary or a context"):
            Cloud(path)


def test_memory(path):
    with pytest.raises(ValueError, match="max_memory must be at least") as error:
        Cloud(path, max_memory=1)
    page = int(re.findall("at least ([0-9]+)", str(error.value))[0])
    for pages, options, places, tokens in (
        (1000, {}, 64, 512),
        (1, {}, 1, 256),
        (3, {"parallel": 2}, 2, 256),
        (1, {"ctx_size": 1000}, 1, 512),
        (1, {"ctx_size": 512, "repeatable": True}, 1, 512 - 8),
        (1, {"ctx_size": 1, "parallel": 64}, 64, 256),
    ):
        given = Options(threads=1, **options)
        cloud = Cloud(path, max_memory=pages * page, options=given)
        assert (cloud.places, cloud.max_text) == (places, tokens)
    assert "; 64 sessions of 256 tokens" in cloud.summary
    with pytest.raises(ValueError, match=r"limit is 256 \(each of 64 sessions"):
        cloud.verify([reading(b"a", [3] * 257)])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threads": "two"}, "threads must be an integer, got 'two'"),
        ({"ctx_size": 0}, r"ctx-size must be in \[1, \d+\], got 0"),
        ({"batch_size": True}, "batch-size must be an integer, got True"),
        ({"tensor_split": "1,x"}, "tensor-split must be numbers: .*'x'"),
        ({"ngl": 1, "threads": 1}, "options threads, n-gpu-layers, .*, not ngl"),
        ({"cache_type_v": "q8_0", "flash_attn": "off"}, "V cache requires flash_attn"),
        ({"n_gpu_layers": -1}, r"n-gpu-layers must be in \[0, \d+\], got -1"),
        ({"n_gpu_layers": 1}, "n-gpu-layers and tensor-split need a GPU, and"),
        ({"tensor_split": "1,2"}, "need a GPU, and llama.cpp finds none"),
        ({"flash_attn": "no"}, "flash-attn must be one of"),
        ({"cache_type_k": "q9"}, "cache-type-k must be one of"),
        ({"tensor_split": 1}, "need a GPU, and llama.cpp finds none"),
    ],
)
def test_bad_options_are_refused(path, options, said, monkeypatch):
    monkeypatch.setattr(llama, "llama_supports_gpu_offload", lambda: False)
    with pytest.raises((ValueError, TypeError), match=said):
        make_engine(EngineConfig(target=str(path), options=options))


@pytest.mark.parametrize("change", [1.0, np.nan])
def test_unrepeatable_logits_are_refused(path, monkeypatch, change):
    own, add = Context.decode, {2: np.float32(change)}
    monkeypatch.setattr(
        Context, "decode", lambda self, p: own(self, p) + add.get(len(p), 0)
    )
    with pytest.raises(ValueError, match=rf"repeatable here: .* up to {change:g} "):
        open_cloud(path, repeatable=True)


def test_a_context_is_freed_before_its_model(path, monkeypatch):
    freed = []
    for name in "llama_free", "llama_model_free":
        monkeypatch.setattr(llama, name, lambda _, name=name: freed.append(name))
    cloud = open_cloud(path, ctx_size=256)
    cloud.itself = cloud  # garbage that has its own order
    del cloud
    gc.collect()
    assert freed == ["llama_free", "llama_model_free"]


def test_a_signal_ends_loading(path, monkeypatch):
    ended = threading.Event()

    def load(_):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        ended.wait(60)

    monkeypatch.setattr(_engine, "_load", load)
    with pytest.raises(KeyboardInterrupt):
        make_engine(EngineConfig(target=str(path)))
    ended.set()


END = """\
import sys, threading
from tests.system.llama_cpp.test_cloud import open_cloud, reading
cloud, busy = open_cloud(sys.argv[1]), threading.Event()
def read():
    while True:
        cloud.verify([reading(b"a", [3] * 500)])
        busy.set()
        cloud.forget(b"a")
threading.Thread(target=read, daemon=True).start()
busy.wait()
"""


def test_a_process_can_end_during_a_forward_pass(path):
    assert not subprocess.run([sys.executable, "-c", END, path], timeout=60).returncode
