"""Chats as tokens, in which nothing that a message says opens a role."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from sqs_codec._base import checks
from sqs_codec.system._base.tokens import common_length

OPEN, CLOSE = "\ufdd0", "\ufdd1"
"""Marks of what a message says; Unicode keeps them for use inside a program."""

BYTE = re.compile("<0x..>")
"""How vocabularies spell a byte."""

ROLE = re.compile("system|user|assistant|tool", re.IGNORECASE)


def names(template: str, token: str) -> bool:
    """Whether a template writes a token: whole in its source, or with a role's name."""
    said = token in template or ROLE.search(token)
    return bool(said) and not token.isspace()


def encode_prompt(draft: Any, prompt: str) -> list[int]:
    """Token ids of one user message, by a `TextDraft`'s own template if it has one."""
    checks.utf8("the prompt", prompt)
    chat = [{"role": "user", "content": prompt}]
    ids = draft.encode_chat(chat) if draft.has_template else draft.encode_text(prompt)
    return list(ids)


def reserved(
    added: Mapping[int, Any], template: str, unknown: Collection[int]
) -> dict[int, str]:
    """Return added tokens that messages mustn't spell: special, or of the template."""
    return {
        i: token.content
        for i, token in added.items()
        if token.special or names(template, token.content)
        if i not in unknown
    }


def encode(
    messages: Sequence[Mapping[str, str]],
    *,
    render: Callable[[Sequence[Mapping[str, str]]], str],
    tokenize: Callable[[str], list[int]],
    reserved: Mapping[int, str],
) -> list[int]:
    """Token ids of a chat in a template, up to where the answer begins.

    The template is filled in twice: as it is, and with marks around what messages say
    and behind each character in it with which a reserved token begins. Tokenized
    between its marks, the second text has no reserved tokens but the template's own.
    If the first one has the same, it is as safe, and its ids are those that any
    program gives; if not, the second one's ids are the chat.

    `render` fills the template in, `tokenize` gives ids, a token's where a text spells
    one, and `reserved` has special tokens and those of `names`, with how they are
    spelled. A ValueError names one that a message has between two marks.
    """
    apart: list[int] = []
    for kind, part in split(render(mark(messages, reserved))):
        ids = tokenize(part)
        if kind == OPEN and (found := [reserved[i] for i in ids if i in reserved]):
            raise ValueError(
                f"a message spells {found[0]}, which only the chat template may, in a "
                f"way that can't be read as text"
            )
        apart += ids
    whole = tokenize(render(messages))
    ours, own = ([i for i in ids if i in reserved] for ids in (whole, apart))
    return whole if ours == own else apart


def mark(
    messages: Sequence[Mapping[str, str]], reserved: Mapping[int, str]
) -> list[dict[str, str]]:
    """Return messages with marks in them, as `encode` says."""
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
