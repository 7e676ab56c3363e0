"""Chats as tokens, in which nothing that a message says opens a role."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from sqs_codec._base import checks
from sqs_codec.system._base.tokens import common_length

OPEN, CLOSE = "\ufdd0", "\ufdd1"
"""Marks of what a message says; Unicode keeps them for use inside a program."""

BYTE = re.compile("<0x..>")
"""How vocabularies spell a byte."""

ROLE = re.compile("system|user|assistant|tool", re.IGNORECASE)


def writes(template: str, token: str) -> bool:
    """Whether a template writes a token: whole in its source, or with a role's name."""
    said = token in template or ROLE.search(token)
    return bool(said) and not token.isspace()


class Tokenizer(ABC):
    """A model's tokenizer, with its chat template and its stop tokens.

    Attributes
    ----------
    fingerprint : bytes
        As `vocabulary_fingerprint` gives it; empty if the vocabulary isn't known.
    stop : frozenset of int
        The model's own stop tokens.
    has_template : bool
        Whether there is a chat template.
    sampling : mapping
        What the model's files say for `sqs_codec.Sampling`.
    """

    fingerprint: bytes
    stop: frozenset[int]
    has_template: bool
    sampling: Mapping[str, float]
    _decode: Callable[..., str]  # as `TextStream` takes them
    _spell: Callable[[int], object]

    def __repr__(self) -> str:
        known = self.fingerprint.hex() or "none"
        return f"<{type(self).__name__}, fingerprint {known}>"

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it is."""
        return self._tokenize(text, ends=True)

    def encode_prompt(self, prompt: str) -> list[int]:
        """Token ids of one user message, in the chat template if there is one.

        A ValueError says that the prompt has bytes that aren't text, which Python
        hands on as surrogates, or what `encode_chat` refuses.
        """
        checks.utf8("the prompt", prompt)
        if not self.has_template:
            return self.encode(prompt)
        return self.encode_chat([{"role": "user", "content": prompt}])

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a chat in the template, up to where the answer begins.

        What a message says is text: a ValueError says that one spells a token that
        tells roles apart, or that there is no template or it fails.
        """
        # The template is filled in twice: as it is, and with marks around what messages
        # say and behind each character in it with which a reserved token begins.
        # Tokenized between its marks, the second text has no reserved tokens but the
        # template's own. If the first one has the same, it is as safe, and its ids are
        # those that any program gives; if not, the second one's ids are the chat.
        if not self.has_template:
            raise ValueError("the model has no chat template")
        reserved, apart = self._reserved(), list[int]()
        for kind, part in split(self._fill(mark(messages, reserved))):
            ids = self._tokenize(part, ends=False)
            if kind == OPEN and (found := [reserved[i] for i in ids if i in reserved]):
                raise ValueError(
                    f"a message spells {found[0]}, which only the chat template may, "
                    f"in a way that can't be read as text"
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
        """Return the text of a completion, which comes token by token."""
        return TextStream(self._decode, self._spell, prompt)

    @abstractmethod
    def _tokenize(self, text: str, *, ends: bool) -> list[int]:
        """Token ids of a text, which may spell special ones; `ends` adds its own."""

    @abstractmethod
    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Fill the template in."""

    @abstractmethod
    def _reserved(self) -> dict[int, str]:
        """Return spellings of tokens that messages mustn't spell."""


def reserved(
    added: Mapping[int, Any], template: str, unknown: Collection[int]
) -> dict[int, str]:
    """Return added tokens that messages mustn't spell: special, or of the template."""
    return {
        i: token.content
        for i, token in added.items()
        if token.special or writes(template, token.content)
        if i not in unknown
    }


def mark(
    messages: Sequence[Mapping[str, str]], reserved: Mapping[int, str]
) -> list[dict[str, str]]:
    """Return messages with marks in them, as `Tokenizer.encode_chat` says."""
    first = re.escape("".join({"<", *(word[:1] for word in reserved.values())}))

    def marked(found: re.Match[str]) -> str:
        said = re.sub(f"[{OPEN}{CLOSE}]", "", found[0])
        return OPEN + re.sub(f"[{first}]+", rf"\g<0>{OPEN}", said) + CLOSE

    # Around spaces, which a template may take away, there are no marks.
    said = (re.sub(r"(?s)\S(.*\S)?", marked, m["content"], count=1) for m in messages)
    return [{**m, "content": s} for m, s in zip(messages, said, strict=True)]


def split(marked: str) -> list[tuple[str, str]]:
    """Return the parts between marks, and the mark before each, if there is one."""
    return re.findall(f"([{OPEN}{CLOSE}]?)([^{OPEN}{CLOSE}]*)", marked)


class TextStream:
    """A completion's text, token by token; what was shown never changes.

    It is decode(prompt + completion) without the beginning that decode(prompt) has too.
    So a leading space stays, which Llama 2's decoder would drop.

    `decode` is that of a tokenizer of ``tokenizers`` or transformers; `spell` gives a
    token as the vocabulary has it. A run of bytes, such as ``<0xE2>``, is shown once it
    has ended: it decodes to U+FFFD unless all of it is UTF-8.
    """

    def __init__(
        self,
        decode: Callable[..., str],
        spell: Callable[[int], object],
        prompt: Sequence[int] = (),
    ) -> None:
        self._spell = spell
        # Some tokenizers panic if there are no tokens.
        self._decode: Callable[[Sequence[int]], str] = lambda ids: (
            decode(ids, skip_special_tokens=True) if ids else ""
        )
        self._keep_end(prompt)
        self._prompt = self._decode(self._ids)[self._shown :]  # which may change

    def add(self, tokens: Iterable[int]) -> str:
        """Return what these tokens add to the text; special ones add nothing."""
        said = ""
        for token in tokens:
            if self._is_special(token):
                continue
            self._ids.append(token)
            if self._is_byte(token):
                continue
            said += self._show(self._settled())
            if len(self._ids) >= 32:  # tokens to decode again for each one
                self._keep_end(self._ids)
        return said

    def rest(self) -> str:
        """Return what is left at the end, with U+FFFD for an unfinished character."""
        return self._show(self._decode(self._ids))

    def _show(self, text: str) -> str:
        fresh = text[self._shown :]
        self._shown += len(fresh)
        same = common_length(self._prompt, fresh)
        self._prompt = self._prompt[same:] if same == len(fresh) else ""
        return fresh[same:]

    def _keep_end(self, ids: Sequence[int]) -> None:
        # The first three characters may be the rest of one that began before.
        size, self._shown = 4, 0
        while self._shown <= 3 and size < 2 * max(len(ids), 4):
            size *= 2
            self._ids = [i for i in ids[-size:] if not self._is_special(i)]
            self._shown = len(self._settled())

    def _settled(self) -> str:
        """Return what tokens say before an unfinished character or run of bytes."""
        end = len(self._ids)
        while end and self._is_byte(self._ids[end - 1]):
            end -= 1
        return self._decode(self._ids[:end]).removesuffix("\N{REPLACEMENT CHARACTER}")

    def _is_special(self, token: int) -> bool:
        return not self._decode([token] * 4)  # some decoders drop a first space

    def _is_byte(self, token: int) -> bool:
        return bool(BYTE.fullmatch(str(self._spell(token))))
