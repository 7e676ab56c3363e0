"""Find sentences of pages and docstrings that prose should not have.

    python -m tests.project.prose [FILE...]    all pages and modules, or some

codespell checks single words in every file; this checks phrases and the length of
sentences. Code, tables, formulas and the targets of links don't count.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST_WORDS = 25
"""Maximum words of a sentence. Figures, names and short lists also count."""

PHRASES = {
    r"\bso many \w+ (?:as|a)\b": "N",
    r"\b(?:tokens|bytes|bits|rounds|passes) an? (?:second|token|row|round)\b": "per",
    r"\bkeys and values\b": "KV cache",
    r"\bthin link|\bfat link": "low-, high-bandwidth link",
    r"\bright on average\b": "unbiased",
    r"(?:^|[.;] )(?:Of|By|With|To|From|For) (?:which|what|whom)\b": "subject first",
    r"(?:^|[.:;] )(?:What|Who) (?:is|are|was|has|comes|stands|follows)\b": "name it",
    r"\bthat of\b.*\bthat of\b|\bthose of\b.*\bthose of\b": "repeat the noun",
}
FENCED = re.compile(r"^```.*?^```|\$\$.*?\$\$", re.M | re.S)
NO_PROSE = re.compile(
    r"^\s*(?:\||>>>|\.\.\.|#|<).*$|^ {4}.*$|`+[^`]*`+|\$[^$]*\$|<[^>]*>", re.M
)
SECTION = re.compile(r"^\s*\w[\w ]*\n\s*-{3,}$|^[*\w, ]+ : .*$|^\s*[-*] |^\d\. ", re.M)


def pages(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the paragraphs of a page, each after its line."""
    text = FENCED.sub(lambda m: "\n" * m[0].count("\n"), path.read_text("utf-8"))
    yield from paragraphs(text, 1)


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the paragraphs of a module's docstrings and help, each after its line."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        text = getattr(getattr(node, "value", None), "value", None)
        if isinstance(node, ast.Expr) and isinstance(text, str):
            yield from paragraphs(re.sub(r"\n {4,}(?=\S)", "\n", text), node.lineno)


def paragraphs(text: str, first: int) -> Iterator[tuple[int, str]]:
    text = SECTION.sub("\n", re.sub(r"\]\([^)]*\)", "]", NO_PROSE.sub("", text)))
    for match in re.finditer(r"(?:.+\n?)+", text):
        yield first + text[: match.start()].count("\n"), " ".join(match[0].split())


def problems(text: str) -> Iterator[str]:
    """Yield what a paragraph has that it should not."""
    for sentence in re.split(r"(?<=[.!?:;])\**\s+", text):
        if (words := len(re.findall(r"\w[\w'-]*", sentence))) > MOST_WORDS:
            yield f"{words} words: {sentence[:60]}..."
    for phrase, instead in PHRASES.items():
        for found in re.findall(phrase, text):
            yield f"{found!r}: say {instead}"


def main(names: list[str]) -> int:
    files = [*map(Path, names)] or [
        *(p for p in ROOT.glob("*.md")),
        *(p for p in ROOT.glob("docs/**/*.md")),
        *ROOT.glob("sqs_codec/**/*.py"),
    ]
    count = 0
    for path in sorted(files):
        read = docstrings if path.suffix == ".py" else pages
        for line, text in read(path):
            for problem in problems(text):
                print(f"{path}:{line}: {problem}")
                count += 1
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
