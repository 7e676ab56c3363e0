"""ms-swift's own GKD trainer, from a batch's tokens to the loss, with our plugin."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from swift.rl_core.data import GKDBatch
from swift.rlhf_trainers import gkd_trainer
from swift.rlhf_trainers.gkd_loss import DataSource
from swift.utils.utils import import_external_file

from sqs_codec import distill
from tests.trainers.toys import TEXTS, L, assert_ours, by_parts, gaps

THEIRS = gkd_trainer.gkd_loss
PLUGIN = Path(__file__).parents[2] / "sqs_codec" / "trainers" / "swift.py"
OURS = import_external_file(str(PLUGIN)).loss


def swift_loss(student, texts, *, path, moved=0, **settings):
    """Return the loss of a micro-batch, by the methods of the trainer."""
    trainer = object.__new__(gkd_trainer.GKDTrainer)  # its constructor wants a template
    trainer.__dict__ |= {
        "args": SimpleNamespace(use_logits_to_keep=True, sft_alpha=0, report_to=[]),
        "accelerator": SimpleNamespace(is_main_process=True),
        "template": SimpleNamespace(sequence_parallel_size=1),
        "teacher_configs": [SimpleNamespace(url=path)],
        "use_teacher_api": True,
        "use_liger_gkd_loss": False,
        "gkd_logits_topk": L,
        "temperature": 1.0,
        "beta": 0.0,
        **settings,
    }
    batch = distill.collate(texts)
    labels = torch.full_like(batch.tokens, -100)
    for b, text in enumerate(texts):
        own = text.places + 1 - moved
        labels[b, own] = batch.tokens[b, own]
    mask = batch.attention_mask.long()
    inputs = {"input_ids": batch.tokens, "attention_mask": mask, "labels": labels}
    chunk = {
        "model_inputs": dict(inputs),
        "teacher_model_inputs": dict(inputs),
        "gkd_batch": GKDBatch(DataSource.DATASET),
    }
    trainer._fetch_and_assemble_teacher_logprobs([chunk])
    return trainer.compute_loss(student, chunk)


def test_gradients_are_those_of_our_loss(hundred, labelled):
    assert_ours(*by_parts(swift_loss, labelled, path=hundred.path), labelled)


def test_its_own_loss_teaches_something_else(hundred, labelled, monkeypatch):
    monkeypatch.setattr(gkd_trainer, "gkd_loss", THEIRS)
    _, gradients = by_parts(swift_loss, labelled, path=hundred.path)
    assert gaps(gradients, labelled).mean() == pytest.approx(1.25, abs=0.1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"beta": 0.5}, "beta must be 0, got 0.5"),  # the default
        ({"temperature": 0.9}, "temperature must be 1 .* got 0.9"),  # likewise
        ({"gkd_logits_topk": 2}, "lists were to have 2"),
        ({"moved": 1}, "text . of a batch has no distribution at position"),
        ({}, "goes on with token .* at position 3"),  # of another text
    ],
)
def test_settings_that_are_wrong_are_errors(hundred, labelled, settings, words):
    texts = labelled[:TEXTS]
    if not settings:
        tokens = texts[0].tokens.copy()
        tokens[3] ^= 1
        texts[0] = texts[0]._replace(tokens=tokens)
    with pytest.raises((ValueError, distill.MissError), match=words):
        by_parts(swift_loss, texts, path=hundred.path, **settings)
