"""``python -m benchmarks.distill`` in miniature, and what its figures rest on."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from benchmarks.distill.__main__ import main
from benchmarks.distill.measure import score
from benchmarks.distill.schemes import Rows, draws, top_64
from benchmarks.distill.students import KEPT, subtract


def test_all_in_miniature(tmp_path, capsys):
    arguments = ["bytes", "students", "--quick", "--folder", str(tmp_path)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "bytes-smollm2.json").read_text())
    taken = {one["scheme"]: one["bytes"] for one in found}
    assert taken["DistillKit, recommended"][""] == 312
    assert taken["DistillKit, budget"][""] == 114
    assert taken["fp16 top-64, renormalised"]["raw"] == 256
    assert taken["systematic, l = 50"][""] < 40
    (students,) = json.loads((tmp_path / "students-smollm2.json").read_text())
    assert list(students["kl"]) == list(KEPT)
    uniform = np.log(students["columns"])
    assert all(0 < kl < uniform for kls in students["kl"].values() for kl in kls)
    written = (tmp_path / "distill.txt").stat().st_mtime_ns
    assert main(arguments) == 0  # from the folder, as after an interruption
    again = capsys.readouterr().out
    assert again.rpartition(";")[0] in shown
    assert (tmp_path / "distill.txt").stat().st_mtime_ns > written


@pytest.mark.parametrize("keep", [draws, top_64])
def test_biases_are_told_from_errors(keep):
    """Draws have none in the mean, cut lists nothing else."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(300, 200)).astype(np.float32)
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    found = score(Rows(logits, probs, [300], None), keep, keep is draws, rng)
    exact = np.mean(1 - (probs**2).sum(-1)) / 50
    if keep is draws:
        assert found["error"] == pytest.approx(exact, rel=0.03)
        assert abs(found["bias"]) < 4 * found["bias_variance"] ** 0.5 < 0.1 * exact
    else:
        assert found["bias"] == found["error"] > 0.001


def test_what_is_kept_is_taken_off():
    columns, weights = np.array([3, 1, 1, 0, 2]), np.arange(1, 6, dtype=np.float32)
    kept = columns, weights, np.array([0, 1, 3, 5])
    off = torch.zeros(3, 4)
    subtract(off, kept, np.array([2, 0, 1]))
    assert (-off).tolist() == [[4, 0, 5, 0], [0, 0, 0, 1], [0, 5, 0, 0]]
