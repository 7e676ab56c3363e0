"""An edge that knows no framework: its draft is a few lines of numpy."""

import numpy as np
import pytest

from sqs_codec import vocabulary_fingerprint
from sqs_codec.system._base.tokens import common_length
from sqs_codec.system.edge import Edge, FixedPlan, Hints
from sqs_codec.system.edge._edge import MOST_PLANNERS
from sqs_codec.system.edge._reading import FIRST
from sqs_codec.system.session import LocalLink, Sampling
from tests.backend.test_backend import output
from tests.system.serve.kit import GREEDY, VOCAB, Draft, Toy, greedy

TOKENIZER = vocabulary_fingerprint({f"word{i}": i for i in range(VOCAB)})


class ToyDraft(Draft):
    """A draft that writes all rows to the same place."""

    vocab_size = VOCAB
    stop = frozenset({VOCAB - 1})
    fingerprint = TOKENIZER

    def __init__(self):
        self._row = np.empty((1, VOCAB), np.float32)

    def logits(self, tokens):
        """Logits after a text."""
        self._row[:] = super().logits(tokens)
        return self._row


def test_text_is_the_targets_own():
    draft = ToyDraft()
    edge = Edge(draft, planner=FixedPlan(4))
    link = LocalLink(Toy(), tokenizer=TOKENIZER)
    steps = edge.generate([1, 2], link, max_tokens=30, sampling=GREEDY, stop=[])
    assert [1, 2, *(t for step in steps for t in step.tokens)] == greedy([1, 2], 30)
    assert 0 < edge.metrics.accepted < edge.metrics.drafted
    assert edge.metrics.resampled > 0


def test_stop_tokens_are_the_drafts():
    text = greedy([1, 2], 30)
    draft = ToyDraft()
    draft.stop = frozenset(text[9:10])
    edge = Edge(draft, planner=FixedPlan(4))
    link = LocalLink(Toy(), tokenizer=TOKENIZER)
    steps = edge.generate([1, 2], link, max_tokens=30, sampling=GREEDY)
    found = [1, 2, *(token for step in steps for token in step.tokens)]
    assert found == text[: text.index(text[9], 2) + 1]


def test_a_text_that_goes_on_keeps_what_the_draft_has_cached():
    """A part of a long prompt never ends before what the last text was read to."""
    lengths = []

    class Cached(ToyDraft):
        def logits(self, tokens):
            lengths.append(len(tokens))
            return super().logits(tokens)

    edge = Edge(Cached(), planner=FixedPlan(hints=Hints()))
    texts = []
    for prompt in ([1, 2] * 100, [1, 2] * 300):
        lengths.clear()
        link = LocalLink(Toy(), tokenizer=TOKENIZER)
        list(edge.generate(prompt, link, max_tokens=3, sampling=GREEDY, stop=[]))
        texts.append([*lengths])
        edge = edge.planned(FixedPlan(hints=Hints(positions=4)))
    assert min(texts[0]) == FIRST
    assert max(texts[0]) < min(texts[1]) < 600


def test_what_was_learned_for_other_samplings_is_forgotten():
    """Or whoever asks for many temperatures would fill the memory."""
    edge, link = Edge(ToyDraft()), LocalLink(Toy(), tokenizer=TOKENIZER)
    for i in range(MOST_PLANNERS + 3):
        list(edge.generate([1], link, max_tokens=1, sampling=Sampling(0.1 * i)))
        link = LocalLink(Toy(), tokenizer=TOKENIZER)
    assert len(edge._planners) == MOST_PLANNERS


def test_fingerprint_depends_on_ids_alone():
    one = {"a": 0, "b": 1}
    assert vocabulary_fingerprint(one) == vocabulary_fingerprint({"b": 1, "a": 0})
    assert vocabulary_fingerprint(one) != vocabulary_fingerprint({"a": 1, "b": 0})


@pytest.mark.parametrize(
    ("one", "other", "length"), [([], [1], 0), ([1, 2], [1, 3], 1), ([1], [1, 2], 1)]
)
def test_common_length(one, other, length):
    assert common_length(one, other) == length
    assert common_length(other, one) == length


def test_an_edge_and_its_links_import_no_framework():
    code = """
import sys, sqs_codec.system.edge, sqs_codec.system.serve._connect
import sqs_codec.system.serve._grpc.link
import sqs_codec.system.serve._datagram.link, sqs_codec.cli.generate
print({"torch", "transformers", "numba", "prometheus_client"} & {*sys.modules})
"""
    assert output(code).strip() == "set()"
