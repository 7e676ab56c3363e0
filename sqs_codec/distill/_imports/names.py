"""The ids of tokens that a response names."""

import json
import re
from typing import Any

from sqs_codec._base.lazy import lazy

NUMBERED = re.compile(r"token_id:(\d{1,10})")
"""The name of a token in vLLM with ``return_tokens_as_token_ids``."""

PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
"""Bytes that byte-level tokenizers show as the character with this number. Other bytes
are shown as characters from 256 on, in ascending order."""

BYTES = {chr(byte): byte for byte in PRINTABLE} | {
    chr(256 + i): byte for i, byte in enumerate(sorted({*range(256)} - {*PRINTABLE}))
}

FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")
"""The name of a byte in a SentencePiece vocabulary."""


class Names:
    """Finds the ids of tokens that a response names with their text.

    Without a ``tokenizers.Tokenizer``, it knows only names such as "token_id:17".
    """

    def __init__(self, tokenizer: Any = None) -> None:
        self._tokenizer = tokenizer

    @lazy
    def _ids(self) -> dict[bytes, int]:
        return _ids_by_bytes(self._tokenizer)

    def find(self, name: str, data: list[int] | None = None) -> int:
        """Return the id of a token, found by its bytes if they are given.

        Raises ValueError if there is no such token, or if the name is ambiguous.
        """
        numbered = NUMBERED.fullmatch(name)
        if numbered:
            return int(numbered[1])
        if self._tokenizer is None:
            raise ValueError(f"the token {name!r} has no id: pass the tokenizer")
        spelled = name.encode(errors="surrogatepass") if data is None else bytes(data)
        # All bytes that aren't text are shown as this character.
        is_lost = spelled == "\N{REPLACEMENT CHARACTER}".encode()
        if is_lost or spelled not in self._ids:
            raise ValueError(
                f"{name!r} is not one token of the tokenizer; vLLM returns ids instead "
                "of text with return_tokens_as_token_ids"
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
            "this tokenizer's tokens can't be identified by their text, because its "
            f"decoder is {' and '.join(sorted(map(str, kinds)))}"
        )
    added = tokenizer.get_added_tokens_decoder()
    plain = tokenizer.get_vocab(with_added_tokens=False)
    # Texts contain the last of several tokens with the same bytes.
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
