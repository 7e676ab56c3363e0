"""The demo: what it counts, which pairs it takes and what it shows."""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from sqs_codec.cli.demo import report
from sqs_codec.cli.demo.count import Stats, support_kept
from sqs_codec.cli.demo.pair import Pair, load_pair
from sqs_codec.cli.demo.run import converse
from sqs_codec.system._base.hub import ask_hub
from sqs_codec.system.edge import Step
from sqs_codec.system.hf import Cloud, ModelError, load_model

PROMPT = "Tell me a short story about a fox."


@dataclass
class Talk:
    """A prompt's answer: what was counted, and the packets."""

    codec: sqs.Codec
    stats: Stats
    rounds: list[sqs.Round]
    packets: list[bytes]


def talk(
    pair: Pair, keep: sqs.TopK | sqs.Conformal, folder: Path, **options: Any
) -> Talk:
    codec = sqs.Codec(pair.vocab_size, coding="enumerative")
    given = argparse.Namespace(
        **{
            "prompt": [PROMPT],
            "temperature": 0.7,
            "top_k": 64,
            "alpha": 0.05,
            "eta": 0.001,
            "resolution": 100,
            "coding": "enumerative",
            "prior": None,
            "draft_length": 4,
            "max_tokens": 24,
            "seed": 0,
            "drop_layers": 2,
            "draft": None,
            "target": None,
            "packets": folder,
            **options,
        }
    )
    cloud = Cloud(pair.target, vocab_size=pair.vocab_size, tokenizer=pair.tokenizer)
    console = Console(file=io.StringIO())
    stats = converse("rule", keep, codec, pair, cloud, given, console)
    packets = [path.read_bytes() for path in sorted(folder.iterdir())]
    rounds = [codec.decode_round(packet) for packet in packets]
    return Talk(codec, stats, rounds, packets)


def test_statistics_add_up(smollm2: Pair, tmp_path: Path) -> None:
    one = talk(smollm2, sqs.TopK(64), tmp_path)
    s = one.stats
    assert s.rounds == len(one.rounds)
    assert s.drafted == sum(len(r) for r in one.rounds)
    # Each round adds a token of the cloud's own; the last token may be its alone.
    assert s.tokens - s.accepted - s.rounds in (0, 1)
    assert s.tokens == 24
    assert 0 < s.acceptance_rate <= 1
    assert s.wire_bits == 8 * sum(4 + len(packet) for packet in one.packets)
    coded = sum(
        8 + sum(one.codec.bits(q) + one.codec.token_bits(q) for q in r.distributions)
        for r in one.rounds
    )
    assert 0 <= s.wire_bits - coded - 32 * s.rounds < 8 * s.rounds
    # Design figures of K-SQS with K=64, l=100: 855 bits by the paper's formula.
    assert s.paper_bits == 855 * s.drafted
    assert s.raw_bits == 64 * 48 * s.drafted
    assert s.dense_bits == 16 * 49_152 * s.drafted
    assert s.kept == 64 * s.drafted
    assert s.survivors == sum(
        len(q.token_ids) for r in one.rounds for q in r.distributions
    )


def test_conformal_is_charged_for_its_own_support(
    smollm2: Pair, tmp_path: Path
) -> None:
    s = talk(smollm2, sqs.Conformal(alpha=0.05), tmp_path).stats
    assert s.survivors <= s.kept < 64 * s.drafted
    assert s.raw_bits == 48 * s.kept
    # The size of the support costs the paper ceil(log2 49152) = 16 bits more.
    assert s.paper_bits > 16 * s.drafted


def test_support_kept_is_counted_as_the_paper_does() -> None:
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    assert support_kept(logits, sqs.TopK(3), 1.0) == 3
    assert support_kept(logits, sqs.TopK(9), 1.0) == 4
    assert support_kept(logits, sqs.Conformal(beta=0.1), 1.0) == 3
    assert support_kept(logits, sqs.Conformal(beta=0.9), 1.0) == 1
    assert support_kept(logits, sqs.Conformal(beta=-0.1), 1.0) == 4
    assert support_kept(logits, sqs.Conformal(beta=0.1), 0) == 1
    masked = np.array([0.0, -np.inf])
    assert support_kept(masked, sqs.TopK(2), 1.0) == 1
    assert support_kept(masked, sqs.Conformal(beta=-0.1), 1.0) == 1


# A pair from Hugging Face: models small enough to be made here.

WORDS = ["<s>", "</s>", "<unk>", "the", "fox", "ran", "and", "slept"]
WORDS += ["far", "away", "from", "home", "."]


def save_model(
    folder: Path, vocab_size: int, words: Sequence[str], seed: int = 0
) -> str:
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
    transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # theirs
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    ).save_pretrained(folder)
    return str(folder)


def test_bits_reads_texts_with_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert capsys.readouterr().out.startswith(said)
    assert cli.main([*command, str(texts[2])]) == 1
    assert capsys.readouterr().err == f"sqs bits: {texts[2]} has no tokens\n"


def test_a_hub_that_cannot_be_reached_is_told_at_once(unreachable_hub: str) -> None:
    with pytest.raises(ModelError, match=f"no-such-name: {unreachable_hub}"):
        load_model("no-such-name")


def test_any_pair_with_one_tokenizer_speaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draft = save_model(tmp_path / "draft", 16, WORDS)
    target = save_model(tmp_path / "target", 24, WORDS, seed=1)
    capsys.readouterr()  # saving draws progress bars
    packets = tmp_path / "packets"
    arguments = ["--prompt", "the fox", "--prompt", "far away", "--top-k", "4"]
    arguments += ["--max-tokens", "20", "--packets", str(packets), "--seed", "3"]
    assert cli.main(["demo", "--draft", draft, "--target", target, *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    assert "logits cropped to 13 (draft has 16, target 24)" in " ".join(out.split())
    table = out[out.index("what it cost") : out.index("Loading took")]
    assert all(len(line) <= 80 for line in table.splitlines())
    assert "a pass gives it" in " ".join(out.split())
    for label in ("K-SQS", "C-SQS", "real bytes", "paper's formula", "raw top-K"):
        assert label in table
    codec = sqs.Codec(len(WORDS))
    files = sorted(packets.iterdir())
    assert {f.name[:5] for f in files} == {"k-sqs", "c-sqs"}
    for file in files:
        codec.decode_round(file.read_bytes())


def test_pairs_that_cannot_work_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = save_model(tmp_path / "one", 16, WORDS)
    other = save_model(tmp_path / "other", 16, [*WORDS[:-2], WORDS[-1], WORDS[-2]])
    small = save_model(tmp_path / "small", 8, WORDS)
    with pytest.raises(ModelError, match=r"different tokenizers .*2 with different"):
        load_pair(one, other, 1)
    with pytest.raises(ModelError, match=r"ids up to 12 .* only 8 logits"):
        load_pair(small, one, 1)
    with pytest.raises(ModelError, match="cannot load"):
        load_pair(one, str(tmp_path / "nothing"), 1)
    assert cli.main(["demo", "--draft", one, "--target", other]) == 1
    assert "different tokenizers" in capsys.readouterr().err


def test_stream_redraws_in_a_terminal_and_leaves_the_text(smollm2: Pair) -> None:
    text = "A caf\u00e9 by the sea, where \u65e5\u672c\u8a9e is spoken.\n\nThe end."
    ids = smollm2.tokenizer(text)["input_ids"]
    stats = Stats(codec=sqs.Codec(49_152), support_size_sent=False)
    for terminal in (False, True):
        file = io.StringIO()
        console = Console(file=file, width=20, force_terminal=terminal)
        with report.Stream(console, smollm2.tokenizer) as stream:
            for token in ids:
                step = Step((token,), 1, 1, 0, 0, 0, "")
                stream.show(step, report.live_line("K-SQS", stats))
        out = file.getvalue()
        assert ("\x1b" in out) == terminal
        if not terminal:
            assert out.split() == text.split()
            assert "acceptance" not in out


def test_a_hub_that_refuses_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(huggingface_hub.errors.HfHubHTTPError):
        def __init__(self) -> None:
            Exception.__init__(self, "403")

    def refuse(*_: object, **__: object) -> bool:
        raise Refused

    monkeypatch.setattr(huggingface_hub, "file_exists", refuse)
    ask_hub("no-such-name", "config.json")  # raises nothing: what loads will say it
