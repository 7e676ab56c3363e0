"""What a request says, read from its JSON."""

import json
import math
from collections.abc import Collection
from typing import Any

from sqs_codec.system._endpoint.errors import ApiError

LONGEST_NAME = 256  # characters of a model's name, where any is taken


def model_names(names: Collection[str], own: str) -> list[str]:
    """Return what the model is called, or else its own name; ``*`` comes last."""
    named = [name for name in names if name != "*"] or [own]
    return [*named, "*"] if "*" in names else named


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


def load(data: bytes) -> dict[str, Any]:
    """Return the fields of a body that aren't null."""

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


def field(
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
        raise ApiError(f"{name} must be {_WORDS[kind]}, got {shown(value)}", param=name)
    if kind in (int, float) and not least <= value <= most:
        limits = f"{least} to {most}" if most < math.inf else f"at least {least}"
        raise ApiError(f"{name} must be {limits}, got {shown(value)}", param=name)
    return value


def shown(value: object) -> str:
    """Return a value as JSON, if that is short."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def string(value: Any, name: str) -> str:
    """Return a field that must be a string of characters."""
    if not isinstance(value, str):
        raise ApiError(f"{name} must be a string, got {shown(value)}", param=name)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ApiError(
            f"{name} has half of a surrogate pair, which is no character", param=name
        ) from None
    return value
