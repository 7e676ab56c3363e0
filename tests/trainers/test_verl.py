"""verl's own loss of a teacher's likeliest tokens, with lists of ours."""

from types import SimpleNamespace

import pytest
import torch
import verl.trainer.distillation.fsdp.losses as theirs
from verl.workers.config.distillation import DistillationLossConfig

from sqs_codec import distill
from tests.trainers.toys import L, assert_ours, by_parts, gaps


def packed_loss(student, texts, **settings):
    """Return the loss of texts one after the other, as verl packs them."""
    config = DistillationLossConfig(loss_mode="forward_kl_topk", topk=L, **settings)
    logits = [
        student(torch.from_numpy(x.tokens.astype(int))[None]).logits[:, x.places]
        for x in texts
    ]
    lists = [map(torch.from_numpy, distill.top_lists(x.rows, L)) for x in texts]
    ids, logprobs = (
        torch.nested.as_nested_tensor([*x], layout=torch.jagged)
        for x in zip(*lists, strict=True)
    )
    losses = theirs.compute_forward_kl_topk(
        torch.cat(logits, 1),
        logprobs,
        ids,
        SimpleNamespace(distillation_loss=config),
        "thd",
    )["distillation_losses"]
    return losses.clamp(0, config.loss_max_clamp or torch.inf).mean()  # as a caller


def test_gradients_without_clamps_match_our_loss(labeled):
    no_clamps = {"loss_max_clamp": None, "log_prob_min_clamp": None}
    assert_ours(*by_parts(packed_loss, labeled, **no_clamps), labeled)


def test_clamps_change_the_gradients(labeled):
    _, gradients = by_parts(packed_loss, labeled)
    assert gaps(gradients, labeled).mean() == pytest.approx(0.04, abs=0.01)
