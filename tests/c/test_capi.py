"""The C core as a shared library, and its functions for callers without Python.

The C functions have to agree with Python: tokens drawn, thresholds
learnt, heads of streams, and verdicts on logits.
"""

import re
from typing import Any, NamedTuple

import cffi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import sqs_codec as sqs
from tests.cprograms import ROOT, declarations, run
from tests.kit import SEEDS, Given, random_distribution
from tests.reference import sqs_reference as reference

CSRC = ROOT / "csrc"

DTYPES = {"f16": 0, "f32": 1, "f64": 2, "bf16": 3}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Build the core as a shared library, as sqs.h describes."""
    path = tmp_path_factory.mktemp("shared") / "libsqs.so"
    flags = "-std=c11", "-O0", "-shared", "-fPIC", "-fvisibility=hidden"
    defined = "-DSQS_SHARED", "-DSQS_BUILD"
    sources = sorted(CSRC.rglob("*.c"))
    run("cc", *flags, *defined, "-I", CSRC, *sources, "-o", path)
    return path


class Core(NamedTuple):
    """The library, loaded."""

    ffi: cffi.FFI
    lib: Any


@pytest.fixture(scope="module")
def core(library):
    """Give the library as a program without a compiler has it."""
    ffi = cffi.FFI()
    ffi.cdef(declarations())
    return Core(ffi, ffi.dlopen(str(library)))


def test_exports_exactly_the_declared_functions(library):
    said = run("nm", "-D", "--defined-only", library)
    text = (CSRC / "sqs.h").read_text()
    public = re.findall(r"^SQS_API\n(?:[^;(]|\n)*?(sqs_\w+)\(", text, re.M)
    declared = re.findall(r"\b(sqs_\w+)\(", declarations())
    assert sorted(public) == sorted(declared)  # none lacks SQS_API
    assert {line.split()[-1] for line in said.splitlines()} == set(public)


def test_version_is_the_packages(core):
    number = core.lib.sqs_version_number()
    parts = number // 10000, number // 100 % 100, number % 100
    assert ".".join(map(str, parts)) == sqs.__version__


def pointer(core, kind, array):
    """Return an array as C takes it; it has to outlive the pointer."""
    assert array.flags.c_contiguous
    return core.ffi.cast(f"{kind} *", core.ffi.from_buffer(array))


@given(SEEDS, st.integers(1, 300), st.data())
def test_draws_the_same_token_as_python(core, seed, resolution, data):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, min(resolution, 40) + 1))
    q = random_distribution(rng, 50, resolution, k)
    number = data.draw(st.integers(0, resolution - 1))
    counts = pointer(core, "uint32_t", q.counts)
    position = core.lib.sqs_sample(counts, k, number)
    assert int(q.token_ids[position]) == q.sample(Given([number]))


SHARES = st.floats(0, 1)


@given(SHARES, st.floats(0, 1, exclude_min=True), st.floats(-9, 1), st.lists(SHARES))
def test_learns_the_same_threshold_as_python(core, alpha, eta, beta, masses):
    """To the bit; and it returns to where it was."""
    rule = sqs.Conformal(alpha, eta, beta)
    theirs = rule.start()
    keep = core.ffi.new("sqs_keep *", (1, beta))
    for mass in masses:
        state = keep.least, theirs
        assert core.lib.sqs_conformal_update(keep, alpha, eta, mass) == 0
        theirs = rule.next(theirs, mass)
        assert keep.least.hex() == theirs.hex()
        if mass > 0.5:
            keep.least, theirs = state


# Verdicts on logits.


class Round(NamedTuple):
    """A ``sqs_sparse_rows``, the positions, and the memory that they lie in."""

    c: Any
    positions: Any
    arrays: tuple[NDArray[np.uint32], ...]


def as_c(core, round_):
    """Return a round as C takes it; None is one of length 0."""
    arrays = tuple(
        np.array(a, np.uint32) for a in (round_.arrays if round_ else [[0]] * 4)
    )
    *pointers, positions = [pointer(core, "uint32_t", a) for a in arrays]
    length = len(round_) if round_ else 0
    c = core.ffi.new("sqs_sparse_rows *", (length, *pointers))
    return Round(c, positions, arrays)


def of_type(values, dtype):
    """Return values as C takes them, and as the numbers that they then are."""
    if dtype == "bf16":
        halves = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return halves, (halves.astype(np.uint32) << 16).view(np.float32)
    kept = values.astype({"f16": np.float16, "f32": np.float32, "f64": float}[dtype])
    return kept, kept.astype(np.float32) if dtype == "f16" else kept


def verify_logits(core, round_, rows, dtype, temperature, draws, isa=0):
    """Return the status, how many rows are fit for use, and the verdict."""
    n, width = rows.shape
    about = core.ffi.from_buffer(rows), DTYPES[dtype], isa, n, width, width
    target = core.ffi.new("sqs_rows *", about)
    scratch = core.ffi.new("double[]", core.lib.sqs_verify_scratch(target) // 8)
    verdict = core.ffi.new("sqs_verdict *")
    given = target, temperature, list(draws), scratch, verdict
    status = core.lib.sqs_verify_logits(round_.c, round_.positions, *given)
    return status, verdict.done, sqs.Verdict(verdict.accepted, verdict.token)


def probabilities(row, temperature):
    """Return the softmax as sqs.h defines it."""
    if temperature == 0:
        return np.arange(row.size) == row.argmax()
    weights = np.array(reference.unnormalised_softmax(row, temperature))
    return weights / weights.sum()


def isas(core):
    return [isa for isa in range(1, 5) if core.lib.sqs_find_isa(isa) == isa]


@settings(max_examples=150)
@given(
    SEEDS,
    st.sampled_from([2, 3, 255, 256, 257, 1000, 3000]),
    st.integers(0, 4),
    st.sampled_from([*DTYPES]),
    st.sampled_from([0, 1e-300, 0.3, 0.7, 1.0, 2.0, 1e40]),
)
def test_logits_and_probabilities_get_the_same_verdicts(
    core, seed, vocab_size, length, dtype, temperature
):
    """With every instruction set, as `verify_rounds` on the same softmax."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, rng.choice([0.5, 3, 30]), (length + 1, vocab_size))
    if rng.random() < 0.5:
        logits = np.round(logits).clip(None, 1)  # many of the largest
    logits[:, 1:][
        rng.random((length + 1, vocab_size - 1)) < rng.choice([0, 0.9])
    ] = -np.inf
    rows, numbers = of_type(logits, dtype)
    codec = sqs.Codec(vocab_size, int(rng.choice([1, 10, 100])))
    drafts = [
        codec.quantize(row + rng.normal(0, 0.3, vocab_size), sqs.TopK(8))
        for row in logits[:-1]
    ]
    round_ = sqs.Round(drafts, [q.sample(rng) for q in drafts]) if drafts else None
    draws = rng.random(length + 1)
    probs = np.array([probabilities(row, temperature) for row in numbers], float)
    (expected,) = sqs.verify_rounds([round_], probs, draws)
    for isa in isas(core):
        found = verify_logits(
            core, as_c(core, round_), rows, dtype, temperature, draws.tolist(), isa
        )
        assert found == (0, length + 1, expected)
