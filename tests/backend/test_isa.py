"""The instruction set of the C core that is chosen, and what each must select.

tests/c/identity.c asserts that all give the same.
"""

import platform
import re
from pathlib import Path

import numpy as np
import pytest

from sqs_codec._backend import native
from sqs_codec._base.format import Coding
from tests.backend.test_backend import import_error, output

HERE = [name for name, isa in native.ISAS.items() if native.lib.sqs_find_isa(isa)]


CPUINFO = Path("/proc/cpuinfo")
NEEDS = {
    "avx2": {"avx2", "bmi1", "f16c", "fma", "popcnt"},
    "avx512": {"avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl"},
}


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not CPUINFO.exists(),
    reason="needs Linux on x86-64",
)
def test_instruction_sets_match_those_of_linux():
    """Linux leaves out what it doesn't save for each thread, as the core does."""
    flags = set(re.search(r"^flags\s*:(.*)$", CPUINFO.read_text(), re.M)[1].split())
    print("here:", HERE)
    more = [name for name, needs in NEEDS.items() if needs <= flags]
    assert ["scalar", *more] == HERE


@pytest.mark.parametrize("name", HERE)
def test_top_k_is_the_head_of_a_stable_sort(name):
    """For any ties and every k, also where the bound is found in another way."""
    rng = np.random.default_rng(1)
    vocab_size, isa = 9000, native.ISAS[name]
    core = native.Core(vocab_size, 1 << 16, Coding.ENTROPY, None, isa=isa)
    for spread in (0, 2, 30, 1e6):
        row = np.round(rng.normal(0, 1, vocab_size) * spread).astype(np.float32)
        row[rng.random(vocab_size) < 0.3] = -np.inf
        order = np.argsort(-row, kind="stable")[: np.isfinite(row).sum()]
        for k in (1, 2, 15, 64, 255, 256, 257, 1024, 1151, 1153, 5000, 9000):
            _, ids, *_ = core.quantize_logits(row, 1e9, (k, 0.0), False)
            assert ids.tolist() == np.sort(order[:k]).tolist()


@pytest.mark.parametrize("name", HERE)
def test_environment_chooses(name):
    code = "import sqs_codec as sqs; print(sqs.isa())"
    assert output(code, SQS_ISA=name, SQS_BACKEND="native") == name


def test_a_missing_instruction_set_is_named():
    message = import_error("import sqs_codec", SQS_ISA="mmx")
    assert f"SQS_ISA must be one of {HERE} here, not 'mmx'" in message


def test_numba_has_no_instruction_set():
    code = "import sqs_codec as sqs; print(sqs.isa())"
    assert output(code, SQS_BACKEND="numba") == "None"
