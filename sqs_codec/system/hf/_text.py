"""Texts as tokens: prompts in a model's chat template, and what tokens say."""

import functools
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqs_codec import vocabulary_fingerprint
from sqs_codec._base import checks
from sqs_codec.system._base import chat
from sqs_codec.system.hf._models import HFTokenizer

ANSWERS = r"(?s).*\S.*", r"(?s)\S(.*\S)?"
"""What is said, and without spaces around it, which a template may take away."""

GENERATION = re.compile(r"{%-?\s*generation\s*-?%}")
"""What stands before an answer in a template that says which tokens these are."""


def encode_prompt(tokenizer: HFTokenizer, prompt: str) -> list[int]:
    """Token ids of one user message, in the chat template if there is one.

    Raises
    ------
    ValueError
        The prompt has bytes that aren't text: Python hands those of another encoding
        than UTF-8 on as surrogates.
    """
    checks.utf8("the prompt", prompt)
    if tokenizer.chat_template is None:
        return list(tokenizer.encode(prompt))
    return encode_chat(tokenizer, [{"role": "user", "content": prompt}])


def encode_chat(
    tokenizer: HFTokenizer,
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool = True,
) -> list[int]:
    """Token ids of a chat in the template, up to where an answer begins, or all.

    What a message says is text; ValueError if it spells a token in spite of that.
    """
    tokenize = functools.partial(tokenizer.encode, add_special_tokens=False)
    return chat.encode(
        messages,
        render=functools.partial(
            tokenizer.apply_chat_template,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
        ),
        tokenize=tokenize,
        reserved=chat.reserved(
            tokenizer.added_tokens_decoder,
            str(tokenizer.chat_template),
            tokenize(chat.OPEN),
        ),
    )


def encode_answers(
    tokenizer: HFTokenizer, messages: Sequence[Mapping[str, Any]]
) -> tuple[list[int], list[int]]:
    """Return a chat in the template, and the places before its answers' tokens.

    The tokens are those of ``tokenizer.apply_chat_template(messages)``, as trainers
    have them. Answers are what the template has in ``{% generation %}``, or, if there
    is none in it, what an assistant says, and the special token that ends it.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
    messages : sequence of mapping
        Each has a ``"role"`` and a ``"content"``, both strings, and nothing else.

    Returns
    -------
    tokens, places : list of int
        As a `sqs_codec.distill.Piece` has them.

    Raises
    ------
    ValueError
        There is no template, or it refuses a chat or leaves out a message; there is no
        answer, or a message that is no text or spells a special token.
    """
    from jinja2 import TemplateError  # a part of transformers that is optional there

    if tokenizer.chat_template is None:
        raise ValueError("the model's tokenizer has no chat template")
    if not isinstance(messages, list | tuple) or not messages:
        raise ValueError("messages must be a list of one or more")
    whole = [_message(f"messages[{i}]", own) for i, own in enumerate(messages)]
    said = bool(GENERATION.search(str(tokenizer.chat_template)))
    try:
        text = tokenizer.apply_chat_template(whole, tokenize=False)
        found = tokenizer.apply_chat_template(
            whole, return_dict=True, return_assistant_tokens_mask=said
        )
        apart = encode_chat(tokenizer, whole, add_generation_prompt=False)
    except TemplateError as error:
        raise ValueError(f"the chat template refuses it: {error}") from error
    for i, own in enumerate(whole):
        if own["content"].strip() not in text:
            name = f"messages[{i}], of role {own['role']!r}"
            raise ValueError(f"the chat template leaves out {name}")
    if apart != (tokens := list(found["input_ids"])):
        raise ValueError("a message spells a token that only the template may")
    taught = found["assistant_masks"] if said else _answers(tokenizer, whole, text)
    places: list[int] = np.flatnonzero(taught[1:]).tolist()
    if not places:
        raise ValueError("it has no answer: nothing that an assistant says")
    return tokens, places


def _message(name: str, given: Any) -> dict[str, str]:
    """Return what a message is and says."""
    items = given.items() if isinstance(given, Mapping) else ()
    fields = {field: value for field, value in items if value is not None}
    for field in "role", "content":
        if not isinstance(fields.get(field), str):
            raise ValueError(f'{name} has no "{field}" that is a string')
        checks.utf8(f'"{field}" of {name}', fields[field])
    for field in fields.keys() - {"role", "content"}:
        raise ValueError(f'{name} has "{field}", which can\'t be read')
    return fields


def _answers(
    tokenizer: HFTokenizer, messages: Sequence[Mapping[str, str]], text: str
) -> NDArray[np.bool_]:
    """Say of each token of a chat, which is this text, whether it is an answer's."""
    own = [m["role"] == "assistant" and m["content"].strip() for m in messages]
    either, mark = f"[{chat.OPEN}{chat.CLOSE}]", rf"{chat.OPEN}\g<0>{chat.CLOSE}"
    for answer in ANSWERS:
        marked = [
            {**m, "content": re.sub(answer, mark, m["content"])} if said else m
            for m, said in zip(messages, own, strict=True)
        ]
        filled = tokenizer.apply_chat_template(marked, tokenize=False)
        parts, kept = re.split(either, filled), "".join(re.findall(either, filled))
        asked = (chat.OPEN + chat.CLOSE) * sum(map(bool, own))
        if "".join(parts) == text and kept == asked:
            break
    else:
        raise ValueError(
            "the chat template changes what an answer says: use one that has "
            "{% generation %} around answers"
        )
    added = tokenizer.added_tokens_decoder.items()
    special = {i: re.escape(token.content) for i, token in added if token.special}
    last = re.compile(rf"\s*({'|'.join(special.values()) or '(?!)'})")
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    starts, stops = np.array(found["offset_mapping"]).T
    # Some special tokens take the spaces behind them, with which an answer begins.
    stops = np.where(np.isin(found["input_ids"], [*special]), starts + 1, stops)
    taught = np.zeros(len(starts), bool)
    ends = [*accumulate(map(len, parts))]
    for begin, end in zip(ends[::2], ends[1::2], strict=False):
        turn = last.match(text, end)
        taught |= (stops > begin) & (starts < (turn.end() if turn else end))
    return taught


def tokenizer_fingerprint(
    tokenizer: HFTokenizer | None, vocab_size: int | None = None
) -> bytes:
    """Return 8 bytes that tell vocabularies apart: who has the same has the same ids.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase or None
        If None, there are no bytes.
    vocab_size : int, optional
        As `sqs_codec.vocabulary_fingerprint` takes it.
    """
    if tokenizer is None:
        return b""
    return vocabulary_fingerprint(tokenizer.get_vocab(), vocab_size)
