"""What trainers ask of a teacher, read from the protocol's JSON."""

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
"""Of a body: half a million tokens, where ids have six digits. Numbers take up
to 14 times their size to parse, 59 MB, and a request may take 100 MB."""

MOST_PROMPTS = 1024  # texts that a request may ask for

_NOTHING = "nothing is written here, only read"
_PROMPT = "a text is looked up by the tokens of its prompt, all of them"

REFUSED: list[tuple[str, list[object], str]] = [
    ("max_tokens", [1], f"{_NOTHING}: 0 or 1 will do"),
    ("n", [1], _NOTHING),
    ("best_of", [1], _NOTHING),
    ("stream", [], f"{_NOTHING}, so there are no pieces"),
    ("prompt_embeds", [], _PROMPT),
    ("suffix", [], _PROMPT),
    ("truncate_prompt_tokens", [-1], _PROMPT),
    ("logprob_token_ids", [], "rows have the teacher's own tokens"),
]
"""Fields that ask for what can't be done, the values that ask for nothing besides
null, false, 0 and what is empty, and why."""


def parse(
    data: bytes, models: Collection[str], header: Header
) -> tuple[str, dict[str, Tokens], int]:
    """Read a body: model, texts by name, and K; an `ApiError` names the wrong field."""
    # Many lists, objects or strings would take up to 35 times their size.
    if sum(map(data.count, b'[{"')) > 2 * MOST_PROMPTS:
        raise ApiError(f"prompt may be {MOST_PROMPTS} texts at most", param="prompt")
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
    # That of the token which is to be written, some clients set to 0.
    asked = field(fields, "temperature", float, 0, 0, 1e6)
    if asked and not math.isclose(asked, header.temperature, rel_tol=1e-6):
        raise ApiError(
            f"temperature is {asked}, and the file's distributions are of "
            f"{header.temperature}, the only one that they can teach at",
            param="temperature",
        )


def _k(fields: dict[str, Any], header: Header) -> int:
    k: int | None = field(fields, "prompt_logprobs", int, None)
    enough = header.codec.resolution
    if k is None or k < min(enough, 2):
        raise ApiError(
            f"prompt_logprobs must say how many tokens a list may have, {enough} are "
            f"enough for all, got {shown(k)}. 0 and 1 are for reverse KL or a mixture "
            f"with it, and counts can only teach forward KL",
            param="prompt_logprobs",
        )
    return min(k, header.codec.vocab_size - header.tail)


def _prompts(given: Any, vocab_size: int) -> dict[str, Tokens]:
    several = isinstance(given, list) and given and isinstance(given[0], list)
    if several and len(given) > MOST_PROMPTS:
        raise ApiError(f"prompt may be {MOST_PROMPTS} texts at most", param="prompt")
    prompts = {"prompt": given}
    if several:
        prompts = {f"prompt[{i}]": one for i, one in enumerate(given)}
    return {name: _tokens(name, one, vocab_size) for name, one in prompts.items()}


def _tokens(name: str, tokens: Any, vocab_size: int) -> Tokens:
    if not isinstance(tokens, list) or not tokens:
        raise ApiError(
            f"{name} must be a list of token ids, one at least, as the file has no "
            f"tokenizer to read text with; got {shown(tokens)}",
            param=name,
        )
    if {*map(type, tokens)} != {int} or min(tokens) < 0 or max(tokens) >= vocab_size:
        ids = range(vocab_size)
        i = next(i for i, t in enumerate(tokens) if type(t) is not int or t not in ids)
        raise ApiError(
            f"{name}[{i}] must be a token's id, a whole number from 0 to "
            f"{vocab_size - 1}, got {shown(tokens[i])}",
            param=name,
        )
    return np.array(tokens, np.uint32)
