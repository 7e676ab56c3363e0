"""The trained student computes the same as `sqs_codec.system.small`."""

from types import SimpleNamespace

import numpy as np
import torch

from benchmarks.sizes.student import Size, Student, save
from sqs_codec.system.small import Draft

V, C = 49_152, 64


def test_logits_match_the_trained_student(tmp_path):
    """Except for weights in eight bits, and biases in sixteen."""
    rng, own = np.random.default_rng(0), Draft().tokenizer
    inputs, columns = rng.integers(0, C, V), np.sort(rng.choice(V, C, replace=False))
    inputs[columns] = np.arange(C)
    torch.manual_seed(0)
    size, table = Size(C, 8, 24, 4), torch.randn(C, 8)
    student = Student(size, inputs, columns, table, np.ones(V)).eval()
    for weights in student.parameters():
        weights.data += 0.3 * torch.randn(weights.shape)
    words = SimpleNamespace(backend_tokenizer=own._own, chat_template=own._template)
    about = {"tokenizer": words, "stop": own.stop, "summary": "SmolLM2"}
    save(student, SimpleNamespace(**about), tmp_path / "draft.npz")
    draft, text = Draft(tmp_path / "draft.npz"), rng.choice(columns, 80).tolist()
    rows, ids = np.indices((len(text), C)).reshape(2, -1)
    batch = SimpleNamespace(
        tokens=torch.tensor([text]),
        taught=torch.ones(1, len(text), dtype=torch.bool),
        rows=torch.tensor(rows),
        ids=torch.tensor(columns[ids]),
    )
    with torch.inference_mode():
        expected = student(batch).exp().numpy().reshape(-1, C)[1:]
    found = np.concatenate([draft.logits(text[: i + 2]) for i in range(len(expected))])
    assert found.shape == (79, V)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.exp(found).sum(-1), 1, atol=1e-4)
    found = np.exp(found[:, columns])
    assert np.abs(found - expected).sum(-1).max() < 0.1
    assert np.abs(expected[:, :, None] - expected.T).sum(1).max() > 0.5  # rows differ
