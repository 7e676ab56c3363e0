"""The codec inside transformers' own assisted generation."""

import numpy as np
import pytest
import torch
from transformers import LogitsProcessorList
from transformers.generation import utils as generation

import sqs_codec as sqs
from sqs_codec.hf import SparseLogitsProcessor
from tests.system.hf.test_edge import PROMPT, VOCAB_SIZE, plain, tiny


def assisted(target, assistant, processor, **options):
    """Output of transformers' assisted generation, and of this processor on its own."""
    alone = LogitsProcessorList([processor])
    assistant._get_logits_processor = lambda *_, **__: alone
    text = target.generate(
        PROMPT,
        attention_mask=torch.ones_like(PROMPT),
        assistant_model=assistant,
        max_new_tokens=24,
        **options,
    )
    return [int(token) for token in text[0, 3:]]


@pytest.mark.parametrize("keep", [sqs.TopK(3), sqs.Conformal(alpha=0.1, eta=0.1)])
def test_transformers_samples_and_verifies_the_sent_q(keep, monkeypatch):
    codec = sqs.Codec(VOCAB_SIZE, resolution=20)
    processor = SparseLogitsProcessor(codec, keep, temperature=0.7)
    rows = []
    inner = generation._speculative_sampling

    def spy(ids, logits, length, *rest):
        for token, row in zip(ids[0, -length:], logits[0], strict=True):
            rows.append((int(token), row.softmax(-1).numpy()))
        return inner(ids, logits, length, *rest)

    monkeypatch.setattr(generation, "_speculative_sampling", lambda *a, **_: spy(*a))
    target, assistant = tiny(0), tiny(1)
    torch.manual_seed(0)
    # The target's own truncations; the assistant mustn't apply them again.
    options = {"temperature": 0.7, "top_k": 5, "top_p": 0.9}
    assisted(target, assistant, processor, do_sample=True, **options)
    assert len(rows) == processor.drafted >= 24
    assert processor.bits == 8 * (processor.bits // 8) > 0
    for token, row in rows:
        assert row[token] > 0
        np.testing.assert_allclose(20 * row, np.round(20 * row), atol=1e-4)
        assert np.count_nonzero(row) < VOCAB_SIZE


def test_greedy_output_is_the_targets_and_costs_few_bits():
    target, assistant = tiny(0), tiny(1)
    processor = SparseLogitsProcessor(sqs.Codec(VOCAB_SIZE), sqs.TopK(8), temperature=0)
    text = assisted(target, assistant, processor, do_sample=False)
    assert text == plain(target, max_new_tokens=24)
    assert processor.bits <= 8 * processor.drafted


def test_a_learning_rule_forgets_voided_steps():
    codec = sqs.Codec(VOCAB_SIZE, resolution=20)
    keep = sqs.Conformal(alpha=0.3, eta=0.1)
    processor = SparseLogitsProcessor(codec, keep)
    states = {}
    row = torch.linspace(-1, 1, VOCAB_SIZE)[None]

    def draft(length):
        processor(torch.zeros(1, length, dtype=torch.long), row)
        states[length] = processor._state

    for length in (5, 6, 7, 8):
        draft(length)
    assert len(set(states.values())) == 4
    kept = states[6]
    # The first token of the round was accepted, the second one resampled.
    draft(7)
    rule = sqs.Threshold(kept)
    dropped = codec.quantize(row[0].numpy(), rule, dropped_mass=True).dropped_mass
    assert processor._state == keep.next(kept, dropped)
