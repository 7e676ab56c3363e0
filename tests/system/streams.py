"""Decode random completions token by token, and compare with decoding them whole.

Prompts and completions are random tokens, cut anywhere: parts of characters, bytes that
are not UTF-8, special tokens and spaces among them.
"""

import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile

from tokenizers import AddedToken, Tokenizer, decoders, models

from sqs_codec.system._base.chat import TextStream
from sqs_codec.system.small import Draft

SPACE = "\u2581"
SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
WORDS = ["the", "The", "caf\u00e9", "\u65e5\u672c", "\ufffd"]
WORDS += [".", "'", "n't", "\n", "x"]
SAID = "A caf\u00e9 isn't \u65e5\u672c,  \U0001f98a\U0001f469\u200d\U0001f680 \ufffd."


def metaspace(words: Sequence[str]) -> list[str]:
    return [*words, *(SPACE + word for word in words), *(SPACE * n for n in (1, 2, 3))]


def with_special(tokenizer: Tokenizer, decoder: object) -> Tokenizer:
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    return tokenizer


def bpe(*, strip: bool) -> Tokenizer:
    """Decode as Llama 2 does, or as Gemma, which keeps a space at the beginning."""
    words = [*SPECIAL, *BYTES, *metaspace(WORDS)]
    vocabulary = {word: i for i, word in enumerate(words)}
    model = models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    steps += [decoders.Strip(" ", 1, 0)] if strip else []
    return with_special(Tokenizer(model), decoders.Sequence(steps))


def unigram() -> Tokenizer:
    words = [(word, -1.0) for word in [*SPECIAL, *metaspace(WORDS)]]
    return with_special(Tokenizer(models.Unigram(words, 0)), decoders.Metaspace())


def wordpiece() -> Tokenizer:
    words = [*SPECIAL, *WORDS, *(f"##{word}" for word in WORDS)]
    vocabulary = {word: i for i, word in enumerate(words)}
    model = models.WordPiece(vocabulary, unk_token="<unk>")
    return with_special(Tokenizer(model), decoders.WordPiece(cleanup=True))


def smollm2() -> Tokenizer:
    return Draft().tokenizer._own


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "bytes of characters (SmolLM2)": smollm2,
    "byte fallback, a space stripped (Llama 2)": partial(bpe, strip=True),
    "byte fallback (Gemma)": partial(bpe, strip=False),
    "a space before each word (T5)": unigram,
    "word pieces (BERT)": wordpiece,
}


def behind(first: str, text: str) -> str:
    """Return the rest of a text after its common prefix with another."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, text, strict=False))
    return text[len([*same]) :]


class Streams:
    """Random completions of a tokenizer, decoded in both ways."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self.tokenizer = tokenizer
        self.decode = partial(tokenizer.decode, skip_special_tokens=True)
        self.spell = tokenizer.id_to_token
        self.random = random.Random(seed)
        size = tokenizer.get_vocab_size()
        odd = [i for i in range(size) if "\ufffd" in self.decode([i, i])]
        special = [
            i for i, t in tokenizer.get_added_tokens_decoder().items() if t.special
        ]
        spaces = [i for i in range(size) if not self.decode([i, i, i, i]).strip()]
        said = tokenizer.encode(SAID, add_special_tokens=False).ids
        self.kinds = [range(size), odd or [0], special, spaces, said]

    def tokens(self) -> list[int]:
        """Return tokens, more of one kind than of others, and parts of a text."""
        own, tokens = self.random.choices(range(9), k=len(self.kinds)), list[int]()
        said = self.kinds[-1]
        for _ in range(self.random.choice([0, 1, 3, 10, 60])):
            kind = self.random.choices(self.kinds, [n + 0.1 for n in own])[0]
            if kind is said:
                start = self.random.randrange(len(said))
                tokens += said[start : start + self.random.randrange(12)]
            else:
                repeats = self.random.choice([1, 1, 1, 2, 9])
                tokens += [self.random.choice(kind)] * repeats
        return tokens

    def expected(self, prompt: list[int], completion: list[int]) -> str:
        """Return a completion's text: prompt and completion, less the prompt."""
        return behind(self.decode(prompt), self.decode(prompt + completion))

    def check(self) -> None:
        """Decode a random completion in both ways."""
        prompt, tokens = self.tokens(), self.tokens()
        stream = TextStream(self.tokenizer.decode, self.spell, prompt)
        shown, cut = "", 0
        while cut < len(tokens):
            step = self.random.choice([1, 1, 1, 2, 5])
            shown += stream.add(tokens[cut : cut + step])
            cut += step
            if self.random.random() < 0.1:
                self.check_shown(prompt, tokens[:cut], shown)
        whole = self.expected(prompt, tokens)
        assert whole.startswith(shown), (prompt, tokens)
        assert shown + stream.rest() == whole, (prompt, tokens)

    def check_shown(self, prompt: list[int], tokens: list[int], shown: str) -> None:
        """Only a run of bytes and an incomplete character are held back."""
        said = [i for i in tokens if self.decode([i] * 4)]
        if said and not str(self.spell(said[-1])).startswith("<0x"):
            whole = self.expected(prompt, tokens)
            assert whole.removeprefix(shown) in ("", "\ufffd"), (prompt, tokens)
