"""Tokenizes chats so that no message can inject a role."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from sqs_codec._base import checks
from sqs_codec.system._base.tokens import common_length

OPEN, CLOSE = "\ufdd0", "\ufdd1"
"""Marks around the content of messages. Unicode reserves them for use in programs."""

BYTE = re.compile("<0x..>")  # a byte token, as vocabularies spell it
ROLE = re.compile("system|user|assistant|tool", re.IGNORECASE)


def writes(template: str, token: str) -> bool:
    """Tell whether a template writes a token: in its source, or from a role's name."""
    said = token in template or ROLE.search(token)
    return bool(said) and not token.isspace()


class Tokenizer(ABC):
    """A model's tokenizer, with its chat template and its stop tokens."""

    fingerprint: bytes  # of the vocabulary; empty if that is unknown
    stop: frozenset[int]
    has_template: bool
    sampling: Mapping[str, float]  # from the model's files
    _decode: Callable[..., str]  # arguments of `TextStream`
    _spell: Callable[[int], object]

    def __repr__(self) -> str:
        known = self.fingerprint.hex() or "none"
        return f"<{type(self).__name__}, fingerprint {known}>"

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without the chat template."""
        return self._tokenize(text, ends=True)

    def encode_prompt(self, prompt: str) -> list[int]:
        """Token ids of one user message, in the chat template if there is one.

        ValueError if the prompt has surrogates, which aren't text, or if `encode_chat`
        fails.
        """
        checks.utf8("the prompt", prompt)
        if not self.has_template:
            return self.encode(prompt)
        return self.encode_chat([{"role": "user", "content": prompt}])

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a chat in the template, up to where the answer begins.

        ValueError if there is no template, it fails, or a message spells a reserved
        token in a way that can't be read as text.
        """
        # Render the template twice: unchanged, and with marks. Marks stand around the
        # content of messages and after each character in it that begins a reserved
        # token. Tokenizing between the marks gives reserved tokens only from the
        # template. If the unchanged text has the same reserved tokens, it is safe, and
        # its ids are those of other programs. Otherwise return the marked text's ids.
        if not self.has_template:
            raise ValueError("the model has no chat template")
        reserved, apart = self._reserved(), list[int]()
        for kind, part in split(self._fill(mark(messages, reserved))):
            ids = self._tokenize(part, ends=False)
            if kind == OPEN and (found := [reserved[i] for i in ids if i in reserved]):
                raise ValueError(
                    f"a message spells {found[0]}, which is reserved for the chat "
                    f"template, in a way that can't be read as text"
                )
            apart += ids
        whole = self._tokenize(self._fill(messages), ends=False)
        ours, own = ([i for i in ids if i in reserved] for ids in (whole, apart))
        return whole if ours == own else apart

    def _fill(self, messages: Sequence[Mapping[str, str]]) -> str:
        try:
            return self._render(messages)
        except Exception as error:  # a template is a program
            raise ValueError(f"the chat template fails: {error}") from error

    def stream(self, prompt: Sequence[int] = ()) -> TextStream:
        """Return a decoder for the tokens of a completion."""
        return TextStream(self._decode, self._spell, prompt)

    @abstractmethod
    def _tokenize(self, text: str, *, ends: bool) -> list[int]:
        """Token ids of a text that may spell special tokens; `ends` adds BOS or EOS."""

    @abstractmethod
    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Fill in the template."""

    @abstractmethod
    def _reserved(self) -> dict[int, str]:
        """Return the spellings of tokens that messages must not contain."""


def reserved(
    added: Mapping[int, Any], template: str, unknown: Collection[int]
) -> dict[int, str]:
    """Return the added tokens that are special or that the template writes."""
    return {
        i: token.content
        for i, token in added.items()
        if token.special or writes(template, token.content)
        if i not in unknown
    }


def mark(
    messages: Sequence[Mapping[str, str]], reserved: Mapping[int, str]
) -> list[dict[str, str]]:
    """Return messages with marks, for `Tokenizer.encode_chat`."""
    first = re.escape("".join({"<", *(word[:1] for word in reserved.values())}))

    def marked(found: re.Match[str]) -> str:
        said = re.sub(f"[{OPEN}{CLOSE}]", "", found[0])
        return OPEN + re.sub(f"[{first}]+", rf"\g<0>{OPEN}", said) + CLOSE

    # No marks around outer spaces: a template may strip them.
    said = (re.sub(r"(?s)\S(.*\S)?", marked, m["content"], count=1) for m in messages)
    return [{**m, "content": s} for m, s in zip(messages, said, strict=True)]


def split(marked: str) -> list[tuple[str, str]]:
    """Return the parts between marks, each with the mark before it, if any."""
    return re.findall(f"([{OPEN}{CLOSE}]?)([^{OPEN}{CLOSE}]*)", marked)


class TextStream:
    """Decodes a completion token by token; returned text never changes.

    The text is decode(prompt + completion) without the beginning that it shares with
    decode(prompt). So a leading space stays, which Llama 2's decoder would drop.

    `decode` is the method of a tokenizer of ``tokenizers`` or transformers; `spell`
    returns the vocabulary's entry of a token. A run of byte tokens such as ``<0xE2>``
    is held back until it ends: it decodes to U+FFFD unless it is valid UTF-8.
    """

    def __init__(
        self,
        decode: Callable[..., str],
        spell: Callable[[int], object],
        prompt: Sequence[int] = (),
    ) -> None:
        self._spell = spell
        # Some tokenizers panic without tokens.
        self._decode: Callable[[Sequence[int]], str] = lambda ids: (
            decode(ids, skip_special_tokens=True) if ids else ""
        )
        self._keep_end(prompt)
        self._prompt = self._decode(self._ids)[self._shown :]  # not settled yet

    def add(self, tokens: Iterable[int]) -> str:
        """Return the text that tokens add; special tokens add none."""
        said = ""
        for token in tokens:
            if self._is_special(token):
                continue
            self._ids.append(token)
            if self._is_byte(token):
                continue
            said += self._show(self._settled())
            if len(self._ids) >= 32:  # bound the tokens to decode again each time
                self._keep_end(self._ids)
        return said

    def rest(self) -> str:
        """Return the rest at the end, with U+FFFD for an unfinished character."""
        return self._show(self._decode(self._ids))

    def _show(self, text: str) -> str:
        fresh = text[self._shown :]
        self._shown += len(fresh)
        same = common_length(self._prompt, fresh)
        self._prompt = self._prompt[same:] if same == len(fresh) else ""
        return fresh[same:]

    def _keep_end(self, ids: Sequence[int]) -> None:
        # The first three characters may be the rest of an earlier character.
        size, self._shown = 4, 0
        while self._shown <= 3 and size < 2 * max(len(ids), 4):
            size *= 2
            self._ids = [i for i in ids[-size:] if not self._is_special(i)]
            self._shown = len(self._settled())

    def _settled(self) -> str:
        """Return the text before an unfinished character or run of bytes."""
        end = len(self._ids)
        while end and self._is_byte(self._ids[end - 1]):
            end -= 1
        return self._decode(self._ids[:end]).removesuffix("\N{REPLACEMENT CHARACTER}")

    def _is_special(self, token: int) -> bool:
        return not self._decode([token] * 4)  # some decoders drop the first space

    def _is_byte(self, token: int) -> bool:
        return bool(BYTE.fullmatch(str(self._spell(token))))
