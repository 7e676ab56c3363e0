"""Record the inputs of llama.cpp."""

from typing import Any

import pytest

from sqs_codec.system.llama_cpp import _model


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return how many tokens, and how many that want logits, each call will have."""
    found: list[tuple[int, int]] = []
    decode = _model.llama.llama_decode

    def note(context: object, batch: Any) -> Any:
        found.append((batch.n_tokens, sum(batch.logits[: batch.n_tokens])))
        return decode(context, batch)

    monkeypatch.setattr(_model.llama, "llama_decode", note)
    return found
