"""The recipes of docs/developing.md: they list each file that their example is in."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/developing.md").read_text("utf-8")
RECIPES = re.findall(r"^### (.+?)\n(.+?)(?=^##)", PAGE, re.M | re.S)
CODE = ("sqs_codec", "bindings", "csrc")
ENDINGS = {".c", ".h", ".html", ".js", ".mjs", ".py", ".rs"}


def quoted(text):
    return re.findall(r"`([^`]+)`", text)


def files_of(recipe):
    """The files at the start of each line of the list."""
    lines = re.findall(r"^- (.+)$", recipe, re.M)
    return {name for line in lines for name in quoted(line.split(":")[0])}


def has(path, words):
    text = path.read_text("utf-8")
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) for word in words)


def in_code(words):
    """The files of package and core with one of these words."""
    return {
        path.relative_to(ROOT).as_posix()
        for folder in CODE
        for path in (ROOT / folder).rglob("*")
        if path.suffix in ENDINGS and "target" not in path.parts and has(path, words)
    }


@pytest.mark.parametrize(("title", "recipe"), RECIPES, ids=[t for t, _ in RECIPES])
def test_a_recipe_lists_the_files_of_its_example(title, recipe):
    words = quoted(re.search(r"Examples?: (.+?)\.\n", recipe)[1])
    listed = files_of(recipe)
    assert [name for name in listed if not (ROOT / name).exists()] == []
    folders = tuple(name for name in listed if name.endswith("/"))
    code = {name for name in listed if name.startswith(CODE)} - {*folders}
    found = {name for name in in_code(words) if not name.startswith(folders)}
    assert found == code
    tests = [n for n in listed if n.startswith("tests/") and n.endswith(".py")]
    assert [name for name in tests if not has(ROOT / name, words)] == []


def defined():
    """Yield the package's classes and functions, and methods as Class.method."""
    kinds = ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    for path in (ROOT / "sqs_codec").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, kinds):
                inner = (one.name for one in node.body if isinstance(one, kinds))
                yield from (node.name, *(f"{node.name}.{name}" for name in inner))


def test_functions_on_the_path_of_a_token_exist():
    way = re.search(r"^## One token's way.+?(?=^To try)", PAGE, re.M | re.S)[0]
    core = (ROOT / "csrc/sqs.h").read_text("utf-8")
    names = {name for name in quoted(way) if "/" not in name}
    assert len(names) > 30
    gone = {name for name in names - {*defined()} if f" {name}(" not in core}
    assert gone == set()
