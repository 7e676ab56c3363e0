"""``python -m benchmarks.distill`` in miniature, and what its figures rest on."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.distill import measure, teachers
from benchmarks.distill.__main__ import main
from benchmarks.distill.measure import score
from benchmarks.distill.schemes import FIXED, Rows, draws, top_64
from benchmarks.distill.students import HALF, KEPT, subtract
from benchmarks.experiments.models import Models, Prompt

VOCAB_SIZE = 5000


@pytest.fixture
def models():
    """Return a tiny teacher that knows nothing."""
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCAB_SIZE, "hidden_size": 64, "intermediate_size": 64}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads)).eval()
    pair = SimpleNamespace(
        target=model,
        vocab_size=VOCAB_SIZE,
        stop=frozenset([1]),
        encode=lambda text: [ord(letter) % VOCAB_SIZE for letter in text[-9:]],
    )
    prompts = tuple(Prompt(kind, (5, 6, 7)) for kind in ("en", "code"))
    return Models("smollm2", pair, None, prompts)


def test_all_in_miniature(models, tmp_path, capsys, monkeypatch):
    """With a student that has fewer columns than there are tokens."""
    for module in (measure, teachers):
        monkeypatch.setattr(module, "load", lambda options, name: models)
    monkeypatch.setattr(teachers, "WHOLE", 100)
    monkeypatch.setattr(teachers, "HEAD", 100)
    arguments = ["bytes", "students", "--quick", "--folder", str(tmp_path)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "bytes-smollm2.json").read_text())["records"]
    counts = [one["error"] for one in found if one["scheme"].startswith("systematic")]
    errors = np.reshape(counts, (2, 2, 4))  # by kind, temperature and resolution
    assert np.all(np.diff(errors) < 0)
    (students,) = json.loads((tmp_path / "students-smollm2.json").read_text())[
        "records"
    ]
    assert set(students["kl"]) == {*KEPT, *(f"half {what}" for what in HALF)}
    assert students["columns"] == 100
    assert all(0 < kl < 5 for kls in students["kl"].values() for kl in kls)
    assert main(arguments) == 0  # from the folder, as after an interruption
    tables = shown[: shown.rindex("sqs-codec")]
    assert capsys.readouterr().out.startswith(tables[tables.index("Bytes") :])


def test_bytes_of_what_others_keep():
    """As DistillKit's documentation has them: about 300, and 114."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 49_152)).astype(np.float32)
    rows = Rows(logits, teachers.softmax(logits).astype(np.float32), [3], None)
    taken = {name: keep(rows, rng)[0] for name, keep in list(FIXED.items())[:3]}
    assert taken["fp16 top-64"]["raw"] == 3 * 256
    assert taken["DistillKit, recommended"] == {"": 3 * 312}
    assert taken["DistillKit, budget"] == {"": 3 * 114}


@pytest.mark.parametrize("keep", [draws, top_64])
def test_biases_are_told_from_errors(keep):
    """Draws have none in the mean, cut lists nothing else."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(300, 200)).astype(np.float32)
    probs = teachers.softmax(logits).astype(np.float32)
    found = score(Rows(logits, probs, [300], None), keep, keep is draws, rng)
    exact = np.mean(1 - (probs**2).sum(-1)) / 50
    if keep is draws:
        assert found["error"] == pytest.approx(exact, rel=0.03)
        assert abs(found["bias"]) < 4 * found["bias_variance"] ** 0.5 < 0.1 * exact
    else:
        assert found["bias"] == pytest.approx(found["error"])
        assert found["error"] > 0.001


def test_what_is_kept_is_taken_off():
    columns, weights = np.array([3, 1, 1, 0, 2]), np.arange(1, 6, dtype=np.float32)
    kept = columns, weights, np.array([0, 1, 3, 5])
    off = torch.zeros(3, 4)
    subtract(off, kept, np.array([2, 0, 1]))
    assert (-off).tolist() == [[4, 0, 5, 0], [0, 0, 0, 1], [0, 5, 0, 0]]
