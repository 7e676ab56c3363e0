"""TRL's own trainer with a file of ours, as the page about trainers has it."""

import pytest
from transformers import AutoTokenizer

from sqs_codec import distill
from sqs_codec.trainers.hf import DistillationTrainer
from tests.trainers import toys
from tests.trainers.toys import STEPS, TEXTS


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Return what makes the page's trainer for a file, with settings of its own."""
    monkeypatch.chdir(tmp_path)

    def make(data, **settings):
        import trl

        names = {
            "AutoTokenizer": AutoTokenizer,
            "DistillationTrainer": type("", (DistillationTrainer, toys.InOrder), {}),
            "data": data,
            "distill": distill,
            "name": "toy",
            "student": toys.toy_student(),
        }
        config = trl.SFTConfig
        own = toys.ARGUMENTS | settings
        monkeypatch.setattr(
            trl, "SFTConfig", lambda *args, **said: config(*args, **said | own)
        )
        tokenizer = toys.toy_tokenizer()
        monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda name: tokenizer)
        exec(toys.example(1), names)
        return names["trainer"]

    return make


@pytest.mark.smoke
def test_gradients_match_our_loss(made, hundred):
    args = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": TEXTS}
    losses, gradients = toys.train(made(hundred, **args, max_steps=STEPS))
    assert toys.gaps(gradients, hundred).max() < 1e-5
    expected, _ = toys.our_gradient([hundred[i] for i in range(TEXTS)])
    assert losses[0] == pytest.approx(expected, rel=1e-5)


def test_a_file_with_a_tail_teaches(made, tmp_path):
    lists = toys.toy_file(tmp_path / "lists.parquet", count=TEXTS, tail=True)
    args = {"per_device_train_batch_size": TEXTS, "max_steps": 1}
    _, gradients = toys.train(made(lists, **args))
    assert toys.gaps(gradients, lists).max() < 1e-5
