"""A file as a data set of Hugging Face."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("datasets")
pytest.importorskip("transformers")

import torch

from sqs_codec.trainers import datasets
from tests.trainers import toys


def test_columns_give_the_loss_of_rows(data, tmp_path):
    student, losses = toys.toy_student(), []
    found = datasets.as_dataset(data, toys.L, cache_dir=tmp_path).with_format("torch")
    for row in found:
        logits = student(row["input_ids"][None]).logits[0]
        listed = logits.log_softmax(-1).gather(-1, row["teacher_ids"])
        loss = -(row["teacher_logprobs"].exp() * listed).sum(-1)
        losses.append(loss[row["labels"] != -100])
        assert loss[row["labels"] == -100].eq(0).all()
    torch.cat(losses).mean().backward()
    assert toys.gap(toys.flat_gradient(student), toys.our_gradient(data)[1]) < 1e-5


def test_a_cache_depends_on_the_file_content(tmp_path, monkeypatch):
    path, rows = tmp_path / "teacher.parquet", []
    for seed in (0, 1, 0):
        data = toys.toy_file(path, seed)
        rows.append([*datasets.as_dataset(data, toys.L, cache_dir=tmp_path)])
        path.unlink()
        if seed:  # what is there isn't made again
            monkeypatch.setattr(datasets, "_rows", pytest.fail)
    assert rows[0] == rows[2] != rows[1]
