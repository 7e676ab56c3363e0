"""The text of a completion, token by token."""

import os

import pytest
from tokenizers import Tokenizer, decoders, models

from sqs_codec.system._base.chat import TextStream
from tests.system.streams import TOKENIZERS, Streams


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_stream_matches_decoding_the_whole_text(name):
    streams = Streams(TOKENIZERS[name](), seed=0)
    for _ in range(int(os.environ.get("STREAMS", 500))):
        streams.check()


def test_no_tokens_decode_to_an_empty_string():
    """Where the tokenizer's decoder panics at none."""
    tokenizer = Tokenizer(models.BPE({"a": 0}, []))
    tokenizer.decoder = decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 0, 1)])
    stream = TextStream(tokenizer.decode, tokenizer.id_to_token, [])
    assert [stream.add([]), stream.rest()] == ["", ""]
    assert [stream.add([0]), stream.rest()] == ["a", ""]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_decoding_time_per_token_is_constant(name):
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
