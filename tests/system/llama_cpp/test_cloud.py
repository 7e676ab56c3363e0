"""A GGUF file as a target: the sessions of many edges in one context."""

import asyncio
import re
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec.system.engine import EngineConfig, make_engine, measure_steps
from sqs_codec.system.llama_cpp import Cloud, Draft, ModelReader, Options, _cloud
from sqs_codec.system.llama_cpp._model import Context, llama
from sqs_codec.system.session import Job, Sampling, verify_jobs
from tests.system.llama_cpp.files import write_model

V = 6
SEED = 12
KEY = bytes(range(16))
FLOAT32 = {"flash_attn": "off", "cache_type_k": "f32", "cache_type_v": "f32"}
REPEATABLE = {"repeatable": True, "batch_size": 101}


def text_of(rng, n):
    return rng.integers(3, V, n).tolist()


def reading(session, text):
    return Job(session, [*text], None, np.zeros(0), Sampling())


def asking(session, text, hints=()):
    return replace(reading(session, text), hints=hints, key=KEY)


def job_of(rng, session, text):
    """A round, hints, or a text that is only to be read."""
    drafted = text_of(rng, int(rng.choice([0, 1, 4, 32])))
    kind = rng.integers(3)
    if kind < 2:
        return (reading(session, text), asking(session, text, drafted))[kind]
    qs = [sqs.SparseDistribution([3, 4, 5], [4, 3, 3], V) for _ in drafted]
    round_ = sqs.Round(qs, drafted) if drafted else None
    draws = rng.random(len(drafted) + 1)
    return replace(reading(session, text), round_=round_, draws=draws)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("m") / "m.gguf", "llama", context=512)


@pytest.fixture
def passes(monkeypatch):
    """Return how many tokens and rows each pass will have."""
    found, decode = [], Context.decode

    def note(context, parts):
        counts = [(len(tokens), len(wanted)) for _, _, tokens, wanted in parts]
        found.append(tuple(map(sum, zip(*counts, strict=True))))
        return decode(context, parts)

    monkeypatch.setattr(Context, "decode", note)
    return found


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
def test_a_job_says_everything(tmp_path, monkeypatch, architecture, options, error):
    """Its verdict and rows are those that it has alone, with nothing cached.

    Whatever came before: other texts, shorter ones, repeats, prefills, and whoever is
    forgotten or evicted.
    """
    rng, seen = np.random.default_rng(SEED), {}

    def judge(jobs, logits):
        ends = np.cumsum([job.wanted for job in jobs])
        for job, rows in zip(jobs, np.split(logits, ends), strict=False):
            seen[job.session] = rows.copy()
        return verify_jobs(jobs, logits)

    monkeypatch.setattr(_cloud, "verify_jobs", judge)
    path = write_model(tmp_path / "model.gguf", architecture, context=512)
    cloud = open_cloud(path, ctx_size=3 * 512, parallel=3, **options)
    alone = open_cloud(path, ctx_size=512, parallel=1, **{"batch_size": 512} | options)
    texts = [text_of(rng, n) for n in (1, 5, 20, 60, 100, 150, 9, 400)]
    for _ in range(50):
        jobs = []
        for i in rng.permutation(8)[: rng.integers(1, 6)]:
            change = rng.integers(6)
            if change == 0:
                texts[i] = text_of(rng, int(rng.integers(1, 200)))
            elif change == 1:
                texts[i] = texts[i][: max(1, len(texts[i]) - int(rng.integers(40)))]
            elif change == 2:
                texts[i] = [*texts[i], *text_of(rng, int(rng.integers(1, 4)))][:460]
            elif change == 3:
                cloud.forget(b"%d" % i)
            jobs.append(job_of(rng, b"%d" % i, texts[i]))
        verdicts, rows = cloud.verify(jobs), dict(seen)
        for job, verdict in zip(jobs, verdicts, strict=True):
            alone.forget(job.session)
            assert alone.verify([job]) == [verdict]
            if job.wanted:
                expected = seen[job.session]
                np.testing.assert_allclose(rows[job.session], expected, 0, error)


def test_who_waited_longest_is_read_again(path, passes):
    cloud = open_cloud(path, parallel=3, batch_size=512)
    for name in "abcad":  # the last of which takes b's memory
        cloud.verify([reading(name.encode(), [3] * ord(name))])
    cloud.forget(b"d")
    passes.clear()
    # Those that are cached go first, with e, which takes what is free.
    cloud.verify([asking(name.encode(), [3] * ord(name)) for name in "ebca"])
    assert passes == [(1 + 1 + ord("e"), 3), (ord("b"), 1)]


def test_rounds_come_before_long_texts(path, passes):
    cloud = open_cloud(path, parallel=4)
    rounds = [asking(b"%d" % i, [3] * 9, [3] * 20) for i in range(2)]
    passes.clear()
    long = asking(b"long", [3] * 130)
    cloud.verify([reading(b"text", [3] * 30), long, *rounds])
    # The one row of the long text is of its last pass.
    assert passes == [(64, 42), (64, 0), (64, 1), (26, 0)]


def test_forget_from_another_thread(path, monkeypatch):
    cloud, decode = open_cloud(path, parallel=2), llama.llama_decode
    job = asking(b"a", [3] * 100)
    expected = cloud.verify([job])

    def forget(*given):
        thread = threading.Thread(target=cloud.forget, args=(b"a",))
        thread.start()
        thread.join(60)
        return decode(*given)

    monkeypatch.setattr(llama, "llama_decode", forget)
    assert cloud.verify([job]) == expected
    cloud.verify([reading(b"b", [3, 4])])
    assert cloud.verify([job]) == expected


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_cached(path, passes, monkeypatch, error):
    cloud, decode = open_cloud(path), llama.llama_decode
    jobs = [asking(b"%d" % i, [3 + i] * 50) for i in range(3)]
    expected = cloud.verify(jobs)

    def fail(*given):
        decode(*given)
        if error is KeyboardInterrupt:
            raise error
        return -2

    monkeypatch.setattr(llama, "llama_decode", fail)
    with pytest.raises(error, match=r"\(-2\): |^$"):
        cloud.verify([replace(job, text=[*job.text, 3]) for job in jobs])
    monkeypatch.setattr(llama, "llama_decode", decode)
    passes.clear()
    assert cloud.verify(jobs) == expected
    assert sum(size for size, _ in passes) == 3 * 50


def test_what_gives_nan_spoils_nobody_elses_text(tmp_path):
    path = write_model(tmp_path / "model.gguf", "llama", context=512, spoiled=4)
    cloud = open_cloud(path, parallel=2, flash_attn="off")
    good, bad = asking(b"good", [3] * 9), asking(b"bad", [4] * 20)
    expected = cloud.verify([good])
    with pytest.raises(ValueError, match=r"logits\[0\]\[0\] is nan"):
        cloud.verify([bad, good])
    for name in (b"good", b"one", b"two"):
        assert cloud.verify([replace(good, session=name)]) == expected


def test_jobs_that_cant_be_done_are_named(path, passes):
    cloud, good = open_cloud(path, parallel=2), asking(b"good", [3])
    passes.clear()
    for bad, said in (
        (asking(b"bad", [3] * 513), r"513 .* fits is 512 \(2 sessions have that much"),
        (asking(b"bad", [V]), r"token ids must be in \[0, 6\), got 6 to 6"),
        (asking(b"bad", [3], [3] * 33), "a draft may have 32 tokens, got 33"),
        (good, "must be of different sessions"),
    ):
        with pytest.raises(ValueError, match=rf"^jobs(\[1\]:)? {said}"):
            cloud.verify([good, bad])
    assert not passes


def test_files_that_are_no_targets(tmp_path):
    with pytest.raises(ValueError, match=r"recurrent state, .* roll back over the 32"):
        Cloud(write_model(tmp_path / "mamba.gguf", "mamba"))
    with pytest.raises(ValueError, match="a recurrent state: not repeatable"):
        open_cloud(write_model(tmp_path / "lfm2.gguf", "lfm2"), repeatable=True)
    path = write_model(tmp_path / "pooling.gguf", "llama", pooling=True)
    for kind in (Cloud, Draft, ModelReader):
        with pytest.raises(ValueError, match="is no model that continues a text"):
            kind(path)


def test_memory(path):
    with pytest.raises(ValueError, match="for 1 sessions of 256 tokens") as error:
        Cloud(path, max_memory=1)
    page = int(re.findall("at least ([0-9]+)", str(error.value))[0])
    for pages, options, places, tokens in (
        (1000, {}, 64, 512),
        (7, {}, 3, 512),
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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threads": "two"}, "threads must be an integer, got 'two'"),
        ({"ctx_size": 0}, r"ctx_size must be in \[1, \d+\], got 0"),
        ({"parallel": True}, "parallel must be an integer, got True"),
        ({"batch_size": None}, "batch_size must be an integer, got None"),
        ({"n_gpu_layers": [1]}, r"n_gpu_layers must be an integer, got \[1\]"),
        ({"tensor_split": "1,x"}, "tensor_split must be numbers: .*'x'"),
        ({"ngl": 1, "threads": 1}, r"takes the options threads, .*, not ngl"),
        ({"cache_type_v": "q8_0", "flash_attn": "off"}, "V cache requires flash_attn"),
        ({"tensor_split": "1,2"}, "are for GPUs, and llama.cpp finds none"),
    ],
)
def test_options_that_wont_do(path, options, said, monkeypatch):
    monkeypatch.setattr(llama, "llama_supports_gpu_offload", lambda: False)
    with pytest.raises((ValueError, TypeError), match=said):
        make_engine(EngineConfig(target=str(path), options=options))


def test_rows_that_arent_repeatable_are_refused(path, monkeypatch):
    own = Context.decode
    monkeypatch.setattr(Context, "decode", lambda self, p: own(self, p) + len(p))
    with pytest.raises(ValueError, match=r"aren't repeatable here: .* up to 1 "):
        open_cloud(path, repeatable=True)


def test_an_engine(path):
    options = {"ctx_size": 256, "parallel": 1, "threads": 1}
    engine = make_engine(EngineConfig(target=str(path), target_ms=5, options=options))

    async def run():
        info = await engine.open()
        try:
            return info, await measure_steps(engine, info)
        finally:
            await engine.close()

    info, steps = asyncio.run(run())
    assert (info.max_text, info.tokenizer) == (256, Draft(path).fingerprint)
    assert "held to 5 ms a pass (by itself " in info.summary
    assert min(steps.values()) >= 0.005


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


def test_a_process_ends_in_the_midst_of_a_pass(path):
    assert not subprocess.run([sys.executable, "-c", END, path], timeout=60).returncode
