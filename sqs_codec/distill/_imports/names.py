"""Which tokens are meant by their names in a response."""

import json
import re
from typing import Any

from sqs_codec._base.lazy import lazy

NUMBERED = re.compile(r"token_id:(\d{1,10})")
"""How vLLM names a token, if asked to ``return_tokens_as_token_ids``."""

PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
"""Bytes that byte-level tokenizers spell as the characters of these numbers; the others
are spelled as those from 256 on, in their order."""

BYTES = {chr(byte): byte for byte in PRINTABLE} | {
    chr(256 + i): byte for i, byte in enumerate(sorted({*range(256)} - {*PRINTABLE}))
}

FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")
"""The name of a byte in the vocabulary of a tokenizer of the SentencePiece kind."""


class Names:
    """Finds the ids of tokens that a response names by what they stand for.

    Without a ``tokenizers.Tokenizer`` only names such as "token_id:17" are known.
    """

    def __init__(self, tokenizer: Any = None) -> None:
        self._tokenizer = tokenizer

    @lazy
    def _ids(self) -> dict[bytes, int]:
        return _ids_by_bytes(self._tokenizer)

    def find(self, name: str, data: list[int] | None = None) -> int:
        """Return the id of a token, by the bytes that it stands for if they are given.

        A ValueError says that there is none, or that the name may be that of others,
        too, as all names may be with this tokenizer.
        """
        numbered = NUMBERED.fullmatch(name)
        if numbered:
            return int(numbered[1])
        if self._tokenizer is None:
            raise ValueError(f"the token {name!r} has no id: give its tokenizer")
        spelled = name.encode(errors="surrogatepass") if data is None else bytes(data)
        # What can't be shown is shown as this, whichever bytes it is.
        is_lost = spelled == "\N{REPLACEMENT CHARACTER}".encode()
        if is_lost or spelled not in self._ids:
            raise ValueError(
                f"{name!r} is not one token of the tokenizer; vLLM gives ids instead "
                "of text if asked to return_tokens_as_token_ids"
            )
        return self._ids[spelled]


def _ids_by_bytes(tokenizer: Any) -> dict[bytes, int]:
    decoder = json.loads(tokenizer.to_str())["decoder"] or {"type": None}
    kinds = {step["type"] for step in decoder.get("decoders", [decoder])}
    if kinds == {"ByteLevel"}:
        spell = _of_byte_level
    elif kinds <= {"Replace", "ByteFallback", "Fuse"}:
        spell = _of_pieces
    else:
        raise ValueError(
            "tokens of this tokenizer can't be told apart by their text, as its "
            f"decoder is {' and '.join(sorted(map(str, kinds)))}"
        )
    added = tokenizer.get_added_tokens_decoder()
    plain = tokenizer.get_vocab(with_added_tokens=False)
    # Of several tokens for the same bytes a text has the last of these.
    by_rank = sorted(plain.items(), key=lambda item: not FALLBACK.fullmatch(item[0]))
    ids = {spell(token): id_ for token, id_ in by_rank}
    return ids | {token.content.encode(): id_ for id_, token in added.items()}


def _of_byte_level(token: str) -> bytes:
    if BYTES.keys() >= {*token}:
        return bytes(BYTES[character] for character in token)
    return token.encode()


def _of_pieces(token: str) -> bytes:
    fallback = FALLBACK.fullmatch(token)
    if fallback:
        return bytes.fromhex(fallback[1])
    return token.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode()
