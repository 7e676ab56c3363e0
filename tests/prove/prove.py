"""Let CBMC prove what docs/proofs.md lists: `make prove`, or `make prove QUICK=1`.

    python tests/prove/prove.py [--quick] [--mutants] [WORD ...]

Words choose proofs by their names. With `--mutants` each proof must fail that a defect,
put into a copy of the sources, should break. Needs CBMC 6 (`apt-get install cbmc`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from threading import Timer

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"

Change = tuple[str, str, str]
"""A file of csrc, a piece that occurs there once, and its replacement."""

OPTIONS = (
    *("--unwinding-assertions", "--unsigned-overflow-check", "--conversion-check"),
    *("--pointer-overflow-check", "--no-malloc-may-fail", "--drop-unused-functions"),
)
"""In addition to CBMC 6's own checks: bounds, pointers, signed overflow, shifts and
divisions."""

WRAPS = {
    "code_count": "0 - up, a mask",
    "m_times_n": "the lower half of a product",
    "sqs_choose": "0 - second, a mask",
    "sqs_coder_finish": "the lower byte of a number",
    "sqs_exp2": "the fraction of a number",
    "sqs_log2": "the fraction of a number",
}
"""Where unsigned numbers are meant to lose what exceeds their width."""


TIME_OUT = "no time or memory left"
SECONDS = 600
MEMORY = 8 << 30
"""Bytes that a run of CBMC may take; it has taken a whole machine's."""


@dataclass(frozen=True)
class Proof:
    """A function of a harness; no assertion and no check in it may fail."""

    name: str
    """The harness, a colon, the function; docs/proofs.md describes its proof."""
    unwind: int
    """One more than any loop's most rounds; that it is enough is proved too."""
    quick: bool = False
    options: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    """Numbers scaled down, as large arrays can't be had."""


CODEC = ("../../csrc/codec.c",)
DIVIDE = ("../../csrc/entropy/divide.c",)
MODEL = ("../../csrc/entropy/model.c",)

SMALL_MEMORY = (
    ("entropy/model.h", "MEMORY_TOKENS 512u", "MEMORY_TOKENS 3u"),
    ("entropy/model.h", "MEMORY_SUPPORT 256u", "MEMORY_SUPPORT 2u"),
)

SMALL_ROUND = (
    *SMALL_MEMORY,
    ("sqs.h", "#define SQS_MAX_ROUND 256u", "#define SQS_MAX_ROUND 2u"),
    ("sqs.h", "SQS_MAX_SEQUENCE (1u << 16)", "SQS_MAX_SEQUENCE 2u"),
)

PROOFS = (
    Proof("bits:read_anywhere", 6, quick=True),
    Proof("bits:write_and_read", 7),
    Proof("coder:start", 8, quick=True),
    Proof("coder:narrow", 5, quick=True),
    Proof("coder:bit", 5),
    Proof("coder:end", 3, quick=True),
    Proof("fixed:log2_of", 3, options=MODEL),
    Proof("fixed:log2_small", 3, options=MODEL),
    Proof("fixed:exp2_of", 3, quick=True, options=MODEL),
    Proof("fixed:tables", 1026, quick=True, options=MODEL),
    Proof("fixed:reciprocals", 257, quick=True, options=DIVIDE),
    Proof("ids:buckets", 3, options=MODEL),
    Proof("ids:search", 33, quick=True, options=MODEL),
    Proof("counts:count", 8, options=MODEL),
    Proof("counts:partition", 7, options=(*MODEL, "--unwindset", "code_count.0:4")),
    Proof(
        "memory:learn",
        6,
        options=("--unwindset", "sqs_memory_learn.0:12"),
        changes=SMALL_MEMORY,
    ),
    Proof("packet:rounds", 9, quick=True, changes=SMALL_ROUND),
    Proof("packet:sequences", 9, quick=True, changes=SMALL_ROUND),
    Proof("fields:distribution", 9, options=CODEC),
)


@dataclass(frozen=True)
class Mutant:
    """A defect, and a proof that must find it."""

    what: str
    change: Change
    proof: str


MUTANTS = (
    Mutant(
        "the bit reader is a byte ahead",
        ("bits.h", "r->bytes[r->at / 8] >>", "r->bytes[r->at / 8 + 1] >>"),
        "bits:read_anywhere",
    ),
    Mutant(
        "four bytes are read where three are left",
        ("entropy/coder.h", "at <= c->size - SQS_CODER_MOST)", "at < c->size)"),
        "coder:narrow",
    ),
    Mutant(
        "a last byte may be too large",
        ("entropy/coder.h", "return c->code >> SQS_CODER_LEAST_BITS ?", "return 0 ?"),
        "coder:end",
    ),
    Mutant(
        "reciprocals are rounded down",
        ("entropy/divide.c", "(n) < 2 ? 1 : (n)) + 1)", "(n) < 2 ? 1 : (n)))"),
        "fixed:reciprocals",
    ),
    Mutant(
        "a bucket is off by one",
        ("entropy/ids.c", "2 * step_bits - SQS_BUCKETS_BEFORE", "2 * step_bits - 4"),
        "ids:buckets",
    ),
    Mutant(
        "memory may grow beyond its size",
        ("entropy/memory.c", "m.size > SQS_MEMORY_TOKENS;", "m.size > 4;"),
        "memory:learn",
    ),
    Mutant(
        "the room of a round isn't used up",
        ("entropy/packet.c", "    to->most -= k;\n", ""),
        "packet:rounds",
    ),
)


def changed(changes: tuple[Change, ...], folder: Path) -> None:
    """Copy csrc to a folder, with changes."""
    copytree(CSRC, folder)
    for name, old, new in changes:
        text = (folder / name).read_text()
        if text.count(old) != 1:
            raise SystemExit(f"{name} doesn't have this once: {old}")
        (folder / name).write_text(text.replace(old, new))


def check(proof: Proof, changes: tuple[Change, ...]) -> tuple[float, list[str]]:
    """Run CBMC; return its processor time, and what it refutes, or else TIME_OUT."""
    harness, function = proof.name.split(":")
    with tempfile.TemporaryDirectory() as work:
        tests = Path(work, "tests", "prove")
        copytree(HERE, tests)
        changed(proof.changes + changes, Path(work, "csrc"))
        command = (
            *("prlimit", f"--as={MEMORY}", "cbmc", f"{harness}.c"),
            *("--function", function, "--json-ui"),
            *("--unwind", str(proof.unwind), "-I../../csrc", "-I."),
            *(*OPTIONS, *proof.options),
        )
        run = subprocess.Popen(command, cwd=tests, stdout=subprocess.PIPE, text=True)
        kill = Timer(SECONDS, run.kill)
        kill.start()
        output = run.stdout.read()
        _, status, used = os.wait4(run.pid, 0)
        kill.cancel()
    run.returncode = os.waitstatus_to_exitcode(status)
    found = [TIME_OUT] if run.returncode < 0 else refuted(output)
    return used.ru_utime + used.ru_stime, found


def refuted(output: str) -> list[str]:
    """Return the checks that failed, and then those that are undecided for it."""
    try:
        said = json.loads(output)
        (results,) = (part["result"] for part in said if "result" in part)
    except ValueError:  # CBMC doesn't report its own or our mistakes as JSON
        raise SystemExit(output) from None
    failed = [
        (one["status"] != "FAILURE", f"{one['property']}: {one['description']}")
        for one in results
        if one["status"] != "SUCCESS" and not meant(one["property"])
    ]
    return [text for _, text in sorted(failed)]


def meant(name: str) -> bool:
    """Whether a check is one for the unsigned overflow of WRAPS."""
    function, check, _ = name.rsplit(".", 2)
    return check == "overflow" and function in WRAPS


def prove(proof: Proof, mutant: Mutant | None = None) -> bool:
    """Print the seconds, the result and the name; return whether it is as wanted."""
    seconds, found = check(proof, (mutant.change,) if mutant else ())
    if mutant is None:
        right, result = not found, "FAILED" if found else "proved"
    else:
        right, found = bool(found) and found != [TIME_OUT], [mutant.what, *found[:1]]
        result = "found" if right else "MISSED"
    line = f"{seconds:6.1f} s  {result}  {proof.name}"
    print(line, *(f"    {each}" for each in found), sep="\n", flush=True)
    return right


def main() -> int:
    parser = argparse.ArgumentParser(description="Let CBMC prove what it can.")
    parser.add_argument("--quick", action="store_true", help="only what is soon done")
    parser.add_argument("--mutants", action="store_true", help="defects must be found")
    parser.add_argument("words", nargs="*", help="parts of the names of proofs")
    args = parser.parse_args()
    proofs = [
        proof
        for proof in PROOFS
        if (proof.quick or not args.quick)
        and (not args.words or any(word in proof.name for word in args.words))
    ]
    jobs: list[tuple[Proof, Mutant | None]] = [(proof, None) for proof in proofs]
    if args.mutants:
        jobs = [(p, m) for p in proofs for m in MUTANTS if m.proof == p.name]
    with ThreadPoolExecutor(max_workers=2) as pool:
        done = list(pool.map(lambda job: prove(*job), jobs))
    if not done:
        raise SystemExit("there is no such proof")
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
