"""Write the whole core as one file, sqs.c, together with sqs.h.

    python bindings/amalgamate.py [FOLDER]      FOLDER is dist, if none is given

Only the declarations of sqs.h are visible outside of sqs.c. Guarded headers come first,
each once. The source files follow, with unguarded headers inserted where they are
included. If several source files use a name, such as an operation of an instruction
set, macros rename it in each; they also reach pasted names. A missed collision does not
compile.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from pathlib import Path

CSRC = Path(__file__).parents[1] / "csrc"

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
LOCAL = re.compile(r'^#include "([^"]+)".*\n', re.MULTILINE)
DIRECTIVE = re.compile(r"^\s*#(?:.*\\\n)*.*$", re.MULTILINE)
MACRO = re.compile(r"^#define (\w+)", re.MULTILINE)
PASTE = re.compile(r"^#define (\w+)\(name\) (?:(\w+)##name|name##(\w+))$", re.MULTILINE)

# The start of a line that declares or defines something with external linkage.
EXTERNAL = re.compile(
    r"^(?:extern )?((?!static\b|typedef\b)[a-z][\w\s*]*?\b(sqs_\w+)\s*[\[(=])",
    re.MULTILINE,
)

HEAD = """\
/*
 * sqs.c - the SQS codec core {version} in one file, for use with sqs.h.
 *
 * Generated from csrc by bindings/amalgamate.py: read and change the parts
 * there. Compile this file as C11, with -O2.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sqs.h"
"""


def read(name: str) -> str:
    """Return a file of csrc."""
    return (CSRC / name).read_text()


def is_guarded(name: str) -> bool:
    """Return whether a header has an include guard."""
    return re.search(r"^#ifndef SQS_(\w+_)?H$", read(name), re.MULTILINE) is not None


def guarded_headers(name: str, seen: list[str]) -> list[str]:
    """Append the guarded headers that a file needs to ``seen``, in order."""
    for header in LOCAL.findall(read(name)):
        if header not in seen:
            guarded_headers(header, seen)
            if is_guarded(header):
                seen.append(header)
    return seen


def expand(name: str, seen: set[str]) -> str:
    """Return a file with its unguarded headers; each comment appears once."""
    text = read(name)
    if name in seen:
        text = re.sub(r"\n{3,}", "\n\n", COMMENT.sub("", text))
    seen.add(name)

    def included(match: re.Match[str]) -> str:
        return "" if is_guarded(match[1]) else expand(match[1], seen)

    return LOCAL.sub(included, text)


def make_static(text: str, public: set[str]) -> str:
    """Make functions and tables static that sqs.h does not declare."""

    def declare(match: re.Match[str]) -> str:
        return match[0] if match[2] in public else f"static {match[1]}"

    return EXTERNAL.sub(declare, text)


def declared(text: str) -> set[str]:
    """Return the names that a source file declares at its top level."""
    pastes: dict[str, list[str]] = {}
    for macro, before, after in PASTE.findall(text):
        pastes.setdefault(macro, []).append(f"{before}\\1{after} ; ")
    macros = set(MACRO.findall(text))
    text = DIRECTIVE.sub("", COMMENT.sub("", text))
    for macro, names in pastes.items():
        text = re.sub(rf"\b{macro}\((\w+)\)", "".join(names), text)
    for innermost in (r"\{[^{}]*\}", r"\([^()]*\)"):
        while text != (less := re.sub(innermost, " ; ", text)):
            text = less
    return set(re.findall(r"\b([A-Za-z]\w*)\s*(?:\[\w*\]\s*)*[;=]", text)) - macros


def section(name: str, text: str, shared: set[str]) -> str:
    """Return a source file whose names and macros don't reach the next one."""
    suffix = name.removesuffix(".c").replace("/", "_")
    names = sorted(shared & declared(text))
    macros = sorted(set(MACRO.findall(text)).union(names))
    return "".join(
        [
            *(f"#define {name} {name}_{suffix}\n" for name in names),
            text,
            *(f"#undef {name}\n" for name in macros),
        ]
    )


def amalgamate() -> str:
    """Return the text of sqs.c."""
    header = read("sqs.h")
    numbers = re.findall(r"^#define SQS_VERSION_[A-Z]+ (\d+)$", header, re.MULTILINE)
    public = set(re.findall(r"\b(sqs_\w+)\(", COMMENT.sub("", header)))
    sources = sorted(str(path.relative_to(CSRC)) for path in CSRC.rglob("*.c"))
    headers = ["sqs.h"]
    for name in sources:
        guarded_headers(name, headers)
    seen: set[str] = set()
    texts = {name: expand(name, seen) for name in sources}
    users = Counter(name for text in texts.values() for name in declared(text))
    shared = {name for name, n in users.items() if n > 1}
    parts = [expand(name, seen) for name in headers[1:]]
    parts += [section(name, text, shared) for name, text in texts.items()]
    head = HEAD.format(version=".".join(numbers))
    return make_static("\n".join([head, *parts]), public)


def main() -> None:
    """Write both files into the given folder."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "dist")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sqs.c").write_text(amalgamate())
    shutil.copyfile(CSRC / "sqs.h", folder / "sqs.h")


if __name__ == "__main__":
    main()
