"""Requests of the OpenAI API, parsed from JSON."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqs_codec import Sampling
from sqs_codec.system._base.protocol import MODES
from sqs_codec.system._endpoint.errors import ApiError
from sqs_codec.system._endpoint.fields import check_model, field, load, shown, string
from sqs_codec.system.edge import Mode

Messages = list[dict[str, str]]
Prompt = str | list[int]

MOST_STOPS, LONGEST_STOP = 16, 256  # stop strings, and characters of each
MOST_PROMPTS = 128  # prompts of one request
COMPLETION_TOKENS = 16  # default of max_tokens in ``/v1/completions``

_OUTPUT = "it would change the output distribution, which is exactly the target model's"
_FORM = "the output distribution is exactly the target's, so it can't force a format"
_TOOLS = "answers are text and never call tools"
_CHANCES = "the cloud sends tokens without their probabilities"
_PROMPT = "the model's chat template makes the prompt from all messages"

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
        _OUTPUT,
    ),
    (
        "repetition_penalty repeat_penalty rep_pen encoder_repetition_penalty "
        "length_penalty typical_p typical tfs tfs_z guidance_scale num_beams min_keep",
        [1],
        _OUTPUT,
    ),
    ("top_n_sigma nsigma adaptive_target", [-1], _OUTPUT),
    ("n n_cmpl best_of", [1], "there is one completion per prompt"),
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
    ("modalities audio", [["text"]], "answers are text"),
    ("echo", [], "the answer doesn't include the prompt"),
    ("suffix", [], "text can't be inserted before a suffix"),
    ("include_stop_str_in_output", [], "the text never includes a stop string"),
]

REFUSED = {
    name: (why, harmless) for names, harmless, why in _REFUSED for name in names.split()
}
"""Unsupported fields: the reason, and the values that have no effect, in addition to
null, false, 0 and empty ones."""


@dataclass(frozen=True)
class Request:
    model: str  # the client's name of the model
    messages: Messages  # of a chat, each with role and content
    prompts: list[Prompt]  # texts or token ids, if there are no messages
    max_tokens: int | None  # None: up to the context length
    sampling: Sampling
    stop: tuple[str, ...]  # stop strings
    seed: int | None
    stream: bool
    include_usage: bool  # whether a stream ends with the usage
    tools: bool  # whether the client offers tools
    mode: Mode | None = None  # None: the planner chooses
    link: tuple[float, float] | None = None  # bit/s up and RTT in s of a simulated link


def parse(
    data: bytes, *, chat: bool, models: Collection[str], sampling: Sampling
) -> Request:
    """Parse a body; an `ApiError` names the wrong field. ``*`` is any model name."""
    try:
        return _build(load(data), chat, models, sampling)
    except RecursionError:
        raise ApiError("the body is nested too deeply") from None


def _build(
    fields: dict[str, Any], chat: bool, models: Collection[str], sampling: Sampling
) -> Request:
    for name, (why, harmless) in REFUSED.items():
        if (value := fields.get(name)) and value not in harmless:
            raise ApiError(f"{name} isn't supported: {why}", param=name)
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
    """Parse this endpoint's extension: the mode, and a simulated link."""
    mode = fields.get("mode")
    if mode is not None and mode not in MODES:
        raise ApiError(
            f"sqs.mode must be one of {', '.join(MODES)}, got {shown(mode)}",
            param="sqs.mode",
        )
    link = field(fields, "link", dict, None)
    if link is not None:
        if mode is None:
            raise ApiError("sqs.link needs sqs.mode; set both", param="sqs.link")
        given = {f"sqs.link.{name}": value for name, value in link.items()}
        link = (
            field(given, "sqs.link.rate", float, 1e5, 1e4, 1e9),
            field(given, "sqs.link.trip", float, 0.1, 0, 10),
        )
    return {"mode": mode, "link": link}


def _most(fields: dict[str, Any], most: int | None) -> int | None:
    for name in ("max_tokens", "max_completion_tokens"):
        endless = fields.get(name) == -1  # no limit, as in other local servers
        most = None if endless else field(fields, name, int, most, 1)
    return most


def _stop(fields: dict[str, Any]) -> tuple[str, ...]:
    given = fields.get("stop", [])
    stops = given if isinstance(given, list) else [given]
    if len(stops) > MOST_STOPS:
        raise ApiError(f"stop may have up to {MOST_STOPS} strings", param="stop")
    for stop in stops:
        if len(string(stop, "stop")) > LONGEST_STOP:
            said = f"a stop string may have up to {LONGEST_STOP} characters"
            raise ApiError(said, param="stop")
    return tuple(filter(None, stops))  # an empty string means none


def _prompts(fields: dict[str, Any]) -> list[Prompt]:
    prompts = fields.get("prompt")
    if not (isinstance(prompts, list) and prompts and not isinstance(prompts[0], int)):
        prompts = [prompts]
    if len(prompts) > MOST_PROMPTS:
        raise ApiError(f"prompt may have up to {MOST_PROMPTS} texts", param="prompt")
    return [_prompt(prompt) for prompt in prompts]


def _prompt(prompt: Any) -> Prompt:
    if isinstance(prompt, list) and prompt and all(type(t) is int for t in prompt):
        return prompt
    if isinstance(prompt, list):
        raise ApiError(
            "prompt must be a text, a list of token ids, or a list of either",
            param="prompt",
        )
    if not (text := string(prompt, "prompt")):
        raise ApiError("prompt must not be empty", param="prompt")
    return text


def _messages(fields: dict[str, Any]) -> Messages:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(
            f"messages must be a list of at least one, got {shown(messages)}",
            param="messages",
        )
    return [_message(one, f"messages[{i}]") for i, one in enumerate(messages)]


ROLES = {role: role for role in ("system", "user", "assistant")}
ROLES["developer"] = "system"  # its name in newer clients
ROLES["tool"] = ROLES["function"] = "user"


def _message(message: Any, name: str) -> dict[str, str]:
    """Parse a message; tool calls and results become text, as in llama.cpp."""
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
        raise ApiError(f"{name} must be of type text", param=name)
    return string(part.get("text"), f"{name}.text")
