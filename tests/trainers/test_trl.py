"""TRL's own trainer of a teacher on a server, with a file of ours."""

import importlib
from contextlib import nullcontext

import pytest
import trl
from trl.experimental.server_distillation import ServerDistillationConfig
from trl.generation import vllm_client

import sqs_codec.trainers.trl as ours
from benchmarks.distill.serving import serving
from sqs_codec import distill
from tests.trainers import toys
from tests.trainers.toys import STEPS, TEXTS, L


@pytest.fixture(autouse=True)
def without_vllm(monkeypatch):
    """TRL's client refuses to be without vLLM, of which it uses nothing here."""
    monkeypatch.setattr(vllm_client, "is_vllm_available", lambda: True)


@pytest.fixture
def train(tmp_path):
    """What a trainer without learning computes in its steps: losses and gradients."""

    def run(data, url=None, change=(), **settings):
        options = {
            "teacher_model_server_url": url or "none",
            "beta": 0.0,
            "loss_top_k": L,
            "per_device_train_batch_size": 2 * TEXTS,  # a text has two completions
            "max_steps": STEPS,
            "shuffle_dataset": False,
        }
        trainer = ours.StoredDistillationTrainer(
            toys.toy_student(),
            ServerDistillationConfig(
                str(tmp_path), **toys.ARGUMENTS | options | settings
            ),
            teacher_client=None if url else ours.TeacherClient(data),
            train_dataset=ours.as_completions(data),
            processing_class=toys.toy_tokenizer(),
        )
        trainer.__dict__ |= dict(change)
        return toys.train(trainer)

    return run


@pytest.mark.parametrize(
    "at_server", [False, pytest.param(True, marks=pytest.mark.smoke)]
)
def test_gradients_are_those_of_our_loss(train, hundred, labelled, at_server):
    with serving(hundred.path) if at_server else nullcontext() as url:
        toys.assert_ours(*train(hundred, url), labelled)


@pytest.mark.parametrize("at_server", [False, True])
def test_a_tail_is_trls_own(train, tmp_path, at_server):
    path, places = tmp_path / "lists.parquet", lambda n: range(n - 1)
    lists = toys.toy_file(path, count=TEXTS, places=places, tail=True)
    with serving(lists.path) if at_server else nullcontext() as url:
        found = train(lists, url, per_device_train_batch_size=TEXTS, max_steps=1)
    toys.assert_ours(*found, lists)


def test_without_its_tail_the_student_learns_something_else(train, hundred, labelled):
    _, gradients = train(hundred, change={"loss_add_tail": False})
    assert toys.gaps(gradients, labelled).mean() == pytest.approx(1.1, abs=0.05)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss_add_tail": False}, "loss_add_tail True, .* False"),
        ({"beta": 0.5, "loss_top_k": 1}, "beta must be 0 .* got 0.5"),
        ({"loss_top_k": 2}, "loss_top_k is too small: row .* has"),
        ({"temperature": 2.0}, "temperature must be that of the file, 1, got 2"),
    ],
)
def test_settings_that_are_wrong_are_errors(train, hundred, settings, words):
    with pytest.raises(ValueError, match=words):
        train(hundred, **settings)


def test_what_isnt_stored_is_an_error(hundred):
    client = ours.TeacherClient(hundred)
    tokens = hundred[0].tokens.tolist()
    other = [*tokens[:3], tokens[3] ^ 1, *tokens[4:]]
    with pytest.raises(distill.MissError, match="at position 3"):
        client.get_sequence_logprobs([other], [3], L, 1.0)
    with pytest.raises(ValueError, match="of the token at position 1, where"):
        client.get_sequence_logprobs([tokens], [1], L, 1.0)


def test_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(trl, "__version__", "1.17.0")
    with pytest.raises(ImportError, match=r"is trl 1\.17\.0: pip install"):
        importlib.reload(ours)
