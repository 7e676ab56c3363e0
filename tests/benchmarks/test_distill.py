"""What the figures of ``python -m benchmarks.distill`` rest on."""

import numpy as np
import pytest

pytest.importorskip("transformers")


from benchmarks.distill import teachers
from benchmarks.distill.measure import score
from benchmarks.distill.schemes import FIXED, Rows, draws, top_64

VOCAB_SIZE = 5000


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
