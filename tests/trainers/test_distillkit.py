"""DistillKit's own trainer with a file, against our own loop."""

import math
from pathlib import Path

import pytest

# With it all that it imports, whose warnings are its own.
pytest.importorskip("distillkit.main", reason="make test-trainers installs it")

from distillkit.configuration import DistillationRunConfig
from distillkit.main import collate_packed_batch
from distillkit.signals import OfflineSignalSource
from distillkit.trainer import DistillationTrainer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig

import sqs_codec as sqs
from sqs_codec import distill
from sqs_codec.trainers.datasets import as_dataset
from sqs_codec.trainers.distillkit import StoredCompressor
from tests.trainers.toys import (
    CODEC,
    Gradients,
    L,
    V,
    gap,
    our_gradient,
    toy_file,
    toy_student,
)

WORDS = Tokenizer(WordLevel({str(i): i for i in range(V)}))


def run_config(**loss):
    kl = {"function": "kl", "weight": 1, "missing_probability_handling": "zero"}
    return DistillationRunConfig(
        model="",
        output_path="",
        sequence_length=16,
        dataset={"train_dataset": {"disk_path": ""}},
        teacher={"kind": "dataset"},
        loss_functions=[kl | loss],
    )


def arguments(folder, **change):
    args = {
        "per_device_train_batch_size": 6,
        "learning_rate": 0.0,
        "max_grad_norm": 0,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
    }
    return SFTConfig(output_dir=folder, **args | change)


def tokenizer():
    return PreTrainedTokenizerFast(tokenizer_object=WORDS, pad_token="0")


@pytest.fixture
def gradients(tmp_path):
    """What DistillKit computes in its steps, one a file, and its first loss."""

    def run(files, loss=(), change=None, collator=None, **args):
        temperature = files[0].header.temperature
        source = OfflineSignalSource(None, V, preapplied_temperature=temperature)
        dataset = as_dataset(files[0], cache_dir=str(tmp_path))

        class Kept(Gradients):
            def on_step_begin(self, args, state, control, **kwargs):
                source.compressor = StoredCompressor(files[state.global_step])

        made = DistillationTrainer(
            toy_student(),
            run_config(**{"temperature": temperature, **dict(loss)}),
            source,
            V,
            train_dataset=dataset.map(change) if change else dataset,
            data_collator=collator,
            args=arguments(tmp_path, num_train_epochs=len(files), **args),
            processing_class=tokenizer(),
            callbacks=[kept := Kept()],
        )
        made.train()
        return kept.seen, made.state.log_history[0]["distillation_loss/1_kl"]

    return run


def test_the_how_to_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    data = toy_file(tmp_path / "teacher.parquet", temperature=2.0)
    names = {
        "args": arguments(tmp_path, num_train_epochs=1),
        "config": run_config(temperature=2.0),
        "data": data,
        "student": toy_student(),
        "tokenizer": tokenizer(),
    }
    text = (Path(__file__).parents[2] / "docs/howto/trainer.md").read_text()
    exec(text.split("```")[3].removeprefix("python"), names)
    names["trainer"].add_callback(kept := Gradients())
    names["trainer"].train()
    # DistillKit multiplies its loss by the square of the temperature.
    expected = 4 * our_gradient(toy_student(), data, 2.0)[1]
    assert gap(kept.seen[0], expected) < 1e-5


def test_hundred_roundings_have_our_gradients(gradients, tmp_path):
    files = [toy_file(tmp_path / f"{i}.parquet", i) for i in range(100)]
    expected = [our_gradient(toy_student(), file)[1] for file in files]
    found, _ = gradients(files)
    assert max(gap(a, b) for a, b in zip(found, expected, strict=True)) < 1e-5


def test_texts_may_be_cut(gradients, tmp_path):
    data = toy_file(tmp_path / "teacher.parquet")
    (found,), _ = gradients([data], max_length=7)
    cut = [
        text._replace(
            tokens=text.tokens[:7],
            places=text.places[text.places < 7],
            rows=text.rows[: (text.places < 7).sum()],
        )
        for text in data
    ]
    assert gap(found, our_gradient(toy_student(), cut)[1]) < 1e-5


def test_texts_of_one_length_need_no_mask(gradients, tmp_path):
    """As where ``prepacked`` is set; here they have one length in a batch of one."""
    data = toy_file(tmp_path / "teacher.parquet", count=1)
    (found,), _ = gradients(
        [data],
        collator=collate_packed_batch,
        per_device_train_batch_size=1,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    assert gap(found, our_gradient(toy_student(), data)[1]) < 1e-5


def test_settings_that_are_wrong(gradients, tmp_path):
    data = toy_file(tmp_path / "teacher.parquet")
    expected = our_gradient(toy_student(), data)[1]
    (warm,), _ = gradients([data], {"temperature": 2.0})
    assert gap(warm, expected) > 0.9
    missing = {"missing_probability_handling": "symmetric_uniform"}
    assert math.isnan(gradients([data], missing)[1])
    with pytest.raises(ValueError, match=r"labels\[\d, \d\] isn't -100, but the file"):
        gradients([data], change=lambda row: {"labels": [-100, *row["labels"][:-1]]})


def test_tails_are_refused(tmp_path):
    header = distill.Header(CODEC, tail=True)
    with distill.Writer(tmp_path / "tail.parquet", header) as writer:
        writer.write([1, 2], sqs.SparseRows([V - 1], [L], [0, 1], V, L), [0])
    with pytest.raises(ValueError, match=r"tail\.parquet has a tail, which"):
        StoredCompressor(distill.open(tmp_path / "tail.parquet"))
