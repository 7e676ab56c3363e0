"""The demo with real models: two ends that share nothing but bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from rich.console import Console

import sqs_codec as sqs
from sqs_codec import cli
from sqs_codec.demo import models, report
from sqs_codec.demo.loop import (
    DOWNLINK,
    Cloud,
    Edge,
    Stats,
    Step,
    softmax,
    speculate,
    support_kept,
)
from sqs_codec.demo.models import CachedModel, ModelError, Pair

PROMPT = "Tell me a short story about a fox."


@pytest.fixture(scope="module")
def pair() -> Pair:
    return models.smollm2_pair(drop_layers=2)


@dataclass
class Talk:
    """A conversation, its two ends and what they did."""

    codec: sqs.Codec
    edge: Edge
    cloud: Cloud
    draft: CachedModel
    target: CachedModel
    prompt: list[int]
    stats: Stats
    steps: list[Step]

    @property
    def tokens(self) -> list[int]:
        """All tokens of the answer."""
        return [t for step in self.steps for t in (*step.accepted, *step.corrected)]


def rule(name: str) -> sqs.TopK | sqs.Conformal:
    return sqs.TopK(64) if name == "K-SQS" else sqs.Conformal(alpha=0.05)


def ends(
    pair: Pair, keep: sqs.TopK | sqs.Conformal, *, temperature: float, **options: Any
) -> tuple[sqs.Codec, CachedModel, CachedModel, Edge, Cloud]:
    codec = sqs.Codec(pair.vocab_size, coding=options.get("coding", "enumerative"))
    draft = CachedModel(pair.draft, pair.vocab_size)
    target = CachedModel(pair.target, pair.vocab_size)
    edge = Edge(
        draft,
        codec,
        keep,
        temperature=temperature,
        rng=np.random.default_rng(1),
        draft_length=options.get("draft_length", 4),
        budget_bits=options.get("budget_bits"),
    )
    cloud = Cloud(target, codec, temperature=temperature, rng=np.random.default_rng(2))
    return codec, draft, target, edge, cloud


def talk(
    pair: Pair,
    keep: sqs.TopK | sqs.Conformal,
    *,
    temperature: float = 0.7,
    max_tokens: int = 24,
    stop: Sequence[int] = (),
    **options: Any,
) -> Talk:
    codec, draft, target, edge, cloud = ends(
        pair, keep, temperature=temperature, **options
    )
    prompt = pair.encode(PROMPT)
    conformal = isinstance(keep, sqs.Conformal)
    stats = Stats(codec.vocab_size, support_size_sent=conformal)
    steps = list(
        speculate(
            edge,
            cloud,
            codec,
            prompt,
            max_tokens=max_tokens,
            stop=stop,
            stats=stats,
        )
    )
    return Talk(codec, edge, cloud, draft, target, prompt, stats, steps)


@pytest.mark.parametrize("name", ["K-SQS", "C-SQS"])
def test_each_end_needs_only_the_other_ends_bytes(pair: Pair, name: str) -> None:
    one = talk(pair, rule(name))
    *_, edge, cloud = ends(pair, rule(name), temperature=0.7)
    edge.start(one.prompt)
    cloud.start(one.prompt)
    remaining = 24
    for step in one.steps:
        assert type(step.packet) is bytes
        assert len(step.answer) == DOWNLINK.size
        # The edge replays against recorded answers, the cloud against packets.
        assert edge.draft(max(1, remaining - 1)) == step.packet
        edge.receive(step.answer)
        assert cloud.verify(step.packet) == step.answer
        remaining -= len(step.accepted) + len(step.corrected)
    assert remaining == 0


@pytest.mark.parametrize("name", ["K-SQS", "C-SQS"])
def test_temperature_0_gives_the_targets_greedy_text(pair: Pair, name: str) -> None:
    one = talk(pair, rule(name), temperature=0, max_tokens=40)
    # Each token has to be the target's first choice after all those before it.
    text = [*one.prompt, *one.tokens]
    with torch.inference_mode():
        logits = pair.target(input_ids=torch.tensor([text])).logits[0]
    greedy = logits.argmax(-1)[len(one.prompt) - 1 : -1].tolist()
    assert one.tokens == greedy
    assert len(one.tokens) == 40
    assert one.stats.kept == one.stats.survivors == one.stats.drafted


def test_caches_are_right_after_many_rejections(pair: Pair) -> None:
    one = talk(pair, sqs.TopK(64), temperature=1.2, max_tokens=40)
    assert one.stats.resampled >= 5
    text = [*one.prompt, *one.tokens]
    for cached, model in ((one.draft, pair.draft), (one.target, pair.target)):
        assert len(cached) > len(one.prompt)
        with torch.inference_mode():
            fresh = model(input_ids=torch.tensor([text])).logits[0, -1].numpy()
        np.testing.assert_allclose(cached.logits(text)[0], fresh, atol=2e-3)


def test_statistics_add_up(pair: Pair) -> None:
    one = talk(pair, sqs.TopK(64))
    s = one.stats
    rounds = [one.codec.decode_round(step.packet) for step in one.steps]
    assert s.rounds == len(rounds)
    assert s.drafted == sum(len(r) for r in rounds)
    assert s.emitted == len(one.tokens) == 24
    assert s.accepted == sum(len(step.accepted) for step in one.steps)
    assert s.resampled == sum(
        len(step.accepted) < len(r) for step, r in zip(one.steps, rounds, strict=True)
    )
    assert 0 < s.acceptance_rate <= 1
    assert s.wire_bits == 8 * sum(len(step.packet) for step in one.steps)
    coded = sum(
        8 + sum(one.codec.bits(q) + one.codec.token_bits(q) for q in r.distributions)
        for r in rounds
    )
    assert 0 <= s.wire_bits - coded < 8 * s.rounds
    # Design figures of K-SQS with K=64, l=100: 855 bits by the paper's formula.
    assert s.paper_bits == 855 * s.drafted
    assert s.raw_bits == 64 * 48 * s.drafted
    assert s.dense_bits == 16 * 49_152 * s.drafted
    assert s.kept == 64 * s.drafted
    assert s.survivors == sum(len(q.token_ids) for r in rounds for q in r.distributions)


def test_conformal_is_charged_for_its_own_support(pair: Pair) -> None:
    one = talk(pair, sqs.Conformal(alpha=0.05))
    s = one.stats
    assert s.survivors <= s.kept < 64 * s.drafted
    assert s.raw_bits == 48 * s.kept
    # The size of the support costs the paper ceil(log2 49152) = 16 bits more.
    assert s.paper_bits > 16 * s.drafted


def test_budget_bounds_every_packet(pair: Pair) -> None:
    one = talk(pair, sqs.TopK(64), budget_bits=320, draft_length=8)
    lengths = []
    for step in one.steps:
        lengths.append(len(one.codec.decode_round(step.packet)))
        assert 8 * len(step.packet) <= 320 or lengths[-1] == 1
    assert max(lengths) > 1


def test_text_ends_with_a_stop_token_and_at_max_tokens(pair: Pair) -> None:
    whole = talk(pair, sqs.TopK(64), temperature=0, max_tokens=12).tokens
    stop = next(t for t in whole[4:] if t not in whole[:4])
    expected = whole[: whole.index(stop) + 1]
    assert talk(pair, sqs.TopK(64), temperature=0, stop=[stop]).tokens == expected
    short = talk(pair, sqs.TopK(64), temperature=0, max_tokens=1)
    assert short.tokens == whole[:1]
    assert short.stats.emitted == 1


def test_draft_shares_the_targets_weights(pair: Pair) -> None:
    originals = {id(p) for p in pair.target.parameters()}
    assert {id(p) for p in pair.draft.parameters()} < originals
    assert len(pair.draft.model.layers) == len(pair.target.model.layers) - 2
    assert pair.target.config.num_hidden_layers == len(pair.target.model.layers)


def test_cached_model_refuses_a_text_it_did_not_see(pair: Pair) -> None:
    cached = CachedModel(pair.target, pair.vocab_size)
    first = cached.logits([1, 2, 3], last=2)
    assert first.shape == (2, 49_152)
    assert first.dtype == np.float32
    with pytest.raises(ValueError, match="does not continue"):
        cached.logits([1, 5, 3])
    with pytest.raises(ValueError, match="cannot roll 3 tokens back to 4"):
        cached.rollback(4)
    with pytest.raises(ValueError, match="last must be"):
        cached.logits([1, 2], last=3)
    np.testing.assert_allclose(cached.logits([1, 2, 3], last=2), first, atol=2e-3)


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
    np.testing.assert_allclose(softmax(logits, 1.0), np.exp(logits))


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
    assert "logits cropped to 16 (draft has 16, target 24)" in " ".join(out.split())
    table = out[out.index("what it cost") : out.index("Loading took")]
    assert all(len(line) <= 80 for line in table.splitlines())
    for label in ("K-SQS", "C-SQS", "real bytes", "paper's formula", "raw top-K"):
        assert label in table
    codec = sqs.Codec(16)
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
        models.hugging_face_pair(one, other)
    with pytest.raises(ModelError, match=r"ids up to 12 .* only 8 logits"):
        models.hugging_face_pair(small, one)
    with pytest.raises(ModelError, match="cannot load"):
        models.hugging_face_pair(one, str(tmp_path / "nothing"))
    assert cli.main(["demo", "--draft", one, "--target", other]) == 1
    assert "different tokenizers" in capsys.readouterr().err


def test_stream_redraws_in_a_terminal_and_leaves_the_text(pair: Pair) -> None:
    text = "A caf\u00e9 by the sea, where \u65e5\u672c\u8a9e is spoken.\n\nThe end."
    ids = pair.tokenizer(text)["input_ids"]
    stats = Stats(49_152, support_size_sent=False)
    for terminal in (False, True):
        file = io.StringIO()
        console = Console(file=file, width=20, force_terminal=terminal)
        with report.Stream(console, pair.tokenizer) as stream:
            for token in ids:
                step = Step(b"", b"", (token,), ())
                stream.show(step, report.live_line("K-SQS", stats))
        out = file.getvalue()
        assert ("\x1b" in out) == terminal
        if not terminal:
            assert out.split() == text.split()
            assert "acceptance" not in out
