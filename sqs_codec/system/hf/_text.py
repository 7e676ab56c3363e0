"""Tokenizing prompts and chats, and finding the answers in chats."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import accumulate, chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqs_codec import Sampling, vocabulary_fingerprint
from sqs_codec._base import checks
from sqs_codec.system._base import chat
from sqs_codec.system._base.chat import CLOSE, OPEN
from sqs_codec.system.hf import _models
from sqs_codec.system.hf._models import HFModel, HFTokenizer

ANSWER = "\ufdd2"  # marks the start and end of an answer, including its spaces
MARKS = {OPEN, CLOSE, ANSWER}

GENERATION = re.compile(r"{%-?\s*generation\s*-?%}")
"""The tag before answers, in templates that mark their tokens."""


class Tokenizer(chat.Tokenizer):
    """A transformers tokenizer with its chat template and stop tokens.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        With None, no text can be encoded.
    model : transformers.PreTrainedModel, optional
        Source of stop tokens and sampling parameters (``generation_config``).
    vocab_size : int, optional
        The model's vocabulary size, if `model` isn't given. If None, the tokenizer's.
    """

    def __init__(
        self,
        tokenizer: HFTokenizer | None,
        model: HFModel | None = None,
        *,
        vocab_size: int | None = None,
    ) -> None:
        self.own: HFTokenizer = tokenizer
        self.fingerprint, ids, given = b"", {}, {}
        if model is not None:
            vocab_size = _models.vocab_size(model, tokenizer)
            given = model.generation_config.to_diff_dict()
        if tokenizer is not None:
            ids = tokenizer.get_vocab()
            self.fingerprint = vocabulary_fingerprint(ids, vocab_size)
        self.vocab_size = vocab_size or max(ids.values(), default=-1) + 1
        self.stop = _models.stop_tokens(model, tokenizer)
        self.has_template = getattr(tokenizer, "chat_template", None) is not None
        self.sampling = known_sampling(given)

    @property
    def bos(self) -> int | None:
        """The token that starts each text, if any."""
        bos: int | None = self.own.bos_token_id
        return bos if bos in self.own.encode("")[:1] else None

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Tokenize a text without a template; with `special`, parse special tokens."""
        if not special:
            with suppress(ValueError):  # mistral-common never parses special tokens
                how = {"verbose": False, "split_special_tokens": True}
                return list(self.own.encode(text, **how))
        return super().encode(text)

    def _tokenize(self, text: str, *, ends: bool) -> list[int]:
        return list(self.own.encode(text, add_special_tokens=ends, verbose=False))

    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        fill = self.own.apply_chat_template
        return str(fill(messages, add_generation_prompt=True, tokenize=False))

    def _reserved(self) -> dict[int, str]:
        unknown = self._tokenize(OPEN, ends=False)
        added, template = self.own.added_tokens_decoder, str(self.own.chat_template)
        return chat.reserved(added, template, unknown)

    def _decode(self, ids: Sequence[int], **options: bool) -> str:
        # Cleaning up would drop spaces.
        return str(self.own.decode(ids, clean_up_tokenization_spaces=False, **options))

    def _spell(self, token: int) -> object:
        return self.own.convert_ids_to_tokens(token)


def known_sampling(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a generation config that `Sampling` has."""
    known = Sampling().config()
    return {name: config[name] for name in known if config.get(name) is not None}


def encode_answers(
    tokenizer: HFTokenizer, messages: Sequence[Mapping[str, Any]]
) -> tuple[list[int], list[int]]:
    """Return the tokens of a chat, and the positions before its answers' tokens.

    The tokens are those of ``tokenizer.apply_chat_template(messages)``, as in training.
    Answers are the template's ``{% generation %}`` blocks. In a template without these
    blocks, they are the assistant's messages with the special tokens that end them.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
    messages : sequence of mapping
        Each has exactly the keys ``"role"`` and ``"content"``, with string values.

    Raises
    ------
    ValueError
        The tokenizer has no template, or its template rejects the chat or omits a
        message. Or no message is an answer, one isn't a string, or spells a special
        token.
    """
    from jinja2 import TemplateError  # transformers doesn't require it

    if (template := tokenizer.chat_template) is None:
        raise ValueError("the model's tokenizer has no chat template")
    if not isinstance(messages, list | tuple) or not messages:
        raise ValueError("messages must be a list of one or more")
    whole = [_message(f"messages[{i}]", own) for i, own in enumerate(messages)]
    reserved = chat.reserved(tokenizer.added_tokens_decoder, str(template), ())
    marked = chat.mark(whole, reserved)
    for own in marked:
        if own["role"] == "assistant" and own["content"].strip():
            own["content"] = ANSWER + own["content"] + ANSWER
    fill = tokenizer.apply_chat_template
    said = bool(GENERATION.search(str(template)))
    try:
        filled = fill(marked, tokenize=False)
        mask = {"return_dict": said, "return_assistant_tokens_mask": said}
        told: Any = fill(whole, tokenize=said, **mask)
    except TemplateError as error:
        raise ValueError(f"the chat template refuses it: {error}") from error
    parts = chat.split(filled.replace(ANSWER, ""))
    text = "".join(part for _, part in parts) if said else told
    for i, own in enumerate(whole):
        if own["content"].strip() not in text:
            name = f"messages[{i}], of role {own['role']!r}"
            raise ValueError(f"the chat template leaves out {name}")
    given = [text, OPEN, *(part for _, part in parts)]
    how = {"add_special_tokens": False, "return_offsets_mapping": True}
    found = tokenizer(given, verbose=False, **how)
    tokens, unknown, *ids = found["input_ids"]
    if said:
        tokens, taught = list(told["input_ids"]), told["assistant_masks"]
    else:
        answers = re.sub(f"[{OPEN}{CLOSE}]", "", filled).split(ANSWER)
        if len(answers) != 1 + sum(own["content"].count(ANSWER) for own in marked):
            answers = []  # the template omits or repeats one
        taught = _answers(tokenizer, text, answers, tokens, found["offset_mapping"][0])
    written = (own for (kind, _), own in zip(parts, ids, strict=True) if kind != OPEN)
    reserved = {i: word for i, word in reserved.items() if i not in unknown}
    apart, all_ = ([i for i in x if i in reserved] for x in (chain(*written), tokens))
    if apart != all_:
        raise ValueError("a message spells a token that only the template may")
    places: list[int] = np.flatnonzero(taught[1:]).tolist()
    if not places:
        raise ValueError("it has no answer: add a message of the assistant")
    return tokens, places


def _message(name: str, given: Any) -> dict[str, str]:
    """Return a message's role and content after checking them."""
    items = given.items() if isinstance(given, Mapping) else ()
    fields = {field: value for field, value in items if value is not None}
    for field in "role", "content":
        if not isinstance(fields.get(field), str):
            raise ValueError(f'{name} has no "{field}" that is a string')
        checks.utf8(f'"{field}" of {name}', fields[field])
        if MARKS & {*fields[field]}:
            raise ValueError(f'"{field}" of {name} has one of U+FDD0 to U+FDD2')
    for field in fields.keys() - {"role", "content"}:
        raise ValueError(f'{name} has "{field}", which can\'t be read')
    return fields


def _answers(
    tokenizer: HFTokenizer,
    text: str,
    parts: Sequence[str],
    tokens: Sequence[int],
    offsets: Sequence[tuple[int, int]],
) -> NDArray[np.bool_]:
    """Return which tokens of a chat belong to an answer; every second part is one."""
    # The template may strip spaces around answers. The marks kept it from doing so.
    for strip in str, str.strip, str.lstrip, str.rstrip:
        own = [strip(part) if i % 2 else part for i, part in enumerate(parts)]
        if "".join(own) == text:
            break
    else:
        raise ValueError(
            "the chat template changes the text of an answer: use a template with "
            "{% generation %} around answers"
        )
    added = tokenizer.added_tokens_decoder.items()
    special = {i: re.escape(token.content) for i, token in added if token.special}
    last = re.compile(rf"\s*({'|'.join(special.values()) or '(?!)'})")
    starts, stops = np.array(offsets).T
    # Some special tokens include the spaces after them, which may start an answer.
    stops = np.where(np.isin(tokens, [*special]), starts + 1, stops)
    taught = np.zeros(len(starts), bool)
    ends = [*accumulate(map(len, own))]
    for begin, end in zip(ends[::2], ends[1::2], strict=False):
        turn = last.match(text, end)
        taught |= (stops > begin) & (starts < (turn.end() if turn else end))
    return taught
