"""Shared parts of all programs: options, tables of 80 columns, and the environment."""

import argparse
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

import sqs_codec as sqs

BEGAN = time.monotonic()
"""When the program began."""


class _Quick(argparse.Action):
    """Sets all options that make a run small."""

    def __call__(self, _: Any, namespace: argparse.Namespace, *__: Any) -> None:
        vars(namespace).update(self.const)


def command(
    name: str, description: str | None, **quick: object
) -> argparse.ArgumentParser:
    """Return a parser for a program of this folder, with its docstring as help.

    --quick, which ``make bench-test`` uses, sets the `quick` options.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, words = parser.add_argument, "run in miniature, as a test"
    add("--quick", action=_Quick, nargs=0, const=quick, default=False, help=words)
    return parser


def table(title: str, *columns: str) -> Table:
    """Return a table whose first column is text and whose others are numbers."""
    made = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for i, column in enumerate(columns):
        made.add_column(column, justify="right" if i else "left", no_wrap=True)
    return made


def dim(text: str) -> Text:
    """Return a note below a table."""
    return Text(text, style="dim")


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write results as JSON."""
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")


def about(*packages: str) -> dict[str, Any]:
    """Return the environment of figures, and the program's seconds until now."""
    cpu, flags = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        pairs = [
            line.partition(":")[::2]
            for line in info.read_text("utf-8").split("\n\n")[0].splitlines()
        ]
        lines = {name.strip(): value.strip() for name, value in pairs}
        cpu = lines.get("model name", cpu)
        known = lines.get("flags", "").split()
        flags = " ".join(f for f in known if f.startswith(("avx", "fma", "f16c")))
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        cpu += f" and {torch.cuda.get_device_name()}"
    return {
        "machine": f"{cpu}, {os.cpu_count()} cores, {platform.system()}",
        "cpu_flags": flags,
        "version": sqs.__version__,
        "backend": sqs.backend(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("numpy", *packages)},
        "seconds": round(time.monotonic() - BEGAN, 1),
    }


def about_line(measured: dict[str, Any]) -> str:
    """Return the result of `about` as a line."""
    m = measured
    packages = ", ".join(f"{name} {number}" for name, number in m["packages"].items())
    flags = f" ({m['cpu_flags']})" if m["cpu_flags"] else ""
    return (
        f"sqs-codec {m['version']} ({m['backend']}), Python {m['python']}, {packages}; "
        f"{m['machine']}{flags}; {m['seconds']:.0f} s.\n"
    )
