"""What `make docs` does beyond mkdocs: pages made from files outside docs/, formulas.

The pages in docs/ are read in the repository, too. So they link to files by their
paths there, and formulas are written between dollar signs; here links become those of
the site, or words where the site lacks the file, and formulas MathML, which browsers
draw without a script.
"""

from __future__ import annotations

import contextlib
import doctest
import html
import io
import json
import logging
import os
import posixpath
import re
from base64 import b64encode
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

log = logging.getLogger("mkdocs.hooks.sqs")

ROOT = Path(__file__).parents[2]

OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "DATA.md": "data.md",
    "SECURITY.md": "security.md",
    "csrc/README.md": "core.md",
    "csrc/sqs.h": "reference/sqs-h.md",
}
"""Files outside docs/ that are pages of the site, and their names there."""

PLAYGROUND = (
    "bindings/wasm/sqs.mjs",
    "build/wasm/sqs.wasm",
    "sqs_codec/priors/gemma3.sqsprior",
    "sqs_codec/priors/smollm2.sqsprior",
)
"""Files outside docs/ that the playground loads."""

POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'wasm-unsafe-eval' {}; base-uri 'none'; form-action 'none'"
)
"""The policy of pages with the playground: the site's scripts, the theme's by hash."""

LINK = re.compile(r"\[([^\[\]]*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")
FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL
)
OPERATOR = re.compile(r"<mo([^>]*)>(&#x0007C;|min|max|Pr)</mo>")
CODE = re.compile(r"<code>(.*?)</code>", re.DOTALL)
NO_WORDS = re.compile(r'\u2013\s*<div class="doc-md-description">\s*</div>')
TAG = re.compile(r"<[^>]*>")
DOTTED = re.compile(r">sqs_codec[.\w]+(?=(?:: \w+)?(?:</span>|<a ))")
"""A path in a heading; narrow pages may break it at its dots."""
SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
LOADED = re.compile(
    r'<(?!a\b)[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"|data-md-component="source"'
)
"""Resources of other sites; the last one counts a repository's stars."""

SOUGHT = ("distillation", "greedy", "kld", "perplexity", "quantization")
SOUGHT += ("teacher", "temperature")
"""Words that the search finds in a heading."""

NO_SENTENCE = re.compile(
    r"^[A-Z]\w+\n-+$|^[*\w, ]+ : .*$|^\S.*\n(?= {4})|^(?:- |>>> )|\n\n", re.M
)
"""Ends of a docstring's sentence in addition to full stops."""


def on_files(files: Any, config: Any) -> None:
    """Add the generated pages, and those outside docs/."""
    from mkdocs.structure.files import File

    pages = {name: (ROOT / path).read_text() for path, name in OUTSIDE.items()}
    pages["reference/cli.md"] = command_line()
    pages |= reference(config.nav)
    pages["reference/sqs-h.md"] = (
        "# sqs.h\n\nThe whole C interface; [how to use it](../codec/c-cpp-rust.md).\n\n"
        f"```c\n{(ROOT / 'csrc/sqs.h').read_text()}```\n"
    )
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    for path in PLAYGROUND:
        name = f"playground/{Path(path).name}"
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    font = distribution("ziamath").locate_file("ziamath/fonts/STIXTwoMath-Regular.ttf")
    files.append(File.generated(config, "site/math.ttf", abs_src_path=str(font)))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make links to files of the repository work on the site; mark examples."""
    names = {name: path for path, name in OUTSIDE.items()}
    name = page.file.src_uri
    markdown = re.sub(r"^```python\n(?=>>> )", "```pycon\n", markdown, flags=re.M)
    return relink(markdown, names.get(name, f"docs/{name}"), name)


def relink(markdown: str, path: str, name: str) -> str:
    """Return a page with links for the site.

    A link that is named by its file gets the page's title. One to a file that isn't on
    the site becomes its words.

    Parameters
    ----------
    markdown : str
    path : str
        Of the page's file in the repository.
    name : str
        Of the page on the site.

    Examples
    --------
    >>> relink("[b](b.md#c), [d](../SECURITY.md), [e](../csrc)", "docs/a.md", "a.md")
    '[b](b.md#c), [d](security.md), e'
    >>> relink("[theory.md](docs/theory.md)", "SECURITY.md", "security.md")
    '[Theory](theory.md)'
    """

    def moved(match: re.Match[str]) -> str:
        label, link, anchor = match[1], match[2], match[3] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
        file = ROOT / target
        if target in OUTSIDE:
            place = OUTSIDE[target]
        elif target.startswith("docs/") and not file.is_dir():
            place = target.removeprefix("docs/")
        elif not file.exists():
            return match[0]  # a page made here, or for mkdocs to complain of
        else:
            return label
        if re.fullmatch(r"[\w./-]+\.md", label) and file.exists():
            label = file.read_text().splitlines()[0].lstrip("# ")
        place = posixpath.relpath(place, posixpath.dirname(name) or ".")
        return f"[{label}]({place}{anchor})"

    return LINK.sub(moved, markdown)


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Convert formulas to MathML, and make examples copyable."""
    from latex2mathml.converter import convert

    def mathml(match: re.Match[str]) -> str:
        display = "block" if match[2] == "[" else "inline"
        source = html.unescape(match[3]).replace("{aligned}", "{align*}")
        formula = convert(source, display=display)
        if re.search(r"<mi>(&<|\\)", formula):
            log.warning("%s has a formula that isn't understood: %s", page.url, source)
        formula = OPERATOR.sub(r'<mo\1 lspace="0.15em" rspace="0">\2</mo>', formula)
        return re.sub(r'columnalign="(\w+)"', r'style="text-align: \1"', formula)

    content = DOTTED.sub(lambda m: m[0].replace(".", ".<wbr>"), content)
    return CODE.sub(copied, FORMULA.sub(mathml, NO_WORDS.sub("", content)))


def copied(code: re.Match[str]) -> str:
    r"""Return an example that is copied without prompts and output.

    Examples
    --------
    >>> print(copied(CODE.match("<code><b>&gt;&gt;&gt; </b>1 &lt; 2\nTrue</code>")))
    <code data-copy="1 &lt; 2
    "><b>&gt;&gt;&gt; </b>1 &lt; 2
    True</code>
    """
    text = html.unescape(TAG.sub("", code[1]))
    examples = (one.source for one in doctest.DocTestParser().get_examples(text))
    # An interpreter ends a block at an empty line.
    source = "".join(one + "\n" * ("\n    " in one) for one in examples)
    copy = f' data-copy="{html.escape(source)}"' if source else ""
    return f"<code{copy}>{code[1]}</code>"


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Reject pages that load from other sites; add the playground's policy."""
    for loaded in LOADED.findall(output):
        log.warning("%s loads from elsewhere: %s", page.file.src_uri, loaded)
    if '<div id="try"' not in output:
        return output
    digests = (sha256(script.encode()).digest() for script in SCRIPT.findall(output))
    hashes = " ".join(f"'sha256-{b64encode(digest).decode()}'" for digest in digests)
    policy = f'content="{POLICY.format(hashes)}"'
    meta = f'<meta http-equiv="Content-Security-Policy" {policy}>'
    return output.replace("<head>", f"<head>{meta}", 1)


def on_post_build(config: Any) -> None:
    """Reject a site that lacks a public docstring's sentence or a searched word."""
    site = Path(config.site_dir)
    found = json.loads((site / "search/search_index.json").read_text())["docs"]
    titles = " ".join(entry["title"].lower() for entry in found)
    for word in SOUGHT:
        if word not in titles:
            log.warning("no heading has %r, which people search for", word)
    pages = (page.read_text() for page in site.glob("reference/**/index.html"))
    shown = words(html.unescape(TAG.sub("", "".join(pages))))
    for path, sentence in sentences():
        if words(sentence) not in shown:
            log.warning("the reference lacks a sentence of %s: %s", path, sentence)
        if re.search(r":[a-z]+:`|\]_|^\.\. ", sentence):
            log.warning("%s has markup that isn't Markdown: %s", path, sentence)


@cache
def package() -> Any:
    """Load the package with griffe."""
    import griffe

    loader = griffe.GriffeLoader(search_paths=[ROOT])
    read = loader.load("sqs_codec")
    loader.resolve_aliases()
    return read


def reference(nav: list[Any]) -> dict[str, str]:
    """Return the pages of the modules for whose folders the navigation has places.

    They are put there: an index, a page for each class, one for all functions. A module
    without classes is one page.
    """
    pages: dict[str, str] = {}
    for item in nav:
        for title, place in item.items() if isinstance(item, dict) else ():
            if isinstance(place, list):
                pages |= reference(place)
            elif place.endswith("/"):
                made = module_pages(place.split("/")[1:-1])
                below = {f"{place}{name.lower()}.md": name for name in made}
                item[title] = [{name: page} for page, name in below.items()]
                if len(made) == 1:  # the index of its section
                    item[title] = f"{place[:-1]}.md"
                    below = {item[title]: "index"}
                pages |= {page: made[name] for page, name in below.items()}
    return pages


def module_pages(path: list[str]) -> dict[str, str]:
    """Return the pages of a module by their names in the navigation."""
    module = package()
    for name in path[1:]:
        module = module.members[name]
    public = [module.members[name] for name in module.exports or ()]
    classes = [one for one in public if one.is_class]
    rest = [one for one in public if one.is_function]
    rest += [one for one in public if one.is_attribute and one.docstring]
    hidden = {"show_root_heading": False, "show_root_toc_entry": False}
    index = f"# {module.path}\n\n{described(module, members=False, **hidden)}\n\n"
    for one in classes + rest:
        line = " ".join(one.docstring.value.split("\n\n")[0].split())
        index += f"- [`{one.name}`][{one.path}]: {line}\n"
    functions = "\n\n".join(map(described, rest))
    if not classes:
        return {"index": f"{index}\n{functions}"}
    title: dict[str, Any] = {"heading_level": 1, "show_root_full_path": True}
    return {
        "index": index,
        **{
            one.name: described(one, inherited_members=of_private_bases(one), **title)
            for one in classes
        },
        **({"Functions": f"# {module.path}: functions\n\n{functions}"} if rest else {}),
    }


@cache
def exported() -> set[str]:
    """Return the modules that define public names."""
    found, todo = set[str](), [package()]
    for module in todo:  # which grows
        found |= {module.members[n].canonical_path for n in module.exports or ()}
        own = (m for m in module.members.values() if not m.is_alias and m.is_module)
        todo += [m for m in own if not m.name.startswith("_")]
    return found


def of_private_bases(one: Any) -> list[str]:
    """Return the members that a class inherits from bases without a page."""
    inherited = {n: m.canonical_path for n, m in one.inherited_members.items()}
    return [n for n, path in inherited.items() if path[: -len(n) - 1] not in exported()]


def described(what: Any, **options: Any) -> str:
    """Return mkdocstrings' directive for an object."""
    return f"::: {what.path}\n    options: {json.dumps(options)}"


def words(text: str) -> str:
    """Return only the words of a text."""
    return " ".join(re.findall(r"\w+", text))


def sentences() -> Iterator[tuple[str, str]]:
    """Yield each sentence of public docstrings, after its object's path."""
    todo = [package()]
    for one in todo:  # which grows
        if one.docstring:
            shown = re.sub(r" *# doctest:.*", "", one.docstring.value)
            for part in NO_SENTENCE.split(shown):
                for sentence in re.split(r"(?<=[.:])\s", part):
                    yield one.path, " ".join(sentence.split())
        if one.is_class:
            todo += [m for n, m in one.all_members.items() if not re.match("_[^_]", n)]
        elif one.is_module:
            own = (m for m in one.members.values() if not m.is_alias and m.is_module)
            todo += [one.members[name] for name in one.exports or ()]
            todo += [m for m in own if not re.match("_|cli$", m.name)]


def command_line() -> str:
    """Return the page of the ``sqs`` command, with the help of each command."""
    page, todo = [], [()]
    for command in todo:  # which grows
        said = help_of(*command)
        title = "# Command line" if not command else f"## sqs {' '.join(command)}"
        page += [title, fenced(said)]
        todo += [
            (*command, name) for name in re.findall(r"^    ([a-z]+) {2,}", said, re.M)
        ]
    return "\n\n".join(page)


def fenced(text: str) -> str:
    """Return a block of plain text."""
    return f"```text\n{text}```"


def help_of(*command: str) -> str:
    """Return the output of a command's ``--help``."""
    from sqs_codec.cli.main import main

    os.environ["COLUMNS"] = "80"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return printed.getvalue()
