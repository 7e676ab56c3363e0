"""Hugging Face's Trainer with a file, against our own loop."""

import math
import multiprocessing
import os
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from torch.utils.data import ConcatDataset, SequentialSampler, Subset
from transformers import AutoTokenizer, Trainer, TrainingArguments

from sqs_codec import distill
from sqs_codec.trainers.hf import DistillationTrainer
from tests.trainers.toys import (
    Gradients,
    V,
    dense_gradient,
    gap,
    our_gradient,
    toy_file,
    toy_student,
)


class InOrder(Trainer):
    """Takes texts as they come."""

    def _get_train_sampler(self, *_):
        return SequentialSampler(self.train_dataset)


class OrderedTrainer(DistillationTrainer, InOrder):
    """Both, as is said of subclasses of one's own."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_file(tmp_path_factory.mktemp("teacher") / "teacher.parquet")


@pytest.fixture
def trainer(data, tmp_path):
    def make(student=None, train=data, kind=OrderedTrainer, temperature=1.0, **change):
        args = {
            "output_dir": tmp_path,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 3,
            "per_device_eval_batch_size": 5,  # and then one text
            "num_train_epochs": 1,
            "learning_rate": 0.0,
            "max_grad_norm": 0,
            "save_strategy": "no",
            "disable_tqdm": True,
            "use_cpu": True,
        }
        made = kind(
            student or toy_student(),
            TrainingArguments(**args | change),
            train_dataset=train,
            eval_dataset=train,
            temperature=temperature,
            callbacks=[gradients := Gradients()],
        )
        made.gradients = gradients.seen
        return made

    return make


def test_hundred_roundings_have_our_gradients(trainer, tmp_path, monkeypatch):
    """Of steps of three batches, whose texts have 4 to 10 distributions each."""
    files = [toy_file(tmp_path / f"{i}.parquet", i) for i in range(100)]
    student = toy_student()
    expected = [our_gradient(student, file)[1] for file in files]
    made = trainer(student, ConcatDataset(files))
    made.train()
    assert max(map(gap, made.gradients, expected)) < 1e-5
    mean = torch.stack(made.gradients).mean(0)
    assert gap(mean, dense_gradient(student)[1]) < 0.02  # of one, some 0.1
    # What it would be without num_items_in_batch: a mean of means.
    samples = Trainer.get_batch_samples
    monkeypatch.setattr(DistillationTrainer, "get_batch_samples", samples)
    made = trainer(student, files[0])
    made.train()
    assert gap(made.gradients[0], expected[0]) > 0.04


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_evaluation_weighs_distributions(trainer, data, temperature):
    student = toy_student()
    made = trainer(student, temperature=temperature)
    expected, gradient = our_gradient(student, data, temperature)
    found = made.evaluate(metric_key_prefix="held")["held_loss"]
    assert found == pytest.approx(expected, rel=1e-6)
    parts = Subset(data, range(5)), Subset(data, [5])
    means = [our_gradient(student, part, temperature)[0] for part in parts]
    assert abs(sum(means) / 2 - expected) > 1e-3
    made.train()
    assert gap(made.gradients[0], gradient) < 1e-5
    assert made.state.log_history[0]["train_loss"] == pytest.approx(expected, rel=1e-6)
    longest = max(len(text.tokens) for text in data)
    assert made.predict(data).predictions.shape == (6, longest, V)


def test_goes_on_in_the_middle_of_an_epoch(trainer, tmp_path):
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


def test_computes_in_bfloat16_if_asked(trainer, data):
    student = toy_student()
    made = trainer(student, bf16=True)
    made.train()
    assert 1e-4 < gap(made.gradients[0], our_gradient(student, data)[1]) < 0.1


def test_nan_is_not_hidden(trainer, data):
    """As transformers hides it in an evaluation, where some batches have none."""
    student = toy_student()
    only = set(data[5].tokens) - {x for i in range(5) for x in data[i].tokens}
    with torch.no_grad():
        student.get_input_embeddings().weight[int(only.pop())] = math.nan
    made = trainer(student)
    assert math.isnan(made.evaluate()["eval_loss"])
    made.train()
    assert made.gradients[0].isnan().any()


def test_two_processes_share_a_mean(trainer, data, tmp_path):
    """Of two texts each, with different numbers of distributions."""
    texts = Subset(data, range(4))
    loss, expected = our_gradient(toy_student(), texts)
    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()

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
            made.train()
            right = gap(made.gradients[0], expected) < 1e-5
            found.put((average, right, made.evaluate()["eval_loss"]))

    processes = [context.Process(target=work, args=(rank,)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    results = [found.get() for _ in range(4)]
    assert sorted(average for average, *_ in results) == [False, False, True, True]
    for average, right, own in results:
        assert right == average
        assert own == pytest.approx(loss, rel=1e-6)


def test_compute_loss_alone_is_the_mean(trainer, data):
    student = toy_student()
    batch = distill.collate([*data])
    loss, outputs = trainer(student).compute_loss(student, batch, return_outputs=True)
    assert loss.item() == our_gradient(student, data)[0]
    assert torch.equal(outputs.logits, student(**batch).logits)


def test_a_small_vocabulary_is_explained(trainer):
    with pytest.raises(ValueError, match=r"student has 40 tokens .* 64: .*_embeddings"):
        trainer(toy_student(vocab_size=40)).train()


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")  # without a GPU
def test_the_how_to_runs(data, tmp_path, monkeypatch):
    toy_student().save_pretrained(tmp_path / "toy")
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda name: None)
    monkeypatch.chdir(tmp_path)
    for name in ("teacher.parquet", "held-out.parquet"):
        (tmp_path / name).symlink_to(data.path)
    text = (Path(__file__).parents[2] / "docs/howto/trainer.md").read_text()
    code = text.split("```")[1].removeprefix("python")
    names = {}
    exec(code.replace("Qwen/Qwen2.5-0.5B", "toy"), names)
    assert "eval_loss" in names["trainer"].state.log_history[0]
