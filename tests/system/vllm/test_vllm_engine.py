"""vLLM gives the verdicts of transformers, for any decisions of its scheduler."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import vllm

from sqs_codec import Sampling
from sqs_codec.system.engine import EngineConfig
from sqs_codec.system.hf import Cloud, ModelError, load_model
from sqs_codec.system.session import Read, VerifyRound
from sqs_codec.system.vllm import VllmEngine
from sqs_codec.system.vllm._engine import make_engine
from tests.refusals import refuses
from tests.system.vllm.kit import (
    PADDED,
    SEED,
    Served,
    V,
    Writer,
    all_end,
    by_transformers,
    save_tiny,
    served,
    session,
)

ROOT = Path(__file__).parents[3]
SESSIONS = 8
LENGTH = 130


@pytest.fixture(scope="module")
def smollm2():
    return load_model(None)


@pytest.fixture(scope="module")
def cloud(smollm2):
    return Cloud(smollm2.model, tokenizer=smollm2.tokenizer)


@pytest.fixture
def writer(smollm2):
    prose = (ROOT / "docs/theory.md").read_text()[:3000]
    tokens = smollm2.tokenizer(prose)["input_ids"]
    return Writer(smollm2.model, smollm2.vocab_size, tokens)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """SmolLM2 with all the memory it needs."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        it = Served(VllmEngine())
    assert not list(folder.glob("sqs-*")), "the model's files are still there"
    yield it
    it.close()


@pytest.fixture(scope="module")
def narrow():
    """SmolLM2 with half the memory that the sessions need, and chunked prefill.

    A block of 32 tokens takes 1.4 MiB.
    """
    options = {"max_num_batched_tokens": 24}
    with served(max_memory=SESSIONS * LENGTH * 45 // 1024 // 2, options=options) as it:
        yield it


def test_the_engine_describes_its_model(wide, cloud):
    assert wide.info.vocab_size == cloud.vocab_size
    assert wide.info.tokenizer == cloud.fingerprint
    assert wide.info.max_text == 8192
    summary = "SmolLM2-135M-Instruct on vLLM 0.3[^ ]* on cpu in float32, 513 MiB"
    assert re.fullmatch(summary, wide.info.summary)
    assert wide.engine.health() is None


def check_turns(it, cloud, writer, turns, end):
    """Verify jobs on texts that grow, each twice, as transformers does."""
    for turn in range(turns):
        jobs = [
            writer.job(turn * SESSIONS + i, session(100 + i), end(i, turn))
            for i in range(SESSIONS)
        ]
        expected = by_transformers(cloud, jobs)
        for _ in range(2):
            assert it.all(jobs) == expected, turn


@pytest.mark.parametrize(
    "name", [pytest.param("wide", marks=pytest.mark.smoke), "narrow"]
)
def test_sessions_in_parallel_and_all_recomputed(name, cloud, writer, request):
    it = request.getfixturevalue(name)
    before = len(it.asked)
    check_turns(it, cloud, writer, 3, lambda i, turn: LENGTH - 40 + 7 * i + 5 * turn)
    short = [session for session, _, short in it.asked[before:] if short]
    again = [session for session, skip, _ in it.asked[before:] if skip]
    assert sorted(short) == sorted(again)
    assert short or name == "narrow", "no resend has met a cached row"


def test_texts_of_any_length(narrow, cloud, writer):
    limit = narrow.info.max_text
    assert 300 < limit < 1000
    long = writer.tokens * 2
    for length in (1, 2, 23, 24, 25, 31, 32, 33, limit - 1, limit):
        text = long[:length]
        job = VerifyRound(session(length), text, None, np.array([0.3]), Sampling())
        assert [narrow.one(job)] == by_transformers(cloud, [job])


def test_a_prefill_is_cached_only_for_its_session(wide, writer):
    cached = []
    own = wide.engine._llm.encode

    async def encode(*args):
        async for output in own(*args):
            cached.append(output.num_cached_tokens)
            yield output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wide.engine._llm, "encode", encode)
        text = writer.tokens[:300]
        read = Read(session(7), text)
        assert wide.one(read) is None
        after = VerifyRound(read.session, text, None, np.array([0.5]), Sampling())
        assert wide.one(after) is not None
        assert wide.one(replace(read, session=session(8))) is None
    assert cached == [0, 288, 0]


def test_configuration_options_are_applied(tmp_path):
    target = save_tiny(tmp_path, "Llama")
    options = {"max_model_len": 256}
    it = Served(
        make_engine(EngineConfig("vllm", target, 16, dtype="bfloat16", options=options))
    )
    assert it.info.max_text == 256
    assert it.info.summary.endswith(" on cpu in bfloat16, 0 MiB")
    it.close()


def test_cancelled_jobs_leave_nothing(narrow, cloud, writer):
    engine = narrow.engine
    jobs = [writer.job(i, session(200 + i), 250) for i in range(6)]

    async def cancel():
        tasks = [asyncio.ensure_future(engine.verify(job)) for job in jobs]
        await asyncio.sleep(0.3)
        for task in tasks[::2]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = narrow.run(cancel())
    assert any(isinstance(result, asyncio.CancelledError) for result in results[::2])
    assert results[1::2] == by_transformers(cloud, jobs[1::2])
    assert not engine._running
    assert engine._llm.get_num_unfinished_requests() == 0
    assert narrow.all(jobs) == by_transformers(cloud, jobs)


def test_impossible_jobs_are_refused(wide):
    job = VerifyRound(session(9), [1, 2], None, np.array([0.5]), Sampling())
    long, unknown = (replace(job, text=text) for text in ([1] * 8193, [49152]))
    refuses("have 8193 tokens, the limit is 8192", wide.one, long)
    refuses(r"token ids must be in \[0, 49152\)", wide.one, unknown)
    assert wide.one(job) is not None


WINDOW = {"sliding_window": 40}


@pytest.mark.parametrize(
    ("kind", "workers", "options"),
    [
        ("Qwen2", 1, {}),
        ("Qwen3", 2, {}),
        ("Mistral", 1, WINDOW),
        (
            "Gemma3Text",
            1,
            WINDOW | {"num_hidden_layers": 6, "query_pre_attn_scalar": 32},
        ),
    ],
)
def test_other_architectures(kind, workers, options, tmp_path):
    path = save_tiny(tmp_path, kind, **options)
    target = load_model(path)
    size = target.vocab_size
    assert size < PADDED
    tokens = np.random.default_rng(SEED).integers(0, V, 450)
    writer = Writer(target.model, size, list(tokens))
    cloud = Cloud(target.model, vocab_size=size, tokenizer=target.tokenizer)
    chunks = {"max_num_batched_tokens": 64, "tensor_parallel_size": workers}
    with served(path, options=chunks) as it:
        assert it.info.vocab_size == size
        assert it.info.tokenizer == cloud.fingerprint
        assert it.info.max_text == 512
        check_turns(it, cloud, writer, 4, lambda i, turn: 130 + 17 * i + 40 * turn)
        if kind == "Qwen2":
            check_death(it)
        else:
            check_closing(it, writer.job(0, session(100), 300))


def check_death(it):
    """The core of vLLM is killed while it has jobs."""
    [core] = it.engine._llm.engine_core.resources.engine_manager.processes
    job = VerifyRound(session(1), [1] * 500, None, np.array([0.5]), Sampling())

    async def killed():
        jobs = [replace(job, session=session(i)) for i in range(8)]
        tasks = [asyncio.ensure_future(it.engine.verify(job)) for job in jobs]
        await asyncio.sleep(0)
        os.kill(core.pid, signal.SIGKILL)
        return await asyncio.gather(*tasks, return_exceptions=True)

    with all_end(core.pid):
        results = it.run(killed())
        assert all(isinstance(result, Exception) for result in results)
        assert "has died" in it.engine.health()
        refuses("has died", it.one, job, error=RuntimeError)
        it.run(it.engine.close())
        it.run(it.engine.close())


def test_vllm_ends_with_the_serving_process():
    """Otherwise its memory would be missing for its successor."""
    program = (
        "import asyncio, sys; from sqs_codec.system.vllm import VllmEngine\n"
        "async def main():\n"
        "    print((await VllmEngine().open()).vocab_size, flush=True)\n"
        "    await asyncio.sleep(1000)\n"
        "if __name__ == '__main__': asyncio.run(main())"
    )
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program], stdout=subprocess.PIPE
    )
    with server:
        assert server.stdout.readline() == b"49152\n"
        with all_end(server.pid):
            server.kill()


def check_closing(it, job):
    """The engine is closed while it has jobs, some of them just begun."""

    async def closed():
        tasks = []
        for _ in range(4):
            tasks.append(asyncio.ensure_future(it.engine.verify(job)))
            await asyncio.sleep(0)
        await it.engine.close()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = it.run(closed())
    assert {str(result) for result in results} == {"the engine was closed"}
    assert it.engine.health() == "vLLM isn't running"


def test_an_engine_closed_before_it_is_open(monkeypatch):
    ended = []
    llm = SimpleNamespace(output_handler=None, shutdown=ended.append)

    async def start():
        await asyncio.sleep(0.1)
        return None, llm

    async def close_early():
        opening = asyncio.ensure_future(engine.open())
        await asyncio.sleep(0)
        await engine.close()
        with pytest.raises(RuntimeError, match="the engine was closed"):
            await opening

    engine = VllmEngine()
    monkeypatch.setattr(engine, "_start", start)
    asyncio.run(close_early())
    assert len(ended) == 1
    assert engine.health() == "vLLM isn't running"


def refused(*args, **options):
    """Return why an engine can't be opened."""
    with pytest.raises(ModelError) as caught, served(*args, **options):
        pass
    return str(caught.value)


def test_refusals(tmp_path, monkeypatch):
    gpt2 = save_tiny(tmp_path / "gpt2", "GPT2", n_embd=32, n_head=2, n_layer=1)
    assert "is a GPT2LMHeadModel, which isn't supported in vLLM" in refused(gpt2)
    config = tmp_path / "gpt2/config.json"
    names = '"GPT2LMHeadModel", "Another"'
    config.write_text(config.read_text().replace('"GPT2LMHeadModel"', names))
    assert "is a GPT2LMHeadModel, which isn't supported in vLLM" in refused(gpt2)
    assert "no such directory" in refused(str(tmp_path / "missing"))
    llama = save_tiny(tmp_path / "llama", "Llama", vocab_size=PADDED)
    said = "has no option no_such_option; see vllm.AsyncEngineArgs"
    assert said in refused(llama, options={"no_such_option": 1, "seed": 1})
    assert "max_model_len" in refused(llama, options={"max_model_len": "many"})
    assert "is a directory, which has no" in refused(llama, options={"revision": "v1"})
    with monkeypatch.context() as patch:
        patch.setenv("VLLM_PLUGINS", "others")
        assert "VLLM_PLUGINS=others prevents vLLM from" in refused(llama)
    monkeypatch.setattr(vllm, "__version__", "0.31.2+cpu")
    assert "vLLM 0.31.2+cpu isn't supported: install version 0.32 or 0.33" in refused(
        llama
    )


def test_the_plugin_does_nothing_in_other_versions(monkeypatch):
    from sqs_codec.system.vllm import _plugin

    names = []
    monkeypatch.setattr(
        vllm.ModelRegistry, "register_model", lambda name, _: names.append(name)
    )
    monkeypatch.setattr(vllm, "__version__", "0.34.0")
    _plugin.register()
    assert not names
    monkeypatch.setattr(vllm, "__version__", "0.33.1")
    _plugin.register()
    assert len(names) == len(_plugin.ARCHITECTURES)
