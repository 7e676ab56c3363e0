"""vLLM, imported once with the warnings of its imports."""

import warnings

import pytest

from sqs_codec.system.vllm._start import import_vllm

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import_vllm()


def pytest_configure(config: pytest.Config) -> None:
    """Don't mind what vLLM leaves open for others to close."""
    for kind in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning"):
        config.addinivalue_line("filterwarnings", f"ignore::{kind}")
