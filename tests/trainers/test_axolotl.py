"""axolotl's own collator and trainer, with the server of a stored teacher."""

import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from axolotl.integrations.kd.collator_online_teacher import OnlineTeacherCollator
from axolotl.integrations.kd.kernels import LigerFusedLinearKLTopKLogprobLoss
from axolotl.integrations.kd.trainer import AxolotlKDTrainer

from tests.trainers.toys import (
    STEPS,
    TEXTS,
    L,
    assert_ours,
    by_parts,
    toy_file,
    toy_tokenizer,
)

SQS = [sys.executable, "-c", "from _sqs_command import main; raise SystemExit(main())"]
ADDRESS = re.compile(r" at (http://127\.0\.0\.1:\d+), ")


@contextmanager
def serving(path, *options):
    """Serve a file on this machine; yield its address."""
    command = ["distill", "serve", str(path), "--listen", "127.0.0.1:0", *options]
    with subprocess.Popen([*SQS, *command], stderr=subprocess.PIPE, text=True) as run:
        try:
            match = next(filter(None, map(ADDRESS.search, run.stderr)), None)
            assert match, "sqs distill serve doesn't run"
            yield match[1]
        finally:
            run.send_signal(signal.SIGINT)
            run.communicate()


@pytest.fixture(scope="module")
def hundred(tmp_path_factory):
    """Return a file of texts that are answers as a whole, as none has a label less."""
    path = tmp_path_factory.mktemp("axolotl") / "teacher.parquet"
    return toy_file(path, count=STEPS * TEXTS, places=np.arange)


def axolotl_loss(student, texts, *, url, normalize=False):
    """Return the loss of a batch, by the collator and a method of the trainer."""
    collator = OnlineTeacherCollator(
        toy_tokenizer(),
        kd_online_server_base_url=url,
        kd_online_topk=L,
        kd_normalize_topk=normalize,
    )
    trainer = object.__new__(AxolotlKDTrainer)
    trainer._kd_loss_fn = LigerFusedLinearKLTopKLogprobLoss(
        *(0.0, 1.0, 1.0, 0.0),
        compute_ce_loss=False,
        compiled=False,
        normalize_topk=normalize,
    )
    rows = [x.tokens.tolist() for x in texts]
    batch = collator(
        [[{"input_ids": x, "attention_mask": [1] * len(x), "labels": x}] for x in rows]
    )
    count = sum(len(x) - 1 for x in rows)
    return trainer.compute_loss(student, batch, num_items_in_batch=count)


def test_gradients_match_our_loss(hundred, labeled):
    with serving(hundred.path, "--fill") as url:
        assert_ours(*by_parts(axolotl_loss, labeled, url=url), labeled)


@pytest.mark.parametrize("fill", [["--fill"], []])
def test_normalized_or_padded_lists_give_nan(hundred, labeled, fill):
    texts = labeled[:TEXTS]
    with serving(hundred.path, *fill) as url:
        losses, _ = by_parts(axolotl_loss, texts, url=url, normalize=bool(fill))
    assert np.isnan(losses).all()
