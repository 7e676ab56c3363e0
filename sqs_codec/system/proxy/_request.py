"""What clients ask for, read from the protocol's JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqs_codec.system.edge import MODES, Mode
from sqs_codec.system.proxy._errors import ApiError
from sqs_codec.system.proxy._limits import (
    LONGEST_NAME,
    LONGEST_STOP,
    MOST_PROMPTS,
    MOST_STOPS,
)
from sqs_codec.system.session import Sampling

__all__ = ["Request", "parse"]

Messages = list[dict[str, str]]
Prompt = str | list[int]

COMPLETION_TOKENS = 16  # of ``/v1/completions``, where the protocol has a default

_LAW = "the text's distribution is the target model's own, and this would change it"
_FORM = "the text's distribution is the target model's own: it can't be held to a form"
_TOOLS = "the answer is text, and nothing in it is taken for a call"
_CHANCES = "only tokens come from the cloud, without their probabilities"
_PROMPT = "the model's own chat template makes the prompt, of all messages"

_REFUSED: list[tuple[str, list[object], str]] = [
    (
        "logit_bias presence_penalty frequency_penalty min_tokens min_length "
        "min_new_tokens ignore_eos ban_eos_token bad_words banned_tokens "
        "custom_token_bans allowed_token_ids stop_token_ids logits_processors "
        "custom_logit_processor mirostat mirostat_mode dynamic_temperature "
        "dynatemp_range xtc_probability dry_multiplier smoothing_factor top_a skew "
        "epsilon_cutoff eta_cutoff penalty_alpha no_repeat_ngram_size use_beam_search "
        "negative_prompt watermarking thinking_token_budget samplers sampler_priority "
        "n_indent lora temperature_last banned_strings stop_regex",
        [],
        _LAW,
    ),
    (
        "repetition_penalty repeat_penalty rep_pen encoder_repetition_penalty "
        "length_penalty typical_p typical tfs tfs_z guidance_scale num_beams min_keep",
        [1],
        _LAW,
    ),
    ("top_n_sigma nsigma adaptive_target", [-1], _LAW),
    ("n n_cmpl best_of", [1], "a request is for one text of each prompt"),
    ("tool_choice function_call", ["none", "auto"], _TOOLS),
    ("logprobs top_logprobs prompt_logprobs n_probs", [], _CHANCES),
    (
        "response_format grammar json_schema regex ebnf structured_outputs guided_json "
        "guided_regex guided_choice guided_grammar",
        [{"type": "text"}],
        _FORM,
    ),
    ("chat_template chat_template_kwargs continue_final_message", [], _PROMPT),
    ("documents", [], _PROMPT),
    ("truncate_prompt_tokens", [-1], _PROMPT),
    ("modalities audio", [["text"]], "the answer is text"),
    ("echo", [], "the answer is what follows the prompt"),
    ("suffix", [], "a text is continued at its end"),
    ("include_stop_str_in_output", [], "a stop isn't part of the text"),
]

REFUSED = {
    name: (why, harmless) for names, harmless, why in _REFUSED for name in names.split()
}
"""Fields that ask for what can't be done: why, and the values that ask for nothing
besides null, false, 0 and what is empty."""


@dataclass(frozen=True)
class Request:
    """What is to be written."""

    model: str  # what the client calls it
    messages: Messages  # of a chat, each with a role and its content
    prompts: list[Prompt]  # texts or their tokens, if there are no messages
    max_tokens: int | None  # if None, as many as there may be
    sampling: Sampling
    stop: tuple[str, ...]  # strings that end the text, and aren't part of it
    seed: int | None
    stream: bool  # whether the answer comes in pieces
    include_usage: bool  # whether the last of them has the usage
    tools: bool  # whether there are any, which the answer won't call
    mode: Mode | None = None  # how it is to come, if the client says
    link: tuple[float, float] | None = None  # bits a second and seconds, if it is thin


def parse(
    data: bytes, *, chat: bool, models: Collection[str], sampling: Sampling
) -> Request:
    """Read the body of a request for a completion, in a chat or of a text.

    Of the names of the model the first is for who gives none, and ``*`` is any. The
    sampling is that where the request doesn't say. An `ApiError` says which field is
    wrong, and why.
    """
    try:
        return _build(_load(data), chat, models, sampling)
    except RecursionError:
        raise ApiError("the body is nested too deeply") from None


def _build(
    fields: dict[str, Any], chat: bool, models: Collection[str], sampling: Sampling
) -> Request:
    for name, (why, harmless) in REFUSED.items():
        if (value := fields.get(name)) and value not in harmless:
            raise ApiError(f"{name} can't be used here: {why}", param=name)
    options = _field(fields, "stream_options", dict, {})
    asked = _text(fields.get("model", next(iter(models))), "model")
    top_k = _field(fields, "top_k", int, sampling.top_k, -1, (1 << 31) - 1)
    drawn = {
        name: _field(fields, name, float, getattr(sampling, name), 0, most)
        for name, most in (("temperature", 2), ("top_p", 1), ("min_p", 1))
    }
    return Request(
        model=check_model(asked, models),
        messages=_messages(fields) if chat else [],
        prompts=[] if chat else _prompts(fields),
        max_tokens=_most(fields, None if chat else COMPLETION_TOKENS),
        sampling=Sampling(top_k=max(0, top_k), **drawn),
        stop=_stop(fields),
        seed=_field(fields, "seed", int, None, 0, (1 << 64) - 1),
        stream=_field(fields, "stream", bool, False),
        include_usage=_field(options, "include_usage", bool, False),
        tools=bool(fields.get("tools") or fields.get("functions")),
        **_ours(_field(fields, "sqs", dict, {})),
    )


def _ours(fields: dict[str, Any]) -> dict[str, Any]:
    """Read the extension of this endpoint: how a text comes, and over which link."""
    mode = fields.get("mode")
    if mode is not None and mode not in MODES:
        raise ApiError(
            f"sqs.mode must be one of {', '.join(MODES)}, got {_shown(mode)}",
            param="sqs.mode",
        )
    link = _field(fields, "link", dict, None)
    if link is not None:
        if mode is None:
            raise ApiError("sqs.link goes with sqs.mode", param="sqs.link")
        given = {f"sqs.link.{name}": value for name, value in link.items()}
        link = (
            _field(given, "sqs.link.rate", float, 1e5, 1e4, 1e9),
            _field(given, "sqs.link.trip", float, 0.1, 0, 10),
        )
    return {"mode": mode, "link": link}


def check_model(asked: str, models: Collection[str]) -> str:
    """Return what a client calls the model, if it may be called that."""
    if asked in models or ("*" in models and len(asked) <= LONGEST_NAME):
        return asked
    raise ApiError(
        f"there is no model {asked[:99]!r} here, only {', '.join(map(repr, models))}",
        status=404,
        param="model",
        code="model_not_found",
    )


def _load(data: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number of JSON")

    try:
        fields = json.loads(data, parse_constant=refuse)
    except ValueError as error:
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
    """Return a field of a kind, unless it is null; a number must be within bounds."""
    value = fields.get(name)
    if value is None:
        return default
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


def _most(fields: dict[str, Any], most: int | None) -> int | None:
    for name in ("max_tokens", "max_completion_tokens"):
        endless = fields.get(name) == -1  # as other local servers have it
        most = None if endless else _field(fields, name, int, most, 1)
    return most


def _stop(fields: dict[str, Any]) -> tuple[str, ...]:
    given = fields.get("stop", [])
    stops = given if isinstance(given, list) else [given]
    if len(stops) > MOST_STOPS:
        raise ApiError(f"stop may have {MOST_STOPS} strings at most", param="stop")
    for stop in stops:
        if len(_text(stop, "stop")) > LONGEST_STOP:
            raise ApiError(
                f"a stop may have {LONGEST_STOP} characters at most", param="stop"
            )
    return tuple(filter(None, stops))  # who sends an empty one wants none


def _prompts(fields: dict[str, Any]) -> list[Prompt]:
    prompts = fields.get("prompt")
    if not (isinstance(prompts, list) and prompts and not isinstance(prompts[0], int)):
        prompts = [prompts]
    if len(prompts) > MOST_PROMPTS:
        raise ApiError(f"prompt may be {MOST_PROMPTS} texts at most", param="prompt")
    return [_prompt(prompt) for prompt in prompts]


def _prompt(prompt: Any) -> Prompt:
    if isinstance(prompt, list) and prompt and all(type(t) is int for t in prompt):
        return prompt
    if isinstance(prompt, list):
        raise ApiError(
            "prompt must be a text, ids of its tokens, or a list of these",
            param="prompt",
        )
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
ROLES["tool"] = ROLES["function"] = "user"


def _message(message: Any, name: str) -> dict[str, str]:
    """Read a message; another model's calls, and what came of them, are told as text.

    That is in the form in which llama.cpp tells them to a model without tools.
    """
    if not isinstance(message, dict):
        raise ApiError(f"{name} must be an object, got {_shown(message)}", param=name)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise ApiError(
            f"{name}.role must be one of {', '.join(ROLES)}, got {_shown(role)}",
            param=f"{name}.role",
        )
    calls = message.get("tool_calls") or message.get("function_call")
    content = message.get("content")
    if isinstance(content, list):
        parts = [_part(part, f"{name}.content[{i}]") for i, part in enumerate(content)]
        content = "".join(parts)
    content = _text("" if content is None and calls else content, f"{name}.content")
    if calls:
        made = json.dumps({"tool_calls": calls}, ensure_ascii=False)
        content += "\n" * bool(content) + _text(made, f"{name}.tool_calls")
    if role in ("tool", "function"):
        told = {"tool_response": {"content": content}}
        content = json.dumps(told, ensure_ascii=False)
    return {"role": ROLES[role], "content": content}


def _part(part: Any, name: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text":
        raise ApiError(f"{name} must be text: the models read nothing else", param=name)
    return _text(part.get("text"), f"{name}.text")
