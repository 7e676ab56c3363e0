"""Hugging Face's Trainer with a file, against our own loop."""

import math
import os
from datetime import timedelta

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from torch.utils.data import Subset
from transformers import AutoTokenizer, Trainer, TrainingArguments

from sqs_codec.trainers.hf import DistillationTrainer
from tests.trainers import toys
from tests.trainers.toys import TEXTS, V, gap, our_gradient, toy_student


class InOrder(DistillationTrainer, toys.InOrder):
    """Both, as is said of subclasses of one's own."""


@pytest.fixture
def trainer(data, tmp_path):
    def make(student=None, train=data, kind=InOrder, temperature=1.0, **change):
        args = {
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 3,
            "per_device_eval_batch_size": 5,  # and then one text
            "num_train_epochs": 1,
        }
        return kind(
            student or toy_student(),
            TrainingArguments(tmp_path, **toys.ARGUMENTS | args | change),
            train_dataset=train,
            eval_dataset=train,
            temperature=temperature,
        )

    return make


def test_a_hundred_roundings_have_our_gradients(trainer, data, hundred, monkeypatch):
    """For steps of three batches, with 4 to 10 distributions per text."""
    args = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": TEXTS}
    _, gradients = toys.train(trainer(train=hundred, **args))
    assert toys.gaps(gradients, hundred).max() < 1e-5
    # What it would be without num_items_in_batch: a mean of means.
    samples = Trainer.get_batch_samples
    monkeypatch.setattr(DistillationTrainer, "get_batch_samples", samples)
    _, gradients = toys.train(trainer(**args))
    assert toys.gaps(gradients, data).mean() == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_evaluation_weighs_distributions(trainer, data, temperature):
    student = toy_student()
    forward = student.forward
    # No num_items_in_batch: a Trainer concludes that the model doesn't weigh.
    student.forward = lambda input_ids, attention_mask: forward(
        input_ids, attention_mask
    )
    made = trainer(student, temperature=temperature)
    expected, gradient = our_gradient(data, temperature)
    found = made.evaluate(metric_key_prefix="held")
    assert found["held_loss"] == pytest.approx(expected, rel=1e-6)
    losses, gradients = toys.train(made)
    assert losses == [pytest.approx(expected, rel=1e-6)]
    assert gap(gradients[0], gradient) < 1e-5
    longest = max(len(text.tokens) for text in data)
    assert made.predict(data).predictions.shape == (6, longest, V)


def test_training_resumes_inside_an_epoch(trainer, tmp_path):
    args = {
        "kind": DistillationTrainer,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "dataloader_num_workers": 2,
        "save_strategy": "steps",
        "save_steps": 2,  # of three an epoch
    }
    whole, resumed = toy_student(), toy_student(1)
    trainer(whole, **args).train()
    trainer(resumed, **args).train(resume_from_checkpoint=tmp_path / "checkpoint-2")
    for ours, theirs in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_bfloat16_on_request(trainer, data):
    _, gradients = toys.train(trainer(bf16=True))
    assert 1e-4 < gap(gradients[0], our_gradient(data)[1]) < 0.1


def test_nan_is_not_hidden(trainer, data):
    """As transformers hides it in an evaluation, where some batches have none."""
    student = toy_student()
    only = set(data[5].tokens) - {x for i in range(5) for x in data[i].tokens}
    with torch.no_grad():
        student.get_input_embeddings().weight[int(only.pop())] = math.nan
    made = trainer(student)
    assert math.isnan(made.evaluate()["eval_loss"])
    assert toys.train(made)[1][0].isnan().any()


def test_two_processes_share_a_mean(trainer, data, tmp_path):
    """Of two texts each, with different numbers of distributions."""
    texts = Subset(data, range(4))
    loss, expected = our_gradient(texts)

    def work(rank):
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        os.environ |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "2")
        os.environ |= {"MASTER_ADDR": "unused", "MASTER_PORT": "0"}
        meet, patience = f"file://{tmp_path}/meet", timedelta(seconds=60)
        torch.distributed.init_process_group("gloo", meet, patience, 2, rank)
        for average in (True, False):
            made = trainer(
                train=texts,
                kind=DistillationTrainer,
                per_device_train_batch_size=1,
                per_device_eval_batch_size=2,
                gradient_accumulation_steps=2,
                average_tokens_across_devices=average,
                ddp_backend="gloo",
                ddp_find_unused_parameters=False,
            )
            assert (gap(toys.train(made)[1][0], expected) < 1e-5) == average
            assert made.evaluate()["eval_loss"] == pytest.approx(loss, rel=1e-6)

    torch.multiprocessing.start_processes(work, nprocs=2, start_method="fork")


def test_errors_name_the_requirement(trainer):
    with pytest.raises(TypeError, match="must be a Text of a file of load"):
        trainer(train=[{"input_ids": [1]}]).train()
    with pytest.raises(ValueError, match=r"student has 40 tok.* 64: .*_embeddings"):
        trainer(toy_student(vocab_size=40)).train()


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")  # without a GPU
def test_the_how_to_runs(data, tmp_path, monkeypatch):
    toy_student().save_pretrained(tmp_path / "toy")
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda name: None)
    monkeypatch.chdir(tmp_path)
    for name in ("teacher.parquet", "held-out.parquet"):
        (tmp_path / name).symlink_to(data.path)
    names = {}
    exec(toys.example(0).replace("Qwen/Qwen2.5-0.5B", "toy"), names)
    assert "eval_loss" in names["trainer"].state.log_history[0]
