"""What `make docs` does beyond mkdocs: pages made from files outside docs/, formulas.

The pages in docs/ are read in the repository, too. So they link to files by their
paths there, and formulas are written as GitHub takes them; here links become those of
the site or of the repository's page, and formulas MathML, which browsers draw without
a script.
"""

from __future__ import annotations

import contextlib
import html
import io
import logging
import os
import posixpath
import re
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

log = logging.getLogger("mkdocs.hooks.sqs")

ROOT = Path(__file__).parents[2]

OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "csrc/README.md": "core.md",
}
"""Files outside docs/ that are pages of the site, and their names there."""

LINK = re.compile(r"(\[[\w./-]+\.md)?\]\(([^)#\s:]+)(#[^)\s]*)?\)")
FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL
)
OPERATOR = re.compile(r"<mo([^>]*)>(&#x0007C;|min|max|Pr)</mo>")
LOADED = re.compile(
    r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//[^"]*"|'
    r'<link[^>]+rel="(?:stylesheet|preload)"[^>]*"(?:https?:)?//[^"]*"'
)


def on_config(config: Any) -> None:
    """Refuse a repository other than the package's."""
    project = (ROOT / "pyproject.toml").read_text()
    source = re.search(r'^Source = "([^"]*)"', project, re.M)
    if source is None or source[1] != config.repo_url:
        log.warning("repo_url isn't Source of [project.urls] in pyproject.toml")


def on_files(files: Any, config: Any) -> None:
    """Add the pages that aren't written by hand, or not in docs/."""
    from mkdocs.structure.files import File

    pages = {name: (ROOT / path).read_text() for path, name in OUTSIDE.items()}
    pages["reference/cli.md"] = command_line()
    pages["reference/sqs-h.md"] = (
        "# sqs.h\n\nThe whole C interface; [how to use it](../c.md).\n\n"
        f"```c\n{(ROOT / 'csrc/sqs.h').read_text()}```\n"
    )
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    font = distribution("ziamath").locate_file("ziamath/fonts/STIXTwoMath-Regular.ttf")
    files.append(File.generated(config, "site/math.ttf", abs_src_path=str(font)))


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Make links to files of the repository work on the site."""
    names = {name: path for path, name in OUTSIDE.items()}
    name = page.file.src_uri
    path = names.get(name, f"docs/{name}")
    return relink(markdown, path, name, config.repo_url)


def relink(markdown: str, path: str, name: str, repository: str) -> str:
    """Return a page whose links hold on the site.

    A link that is named by its file gets the page's title.

    Parameters
    ----------
    markdown : str
    path : str
        Of the page's file in the repository.
    name : str
        Of the page on the site.
    repository : str
        Its URL.

    Examples
    --------
    >>> def links(markdown, path="docs/a.md", name="a.md"):
    ...     return relink(markdown, path, name, "https://repo")
    >>> links("[b](b.md#c), [d](../SECURITY.md), [e](../csrc/sqs.h)")
    '[b](b.md#c), [d](security.md), [e](https://repo/blob/main/csrc/sqs.h)'
    >>> links("[theory.md](docs/theory.md)", "SECURITY.md", "security.md")
    '[Theory](theory.md)'
    >>> links("[vectors](../../tests/vectors)", "docs/howto/a.md", "howto/a.md")
    '[vectors](https://repo/tree/main/tests/vectors)'
    """

    def moved(match: re.Match[str]) -> str:
        label, link, anchor = match[1] or "", match[2], match[3] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
        file = ROOT / target
        if target in OUTSIDE:
            place = OUTSIDE[target]
        elif target.startswith("docs/") and not file.is_dir():
            place = target.removeprefix("docs/")
        elif not file.exists():
            return match[0]  # a page made here, or for mkdocs to complain of
        else:
            kind = "tree" if file.is_dir() else "blob"
            return f"{label}]({repository}/{kind}/main/{target}{anchor})"
        if label and file.exists():
            label = "[" + file.read_text().splitlines()[0].lstrip("# ")
        place = posixpath.relpath(place, posixpath.dirname(name) or ".")
        return f"{label}]({place}{anchor})"

    return LINK.sub(moved, markdown)


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Turn formulas into MathML."""
    from latex2mathml.converter import convert

    def mathml(match: re.Match[str]) -> str:
        display = "block" if match[2] == "[" else "inline"
        source = html.unescape(match[3]).replace("{aligned}", "{align*}")
        formula = convert(source, display=display)
        if re.search(r"<mi>(&<|\\)", formula):
            log.warning("%s has a formula that isn't understood: %s", page.url, source)
        formula = OPERATOR.sub(r'<mo\1 lspace="0.15em" rspace="0">\2</mo>', formula)
        return re.sub(r'columnalign="(\w+)"', r'style="text-align: \1"', formula)

    return FORMULA.sub(mathml, content)


def on_post_page(output: str, page: Any, **_: Any) -> None:
    """Refuse a page that loads anything from elsewhere."""
    for loaded in LOADED.findall(output):
        log.warning("%s loads from elsewhere: %s", page.file.src_uri, loaded)


def command_line() -> str:
    """Return the page of the ``sqs`` command: what each ``--help`` says."""
    overview = help_of()
    page = ["# Command line", fenced(overview)]
    for name in re.findall(r"^    ([a-z]+) {2,}", overview, re.M):
        page += [f"## sqs {name}", fenced(help_of(name))]
    return "\n\n".join(page)


def fenced(text: str) -> str:
    """Return a block of plain text."""
    return f"```text\n{text}```"


def help_of(*command: str) -> str:
    """Return what a command's ``--help`` prints."""
    from sqs_codec.cli.main import main

    os.environ["COLUMNS"] = "80"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return printed.getvalue()
