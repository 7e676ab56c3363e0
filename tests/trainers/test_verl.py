"""verl's own loss of a teacher's likeliest tokens, with lists of ours."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import verl.trainer.distillation.fsdp.losses as theirs
from verl.workers.config.distillation import DistillationLossConfig

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

NO_CLAMPS = {"loss_max_clamp": None, "log_prob_min_clamp": None}


def nested(arrays):
    return torch.nested.as_nested_tensor(
        [*map(torch.from_numpy, arrays)], layout=torch.jagged
    )


def train(texts, settings):
    """Return the gradient of texts one after the other, as verl packs them."""
    student = toy_student()
    loss = DistillationLossConfig(loss_mode="forward_kl_topk", topk=L, **settings)
    config = SimpleNamespace(distillation_loss=loss)
    logits = [
        student(torch.from_numpy(x.tokens.astype(int))[None]).logits[:, x.places]
        for x in texts
    ]
    lists = [distill.top_lists(x.rows, L) for x in texts]
    ids, logprobs = map(nested, zip(*lists, strict=True))
    found = theirs.compute_forward_kl_topk(
        torch.cat(logits, 1), logprobs, ids, config, "thd"
    )["distillation_losses"]
    most = loss.loss_max_clamp or torch.inf
    found.clamp(0, most).mean().backward()  # as the caller clamps it
    return flat_gradient(student)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_file(
        tmp_path_factory.mktemp("verl") / "teacher.parquet", count=STEPS * TEXTS
    )


def test_without_clamps_gradients_are_those_of_our_loss(data):
    for texts, _, _, expected in lessons(data):
        assert gap(train(texts, NO_CLAMPS), expected) < 1e-5


def test_its_clamps_teach_something_else(data):
    gaps = [gap(train(texts, {}), expected) for texts, _, _, expected in lessons(data)]
    assert np.mean(gaps) == pytest.approx(0.04, abs=0.01)
