"""Fixtures that all tests share."""

import os

# Before torch is imported: two threads on two busy cores mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from tests.backends import using
from tests.drafts import load_drafts
from tests.ports import reserved_port

with suppress(ModuleNotFoundError):  # environments of other programs have none
    from hypothesis import settings

    settings.register_profile("any speed", deadline=None)
    settings.load_profile("any speed")

# A shell has interrupts ignored in its background, as by "make test &".
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SLOW = [
    *("c/c", "system/hf/edge", "backend/identity", "project/packaging"),
    *("codec/hostile", "codec/size", "system/hf/cloud", "backend/reference"),
]
"""Test files that come first, so that all cores are done at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""

    def rank(item: pytest.Item) -> int:
        name = item.path.as_posix().replace("test_", "")
        found = (i for i, slow in enumerate(SLOW) if name.endswith(f"/{slow}.py"))
        return next(found, len(SLOW))

    items.sort(key=rank)


@pytest.fixture(scope="module", params=["native", "numba"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a module's tests once on each backend."""
    with using(request.param):
        yield request.param


@pytest.fixture
def port() -> Iterator[int]:
    """Reserve a port, for a server that is started again at the same place."""
    with reserved_port() as reserved:
        yield reserved


@pytest.fixture
def unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> str:
    """Have no Hugging Face hub, nor time to wait for it; return what is to be said."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", pytest.fail)
    return "the Hugging Face hub doesn't answer: "


@pytest.fixture(scope="session")
def real_rows(pytestconfig: pytest.Config) -> list[np.ndarray]:
    """Return logits of real drafts, float32 [49152]: whole rows, then rebuilt ones.

    With --quick it is every fifth.
    """
    drafts = load_drafts()
    rebuilt = [drafts.row(index) for index in range(0, len(drafts), 100)]
    rows = [*np.asarray(drafts.dense, np.float32), *rebuilt]
    return rows[:: 5 if pytestconfig.getoption("quick") else 1]


@pytest.fixture(scope="session")
def smollm2() -> SimpleNamespace:
    """Return SmolLM2 as `hf.load_model` does, and its draft without two layers."""
    import gguf

    from sqs_codec.system import hf
    from sqs_codec.system.hf._models import DROP_ORDER, without_layers

    # transformers parses the file three times, and lists its tensors for each module.
    names = "GGUFReader", "get_tensor_name_map"
    with mock.patch.dict(vars(gguf), {n: cache(getattr(gguf, n)) for n in names}):
        loaded = hf.load_model(None)
    return SimpleNamespace(
        **vars(loaded),
        target=loaded.model,
        draft=without_layers(loaded.model, DROP_ORDER[:2]),
        encode=hf.Tokenizer(loaded.tokenizer).encode_prompt,
    )
