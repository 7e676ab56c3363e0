"""DistillKit's own trainer with a file, against our own loop."""

import math

import pytest
from distillkit.configuration import DistillationRunConfig
from distillkit.main import collate_packed_batch
from distillkit.signals import OfflineSignalSource
from distillkit.trainer import DistillationTrainer
from trl import SFTConfig

from sqs_codec.trainers.datasets import as_dataset
from sqs_codec.trainers.distillkit import StoredCompressor
from tests.trainers import toys
from tests.trainers.toys import V, gap, our_gradient


def run_config(**loss):
    kl = {"function": "kl", "weight": 1, "missing_probability_handling": "zero"}
    return DistillationRunConfig(
        model="",
        output_path="",
        sequence_length=16,
        dataset={"train_dataset": {"disk_path": ""}},
        teacher={"kind": "dataset"},
        loss_functions=[kl | {"temperature": 1.0} | loss],
    )


def arguments(folder, **change):
    options = {"per_device_train_batch_size": 6, "num_train_epochs": 1}
    return SFTConfig(output_dir=folder, **toys.ARGUMENTS | options | change)


class InOrder(DistillationTrainer, toys.InOrder):
    """DistillKit's, which takes texts in order."""


@pytest.fixture
def train(data, tmp_path):
    """DistillKit's losses and gradients in its steps."""

    def run(file=data, loss=(), change=None, collator=None, **args):
        dataset = as_dataset(file, cache_dir=str(tmp_path))
        trainer = InOrder(
            toys.toy_student(),
            run_config(**dict(loss)),
            OfflineSignalSource(StoredCompressor(file), V, preapplied_temperature=1.0),
            V,
            train_dataset=dataset.map(change) if change else dataset,
            data_collator=collator,
            args=arguments(tmp_path, **args),
            processing_class=toys.toy_tokenizer(),
        )
        return toys.train(trainer)

    return run


def test_the_how_to_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    data = toys.toy_file(tmp_path / "teacher.parquet", temperature=2.0)
    names = {
        "args": arguments(tmp_path),
        "config": run_config(temperature=2.0),
        "data": data,
        "student": toys.toy_student(),
        "tokenizer": toys.toy_tokenizer(),
    }
    exec(toys.example(2), names)
    _, gradients = toys.train(names["trainer"])
    # DistillKit multiplies its loss by the square of the temperature.
    assert gap(gradients[0], 4 * our_gradient(data, 2.0)[1]) < 1e-5


def test_texts_may_be_truncated(train, data):
    _, gradients = train(max_length=7)
    cut = [
        text._replace(
            tokens=text.tokens[:7],
            places=text.places[text.places < 7],
            rows=text.rows[: (text.places < 7).sum()],
        )
        for text in data
    ]
    assert gap(gradients[0], our_gradient(cut)[1]) < 1e-5


def test_texts_of_one_length_need_no_mask(train, data):
    """As where ``prepacked`` is set; here they have one length in a batch of one."""
    _, gradients = train(
        collator=collate_packed_batch,
        per_device_train_batch_size=1,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    assert gap(gradients[0], our_gradient([data[0]])[1]) < 1e-5


def test_wrong_settings_are_noticed(train, data, tmp_path):
    _, gradients = train(loss={"temperature": 2.0})
    assert gap(gradients[0], our_gradient(data)[1]) > 0.9
    uniform = {"missing_probability_handling": "symmetric_uniform"}
    assert math.isnan(train(loss=uniform)[0][0])
    with pytest.raises(ValueError, match=r"no distr.* position \d: .* labels of as_d"):
        train(change=lambda row: {"labels": [-100, *row["labels"][:-1]]})
    tailed = toys.toy_file(tmp_path / "tail.parquet", tail=True)
    with pytest.raises(ValueError, match=r"tail\.parquet has a tail, which"):
        StoredCompressor(tailed)
