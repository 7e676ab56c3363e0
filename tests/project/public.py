"""The promises of a release, as text: names, layouts, options, fields and columns.

    python -m tests.project.public --write   after a change that is meant

`public.txt` has the promises of the last commit. Its diff shows users what changed.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import cffi

import sqs_codec as sqs
from sqs_codec.cli.main import COMMANDS, _parser
from sqs_codec.distill import Header
from sqs_codec.distill._header import EXTRAS
from tests.cprograms import declarations

ROOT = Path(__file__).parents[2]
SNAPSHOT = Path(__file__).with_suffix(".txt")
FUNCTION = ast.FunctionDef, ast.AsyncFunctionDef

Lines = Iterator[str]


def path_of(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def tree(module: str) -> ast.Module:
    return ast.parse(path_of(module).read_text("utf-8"))


def sources(pattern: str) -> dict[str, str]:
    """Return the texts of the package's files, by their paths."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
        for path in sorted((ROOT / "sqs_codec").rglob(pattern))
    }


def names() -> dict[str, list[str]]:
    """Return what each public module has in ``__all__``."""
    found = {}
    for path, text in sources("*.py").items():
        listed = re.search(r"^__all__ = (\[.*?\])", text, re.MULTILINE | re.DOTALL)
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if listed and "._" not in module:
            found[module] = ast.literal_eval(listed[1])
    return found


def definition(module: str, name: str) -> tuple[str, list[ast.stmt]]:
    """Return where a name is defined, and all its definitions there."""
    body = tree(module)
    own = [
        node
        for node in body.body
        if (isinstance(node, (*FUNCTION, ast.ClassDef)) and node.name == name)
        or (isinstance(node, ast.Assign) and name in map(ast.unparse, node.targets))
        or (isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name)
    ]
    if own:
        return module, own
    for node in ast.walk(body):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("sqs_"):
            for alias in node.names:
                if name == (alias.asname or alias.name) and node.module != module:
                    return definition(str(node.module), alias.name)
    return module, []


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    kinds = [word for word in map(ast.unparse, node.decorator_list) if "." not in word]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    said = f"{node.name}{returns}"
    if "property" not in kinds:
        said = f"{node.name}({ast.unparse(node.args)}){returns}"
    return " ".join([*kinds, said])


def members(module: str, kind: ast.ClassDef) -> Lines:
    """Yield fields, attributes and public methods, also those of private bases."""
    for base in kind.bases:
        where, found = definition(module, ast.unparse(base))
        if ast.unparse(base).startswith("_") and found:
            yield from members(where, found[0])
    for node in kind.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target)[0] != "_":
            yield ast.unparse(node)
        elif isinstance(node, FUNCTION):
            if node.name[0] != "_" or node.name == "__init__":
                yield signature(node)
            if node.name == "__init__":
                stored = (x for x in ast.walk(node) if isinstance(x, ast.Attribute))
                for one in stored:
                    if isinstance(one.ctx, ast.Store) and re.match("[a-z]", one.attr):
                        yield f"self.{one.attr}"


def api() -> Lines:
    methods, every = 0, list[str]()
    for module, listed in names().items():
        every.append(module)
        for name in sorted(listed):
            where, found = definition(module, name)
            for node in found:
                if isinstance(node, ast.ClassDef):
                    bases = ", ".join(map(ast.unparse, node.bases))
                    every.append(f"  class {name}({bases})")
                    inner = [*members(where, node)]
                    methods += sum("(" in x and x[:6] != "__init" for x in inner)
                    every += [f"    {line}" for line in inner]
                elif isinstance(node, FUNCTION):
                    every.append(f"  {signature(node)}")
                else:
                    every.append(f"  {ast.unparse(node)}")
            if not found:
                every.append(f"  {name}")
    yield f"{sum(map(len, names().values()))} names, {methods} public methods"
    yield from every


def abi() -> Lines:
    """Yield what sqs.h declares, with the layouts of this machine."""
    header = (ROOT / "csrc" / "sqs.h").read_text("utf-8")
    declared = declarations()
    ffi = cffi.FFI()
    ffi.cdef(declared)
    yield from re.findall(r"^#define SQS_(?!API)\w+ .*[^\\\s]$", header, re.MULTILINE)
    for found in re.findall(r"^[\w *]+\bsqs_\w+\([^;]*;", declared, re.MULTILINE):
        yield " ".join(found.split())
    for name in ffi.list_types()[0]:
        kind = ffi.typeof(name)
        if kind.kind == "enum":
            values = (f"{n} {x}" for x, n in sorted(kind.elements.items()))
            yield f"{name}: {', '.join(values)}"
        elif kind.kind == "struct" and kind.fields:
            fields = (f"{n} {f.type.cname} {f.offset}" for n, f in kind.fields)
            yield f"{name}, {ffi.sizeof(kind)} bytes: {', '.join(fields)}"


def commands() -> Lines:
    def options(parser: argparse.ArgumentParser) -> Lines:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name in action.choices:
                    yield from options(action.choices[name])
            elif not {"-h", "--version"} & {*action.option_strings}:
                what = "/".join(action.option_strings) or action.dest
                more = action.choices or action.metavar or ""
                many = f" {action.nargs}" if action.nargs else ""
                # A positional argument with * is required before Python 3.13.
                must = " (required)" if action.required and action.nargs != "*" else ""
                yield f"{parser.prog} {what} {more}{many}{must}".rstrip()

    for name, *_ in COMMANDS:
        yield from options(_parser([name]))
    every = "\n".join(sources("*.py").values())
    cli = "\n".join(sources("cli/*.py").values())
    codes = re.findall(r"(?:\breturn|exit\() ?(\d+)\b", cli)
    yield f"exit codes: {' '.join(sorted({'0', *codes}, key=int))}"
    told = re.findall(r'environ(?:\.\w+\(|\[)\s*"(\w+)"', every)
    yield f"environment: {' '.join(sorted({*told}))}"


def words(text: str) -> list[str]:
    """Return the names in a module that JSON may have."""
    found = list[ast.AST | None]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Dict):
            found += node.keys
        elif isinstance(node, ast.Subscript):
            found.append(node.slice)
        elif isinstance(node, ast.Call):
            found += node.args
    strings = (x.value for x in found if isinstance(x, ast.Constant))
    return sorted({s for s in strings if isinstance(s, str) and s.isidentifier()})


def protocols() -> Lines:
    for pattern in ("_metrics.py", "_request.py", "_reply.py", "_app.py", "app.py"):
        for path, text in sources(f"system/*/{pattern}").items():
            yield f"{path}: {' '.join(words(text))}"
    every = "\n".join(sources("system/**/*.py").values())
    paths = re.findall(r'"(/(?!proc)[\w./{}:]*|sqs\.[A-Z]\w+)"', every)
    yield f"paths: {' '.join(sorted({*paths}))}"
    for room in ("proxy", "teacher"):
        refused = import_module(f"sqs_codec.system.{room}._request").REFUSED
        each = (x if isinstance(x, str) else x[0] for x in refused)
        yield f"refused by {room}: {' '.join(each)}"
    for node in tree("sqs_codec.system.session._wire").body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            yield f"wire: {ast.unparse(node)}"
        if isinstance(node, ast.ClassDef):
            fields = (x for x in node.body if isinstance(x, ast.AnnAssign))
            yield f"wire: {node.name}({', '.join(map(ast.unparse, fields))})"


def columns() -> Lines:
    header = Header(sqs.Codec(1000, 50), extras=(*EXTRAS,))
    for field in header.schema():
        yield f"distill: {field.name} {field.type}"
    yield f"distill: metadata {' '.join(header.to_json())}"
    text = sources("system/small/_file.py")
    yield f"small draft: {' '.join(words(''.join(text.values())))}"


PARTS = {
    "Python": api,
    "C": abi,
    "Commands": commands,
    "HTTP and sessions": protocols,
    "Files": columns,
}


def snapshot() -> str:
    """Return all that is promised."""
    parts = (f"# {name}\n" + "\n".join(lines()) for name, lines in PARTS.items())
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv:
        SNAPSHOT.write_text(snapshot(), "utf-8")
    else:
        print(snapshot(), end="")
