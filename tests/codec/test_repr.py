"""What public objects say of themselves: a line, and never an address or an array."""

import inspect

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec.system import edge, hf, serve, session

CODEC = sqs.Codec(1000)
Q = sqs.SparseDistribution([3, 40], [70, 30], 1000)
LONG = sqs.Round([Q] * 256, [3] * 256)
SETTING = session.Setting(CODEC, sqs.TopK(4))
SESSION = session.EdgeSession([SETTING], [1, 2], rng=np.random.default_rng(0))


class Draft(edge.Draft):
    """As much of a draft model as there has to be."""

    vocab_size = 1000

    def logits(self, tokens):
        """Rows that say nothing."""
        return np.zeros((1, 1000))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Q, "<SparseDistribution of 2 tokens, resolution 100, vocabulary 1000>"),
        (LONG, "<Round of 256 tokens, vocabulary 1000>"),
        (
            sqs.Drafter(CODEC, sqs.TopK(64), rng=np.random.default_rng(0)),
            f"<Drafter of {CODEC}, TopK(k=64): 0 of at most 8 tokens drafted>",
        ),
        (edge.FixedPlan(4), "<FixedPlan: draft 4: as asked>"),
        (SESSION, "<EdgeSession of 2 tokens, vocabulary 1000, round 0, greeting>"),
        (Draft(), "<Draft, vocabulary 1000>"),
        (hf.Tokenizer(None), "<Tokenizer, fingerprint none>"),
        (edge.Edge(Draft()), "<Edge of <Draft, vocabulary 1000>>"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_repr(value, said):
    assert repr(value) == said


def public_classes():
    found = [
        getattr(module, name)
        for module in (sqs, edge, hf, serve, session)
        for name in module.__all__
    ]
    return [
        kind
        for kind in found
        if inspect.isclass(kind)
        and not issubclass(kind, BaseException)
        and not getattr(kind, "_is_protocol", False)
        and kind is not sqs.Keep  # abstract
    ]


@pytest.mark.parametrize("kind", public_classes(), ids=lambda kind: kind.__qualname__)
def test_every_public_class_has_a_repr(kind):
    assert kind.__repr__ is not object.__repr__
