"""Build and run the C programs of ``tests/c``, for two test files."""

import base64
import json
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqs_codec._base.errors import Status
from tests.reference import make_vectors
from tests.reference.sqs_reference import limits

ROOT = Path(__file__).parents[1]

# By their numbers in sqs.h and, for kinds, attack.h.
CODINGS = ["bitpack", "enumerative", "entropy"]
ARSENALS = [*CODINGS, "prior"]  # of hostile.c
KINDS = ["distribution", "round", "sequence"]

ISAS = ["scalar", "avx2", "avx512", "neon"]
LACKING = 77
"""The exit status of `identity` for an ISA that isn't there."""

IS_X86 = platform.machine() in ("x86_64", "AMD64")


def run(*command: str | Path, status: int = 0, quiet: bool = False) -> str:
    """Run a program that must end with a status, and return what it said."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said = f"{' '.join(map(str, command))}\n{done.stdout}"
    if not quiet:
        print(said)
    assert done.returncode == status, said
    return done.stdout


def declarations() -> str:
    """Return what sqs.h declares, without includes, macros and comments."""
    header = (ROOT / "csrc" / "sqs.h").read_text("utf-8")
    text = re.sub(r"^#include .*$", "", header, flags=re.MULTILINE)
    command = ["cc", "-E", "-P", "-x", "c", "-"]
    return subprocess.check_output(command, input=text, text=True)


def make(build: Path, *targets: str | Path, compiler: str = "cc") -> None:
    """Make targets of ``tests/c/Makefile``."""
    where = "-C", ROOT / "tests" / "c", f"BUILD={build}", f"CC={compiler}"
    run("make", "-j2", *where, *targets)


def checksum(said: str) -> str:
    """The checksum that a program prints."""
    found = re.search(r"checksum (\w+)$", said.strip())
    assert found, said
    return found[1]


def write_vectors(path: Path) -> int:
    """Write the golden vectors as vectors.c reads them; return how many there are."""
    lines = [" ".join(_flat(case)) for case in _vectors()]
    path.write_text("\n".join(lines))
    return len(lines)


def _flat(values: Iterable[Any]) -> Iterator[str]:
    """The words of a line; floats are hexadecimal, and so never rounded."""
    for value in values:
        if isinstance(value, (str, int)):
            yield str(value)
        elif isinstance(value, float):
            yield value.hex()
        else:
            yield from _flat(value)


def _load(name: str) -> list[Any]:
    path = make_vectors.VECTORS / f"{name}.json"
    cases: list[Any] = json.loads(path.read_text())["cases"]
    return cases


def _codec(case: Any, coding: str) -> tuple[int, int, int, str]:
    prior = "." + _prior(case) if "prior" in case else "."
    return case["vocab_size"], case["resolution"], CODINGS.index(coding), prior


def _prior(case: Any) -> str:
    return base64.b64decode(case["prior"]).hex()


def _drafts(pairs: list[Any], tokens: Sequence[int] = ()) -> list[Any]:
    return [len(pairs), *((len(ids), ids, counts) for ids, counts in pairs), *tokens]


def _packets(
    kind: str, case: Any, pairs: list[Any], tokens: Sequence[int] = ()
) -> Iterator[list[Any]]:
    """One case for each of the packets that the codings make of the same parts."""
    for coding, packet in case["packets"].items():
        parts = _drafts(pairs, tokens)
        if kind == "packet":
            parts = [parts[1], case["bits"][coding]]
        yield [kind, _codec(case, coding), *parts, "." + packet]


def _vectors() -> Iterator[list[Any]]:
    for case in _load("distributions"):
        pairs = [(case["token_ids"], case["counts"])]
        yield [
            *("logits", case["seed"], case["slope"]),
            *(case["vocab_size"], case["resolution"]),
            *(*limits(*case["keep"]), case["temperature"]),
            *(case["dropped_mass"], _drafts(pairs)[1]),
        ]
        yield from _packets("packet", case, pairs)
    for case in _load("shapes"):
        yield from _packets("packet", case, [make_vectors.shape_of(case)])
    for case in _load("rounds"):
        yield from _packets("round", case, make_vectors.pairs(case), case["tokens"])
    for case in _load("sequences"):
        drafts = _drafts([make_vectors.pairs(case)[i] for i in case["rows"]])
        yield ["sequence", _codec(case, "entropy"), *drafts, "." + case["packet"]]
    for case in _load("priors"):
        yield from _with_prior(case)
        yield ["prior", int(Status.OK), "." + _prior(case)]
    for case in _load("bad_priors"):
        yield ["prior", int(Status.BAD_PRIOR), "." + _prior(case)]
    for case in _load("limits"):
        given = make_vectors.formula_round(case["supports"], case["resolution"])
        codec = _codec(case, case["coding"])
        yield ["round", codec, *_drafts(*given), "." + case["packet"]]
        if "sequence" in case:
            yield ["sequence", codec, *_drafts(given[0]), "." + case["sequence"]]
    for case in _load("malformed"):
        yield _malformed(_codec(case, case["coding"]), case)
    for case in _load("unbiased"):
        number = int(case["number"], 16)
        yield [
            *("unbiased", case["seed"], case["slope"]),
            *(case["vocab_size"], case["resolution"], case["temperature"]),
            *(number >> 32, number & 0xFFFFFFFF),
            _drafts([(case["token_ids"], case["counts"])])[1],
        ]
    for case in _load("verify"):
        yield [
            *("verify", case["vocab_size"]),
            _drafts(make_vectors.pairs(case), case["tokens"]),
            *(case["target"], case["draws"]),
            *(case["accepted"], case["token"]),
        ]


def _malformed(codec: Any, case: Any) -> list[Any]:
    status = int(Status[case["rule"]])
    return ["malformed", codec, KINDS.index(case["kind"]), status, "." + case["packet"]]


def _with_prior(case: Any) -> Iterator[list[Any]]:
    codec = _codec(case, "entropy")
    for sent in case["packets"]:
        if "rule" in sent:
            yield _malformed(codec, sent)
            continue
        kind, known = sent["kind"], make_vectors.pairs(case)
        pairs = [known[i] for i in sent["distributions"]]
        parts = _drafts(pairs, sent.get("tokens", ()))
        if kind == "distribution":
            kind, parts = "packet", [parts[1], sent["bits"]]
        yield [kind, codec, *parts, "." + sent["packet"]]
