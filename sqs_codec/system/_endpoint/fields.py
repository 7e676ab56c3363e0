"""Fields of a JSON request."""

import json
import math
from collections.abc import Collection
from typing import Any

from sqs_codec.system._endpoint.errors import ApiError

LONGEST_NAME = 256  # maximum characters of a model's name if any name is accepted


def model_names(names: Collection[str], own: str) -> list[str]:
    """Return the model's names, by default its own; ``*`` comes last."""
    named = [name for name in names if name != "*"] or [own]
    return [*named, "*"] if "*" in names else named


def check_model(asked: str, models: Collection[str]) -> str:
    """Return the client's name of the model, or raise an ApiError if it is unknown."""
    if asked in models or ("*" in models and len(asked) <= LONGEST_NAME):
        return asked
    raise ApiError(
        f"unknown model {asked[:99]!r}; there is {', '.join(map(repr, models))}",
        status=404,
        param="model",
        code="model_not_found",
    )


def load(data: bytes) -> dict[str, Any]:
    """Return the fields of a body that aren't null."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} isn't valid JSON")

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
    """Return a field of a type, or `default`; numbers must be within bounds."""
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
    """Return a value as JSON, cut to 40 characters."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def string(value: Any, name: str) -> str:
    """Check that a field is a string of valid characters, and return it."""
    if not isinstance(value, str):
        raise ApiError(f"{name} must be a string, got {shown(value)}", param=name)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ApiError(
            f"{name} has half of a surrogate pair; send valid Unicode", param=name
        ) from None
    return value
