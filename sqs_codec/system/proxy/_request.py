"""What clients ask for, read from the protocol's JSON."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqs_codec import Sampling
from sqs_codec.system._endpoint.errors import ApiError
from sqs_codec.system._endpoint.fields import check_model, field, load, shown, string
from sqs_codec.system.edge import MODES, Mode

Messages = list[dict[str, str]]
Prompt = str | list[int]

MOST_STOPS, LONGEST_STOP = 16, 256  # strings that end a text, and their characters
MOST_PROMPTS = 128  # texts that one request may ask for
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
    """Read a request's body; an `ApiError` names the wrong field. Name ``*`` is any."""
    try:
        return _build(load(data), chat, models, sampling)
    except RecursionError:
        raise ApiError("the body is nested too deeply") from None


def _build(
    fields: dict[str, Any], chat: bool, models: Collection[str], sampling: Sampling
) -> Request:
    for name, (why, harmless) in REFUSED.items():
        if (value := fields.get(name)) and value not in harmless:
            raise ApiError(f"{name} can't be used here: {why}", param=name)
    options = field(fields, "stream_options", dict, {})
    asked = string(fields.get("model", next(iter(models))), "model")
    top_k = field(fields, "top_k", int, sampling.top_k, -1, (1 << 31) - 1)
    drawn = {
        name: field(fields, name, float, getattr(sampling, name), 0, most)
        for name, most in (("temperature", 2), ("top_p", 1), ("min_p", 1))
    }
    return Request(
        model=check_model(asked, models),
        messages=_messages(fields) if chat else [],
        prompts=[] if chat else _prompts(fields),
        max_tokens=_most(fields, None if chat else COMPLETION_TOKENS),
        sampling=Sampling(top_k=max(0, top_k), **drawn),
        stop=_stop(fields),
        seed=field(fields, "seed", int, None, 0, (1 << 64) - 1),
        stream=field(fields, "stream", bool, False),
        include_usage=field(options, "include_usage", bool, False),
        tools=bool(fields.get("tools") or fields.get("functions")),
        **_ours(field(fields, "sqs", dict, {})),
    )


def _ours(fields: dict[str, Any]) -> dict[str, Any]:
    """Read the extension of this endpoint: how a text comes, and over which link."""
    mode = fields.get("mode")
    if mode is not None and mode not in MODES:
        raise ApiError(
            f"sqs.mode must be one of {', '.join(MODES)}, got {shown(mode)}",
            param="sqs.mode",
        )
    link = field(fields, "link", dict, None)
    if link is not None:
        if mode is None:
            raise ApiError("sqs.link goes with sqs.mode", param="sqs.link")
        given = {f"sqs.link.{name}": value for name, value in link.items()}
        link = (
            field(given, "sqs.link.rate", float, 1e5, 1e4, 1e9),
            field(given, "sqs.link.trip", float, 0.1, 0, 10),
        )
    return {"mode": mode, "link": link}


def _most(fields: dict[str, Any], most: int | None) -> int | None:
    for name in ("max_tokens", "max_completion_tokens"):
        endless = fields.get(name) == -1  # as other local servers have it
        most = None if endless else field(fields, name, int, most, 1)
    return most


def _stop(fields: dict[str, Any]) -> tuple[str, ...]:
    given = fields.get("stop", [])
    stops = given if isinstance(given, list) else [given]
    if len(stops) > MOST_STOPS:
        raise ApiError(f"stop may have {MOST_STOPS} strings at most", param="stop")
    for stop in stops:
        if len(string(stop, "stop")) > LONGEST_STOP:
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
    if not (text := string(prompt, "prompt")):
        raise ApiError("prompt must not be empty", param="prompt")
    return text


def _messages(fields: dict[str, Any]) -> Messages:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(
            f"messages must be a list of one or more, got {shown(messages)}",
            param="messages",
        )
    return [_message(one, f"messages[{i}]") for i, one in enumerate(messages)]


ROLES = {role: role for role in ("system", "user", "assistant")}
ROLES["developer"] = "system"  # as newer clients call it
ROLES["tool"] = ROLES["function"] = "user"


def _message(message: Any, name: str) -> dict[str, str]:
    """Read a message; tool calls and results become text, as llama.cpp writes them."""
    if not isinstance(message, dict):
        raise ApiError(f"{name} must be an object, got {shown(message)}", param=name)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise ApiError(
            f"{name}.role must be one of {', '.join(ROLES)}, got {shown(role)}",
            param=f"{name}.role",
        )
    calls = message.get("tool_calls") or message.get("function_call")
    content = message.get("content")
    if isinstance(content, list):
        parts = [_part(part, f"{name}.content[{i}]") for i, part in enumerate(content)]
        content = "".join(parts)
    content = string("" if content is None and calls else content, f"{name}.content")
    if calls:
        made = json.dumps({"tool_calls": calls}, ensure_ascii=False)
        content += "\n" * bool(content) + string(made, f"{name}.tool_calls")
    if role in ("tool", "function"):
        told = {"tool_response": {"content": content}}
        content = json.dumps(told, ensure_ascii=False)
    return {"role": ROLES[role], "content": content}


def _part(part: Any, name: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text":
        raise ApiError(f"{name} must be text: the models read nothing else", param=name)
    return string(part.get("text"), f"{name}.text")
