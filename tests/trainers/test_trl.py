"""TRL's own trainer of a teacher on a server, with a file of ours."""

import importlib
import os

import numpy as np
import pytest

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # read as it is imported

import trl
from trl.experimental.server_distillation import ServerDistillationConfig
from trl.generation import vllm_client

import sqs_codec.trainers.trl as ours
from benchmarks.distill.trl import serving
from sqs_codec import distill
from sqs_codec.trainers.trl import StoredDistillationTrainer, TeacherClient, as_dataset
from tests.trainers.toys import (
    STEPS,
    TEXTS,
    Gradients,
    L,
    gap,
    lessons,
    toy_file,
    toy_student,
    toy_tokenizer,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("trl") / "teacher.parquet"
    return toy_file(path, count=STEPS * TEXTS)


def run(folder, data, *, steps=1, url=None, change=(), **settings):
    """Train without learning; return the losses and gradients of the steps."""
    options = {
        "teacher_model_server_url": url or "none",
        "beta": 0.0,
        "loss_top_k": L,
        "per_device_train_batch_size": 2 * TEXTS,  # each text has two completions
        "max_steps": steps,
        "shuffle_dataset": False,
        "learning_rate": 0.0,
        "max_grad_norm": 0.0,
        "bf16": False,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
    }
    kept = Gradients()
    trainer = StoredDistillationTrainer(
        toy_student(),
        ServerDistillationConfig(str(folder), **options | settings),
        teacher_client=None if url else TeacherClient(data),
        train_dataset=as_dataset(data),
        processing_class=toy_tokenizer(),
        callbacks=[kept],
    )
    for name, value in change:
        setattr(trainer, name, value)
    trainer.train()
    return [x["loss"] for x in trainer.state.log_history if "loss" in x], kept.seen


@pytest.fixture(params=["file", pytest.param("server", marks=pytest.mark.smoke)])
def url(request, data, monkeypatch):
    """Where the teacher is, if it is elsewhere."""
    if request.param == "file":
        yield None
    else:
        # TRL's client refuses to be without vLLM, of which it uses nothing here.
        monkeypatch.setattr(vllm_client, "is_vllm_available", lambda: True)
        with serving(data.path) as url:
            yield url


def test_gradients_are_those_of_our_loss(tmp_path, data, url):
    losses, gradients = run(tmp_path, data, steps=STEPS, url=url)
    assert len(losses) == len(gradients) == STEPS
    for i, (_, loss, entropy, expected) in enumerate(lessons(data)):
        assert gap(gradients[i], expected) < 1e-5
        assert losses[i] + entropy == pytest.approx(loss, abs=1e-5)


def test_without_its_tail_the_student_learns_something_else(tmp_path, data):
    without = [("loss_add_tail", False)]
    _, gradients = run(tmp_path, data, steps=STEPS, change=without)
    gaps = [gap(x, own[-1]) for x, own in zip(gradients, lessons(data), strict=True)]
    assert np.mean(gaps) == pytest.approx(1.1, abs=0.05)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss_add_tail": False}, "loss_add_tail True, .* False"),
        ({"beta": 0.5, "loss_top_k": 1}, "beta must be 0 .* got 0.5"),
        ({"loss_top_k": 2}, "loss_top_k is too small: row .* has"),
        ({"temperature": 2.0}, "temperature must be that of the file, 1, got 2"),
    ],
)
def test_settings_that_are_wrong_are_errors(tmp_path, data, settings, words):
    with pytest.raises(ValueError, match=words):
        run(tmp_path, data, **settings)


@pytest.mark.parametrize("k", [1, L])
def test_a_server_refuses_what_is_wrong(data, monkeypatch, k):
    """A trainer whose beta isn't 0 asks for the likeliest token alone."""
    monkeypatch.setattr(vllm_client, "is_vllm_available", lambda: True)
    with serving(data.path) as url:
        client = vllm_client.VLLMClient(url, connection_timeout=60)
        tokens = data[0].tokens.tolist()
        asked = [tokens], [2], k, 1.0 if k == 1 else 2.0
        words = "reverse KL" if k == 1 else "temperature"
        with pytest.raises(Exception, match=words):
            client.get_sequence_logprobs(*asked)


def test_lists_are_those_of_trls_client(data, monkeypatch):
    monkeypatch.setattr(vllm_client, "is_vllm_available", lambda: True)
    asked = [x.tokens.tolist() for x in data][:TEXTS]
    starts = [int(x.places[-1]) - 1 for x in data][:TEXTS]
    with serving(data.path) as url:
        client = vllm_client.VLLMClient(url, connection_timeout=60)
        theirs = client.get_sequence_logprobs(asked, starts, L + 1, 1.0)
    found = TeacherClient(data).get_sequence_logprobs(asked, starts, L + 1, 1.0)
    assert found["actual_token_ids"] == theirs["actual_token_ids"]
    for name in ("logprobs", "actual_logprobs"):
        for one, other in zip(found[name], theirs[name], strict=True):
            # What has no probability is left out here, and -9999 there.
            assert np.exp(one) == pytest.approx(np.exp(other), abs=1e-6)


def test_what_isnt_stored_is_an_error(data):
    client = TeacherClient(data)
    tokens = data[0].tokens.tolist()
    other = [*tokens[:3], tokens[3] ^ 1, *tokens[4:]]
    with pytest.raises(distill.MissError, match="at position 3"):
        client.get_sequence_logprobs([other], [3], L, 1.0)
    with pytest.raises(ValueError, match="of the token at position 1, where"):
        client.get_sequence_logprobs([tokens], [1], L, 1.0)


def test_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(trl, "__version__", "1.17.0")
    with pytest.raises(ImportError, match=r"is trl 1\.17\.0: pip install"):
        importlib.reload(ours)
