"""Fixtures that all tests share."""

import os

# Before torch is imported: two threads on two busy cores mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from tests.backends import BACKENDS, using
from tests.drafts import load_drafts
from tests.ports import reserved_port

with suppress(ModuleNotFoundError):  # environments of other programs have none
    from hypothesis import settings

    settings.register_profile("any speed", deadline=None)
    settings.register_profile("quick", deadline=None, max_examples=25)
    settings.load_profile("quick" if "--quick" in sys.argv else "any speed")

# A shell has interrupts ignored in its background, as by "make test &".
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", params=BACKENDS)
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


@contextmanager
def reading_gguf_once() -> Iterator[None]:
    """Have transformers parse a GGUF file once, and list its tensors once."""
    import gguf

    names = "GGUFReader", "get_tensor_name_map"
    with mock.patch.dict(vars(gguf), {n: cache(getattr(gguf, n)) for n in names}):
        yield


@pytest.fixture(scope="session")
def smollm2_tokenizer() -> Any:
    """Return SmolLM2's tokenizer without its model, which takes longer to load."""
    from transformers import AutoTokenizer

    from sqs_codec.system.hf._models import _smollm2_gguf

    path = _smollm2_gguf()
    with reading_gguf_once():
        return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


@pytest.fixture(scope="session")
def smollm2() -> SimpleNamespace:
    """Return SmolLM2 as `hf.load_model` does, and its draft without two layers."""
    from sqs_codec.system import hf
    from sqs_codec.system.hf._models import DROP_ORDER, without_layers

    with reading_gguf_once():
        loaded = hf.load_model(None)
    return SimpleNamespace(
        **vars(loaded),
        target=loaded.model,
        draft=without_layers(loaded.model, DROP_ORDER[:2]),
        encode=hf.Tokenizer(loaded.tokenizer).encode_prompt,
    )
