"""What clients ask for, read from the protocol's JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from sqs_codec.proxy._errors import ApiError
from sqs_codec.session import Sampling

__all__ = ["Request", "parse"]

Messages = list[dict[str, str]]

MOST_STOPS, LONGEST_STOP = 16, 256
"""Strings that end a text, and their characters."""

COMPLETION_TOKENS = 16
"""Of ``/v1/completions``, where the protocol has a default."""

_LAW = "the text's distribution is the target model's own, and this would change it"
_TOOLS = "the text is handed on as it is, and nothing in it is taken for a call"
_FORM = "the text's distribution is the target model's own: it can't be held to a form"
_CHANCES = "only tokens come from the cloud, without their probabilities"

REFUSED: dict[str, tuple[str, tuple[object, ...]]] = {
    "logit_bias": (_LAW, ()),
    "presence_penalty": (_LAW, ()),
    "frequency_penalty": (_LAW, ()),
    "repetition_penalty": (_LAW, (1,)),
    "repeat_penalty": (_LAW, (1,)),
    "typical_p": (_LAW, (1,)),
    "mirostat": (_LAW, ()),
    "n": ("a request is for one text", (1,)),
    "best_of": ("a request is for one text", (1,)),
    "tools": (_TOOLS, ()),
    "functions": (_TOOLS, ()),
    "logprobs": (_CHANCES, ()),
    "top_logprobs": (_CHANCES, ()),
    "response_format": (_FORM, ({"type": "text"},)),
    "grammar": (_FORM, ()),
    "json_schema": (_FORM, ()),
    "modalities": ("the answer is text", (["text"],)),
    "audio": ("the answer is text", ()),
    "echo": ("the answer is what follows the prompt", ()),
    "suffix": ("a text is continued at its end", ()),
}
"""Fields that ask for what can't be done: why, and the values that ask for nothing
besides null, false, 0 and what is empty."""


@dataclass(frozen=True)
class Request:
    """What is to be written.

    Attributes
    ----------
    messages : list of dict
        Of a chat, each with a role and its content.
    prompt : str or list of int
        A text or its tokens, if there are no messages.
    max_tokens : int or None
        If None, as many as there may be.
    sampling : Sampling
    stop : tuple of str
        Strings that end the text, and aren't part of it.
    seed : int or None
    stream, include_usage : bool
        Whether the answer comes in pieces, and whether the last one has the usage.
    """

    messages: Messages
    prompt: str | list[int]
    max_tokens: int | None
    sampling: Sampling
    stop: tuple[str, ...]
    seed: int | None
    stream: bool
    include_usage: bool


def parse(data: bytes, *, chat: bool, model: str) -> Request:
    """Read a request for a completion.

    Parameters
    ----------
    data : bytes
        The body.
    chat : bool
        Whether it is for ``/v1/chat/completions``, or for ``/v1/completions``.
    model : str
        The only model that there is.

    Raises
    ------
    ApiError
        It says which field is wrong, and why.
    """
    fields = _load(data)
    for name, (why, harmless) in REFUSED.items():
        if (value := fields.get(name)) and value not in harmless:
            raise ApiError(f"{name} can't be used here: {why}", param=name)
    asked = fields.get("model", model)
    if asked != model:
        raise ApiError(
            f"there is no model {str(asked)[:99]!r} here, only {model!r}",
            status=404,
            param="model",
            code="model_not_found",
        )
    options = _field(fields, "stream_options", dict, {})
    most = _field(fields, "max_tokens", int, None, 1)
    top_k = _field(fields, "top_k", int, 0, -1, (1 << 31) - 1)
    return Request(
        messages=_messages(fields) if chat else [],
        prompt="" if chat else _prompt(fields),
        max_tokens=_field(fields, "max_completion_tokens", int, most, 1)
        or (None if chat else COMPLETION_TOKENS),
        sampling=Sampling(
            temperature=_field(fields, "temperature", float, 1.0, 0, 2),
            top_k=max(0, top_k),
            top_p=_field(fields, "top_p", float, 1.0, 0, 1),
            min_p=_field(fields, "min_p", float, 0.0, 0, 1),
        ),
        stop=_stop(fields),
        seed=_field(fields, "seed", int, None, 0, (1 << 64) - 1),
        stream=_field(fields, "stream", bool, False),
        include_usage=_field(options, "include_usage", bool, False),
    )


def _load(data: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number of JSON")

    try:
        fields = json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ApiError(f"the body isn't JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ApiError(f"the body must be an object, not {type(fields).__name__}")
    return {name: value for name, value in fields.items() if value is not None}


_WORDS = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "a whole number",
    list: "a list",
}


def _field(
    fields: dict[str, Any],
    name: str,
    kind: type,
    default: Any,
    least: float = -math.inf,
    most: float = math.inf,
) -> Any:
    """Return a field of a kind; a number must be within these bounds."""
    value = fields.get(name, default)
    if name not in fields:
        return value
    kinds = (int, float) if kind is float else (kind,)
    if type(value) not in kinds:
        raise ApiError(
            f"{name} must be {_WORDS[kind]}, got {_shown(value)}", param=name
        )
    if kind in (int, float) and not least <= value <= most:
        limits = f"{least} to {most}" if most < math.inf else f"at least {least}"
        raise ApiError(f"{name} must be {limits}, got {_shown(value)}", param=name)
    return value


def _shown(value: object) -> str:
    """Return a value as JSON, if that is short."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ApiError(f"{name} must be a string, got {_shown(value)}", param=name)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ApiError(
            f"{name} has half of a surrogate pair, which is no character", param=name
        ) from None
    return value


def _stop(fields: dict[str, Any]) -> tuple[str, ...]:
    given = fields.get("stop", [])
    stops = given if isinstance(given, list) else [given]
    if len(stops) > MOST_STOPS:
        raise ApiError(f"stop may have {MOST_STOPS} strings at most", param="stop")
    for stop in stops:
        if not 1 <= len(_text(stop, "stop")) <= LONGEST_STOP:
            raise ApiError(
                f"a stop must have 1 to {LONGEST_STOP} characters", param="stop"
            )
    return tuple(stops)


def _prompt(fields: dict[str, Any]) -> str | list[int]:
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        (prompt,) = prompt
    if isinstance(prompt, list) and prompt and all(type(t) is int for t in prompt):
        return prompt
    if isinstance(prompt, list):
        raise ApiError("prompt must be one text, or ids of its tokens", param="prompt")
    if not (text := _text(prompt, "prompt")):
        raise ApiError("prompt must not be empty", param="prompt")
    return text


def _messages(fields: dict[str, Any]) -> Messages:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(
            f"messages must be a list of one or more, got {_shown(messages)}",
            param="messages",
        )
    return [_message(one, f"messages[{i}]") for i, one in enumerate(messages)]


ROLES = {role: role for role in ("system", "user", "assistant")}
ROLES["developer"] = "system"  # as newer clients call it


def _message(message: Any, name: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise ApiError(f"{name} must be an object, got {_shown(message)}", param=name)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise ApiError(
            f"{name}.role must be one of {', '.join(ROLES)}, got {_shown(role)}",
            param=f"{name}.role",
        )
    if message.get("tool_calls") or message.get("function_call"):
        raise ApiError(f"{name} has a call, and {_TOOLS}", param=name)
    content = message.get("content")
    if isinstance(content, list):
        parts = [_part(part, f"{name}.content[{i}]") for i, part in enumerate(content)]
        content = "".join(parts)
    return {"role": ROLES[role], "content": _text(content, f"{name}.content")}


def _part(part: Any, name: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text":
        raise ApiError(f"{name} must be text: the models read nothing else", param=name)
    return _text(part.get("text"), f"{name}.text")
