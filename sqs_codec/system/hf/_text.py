"""Texts as tokens: prompts and chats, and what of them is answered."""

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

ANSWER = "\ufdd2"
"""A mark around an answer and its spaces, beside those of `chat`."""

MARKS = {OPEN, CLOSE, ANSWER}

GENERATION = re.compile(r"{%-?\s*generation\s*-?%}")
"""What stands before an answer in a template that says which tokens these are."""


class Tokenizer(chat.Tokenizer):
    """A tokenizer of transformers, with its chat template and stop tokens.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        With None nothing can be encoded.
    model : transformers.PreTrainedModel, optional
        Its ``generation_config`` has stop tokens, and what `sampling` says.
    vocab_size : int, optional
        Of the model, if it isn't given. If None, all tokens have logits.
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
        """The token that the model wants at a text's beginning."""
        bos: int | None = self.own.bos_token_id
        return bos if bos in self.own.encode("")[:1] else None

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text as it is, in which it may spell special ones."""
        if not special:
            with suppress(ValueError):  # of mistral-common: there it never spells any
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
        # Cleaning up would drop spaces of the text.
        return str(self.own.decode(ids, clean_up_tokenization_spaces=False, **options))

    def _spell(self, token: int) -> object:
        return self.own.convert_ids_to_tokens(token)


def known_sampling(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a generation config has for `Sampling`."""
    known = Sampling().config()
    return {name: config[name] for name in known if config.get(name) is not None}


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

    Raises
    ------
    ValueError
        There is no template, or it refuses a chat or leaves out a message; there is no
        answer, or a message that is no text or spells a special token.
    """
    from jinja2 import TemplateError  # a part of transformers that is optional there

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
            answers = []  # one is left out or said twice
        taught = _answers(tokenizer, text, answers, tokens, found["offset_mapping"][0])
    written = (own for (kind, _), own in zip(parts, ids, strict=True) if kind != OPEN)
    reserved = {i: word for i, word in reserved.items() if i not in unknown}
    apart, all_ = ([i for i in x if i in reserved] for x in (chain(*written), tokens))
    if apart != all_:
        raise ValueError("a message spells a token that only the template may")
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
    """Say of each token of a chat whether it is an answer's, as each second part is."""
    # Around answers the template may have taken away spaces, but not around marks.
    for strip in str, str.strip, str.lstrip, str.rstrip:
        own = [strip(part) if i % 2 else part for i, part in enumerate(parts)]
        if "".join(own) == text:
            break
    else:
        raise ValueError(
            "the chat template changes what an answer says: use one that has "
            "{% generation %} around answers"
        )
    added = tokenizer.added_tokens_decoder.items()
    special = {i: re.escape(token.content) for i, token in added if token.special}
    last = re.compile(rf"\s*({'|'.join(special.values()) or '(?!)'})")
    starts, stops = np.array(offsets).T
    # Some special tokens take the spaces behind them, with which an answer begins.
    stops = np.where(np.isin(tokens, [*special]), starts + 1, stops)
    taught = np.zeros(len(starts), bool)
    ends = [*accumulate(map(len, own))]
    for begin, end in zip(ends[::2], ends[1::2], strict=False):
        turn = last.match(text, end)
        taught |= (stops > begin) & (starts < (turn.end() if turn else end))
    return taught
