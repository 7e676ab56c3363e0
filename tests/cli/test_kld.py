"""``sqs kld``: a reference made, interrupted, models measured, and what is refused."""

import argparse
import contextlib
import itertools
import json
import math
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec import distill
from sqs_codec._base import install
from sqs_codec.cli import kld as command
from sqs_codec.cli import main as cli
from sqs_codec.cli import reading
from sqs_codec.distill._base_file import BaseFile
from sqs_codec.distill._header import EXTRAS
from sqs_codec.system.hf import ModelReader, _reader, load_model
from tests.cli.test_demo import WORDS, save_model
from tests.distill.test_base_file import draw, tokenizer, write_base

TEXT = " ".join(WORDS[3 + (i * i + i // 7) % 10] for i in range(200))
CTX = 32


def sqs_kld(*arguments):
    return cli.main(["kld", *map(str, arguments)])


def make(folder, to, text="text"):
    made = "--texts", folder / text, "--ctx", CTX, "--model", folder / "original"
    return sqs_kld("make", *made, "--resolution", 64, "-o", folder / to)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models, a text of six contexts, the first one's reference, and other files."""
    folder = tmp_path_factory.mktemp("kld")
    for seed, name in enumerate(("original", "other", "words")):
        save_model(folder / name, len(WORDS), WORDS[:: -1 if seed == 2 else 1], seed)
    (folder / "text").write_text(TEXT + "\n")
    (folder / "latin").write_bytes(b"caf\xe9")
    (folder / "short").write_text(TEXT[: len(TEXT) // 5])
    assert make(folder, "ref") == make(folder, "one", "short") == 0
    teacher = "--texts", folder / "text", "--model", folder / "other"
    made = map(str, (*teacher, "-o", folder / "teacher"))
    assert cli.main(["distill", "make", *made]) == 0
    write_base(folder / "larger.kld", draw(len(WORDS) + 1, 2))
    size = len(WORDS) + 1
    base = BaseFile(folder / "larger.kld", tokenizer(size))
    codec, pieces = sqs.Codec(size, 9), base.contexts()
    distill.make(folder / "larger", codec, base, pieces, extras=(*EXTRAS,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_reader, "CHUNK", CTX // _reader.WINDOW)
        yield folder


def test_a_model_differs_from_another_and_not_itself(folder, capsys):
    data = distill.load(folder / "ref")
    assert [s.places.tolist() for s in data] == 6 * [[*range(CTX // 2, CTX - 1)]]
    assert data.header.source.endswith("; up to 32 tokens, cut by rule 2")
    models = [folder / "original", folder / "other"]
    assert sqs_kld("measure", folder / "ref", "--model", *models) == 0
    out, err = capsys.readouterr()
    few = "sqs kld measure: the text's error is uncertain with 6 contexts: make a ref"
    assert err.count(few) == 2
    tables = out.split(f"{models[1]} against ")
    assert sqs_kld("measure", folder / "ref", "--json", "--model", *models) == 0
    same, other = map(json.loads, capsys.readouterr().out.splitlines())
    assert same["model"] == same["original"] == str(models[0])
    assert abs(same["mean"]["value"]) < 1e-3 < 0.1 < other["mean"]["value"]
    assert same["same_likeliest"]["value"] == 1 > other["same_likeliest"]["value"]
    ppl = [same[n]["value"] for n in ("perplexity", "reference_perplexity")]
    assert ppl[0] == pytest.approx(ppl[1], rel=1e-3)
    found = distill.measure(data, ModelReader(load_model(str(models[1]))))
    assert other | command.plain(vars(found)) == other
    value, text, reference = (f"{x:10.6f}" for x in found.mean)
    said = f"Mean    KLD: {value} ± {text} text ± {reference} reference\n"
    assert said in tables[1]
    assert f" reference: {command.trust(found)}\n" in tables[1]


@pytest.fixture
def reads(monkeypatch):
    """Return who reads; the third time ends in an interrupt."""
    reads, read = [], ModelReader.read

    def counted(self, texts):
        for _, batch in itertools.groupby(texts, lambda text: text.batch):
            reads.append(Path(self.name).name)
            if len(reads) == 3:
                raise KeyboardInterrupt
            yield from read(self, batch)

    monkeypatch.setattr(ModelReader, "read", counted)
    return reads


@pytest.mark.parametrize("begin", [["kld", "make"], ["distill", "make"]])
def test_another_model_of_the_same_name_does_not_continue(
    begin, folder, tmp_path, capsys, reads
):
    model = shutil.copytree(folder / "original", tmp_path / "model")
    weights, other = model / "model.safetensors", folder / "other/model.safetensors"
    own, lines = weights.read_bytes(), folder / "lines"
    lines.write_text(9 * f"{TEXT}\n")
    texts = (
        [lines, "--max-length", 50] if begin[0] == "distill" else [lines, "--ctx", 32]
    )
    made = [*begin, "--model", model, "--texts", *texts, "-o", tmp_path / "made"]
    assert cli.main([*map(str, made)]) == 130
    weights.write_bytes(other.read_bytes())
    assert cli.main([*map(str, made)]) == 1
    said = rf"made\.parts/0+\.parquet: .* model: .*, or remove {tmp_path}/made\.parts "
    assert re.search(said, capsys.readouterr().err)
    weights.write_bytes(own)  # of another time
    assert cli.main([*map(str, made)]) == 0
    assert cli.main([*map(str, made[:-1]), str(tmp_path / "whole")]) == 0
    assert (tmp_path / "made").read_bytes() == (tmp_path / "whole").read_bytes()


def identity(model, *options):
    parser = argparse.ArgumentParser()
    reading.add_reading(parser.add_argument)
    return reading.identity(parser.parse_args(options), model and str(model))


def test_every_file_of_a_model_identifies_it(tmp_path):
    parts = [tmp_path / f"[a]-0000{i}-of-00002.GGUF" for i in (1, 2)]
    whole, model = tmp_path / "whole.gguf", tmp_path / "model"
    model.mkdir()
    files = [*parts, whole, model / "config.json", model / "deep/a.safetensors"]
    (model / "deep").mkdir()
    for file in files:
        file.write_text(file.name)

    def identities():
        return [identity(path) for path in (parts[0], whole, model)]

    before = identities()
    assert len({*before}) == 3
    (tmp_path / "[a]-00001-of-00003.GGUF").touch()
    (model / "made.parts").mkdir()
    for name in "made.parts/000000.parquet", "README.md", "run.log", "a.jsonl":
        (model / name).write_text("x")
    os.utime(whole, (0, 0))
    assert identities() == before
    copied = shutil.copytree(tmp_path, tmp_path / "copied", symlinks=True)
    assert identity(copied / model.name) == before[2]
    for file, which in zip(files, (0, 0, 1, 2, 2), strict=True):
        file.write_text(file.name.upper())
        now = identities()
        assert [i for i in range(3) if now[i] != before[i]] == [which]
        before = now
    assert identity(model, "--dtype", "bfloat16") != before[2]
    quantized = "--engine-option", "quantization=fp8"
    assert identity(model, *quantized) != before[2]
    resources = "--threads", "3", "--engine-option", "tensor_parallel_size=2"
    assert identity(model, *resources) == before[2]
    assert identity(None) == ""


def test_a_commit_identifies_a_model_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--an--owner"
    for commit in "a" * 40, "b" * 40:
        (cached / "snapshots" / commit).mkdir(parents=True)
        (cached / "snapshots" / commit / "config.json").touch()
    (cached / "refs").mkdir()
    for name, commit in ("main", "a" * 40), ("tag", "b" * 40), ("main", "b" * 40):
        (cached / "refs" / name).write_text(commit)
        given = [] if name == "main" else ["--revision", name]
        assert identity("an/owner", *given) == commit
    assert identity("an/owner", "--engine-option", f"revision={'a' * 40}") == "a" * 40
    elsewhere = tmp_path / "elsewhere/models--an--owner"
    (elsewhere / "snapshots" / ("c" * 40)).mkdir(parents=True)
    (elsewhere / "refs").mkdir()
    (elsewhere / "refs/main").write_text("c" * 40)
    given = "--engine-option", f"download-dir={tmp_path / 'elsewhere'}"
    assert identity("an/owner", *given) == "c" * 40


@pytest.mark.parametrize(
    "model", ["an/other", "s3://bucket/model", "gs://model", "one/two/three"]
)
def test_a_model_without_files_is_identified_by_name(model, tmp_path):
    given = "--engine-option", f"download-dir={tmp_path}"
    assert identity(model, *given) == model
    assert identity(model, *given, "--revision", "tag") == f"{model}, tag"


def test_an_interrupted_measurement_leaves_nothing(folder, capsys, reads):
    measure = ["measure", folder / "ref", "--model", folder / "original"]
    before = sorted(folder.iterdir())
    assert sqs_kld(*measure) == 130
    assert capsys.readouterr().out == ""
    assert sorted(folder.iterdir()) == before
    assert sqs_kld(*measure) == 0
    assert len(reads) == 3 + 6


def test_chunks_are_the_first_contexts_of_all_texts(folder, tmp_path, capsys):
    made = "make", "--texts", folder / "text", folder / "short", "--ctx", CTX
    made = *made, "--model", folder / "original", "-o"
    assert sqs_kld(*made, tmp_path / "all") == 0
    for given, read in (1, 1), (7, 7), (99, 7):
        assert sqs_kld(*made, tmp_path / f"{given}", "--chunks", given) == 0
        some = distill.load(tmp_path / f"{given}")
        assert len(some) == read
        for one, other in zip(some, distill.load(tmp_path / "all"), strict=False):
            assert (one.rows, one.tokens.tolist()) == (
                other.rows,
                other.tokens.tolist(),
            )
        assert f"; up to {given} contexts; " in some.header.source
    measure = "measure", tmp_path / "1", "--model", folder / "other"
    capsys.readouterr()
    assert sqs_kld(*measure) == 0
    assert "\n15 rows of 1 contexts\n" in capsys.readouterr().out


def test_a_base_file_is_a_reference(folder, capsys):
    tokens, _ = write_base(folder / "base.kld", draw(len(WORDS), 2))
    made, model = ("make", "--from", folder / "base.kld", "-o"), folder / "original"
    assert sqs_kld(*made, folder / "base", "--model", model) == 0
    made = distill.load(folder / "base")
    assert made.header.model == str(model)
    assert [own.tokens.tolist() for own in made] == tokens.tolist()
    assert sqs_kld("measure", folder / "base", "--model", model) == 0
    assert "\n6 rows of 3 contexts\n" in capsys.readouterr().out


def test_unknown_figures_are_reported(folder, capsys, monkeypatch):
    measure, model = ["measure", folder / "one"], folder / "other"
    assert sqs_kld(*measure, "--model", model) == 0
    assert re.search(r"KLD: +\S+ ± +unknown text ± +\d", capsys.readouterr().out)
    assert sqs_kld(*measure, "--json", "--model", model) == 0
    assert json.loads(capsys.readouterr().out)["mean"]["text"] is None
    low = itertools.chain([-math.inf, math.nan], itertools.repeat(-50.0))

    def read(_, texts):
        for task in texts:
            logits = np.zeros((len(task.places), task.vocab_size))
            for row, own in zip(logits, task.text.rows, strict=True):
                row[own.token_ids] = next(low)
            yield task, logits

    monkeypatch.setattr(ModelReader, "read", read)
    assert sqs_kld("measure", folder / "ref", "--model", model) == 0
    out, err = capsys.readouterr()
    assert "inf: of 2 rows, 1 of them with NaN\n Others KLD: " in out
    said = re.search(r" reference: (the control is more than 4 errors .*)", out)
    assert err.endswith(f"\nsqs kld measure: {model}: {said[1]}\n")


@pytest.mark.parametrize(
    ("value", "error", "trusted", "said"),
    [
        (0.02, 0.01, True, "The KLD can be trusted: the control is within 4 stand"),
        (-0.5, 0.1, False, "the control is 5.0 errors from 0: don't trust the KLD; "),
        (0.02, 0.01, False, "the model gives the reference's tokens too little"),
        (-1.0, 0.0, False, "the control is more than 4 errors from 0: don't trust"),
        (math.nan, 0.0, False, "the model gives the reference's tokens too little"),
    ],
)
def test_the_control_decides_whether_to_trust_the_estimate(value, error, trusted, said):
    control = distill.Estimate(value, 0.0, error)
    found = SimpleNamespace(control=control, is_trusted=trusted)
    assert command.trust(found).startswith(said)


def test_the_requested_reader_is_used(folder, monkeypatch):
    asked = []

    def reader(*arguments, **options):
        asked.append((arguments, options))
        raise ValueError("that will do")

    for name in "llama_cpp", "vllm":
        module = SimpleNamespace(ModelReader=reader)
        monkeypatch.setitem(sys.modules, f"sqs_codec.system.{name}", module)
    monkeypatch.setattr("sqs_codec.cli.options.has_packages", lambda *_: True)
    vllm = "--engine vllm --engine-option tensor-parallel-size=2 --dtype float16"
    made = f"make --texts {folder}/text -o {folder}/no"
    for begin in f"kld {made}", f"distill {made}", f"kld measure {folder}/ref":
        for more in "a.GGUF --threads 3", f"a {vllm}":
            assert cli.main(f"{begin} --model {more}".split()) == 1
    options = {"options": {"tensor_parallel_size": 2}, "dtype": "float16"}
    assert asked == 3 * [(("a.GGUF",), {"threads": 3}), (("a",), options)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("make --texts F/text -o F/no --ctx 201", "text: it has 200 tokens, and a"),
        ("make --texts F/text -o F/no", "can read 256 tokens, .* use a smaller --ctx"),
        ("make --texts F/latin -o F/no --ctx 8", "latin is not UTF-8: "),
        ("make --texts F/none -o F/no", "none: No such file"),
        ("make --texts F/text -o F/no/no", "no folder .*no to write to"),
        ("make --from F/text -o F/no --model F/other", "it doesn't begin as a"),
        ("make --from a -o b --ctx 8", "--ctx needs --texts"),
        ("make --from a -o b --chunks 8", "--chunks needs --texts"),
        ("make --texts a -o b --chunks 0", "--chunks: must be at least 1, not 0"),
        ("make --from a -o b", "--from needs --model"),
        ("make --texts a -o b --resolution 7", "--resolution must be 8 or more"),
        ("measure F/none", "none: No such file"),
        ("measure F/text", "text: truncated, damaged or not a Parquet"),
        ("measure F/teacher", "teacher is not a reference: .* with sqs kld make"),
        ("measure F/ref --model F/words", "words: the reference's tokenizer has"),
        ("measure F/larger", "vocabulary of 14, but the reader has 13"),
        ("measure F/ref --model a.gguf", "needs llama-cpp-python.*'..distill,llama"),
        ("measure F/ref --engine vllm", r"needs vllm\. .*'.\[distill,hf,vllm\]'"),
        ("measure a --ray 2 --model a.gguf", "doesn't .* to a.gguf, which llama.cpp"),
        ("measure F/ref --model a.gguf --device cpu", "--device doesn't .*, which lla"),
        ("make --texts a -o b --model a.gguf --engine vllm", "--engine doesn't"),
        ("measure F/ref --ray 2", r"needs ray\. .*'.\[distill,hf,ray\]'"),
        ("make --texts a -o b --threads 2", "--threads doesn't .*, which transformers"),
        ("measure a --engine vllm --device cpu", "--device doesn't .*, which vLLM"),
    ],
)
def test_bad_input_is_explained(arguments, words, folder, capsys, monkeypatch):
    lacks = "llama-cpp-python", "ray", "vllm"
    monkeypatch.setattr(install, "is_installed", lambda name: name not in lacks)
    asked = arguments.replace("F/", f"{folder}/").split()
    is_own = "--model" in asked or "--from" in asked
    own = [] if is_own else ["--model", folder / "other"]
    with contextlib.suppress(SystemExit):
        assert sqs_kld(*asked, *own) == 1
    err = capsys.readouterr().err.replace(f"{folder}/", "F/")
    assert re.search(words, err, re.DOTALL), err
