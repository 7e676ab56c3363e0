"""Build and run the C programs of ``tests/c``, for two test files."""

import base64
import itertools
import json
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator
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


def _distribution(q: Any) -> tuple[int, list[int], list[int]]:
    return len(q["token_ids"]), q["token_ids"], q["counts"]


def _packets(kind: str, case: Any, *parts: Any) -> Iterator[list[Any]]:
    """One case for each of the packets that the codings make of the same parts."""
    for coding, packet in case["packets"].items():
        bits = [case["bits"][coding]] if kind == "packet" else []
        yield [kind, _codec(case, coding), *parts, *bits, "." + packet]


def _drafts(distributions: list[Any], tokens: list[int]) -> tuple[Any, ...]:
    return len(distributions), [_distribution(q) for q in distributions], tokens


def _sequence(case: Any, rows: list[int], packet: str) -> list[Any]:
    drafts = _drafts([case["distributions"][i] for i in rows], [])
    return ["sequence", _codec(case, "entropy"), *drafts, "." + packet]


def _vectors() -> Iterator[list[Any]]:
    for case in _load("distributions"):
        yield [
            *("logits", case["seed"], case["slope"]),
            *(case["vocab_size"], case["resolution"]),
            *(*limits(*case["keep"]), case["temperature"]),
            *(case["dropped_mass"], _distribution(case)),
        ]
        yield from _packets("packet", case, _distribution(case))
    for case in _load("shapes"):
        yield from _packets("packet", case, _shape(**case))
    for case in _load("rounds"):
        drafts = _drafts(case["distributions"], case["tokens"])
        yield from _packets("round", case, drafts)
    for case in _load("sequences"):
        yield _sequence(case, case["rows"], case["packet"])
    for case in _load("priors"):
        yield from _with_prior(case)
        yield ["prior", int(Status.OK), "." + _prior(case)]
    for case in _load("bad_priors"):
        yield ["prior", int(Status.BAD_PRIOR), "." + _prior(case)]
    for case in _load("limits"):
        pairs, tokens = make_vectors.formula_round(case["supports"], case["resolution"])
        drafts = len(pairs), [(len(q[0]), q) for q in pairs], tokens
        codec = _codec(case, case["coding"])
        yield ["round", codec, drafts, "." + case["packet"]]
        if "sequence" in case:
            yield ["sequence", codec, *drafts[:2], "." + case["sequence"]]
    for case in _load("malformed"):
        codec, kind = _codec(case, case["coding"]), KINDS.index(case["kind"])
        status = int(Status[case["rule"]])
        yield ["malformed", codec, kind, status, "." + case["packet"]]
    for case in _load("unbiased"):
        number = int(case["number"], 16)
        yield [
            *("unbiased", case["seed"], case["slope"]),
            *(case["vocab_size"], case["resolution"], case["temperature"]),
            *(number >> 32, number & 0xFFFFFFFF, _distribution(case)),
        ]
    for case in _load("verify"):
        yield [
            *("verify", case["vocab_size"]),
            _drafts(case["distributions"], case["tokens"]),
            *(case["target"], case["draws"]),
            *(case["accepted"], case["token"]),
        ]


def _with_prior(case: Any) -> Iterator[list[Any]]:
    codec = _codec(case, "entropy")
    for sent in case["packets"]:
        kind, packet = sent["kind"], sent["packet"]
        numbers = sent.get("distributions", [])
        distributions = [case["distributions"][i] for i in numbers]
        if "rule" in sent:
            status = int(Status[sent["rule"]])
            yield ["malformed", codec, KINDS.index(kind), status, "." + packet]
        elif kind == "distribution":
            drafted = _distribution(distributions[0])
            yield ["packet", codec, drafted, sent["bits"], "." + packet]
        elif kind == "sequence":
            yield _sequence(case, numbers, packet)
        else:
            drafts = _drafts(distributions, sent["tokens"])
            yield ["round", codec, drafts, "." + packet]


def _shape(
    seed: int, vocab_size: int, resolution: int, k: int, last_ids: bool, **_: Any
) -> tuple[int, list[int], list[int]]:
    cuts = make_vectors.formula_set(k - 1, resolution - 1, seed)
    ends = [0, *(cut + 1 for cut in cuts), resolution]
    counts = [end - start for start, end in itertools.pairwise(ends)]
    if last_ids:
        return k, [*range(vocab_size - k, vocab_size)], counts
    return k, make_vectors.formula_set(k, vocab_size, seed), counts
