"""The demo: its pairs of models, its output, and the end of its server."""

import io
import re
import subprocess
import sys
from unittest.mock import Mock

import huggingface_hub
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from rich.console import Console

from sqs_codec.cli import demo
from sqs_codec.cli import main as cli
from sqs_codec.cli.bits import WINDOW, read
from sqs_codec.system._base.hub import ask_hub
from sqs_codec.system.edge import Step
from sqs_codec.system.edge._metrics import EdgeMetrics
from sqs_codec.system.engine import EngineConfig
from sqs_codec.system.session import LinkError
from sqs_codec.system.small import Draft

# A pair from Hugging Face: models small enough to be made here.

WORDS = ["<s>", "</s>", "<unk>", "the", "fox", "ran", "and", "slept"]
WORDS += ["far", "away", "from", "home", "."]


def save_model(folder, vocab_size, words, seed=0):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=1,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(words)}
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(vocabulary, unk_token="<unk>")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return str(folder)


def test_bits_runs_a_model_on_texts(tmp_path, capsys):
    model = save_model(tmp_path / "model", 24, WORDS)
    texts = [tmp_path / "one.txt", tmp_path / "other.txt", tmp_path / "empty.txt"]
    for text, words in zip(texts, (700, 100, 0), strict=True):
        text.write_text("the fox " * (words // 2))
    rows, _ = read(texts[:2], model, 1000)
    last = read(texts[:1], model, 1000)[0][-1]
    assert rows.shape == (800, len(WORDS))
    ids = [WORDS.index(word) for word in ("the", "fox")] * 350
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    whole = loaded(torch.tensor([ids[2 * WINDOW :]])).logits[0, -1, : len(WORDS)]
    np.testing.assert_allclose(last, whole.detach().numpy(), atol=1e-5)
    capsys.readouterr()
    command = ["bits", "--model", model, "--rows", "99", "--texts"]
    assert cli.main([*command, *map(str, texts[:2])]) == 0
    out = capsys.readouterr().out
    assert f"\n{texts[0]}, {texts[1]}, read by {model}.\n" in out
    assert "\n91 of 91 rows of " in out
    assert cli.main([*command, str(texts[2])]) == 1
    assert capsys.readouterr().err == f"sqs bits: {texts[2]} has no tokens\n"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """Take back what the demo sets for processes that it starts."""
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.delenv("PYTHONSAFEPATH")


def test_any_pair_with_one_tokenizer_can_race(tmp_path, capsys, monkeypatch):
    draft = save_model(tmp_path / "draft", 16, WORDS)
    target = save_model(tmp_path / "target", 24, WORDS, seed=1)
    other = save_model(tmp_path / "other", 16, [*WORDS[:-2], WORDS[-1], WORDS[-2]])
    (tmp_path / "argparse.py").write_text("raise ImportError('it is from elsewhere')")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()  # saving draws progress bars
    arguments = ["--prompt", "the fox", "--prompt", "far away", "--max-tokens", "9"]
    arguments += ["--seed", "3", "--link", "1Mbit/s,2ms", "--target-ms", "1"]
    arguments += ["--draft", draft]
    assert cli.main(["demo", *arguments, "--target", target]) == 0
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1
    assert err.startswith(f"Drafting with {draft} on cpu")
    assert "\x1b" not in out
    titles = [line.strip("─ ") for line in out.splitlines() if line.startswith("─")]
    assert titles == [*demo.TITLES.values(), *demo.TITLES.values(), "result"]
    said = " ".join(out.split())
    assert re.search(r"slowed from \d+ to 1 ms per call", said)
    assert "With hints the text is the same as alone, token for token." in said
    simulated = "forward passes of 1 ms and the link (1000 kbit/s up, 2 ms round trip)"
    assert f"Simulated: {simulated}. The rest is real." in said
    # A server that refuses, and one that can't start, have the last word.
    assert cli.main(["demo", *arguments, "--target", other]) == 1
    assert (
        "refused the session: the edge's tokenizer has fingerprint"
        in capsys.readouterr().err
    )
    assert cli.main(["demo", *arguments, "--target", str(tmp_path / "none")]) == 1
    err = capsys.readouterr().err
    assert f"sqs demo: the server didn't start: cannot load {tmp_path / 'none'}" in err


def test_a_server_that_exits_is_reported(tmp_path):
    def use():
        with demo.beside(EngineConfig(target=str(tmp_path))) as pipe:
            assert "didn't start" in pipe.recv()
            with pytest.raises(EOFError):
                pipe.recv()
            raise LinkError("no answer")

    with pytest.raises(ValueError, match="the server has ended, with status 0"):
        use()


KILLED = """\
import sys, time
from sqs_codec.cli import demo
from sqs_codec.system.engine import EngineConfig
if __name__ == "__main__":
    with demo.beside(EngineConfig(target=sys.argv[1])) as pipe:
        print(len(pipe.recv()), flush=True)
        time.sleep(1000)
"""


def test_no_server_is_left_behind(tmp_path):
    """It holds the output open, too, until it ends."""
    model = save_model(tmp_path / "model", 16, WORDS)
    (tmp_path / "killed.py").write_text(KILLED)
    command = [sys.executable, str(tmp_path / "killed.py"), model]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"2\n"
        process.kill()
        assert process.stdout.read() == b""


@pytest.mark.parametrize(("hints", "times"), [(8.0, "1.25"), (12.5, "0.80")])
def test_the_conclusion_compares_speeds_and_texts(hints, times):
    seconds = {"alone": 10.0, "rounds": 10.0, "hints": hints}
    found = {way: EdgeMetrics(100, seconds=s) for way, s in seconds.items()}
    said = demo.conclusion(found, same=hints == 8)
    assert f"Hints were {times} times as fast as the cloud alone, rounds 1.00" in said
    for words in "the text differs from alone", "A draft needs to be much faster":
        assert (words in said) == (hints != 8)


def test_tokens_are_shown_as_they_arrive():
    text = "A caf\u00e9 by the sea, where \u65e5\u672c\u8a9e is spoken.\n\nThe end."
    own = Draft().tokenizer
    ids = [*own.encode(text), *own.encode("\U0001f98a")[:1]]
    steps = [Step((token,), i % 2, 1, 0, 0, 0, "") for i, token in enumerate(ids)]
    for colors in (None, "standard"):
        console = Console(file=io.StringIO(), force_terminal=True, color_system=colors)
        assert demo.show(console, own.stream(), steps) == ids
        out = console.file.getvalue()
        assert ("\x1b" in out) == (colors is not None)
        assert re.sub("\x1b.*?m", "", out) == f"{text}\ufffd\n"


def test_a_refusal_of_the_hub_is_left_to_loading(monkeypatch):
    error = huggingface_hub.errors.HfHubHTTPError("403", response=Mock())
    monkeypatch.setattr(huggingface_hub, "file_exists", Mock(side_effect=error))
    ask_hub("no-such-name", "config.json")
