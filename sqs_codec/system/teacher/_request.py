"""Requests of trainers, parsed from JSON."""

import math
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqs_codec.distill import Header
from sqs_codec.system._endpoint.errors import ApiError
from sqs_codec.system._endpoint.fields import check_model, field, load, shown, string

Tokens = NDArray[np.uint32]

MOST_BYTES = 1 << 22
"""Maximum size of a body: half a million ids of six digits. Parsing numbers takes up to
14 times their size, 59 MB; a request may take 100 MB."""

MOST_PROMPTS = 1024  # prompts of one request

_NOTHING = "this endpoint doesn't generate text"
_PROMPT = "texts are looked up by all tokens of the prompt"

REFUSED: list[tuple[str, list[object], str]] = [
    ("max_tokens", [1], f"{_NOTHING}; use 0 or 1"),
    ("n", [1], _NOTHING),
    ("best_of", [1], _NOTHING),
    ("stream", [], f"{_NOTHING}, so it can't stream"),
    ("prompt_embeds", [], _PROMPT),
    ("suffix", [], _PROMPT),
    ("truncate_prompt_tokens", [-1], _PROMPT),
    ("logprob_token_ids", [], "lists have the stored tokens"),
]
"""Unsupported fields, the values that have no effect (in addition to null, false, 0 and
empty ones), and the reason."""


def parse(
    data: bytes, models: Collection[str], header: Header
) -> tuple[str, dict[str, Tokens], int]:
    """Parse model, prompts by name, and K; an `ApiError` names the wrong field."""
    # Many lists, objects or strings would take up to 35 times their size in memory.
    if sum(map(data.count, b'[{"')) > 2 * MOST_PROMPTS:
        raise ApiError(f"prompt may have up to {MOST_PROMPTS} texts", param="prompt")
    try:
        fields = load(data)
        _check(fields, header)
        asked = string(fields.get("model", next(iter(models))), "model")
        prompts = _prompts(fields.get("prompt"), header.codec.vocab_size - header.tail)
        return check_model(asked, models), prompts, _k(fields, header)
    except RecursionError:
        raise ApiError("the body is nested too deeply") from None


def _check(fields: dict[str, Any], header: Header) -> None:
    for name, harmless, why in REFUSED:
        if (value := fields.get(name)) and value not in harmless:
            raise ApiError(f"{name} can't be {shown(value)}: {why}", param=name)
    # Some clients set 0, for the token that vLLM would generate.
    asked = field(fields, "temperature", float, 0, 0, 1e6)
    if asked and not math.isclose(asked, header.temperature, rel_tol=1e-6):
        raise ApiError(
            f"temperature must be {header.temperature}, that of the stored "
            f"distributions, got {asked}",
            param="temperature",
        )


def _k(fields: dict[str, Any], header: Header) -> int:
    k: int | None = field(fields, "prompt_logprobs", int, None)
    enough = header.codec.resolution
    if k is None or k < min(enough, 2):
        raise ApiError(
            f"prompt_logprobs must be the maximum tokens per list, {enough} is enough "
            f"for every list, got {shown(k)}. Trainers send 0 or 1 for reverse KL; "
            f"stored counts can only teach forward KL",
            param="prompt_logprobs",
        )
    return min(k, header.codec.vocab_size - header.tail)


def _prompts(given: Any, vocab_size: int) -> dict[str, Tokens]:
    several = isinstance(given, list) and given and isinstance(given[0], list)
    if several and len(given) > MOST_PROMPTS:
        raise ApiError(f"prompt may have up to {MOST_PROMPTS} texts", param="prompt")
    prompts = {"prompt": given}
    if several:
        prompts = {f"prompt[{i}]": one for i, one in enumerate(given)}
    return {name: _tokens(name, one, vocab_size) for name, one in prompts.items()}


def _tokens(name: str, tokens: Any, vocab_size: int) -> Tokens:
    if not isinstance(tokens, list) or not tokens:
        raise ApiError(
            f"{name} must be a list of at least one token id, as the file has no "
            f"tokenizer; got {shown(tokens)}",
            param=name,
        )
    if {*map(type, tokens)} != {int} or min(tokens) < 0 or max(tokens) >= vocab_size:
        ids = range(vocab_size)
        i = next(i for i, t in enumerate(tokens) if type(t) is not int or t not in ids)
        raise ApiError(
            f"{name}[{i}] must be a token id, 0 to {vocab_size - 1}, "
            f"got {shown(tokens[i])}",
            param=name,
        )
    return np.array(tokens, np.uint32)
