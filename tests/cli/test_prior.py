"""The command ``sqs prior``, and the option ``--prior`` of the others."""

import re
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import sqs_codec as sqs
from sqs_codec.cli import main as cli
from sqs_codec.cli import prior as command
from sqs_codec.cli.files import load_tokenizer
from sqs_codec.cli.options import find_prior
from sqs_codec.cli.prior import read_tokens
from tests.refusals import fails

LICENSE = Path(__file__).parents[2] / "LICENSE"
V = 400


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A byte-pair tokenizer of a text that never changes."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=V,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train([str(LICENSE)], trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return path


@pytest.fixture(scope="module")
def logits(tmp_path_factory):
    rows = np.random.default_rng(0).normal(0, 2, (300, V)).astype(np.float32)
    rows[:, ::2] += 8 * (np.arange(300) // 3 % 2)[:, None]
    path = tmp_path_factory.mktemp("drafts") / "logits.npy"
    np.save(path, rows)
    return path


def prior(*arguments):
    return cli.main(["prior", *map(str, arguments)])


def saved(out):
    found = re.search(
        r"without a prior (\d+\.\d), with it (\d+\.\d): (\d\.\d+)$", out, re.MULTILINE
    )
    without, with_it, ratio = map(float, found.groups())
    assert ratio == pytest.approx(with_it / without, abs=0.02)
    return ratio


def test_text_makes_a_prior(tokenizer, tmp_path, capsys):
    output = tmp_path / "my.sqsprior"
    assert prior("--tokenizer", tokenizer, LICENSE, "-o", output) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "bits per token" in out
    assert saved(out) < 0.95
    made = sqs.Prior.load(output)
    assert (made.vocab_size, made.classes) == (V, 1)
    tokens = Tokenizer.from_file(str(tokenizer)).encode(LICENSE.read_text("utf-8")).ids
    counts = np.bincount(tokens, minlength=V)
    assert made.digest.hex() in out
    # A kind is an eighth of an octave; lines may be cut into a few other tokens.
    likely = sqs.Prior.from_counts(counts)
    assert np.median(abs(made._tables.kinds.astype(int) - likely._tables.kinds)) <= 1


def test_drafts_make_a_prior(tokenizer, logits, tmp_path, capsys):
    """With text, too, which a folder's tokenizer reads."""
    output = tmp_path / "my.sqsprior"
    arguments = "--drafts", logits, "-o", output, "--top-k", 12, "--resolution", 50
    assert prior(*arguments, "--classes", 3) == 0
    out, _ = capsys.readouterr()
    assert "mean of 60 held-out rows (TopK(12), resolution 50, temperature 0.7)" in out
    assert saved(out) < 0.98
    assert sqs.Prior.load(output).classes == 3
    assert prior(*arguments, "--tokenizer", tokenizer.parent, LICENSE) == 0
    assert "tokens of text\n300 rows of drafts" in capsys.readouterr().out
    assert cli.main(["bits", str(logits), "--rows", "20"]) == 0
    without = capsys.readouterr().out
    assert cli.main(["bits", str(logits), "--rows", "20", "--prior", str(output)]) == 0
    assert capsys.readouterr().out != without


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no input"),
        (["LICENSE"], "texts need --tokenizer"),
        (["nothing.txt", "--tokenizer", "TOKENIZER"], "nothing.txt: No such file"),
        (["BINARY", "--tokenizer", "TOKENIZER"], "is not UTF-8"),
        (["EMPTY", "--tokenizer", "TOKENIZER"], "has no tokens"),
        (
            ["LICENSE", "--tokenizer", "TOKENIZER", "--vocab-size", "50"],
            "vocabulary of 50",
        ),
        (["LICENSE", "--tokenizer", "BINARY"], "cannot load the tokenizer"),
        (["LICENSE", "--tokenizer", "nope.json"], "cannot load the tokenizer nope"),
        (["LICENSE", "--tokenizer", "TOKENIZER", "--classes", "4"], "needs --drafts"),
        (["--drafts", "BINARY"], "is not a .npy file"),
        (["--drafts", "LOGITS", "--top-k", "401"], "-k must be at most 400, the voc"),
        (["--drafts", "LOGITS", "-o", "nowhere/x"], "no folder nowhere to write to"),
        (["--drafts", "NAN", "-o", "."], ". must be a file, but is a folder"),
        (["--drafts", "NAN"], "nan.npy: row 70: logits[5] is nan; values must"),
        (["--drafts", "LOGITS", "--vocab-size", "50"], f"logits of {V} tokens, not 50"),
    ],
)
def test_bad_input_is_explained(
    arguments, message, tokenizer, logits, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(LICENSE.parent)
    (tmp_path / "binary").write_bytes(bytes(range(128, 256)))
    (tmp_path / "empty").write_bytes(b"")
    rows = np.zeros((100, V), np.float32)
    rows[70, 5] = np.nan
    np.save(tmp_path / "nan.npy", rows)
    names = {"TOKENIZER": str(tokenizer), "LOGITS": str(logits)}
    names |= {name.upper(): str(tmp_path / name) for name in ("binary", "empty")}
    names["NAN"] = str(tmp_path / "nan.npy")
    output = tmp_path / "out.sqsprior"
    given = [names.get(argument, argument) for argument in arguments]
    assert fails(capsys, message, "prior", "-o", output, *given).count("\n") == 1
    assert not output.exists()


def test_an_unreachable_hub_is_reported_at_once(unreachable_hub, capsys):
    begin = f"sqs prior: cannot load the tokenizer no-such-name: {unreachable_hub}"
    command = "prior", "--tokenizer", "no-such-name", LICENSE, "-o", "x"
    assert fails(capsys, begin, *command).count("\n") == 1


def test_inspect_reads_with_a_prior(tmp_path, capsys):
    packet, built_in = tmp_path / "packet.bin", sqs.Prior.builtin("smollm2")
    q = sqs.SparseDistribution([3, 40, 40_000], [70, 20, 10], 49_152)
    packet.write_bytes(sqs.Codec(49_152, prior=built_in).encode(q))
    built_in.save(tmp_path / "copy")
    arguments = "inspect", str(packet), "--vocab-size", "49152", "--kind=distribution"
    for own in "smollm2", str(tmp_path / "copy"):
        assert cli.main([*arguments, "--prior", own]) == 0
        assert "40000" in capsys.readouterr().out
    said = "no file smollm3, and no built-in prior: name must be"
    fails(capsys, said, *arguments, "--prior", "smollm3")
    fails(capsys, "262144", *arguments, "--prior", "gemma3")


def test_a_folder_is_no_prior(tmp_path, monkeypatch):
    """As of a model that was downloaded; its name means the built-in prior."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").mkdir()
    assert find_prior("smollm2") == sqs.Prior.builtin("smollm2")


def test_a_text_is_tokenized_in_parts(tokenizer, monkeypatch):
    loaded = load_tokenizer(str(tokenizer))
    tokens = read_tokens(loaded, LICENSE, V)
    monkeypatch.setattr(command, "LINES", 7)
    assert read_tokens(loaded, LICENSE, V).tolist() == tokens.tolist()
