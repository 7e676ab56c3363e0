"""The text of a completion, token by token."""

import os

import pytest
from tokenizers import Tokenizer, decoders, models

from sqs_codec.system._base.chat import TextStream
from tests.system.streams import BYTES, TOKENIZERS, Streams, bpe, smollm2

FOX = "\u00f0\u0141\u00a6\u012c"
"""How tokens of bytes spell the four of a fox, U+1F98A."""


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_stream_says_what_the_whole_text_does(name):
    streams = Streams(TOKENIZERS[name](), seed=0)
    for _ in range(int(os.environ.get("STREAMS", 500))):
        streams.check()


def test_a_space_at_the_beginning_stays():
    streams = Streams(bpe(strip=True), seed=0)
    vocabulary = bpe(strip=True).get_vocab()
    the, fox = vocabulary["\u2581the"], vocabulary["\u2581\u65e5\u672c"]
    stream = TextStream(streams.tokenizer.decode, streams.spell, [the])
    assert [stream.add([fox]), stream.rest()] == [" \u65e5\u672c", ""]
    assert streams.decode([fox]) == "\u65e5\u672c"


def test_a_character_that_the_prompt_begins_is_shown_whole():
    tokenizer = smollm2()
    streams = Streams(tokenizer, seed=0)
    fox = [tokenizer.token_to_id(byte) for byte in FOX] * 3
    silent = tokenizer.token_to_id("<|im_end|>")
    for cut in range(len(fox)):
        for special in range(20):
            prompt = [*fox[:cut], *[silent] * special]
            stream = TextStream(streams.tokenizer.decode, streams.spell, prompt)
            said = stream.add(fox[cut:])
            assert said == "\U0001f98a" * (3 - cut // 4)


def test_a_run_of_bytes_is_shown_once_it_has_ended():
    streams, vocabulary = Streams(bpe(strip=True), seed=0), bpe(strip=True).get_vocab()
    euro = [vocabulary[BYTES[byte]] for byte in "\u20ac".encode()]
    for end, said in ((vocabulary["x"], "\u20acx"), (euro[0], "\ufffd" * 4)):
        stream = TextStream(streams.tokenizer.decode, streams.spell)
        assert stream.add(euro) == ""
        assert stream.add([end]) + stream.rest() == said


def test_no_tokens_are_no_text():
    """Where the tokenizer's decoder panics at none."""
    tokenizer = Tokenizer(models.BPE({"a": 0}, []))
    tokenizer.decoder = decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 0, 1)])
    stream = TextStream(tokenizer.decode, tokenizer.id_to_token, [])
    assert [stream.add([]), stream.rest()] == ["", ""]
    assert [stream.add([0]), stream.rest()] == ["a", ""]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_token_costs_as_much_at_the_end_of_a_long_text(name):
    streams, decoded = Streams(TOKENIZERS[name](), seed=0), list[int]()

    def decode(ids, **options):
        decoded.extend(ids)
        return streams.tokenizer.decode(ids, **options)

    tokens = list[int]()
    while len(tokens) < 8192:
        tokens += streams.tokens()
    stream = TextStream(decode, streams.spell, tokens[:4096])
    assert len(decoded) < 1000
    for token in tokens[4096:]:
        stream.add([token])
    assert len(decoded) < 50 * 4096
