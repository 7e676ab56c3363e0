"""axolotl's own collator and trainer, with the server of a stored teacher."""

import os

import numpy as np
import pytest

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # read as it is imported

from axolotl.integrations.kd.collator_online_teacher import OnlineTeacherCollator
from axolotl.integrations.kd.kernels import LigerFusedLinearKLTopKLogprobLoss
from axolotl.integrations.kd.trainer import AxolotlKDTrainer

from benchmarks.distill.trl import serving
from tests.trainers.toys import (
    STEPS,
    TEXTS,
    L,
    flat_gradient,
    gap,
    lessons,
    toy_file,
    toy_student,
    toy_tokenizer,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("axolotl") / "teacher.parquet"
    return toy_file(path, count=STEPS * TEXTS, places=np.arange)


@pytest.fixture(scope="module")
def url(data):
    with serving(data.path, "--fill") as url:
        yield url


def train(url, texts, *, normalize=False, beta=0.0):
    """Return loss and gradient of a batch of texts."""
    student = toy_student()
    collator = OnlineTeacherCollator(
        toy_tokenizer(),
        kd_online_server_base_url=url,
        kd_online_topk=L,
        kd_normalize_topk=normalize,
    )
    rows = [x.tokens.tolist() for x in texts]
    features = [
        {"input_ids": x, "attention_mask": [1] * len(x), "labels": x} for x in rows
    ]
    trainer = object.__new__(AxolotlKDTrainer)
    trainer._kd_loss_fn = LigerFusedLinearKLTopKLogprobLoss(
        0.0,
        1.0,
        1.0,
        beta,
        compute_ce_loss=False,
        compiled=False,
        normalize_topk=normalize,
    )
    count = sum(len(x) - 1 for x in rows)
    batch = collator([[x] for x in features])
    loss = trainer.compute_loss(student, batch, num_items_in_batch=count)
    loss.backward()
    return loss.item(), flat_gradient(student)


def test_gradients_are_those_of_our_loss(data, url):
    for texts, loss, entropy, expected in lessons(data):
        found, gradient = train(url, texts)
        assert gap(gradient, expected) < 1e-5
        assert found + entropy == pytest.approx(loss, abs=1e-5)


def test_lists_that_it_normalizes_are_loud(data, url):
    texts, *_ = next(lessons(data))
    loss, _ = train(url, texts, normalize=True)
    assert np.isnan(loss)
