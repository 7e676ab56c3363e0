"""ms-swift's own GKD trainer, from a batch's tokens to the loss, with our plugin."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # read as it is imported

from swift.rl_core.data import GKDBatch
from swift.rlhf_trainers import gkd_trainer
from swift.rlhf_trainers.gkd_loss import DataSource
from swift.utils.utils import import_external_file

from sqs_codec import distill
from tests.trainers.toys import (
    STEPS,
    TEXTS,
    L,
    flat_gradient,
    gap,
    lessons,
    toy_file,
    toy_student,
)

THEIRS = gkd_trainer.gkd_loss
PLUGIN = Path(__file__).parents[2] / "sqs_codec" / "trainers" / "swift.py"
OURS = import_external_file(str(PLUGIN)).loss


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("swift") / "teacher.parquet"
    toy_file(path, count=STEPS * TEXTS)
    return str(path)


def train(path, texts, moved=0, **settings):
    """Return what a micro-batch of texts gives, by the methods of the trainer."""
    student = toy_student()
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
    loss = trainer.compute_loss(student, chunk)
    loss.backward()
    return loss.item(), flat_gradient(student)


def test_gradients_are_those_of_our_loss(path):
    for texts, loss, entropy, expected in lessons(distill.open(path)):
        found, gradient = train(path, texts)
        assert gap(gradient, expected) < 1e-5
        assert found + entropy == pytest.approx(loss, abs=1e-5)


def test_its_own_loss_teaches_something_else(path, monkeypatch):
    monkeypatch.setattr(gkd_trainer, "gkd_loss", THEIRS)
    gaps = [
        gap(train(path, texts)[1], expected)
        for texts, _, _, expected in lessons(distill.open(path))
    ]
    assert np.mean(gaps) == pytest.approx(1.25, abs=0.1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"beta": 0.5}, "beta must be 0, got 0.5"),  # the default
        ({"temperature": 0.9}, "temperature must be 1 .* got 0.9"),  # likewise
        ({"gkd_logits_topk": 2}, "lists were to have 2"),
        ({"moved": 1}, "text . of a batch has no distribution at position"),
    ],
)
def test_settings_that_are_wrong_are_errors(path, settings, words):
    texts, *_ = next(lessons(distill.open(path)))
    with pytest.raises(ValueError, match=words):
        train(path, texts, **settings)


def test_another_text_is_an_error(path):
    (text, *_), *_ = next(lessons(distill.open(path)))
    tokens = text.tokens.copy()
    tokens[3] ^= 1
    with pytest.raises(distill.MissError, match="at position 3"):
        train(path, [text._replace(tokens=tokens)])
