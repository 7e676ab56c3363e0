"""A student's loss against a teacher's counts."""

from collections.abc import Mapping

import numpy as np
import pytest

import sqs_codec as sqs
from tests.refusals import refuses

torch = pytest.importorskip("torch")
adapter = pytest.importorskip("sqs_codec.torch")

from sqs_codec.torch import _distill  # noqa: E402 (see above)
from tests.torch.test_torch import Operations  # noqa: E402

V, L = 6, 8
ROWS = sqs.SparseRows(
    [0, 3, 5, 2, 1, 5, 5], [4, 3, 1, 8, 6, 2, 8], [0, 3, 4, 6, 7], V, L
)
PLACES = [0, 1, 4, 5]


def teacher(rows=ROWS, places=PLACES, shape=(2, 3), **change):
    tokens = torch.zeros(shape, dtype=torch.int64)
    fields = {
        "tokens": tokens,
        "attention_mask": torch.ones_like(tokens),
        "places": torch.as_tensor(places).long(),
        "token_ids": torch.from_numpy(rows.token_ids.astype(np.int64)),
        "counts": torch.from_numpy(rows.counts.astype(np.int32)),
        "offsets": torch.from_numpy(rows.offsets.copy()),
        "resolution": rows.resolution,
        "vocab_size": rows.vocab_size,
    }
    return adapter.TeacherBatch(**{**fields, **change})


def student(*shape, dtype=torch.float64, scale=2):
    source = torch.Generator().manual_seed(3)
    logits = torch.randn(*shape, generator=source, dtype=torch.float64) * scale
    return logits.to(dtype).requires_grad_()


def dense_loss(logits, batch, temperature=1.0):
    """Return the loss, from whole rows in float64."""
    log_p = (logits.double() / temperature).flatten(0, 1)[batch.places].log_softmax(-1)
    loss = 0
    ends = batch.offsets.tolist()
    for row, start, end in zip(log_p, ends, ends[1:], strict=False):
        ids = batch.token_ids[start:end].tolist()
        rest = [
            x for x in range(len(row)) if x not in ids or (batch.tail and x == V - 1)
        ]
        for token, count in zip(ids, batch.counts[start:end].tolist(), strict=True):
            bucket = batch.tail and token == V - 1
            log = row[rest].logsumexp(0) if bucket else row[token]
            loss = loss - count / L * log
    return loss / max(len(log_p), 1)


@pytest.fixture(params=[True, False], ids=["row by row", "at once"])
def chunks(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(_distill, "CHUNK", 1)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(
    ("columns", "tail"), [(V, False), (V + 3, False), (V - 1, True), (V + 3, True)]
)
def test_loss_and_gradient_are_the_dense_ones(columns, tail, temperature):
    batch = teacher(tail=tail)
    for scale in (2, 400):  # at the latter what isn't listed may have e^-400 of all
        logits = student(2, 3, columns, scale=scale)
        found = adapter.distillation_loss(logits, batch, temperature=temperature)
        expected = dense_loss(logits, batch, temperature)
        assert found.item() == pytest.approx(expected.item(), rel=1e-12)
        for ours, dense in zip(
            torch.autograd.grad(found * 3, logits),
            torch.autograd.grad(expected * 3, logits),
            strict=True,
        ):
            torch.testing.assert_close(ours, dense, rtol=1e-9, atol=1e-14)
    assert torch.autograd.gradcheck(
        lambda z: adapter.distillation_loss(z, batch, temperature=temperature),
        student(2, 3, columns),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tail", [False, True])
def test_no_copy_of_all_logits_is_made(dtype, tail, monkeypatch):
    monkeypatch.setattr(_distill, "CHUNK", 3 * 50)
    states = student(2, 40, 50, dtype=dtype)
    rows = sqs.SparseRows.stack([*ROWS] * 18)
    # All rows but the last of each text: a view that isn't contiguous.
    places = [b * 39 + t for b in range(2) for t in range(36)]
    batch = teacher(rows, places, (2, 39), tail=tail)
    with Operations() as made, torch.autocast("cpu", torch.bfloat16):
        logits = states[:, :-1]
        loss = adapter.distillation_loss(logits, batch)
        assert max(made.sizes) <= 4 * 3 * 51
        (grad,) = torch.autograd.grad(loss, logits)
    whole = 2 * 39 * 50 * dtype.itemsize
    assert [size for size in made.sizes if size > 4 * 3 * 51] == [whole]
    assert loss.dtype == torch.float32
    assert grad.dtype == dtype
    (expected,) = torch.autograd.grad(dense_loss(logits, batch), logits)
    torch.testing.assert_close(grad, expected, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("tail", [False, True])
def test_masked_students_and_nan(tail):
    batch = teacher(tail=tail)
    logits = student(2, 3, V + 2, dtype=torch.float32)
    with torch.no_grad():
        logits[..., V:] = -torch.inf  # as some models mask the padding
        logits[0, 1, [0, 1, 3, 4, 5]] = -torch.inf  # the row lists nothing but id 2
        logits[0, 2] = torch.nan  # which nothing is compared with
    for t in 1, 1e300:
        loss = adapter.distillation_loss(logits, batch, temperature=t)
        (grad,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite()
        assert grad.isfinite().all()
    with torch.no_grad():
        logits[0, 0, 3] = -torch.inf
        assert adapter.distillation_loss(logits, batch) == torch.inf
        logits[0, 0, 3] = torch.nan
    loss = adapter.distillation_loss(logits, batch)
    (grad,) = torch.autograd.grad(loss, logits)
    assert loss.isnan()
    assert grad[0, 0].isnan().all()


def test_a_batch_without_distributions_teaches_nothing():
    logits = student(2, 3, V, dtype=torch.bfloat16)
    loss = adapter.distillation_loss(logits, teacher(ROWS[:0], []))
    (grad,) = torch.autograd.grad(loss, logits)
    assert loss == 0
    assert not grad.any()


def test_batches_move_and_load():
    batch = teacher(tail=True)
    moved = batch.to("meta", non_blocking=True)
    assert moved.offsets.is_meta
    assert (moved.tail, moved.vocab_size) == (True, V)
    loader = torch.utils.data.DataLoader([batch], batch_size=None, num_workers=1)
    (loaded,) = loader
    assert torch.equal(loaded.places, batch.places)
    if torch.cuda.is_available():
        assert batch.pin_memory().counts.is_pinned()


def test_a_batch_unpacks_to_the_inputs_of_a_model():
    """By name; code that rebuilds mappings from their items would lose the rest."""
    batch = teacher()
    found = {**batch}
    assert [*found] == [*batch] == ["input_ids", "attention_mask"]
    assert found["input_ids"] is batch.tokens
    assert found["attention_mask"] is batch.attention_mask
    assert len(batch) == 2
    assert "places" not in batch
    assert not isinstance(batch, Mapping)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"token_ids": torch.tensor([0, 3, 6, 2, 1, 5, 5])}, "row 0 has a token id"),
        ({"counts": torch.tensor([4, 3, 1, 8, 6, 1, 8])}, "row 2 has counts that"),
        ({"places": [0, 1, 6, 5]}, r"places\[2\] must be in \[0, 6\), g"),
        ({"places": torch.tensor([0, 1, 4])}, r"places must be int64 \[4\], one for"),
        ({"attention_mask": torch.ones(2, 2)}, r"got \[2, 3\] and \[2, 2\]"),
        ({"temperature": np.nan}, "temperature must be finite"),
    ],
)
def test_bad_batches_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        teacher(**change)


def test_the_loss_names_what_it_needs():
    batch, logits, loss = teacher(), student(2, 3, V), adapter.distillation_loss
    for shape in [(2, 3, V - 1), (3, 2, V), (6, V), ()]:
        said = r"shape \[2, 3\] of the tokens and then"
        refuses(said, loss, torch.zeros(shape), batch)
    refuses("float64, got", loss, logits.long(), batch, error=TypeError)
    refuses("on cpu and the batch is on meta", loss, logits, batch.to("meta"))
    for temperature in (0, -1, np.nan):
        refuses("temperature must be", loss, logits, batch, temperature=temperature)
    with pytest.raises(RuntimeError, match="only a first derivative"):
        torch.autograd.grad(loss(logits, batch), logits, create_graph=True)


def test_roundings_average_to_the_whole_softmax():
    q = torch.tensor([13, 1, 0, 20, 27, 3], dtype=torch.float64) / 64
    ends = np.concatenate([[0], np.cumsum(q.numpy() * L)])
    logits = student(1, 1, V)
    sums = torch.zeros(V + 1, dtype=torch.float64)
    for u in (np.arange(8) + 0.5) / 8:  # the ends are multiples of 1/8
        counts = np.diff(np.floor(ends - u)).astype(int)
        ids = counts.nonzero()[0]
        rows = sqs.SparseRows.stack([sqs.SparseDistribution(ids, counts[ids], V)])
        loss = adapter.distillation_loss(logits, teacher(rows, [0], (1, 1)))
        (grad,) = torch.autograd.grad(loss, logits)
        sums += torch.cat([grad.flatten(), loss.detach()[None]]) / 8
    dense = torch.nn.functional.cross_entropy(logits[0], q[None])
    (grad,) = torch.autograd.grad(dense, logits)
    torch.testing.assert_close(sums[:V], grad.flatten())
    assert sums[V].item() == pytest.approx(dense.item())
