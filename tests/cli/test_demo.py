"""The demo: which pairs it takes, what it shows, and what becomes of its server."""

import io
import subprocess
import sys

import huggingface_hub
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from rich.console import Console

import sqs_codec as sqs
from sqs_codec.cli import main as cli
from sqs_codec.cli.bits import WINDOW, read
from sqs_codec.cli.demo import report, server
from sqs_codec.cli.demo.race import Figures, Race
from sqs_codec.system._base.hub import ask_hub
from sqs_codec.system.edge import Step
from sqs_codec.system.hf import ModelError, load_model
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


def test_bits_reads_texts_with_a_model(tmp_path, capsys):
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
    said = f"{texts[0]}, {texts[1]}, read by {model}:\n91 of 91 rows of "
    assert said in capsys.readouterr().out
    assert cli.main([*command, str(texts[2])]) == 1
    assert capsys.readouterr().err == f"sqs bits: {texts[2]} has no tokens\n"


def test_a_hub_that_cannot_be_reached_is_told_at_once(unreachable_hub):
    with pytest.raises(ModelError, match=f"no-such-name: {unreachable_hub}"):
        load_model("no-such-name")


def test_a_race_of_any_pair_with_one_tokenizer(tmp_path, capsys, monkeypatch):
    draft = save_model(tmp_path / "draft", 16, WORDS)
    target = save_model(tmp_path / "target", 24, WORDS, seed=1)
    other = save_model(tmp_path / "other", 16, [*WORDS[:-2], WORDS[-1], WORDS[-2]])
    capsys.readouterr()  # saving draws progress bars
    monkeypatch.setenv("SQS_TOKEN", "short")  # of another server
    packets = tmp_path / "[b]packets"
    arguments = ["--prompt", "the fox", "--prompt", "far away", "--top-k", "4"]
    arguments += ["--max-tokens", "9", "--packets", str(packets), "--seed", "3"]
    arguments += ["--link", "1Mbit/s,2ms", "--target-ms", "1", "--draft", draft]
    assert cli.main(["demo", *arguments, "--target", target]) == 0
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1
    assert err.startswith(f"Drafting with {draft} on cpu")
    assert "\x1b" not in out
    titles = [line.strip("─ ") for line in out.splitlines() if line.startswith("─")]
    assert titles == [*report.TITLES.values(), *report.TITLES.values(), "what it took"]
    assert all(len(line) <= 80 for line in out.splitlines()[:-2])
    said = " ".join(out.split())
    assert "held to 1 ms a pass (by itself" in said
    assert "with hints it is the same text as alone, token for token." in said
    imitated = (
        "the link (1000 kbit/s up, 2 ms a round trip) and the target's pace ("
        "at least 1 ms"
    )
    assert f"Imitated: {imitated} a pass; its own is " in said
    codec = sqs.Codec(len(WORDS))
    rounds = [codec.decode_round(path.read_bytes()) for path in packets.iterdir()]
    assert 0 < sum(map(len, rounds)) <= 4 * len(rounds)
    assert f"Packets are in {packets};" in out
    assert out.rstrip().endswith("--vocab-size 13 --resolution 100 --coding entropy")
    # A server that refuses, and one that can't start, have the last word.
    assert cli.main(["demo", *arguments, "--target", other]) == 1
    assert "refused the session: the edge's tokenizer is" in capsys.readouterr().err
    assert cli.main(["demo", *arguments, "--target", str(tmp_path / "none")]) == 1
    err = capsys.readouterr().err
    assert "sqs demo: the server didn't start, with status 1. It said:\n" in err
    assert f"cannot load {tmp_path / 'none'}: there is no such directory" in err


DIES = """\
import sys
print("Serving a toy at 127.0.0.1:9 (...).", file=sys.stderr, flush=True)
sys.stdin.readline()
sys.exit("it broke")
"""


def test_a_server_that_ends_is_told(monkeypatch):
    monkeypatch.setattr(server, "CHILD", [sys.executable, "-c", DIES])

    def use():
        with server.Server([]) as running:
            running.wait()
            assert (running.summary, running.address) == ("a toy", "127.0.0.1:9")
            stdin = running._process.stdin
            stdin.write("\n")
            stdin.flush()
            raise LinkError("no answer")

    words = (
        "the server has ended, with status 1. It said:\nServing a toy at .*\nit broke"
    )
    with pytest.raises(ValueError, match=words):
        use()


def test_a_server_takes_no_modules_of_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "argparse.py").write_text("raise ImportError('it is from elsewhere')")
    monkeypatch.chdir(tmp_path)
    with (
        server.Server(["--wrong"]) as running,
        pytest.raises(ValueError, match="unrecognized arguments: --wrong"),
    ):
        running.wait()


WAITS = """\
import time
from sqs_codec.cli import main
from sqs_codec.cli.demo.server import child
main.main = lambda: time.sleep(1000)
child()
"""


def test_no_server_is_left_behind():
    """It ends with the pipe that it reads, and so with whoever started it."""
    command = [sys.executable, "-c", WAITS]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        process.stdin.close()
        assert process.wait(60) == 0


def race(seconds, hints=(5,)):
    toy = Race.__new__(Race)
    toy.figures = {
        way: Figures(tokens=100, seconds=s, answers=80, rows=250, bytes_up=1234)
        for way, s in seconds.items()
    }
    toy.figures["alone"].texts, toy.figures["hints"].texts = [[5]], [[*hints]]
    return toy


def test_what_a_person_is_told():
    fast = report.conclusion(race({"alone": 10.0, "rounds": 12.5, "hints": 8.0}))
    assert "came 1.25 times as fast as from the cloud alone, by rounds 0.80" in fast
    assert "it is the same text as alone" in fast
    slow = race({"alone": 8.0, "rounds": 8.0, "hints": 10.0}, hints=[6])
    said = report.conclusion(slow)
    assert "came 0.80 times as fast as from the cloud alone, by rounds 1.00" in said
    assert "it is another text than alone" in said


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_bars_fit(width, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    ran = race({"alone": 10.0, "rounds": 12.5, "hints": 5.0})
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as said:
        console.print(report.bars(ran, width))
    _, *rows = said.get().splitlines()[:4]
    assert all(len(row.rstrip()) <= width for row in rows)
    assert [row.split()[0] for row in rows] == ["alone", "rounds", "hints"]
    assert [row.split()[2:] for row in rows[::2]] == [
        ["10.0", "1,234", "0", "12", "0.80", "2.50"],
        ["20.0", "1,234", "0", "12", "0.80", "2.50"],
    ]
    lengths = [row.count("\u2588") for row in rows]
    assert lengths[2] in (width - report.WIDTH, report.LONGEST)
    assert lengths[0] == round(lengths[2] / 2)


def test_stream_redraws_in_a_terminal_and_leaves_the_text():
    text = "A caf\u00e9 by the sea, where \u65e5\u672c\u8a9e is spoken.\n\nThe end."
    draft = Draft()
    ids = [*draft.encode_text(text), *draft.encode_text("\U0001f98a")[:1]]
    for terminal in (False, True):
        file = io.StringIO()
        console = Console(file=file, width=20, force_terminal=terminal)
        with report.Stream(console, draft.stream()) as stream:
            for token in ids:
                step = Step((token,), 1, 1, 0, 0, 0, "")
                stream.show(step, report.live_line("hints", Figures()))
        out = file.getvalue()
        assert ("\x1b" in out) == terminal
        if not terminal:
            assert out.split() == f"{text}\ufffd".split()
            assert "bytes up" not in out


def test_a_hub_that_refuses_has_the_last_word(monkeypatch):
    class Refused(huggingface_hub.errors.HfHubHTTPError):
        def __init__(self):
            Exception.__init__(self, "403")

    def refuse(*_, **__):
        raise Refused

    monkeypatch.setattr(huggingface_hub, "file_exists", refuse)
    ask_hub("no-such-name", "config.json")  # raises nothing: what loads will say it
