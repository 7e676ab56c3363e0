"""The torch adapter against the core, on the host's path and on the device's."""

from collections import Counter
from decimal import Decimal

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec._backend.native import Core
from sqs_codec._codec.keep import limits_of
from tests.backend.test_backend import output
from tests.backends import using
from tests.kit import Both, Script, Words
from tests.refusals import refuses

torch = pytest.importorskip("torch")
adapter = pytest.importorskip("sqs_codec.torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402 (see above)

from sqs_codec.torch import _gumbel as racing  # noqa: E402
from sqs_codec.torch import _quantize as quantizing  # noqa: E402
from sqs_codec.torch import _unbiased as rounding  # noqa: E402
from sqs_codec.torch import _verify as verifying  # noqa: E402

SEED = 20251009
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
RULES = [
    sqs.TopK(1),
    sqs.TopK(2),
    sqs.TopK(17),
    sqs.TopK(10**6),
    sqs.Threshold(0.01),
    sqs.Threshold(-1.0),
    sqs.Threshold(2.0),
    sqs.Conformal(beta=0.02),
    sqs.Threshold(0.0),
    Both(17, 0.005),
]
VOCAB = 203
CODEC = sqs.Codec(VOCAB, resolution=150)


@pytest.fixture(params=["host", "device"])
def path(request, monkeypatch):
    """Send CPU tensors down either path."""
    if request.param == "device":
        for module in (quantizing, racing, rounding, verifying):
            monkeypatch.setattr(module, "is_on_host", lambda rows: False)
    return str(request.param)


def tensor_with_ties(*shape, dtype=torch.float32):
    """Logits with ties and masked tokens among them."""
    source = torch.Generator().manual_seed(SEED)
    logits = torch.randn(*shape, generator=source, dtype=torch.float64) * 4
    logits = torch.where(logits < 1, logits, (logits * 2).round() / 2)
    return logits.masked_fill(
        torch.rand(*shape, generator=source) < 0.2, -torch.inf
    ).to(dtype)


def core_row(row):
    return (row.float() if row.dtype == torch.bfloat16 else row).numpy()


def assert_same(ours, core):
    assert ours == core
    assert ours.resolution == core.resolution
    assert ours.dropped_mass == pytest.approx(core.dropped_mass, abs=1e-6)
    assert ours.dropped_mass is None or 0 <= ours.dropped_mass < 1


@pytest.mark.parametrize("keep", RULES, ids=repr)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_quantizes_as_the_core(dtype, keep, path):
    """Ties too, signed zeros, and a token that is all there is."""
    logits = tensor_with_ties(3, 3, VOCAB, dtype=dtype)
    logits[0] = 0
    logits[0, 1, ::3] = -0.0
    logits[0, 2] = -torch.inf
    logits[0, 2, 2] = -1e4
    for temperature in (0, 5e-324, 1e-3, 0.3, 1.0, 2.5, 1e300):
        found = adapter.quantize_rows(CODEC, logits, keep, temperature=temperature)
        for row, q in zip(logits.flatten(0, 1), found, strict=True):
            for mass in (False, True):
                given = {"temperature": temperature, "dropped_mass": mass}
                core = CODEC.quantize(core_row(row), keep, **given)
                assert_same(adapter.quantize(CODEC, row, keep, **given), core)
                assert q == core


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 1, 2)])
def test_rows_come_one_after_the_other(shape, dtype, path):
    logits = tensor_with_ties(*shape, VOCAB, dtype=dtype)
    keep = sqs.TopK(9)
    rows = adapter.quantize_rows(CODEC, logits, keep, temperature=0.7)
    assert len(rows) == np.prod(shape, dtype=int)
    assert {q.dropped_mass for q in rows} <= {None}
    if not shape:
        assert rows[0] == adapter.quantize(CODEC, logits, keep, temperature=0.7)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_core_reads_tensors_where_they_are(dtype, monkeypatch):
    seen = []
    quantize_rows = type(CODEC._core).quantize_rows

    def look(core, rows, *given):
        seen.append((rows.ctypes.data, rows.strides[0]))
        return quantize_rows(core, rows, *given)

    monkeypatch.setattr(type(CODEC._core), "quantize_rows", look)
    states = tensor_with_ties(4, 5, VOCAB, dtype=dtype)
    last = states[:, -1]  # what a model's last position is
    assert len(adapter.quantize_rows(CODEC, last, sqs.TopK(9))) == 4
    assert seen == [(last.data_ptr(), 5 * VOCAB * dtype.itemsize)]
    bad = torch.full((VOCAB,), torch.nan, dtype=dtype)
    refuses(r"^logits\[0\] is nan", adapter.quantize, CODEC, bad, sqs.TopK(9))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_probabilities_in_place_of_logits_are_noticed(dtype, path):
    probs, codec = torch.tensor([0.25, *[0.125] * 6], dtype=dtype), sqs.Codec(7)
    keep, key, rng = sqs.TopK(3), bytes(16), np.random.default_rng(0)
    round_ = sqs.Round([sqs.SparseDistribution([0], [1], 7)], [0])
    cut = sqs.Sampling(top_k=3 * (path == "host"))
    for call in (
        lambda: adapter.quantize(codec, probs, keep),
        lambda: adapter.quantize_rows(codec, probs[None], keep),
        lambda: sqs.Drafter(codec, keep, rng=rng).push(probs),
        lambda: adapter.quantize_unbiased(codec, probs),
        lambda: adapter.gumbel_verify([], probs[None], key, 0, sampling=cut),
        lambda: adapter.gumbel_verify_rounds(
            [[]], probs[None], [key], [0], sampling=cut
        ),
        lambda: adapter.verify(round_, probs.repeat(2, 1)),
    ):
        with pytest.warns(UserWarning, match="look like probabilities") as caught:
            call()
        assert caught[0].filename == __file__


def test_strides_and_gradients_do_not_matter(path):
    logits = tensor_with_ties(4, VOCAB)
    strided = logits.T.contiguous().T.requires_grad_()
    assert not strided.is_contiguous()
    expected = adapter.quantize_rows(CODEC, logits, sqs.TopK(8))
    assert adapter.quantize_rows(CODEC, strided, sqs.TopK(8)) == expected
    every_other = torch.stack([logits[0], logits[1]], dim=-1).flatten()[::2]
    assert adapter.quantize(CODEC, every_other, sqs.TopK(8)) == expected[0]


def test_nothing_of_the_callers_changes(path):
    logits = tensor_with_ties(2, VOCAB)
    before = logits.clone()
    adapter.quantize_rows(CODEC, logits, sqs.Conformal())
    assert torch.equal(logits, before)


@pytest.mark.parametrize("keep", [sqs.TopK(4), sqs.Threshold(0.1)], ids=repr)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.nan, r"(\[7\] is|: contains) nan; values must be finite or -inf"),
        (torch.inf, r"(\[7\] is|: contains) inf; values must be finite or -inf"),
        (-torch.inf, r": every token is masked \(-inf\)"),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bad_rows_are_named(dtype, value, message, keep, path):
    logits = tensor_with_ties(2, 4, VOCAB, dtype=dtype)
    logits[1, 3, slice(None) if value == -torch.inf else 7] = value
    for temperature in (0, 1):
        with pytest.raises(ValueError, match=rf"^logits\[1, 3\]{message}$"):
            adapter.quantize_rows(CODEC, logits, keep, temperature=temperature)
        with pytest.raises(ValueError, match=f"^logits{message}$"):
            adapter.quantize(CODEC, logits[1, 3], keep, temperature=temperature)


def test_quantize_says_what_it_expected(path):
    row, keep = torch.zeros(VOCAB), sqs.TopK(4)
    for call, given, error, said in (
        (adapter.quantize, (row.numpy(), keep), TypeError, "Tensor, got ndarray"),
        (adapter.quantize, (row.long(), keep), TypeError, "float64, got torch.int64"),
        (adapter.quantize, (row, 4), TypeError, "keep must be a rule such as TopK"),
        (adapter.quantize, (row[None], keep), ValueError, r"\[203\], got \[1, 203\]"),
        (adapter.quantize_rows, (row[:9], keep), ValueError, r"203\], got \[9\]"),
        (adapter.quantize_rows, (row[0], keep), ValueError, r"203\], got \[\]"),
    ):
        refuses(said, call, CODEC, *given, error=error)
    for call in adapter.quantize, adapter.quantize_rows:
        refuses("codec must be a Codec, got int", call, 203, row, keep, error=TypeError)
    for temperature in (-1.0, torch.inf, torch.nan):
        with pytest.raises(ValueError, match="temperature must be finite"):
            adapter.quantize(CODEC, row, keep, temperature=temperature)


class Operations(TorchDispatchMode):
    """Counts the operations that tensors meet."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("keep", RULES, ids=repr)
def test_the_device_path_waits_no_more_for_more_rows(keep):
    counts = []
    for rows in (1, 30):
        logits = tensor_with_ties(rows, VOCAB)
        with Operations() as operations:
            quantizing._quantize_on_device(CODEC, logits, (rows,), limits_of(keep), 1.0)
        counts.append(operations.counts)
    assert counts[0] == counts[1]
    assert counts[0]["nonzero"] == 1
    assert counts[0]["_local_scalar_dense"] == 0


@pytest.mark.parametrize("keep", RULES, ids=repr)
def test_selection_stays_on_its_device(keep):
    """The meta device computes nothing, but refuses tensors of another."""
    rows = torch.empty(3, VOCAB, device="meta", dtype=torch.bfloat16)
    for temperature in (0, 0.7):
        kept, dropped = quantizing._select(rows, limits_of(keep), temperature)
        assert {kept.device, dropped.device} == {rows.device}
        assert (kept.dtype, dropped.dtype) == (torch.bool, torch.float64)


@pytest.mark.parametrize("keep", [sqs.TopK(9), sqs.Conformal(beta=0.02)], ids=repr)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_drafter_takes_tensors(dtype, keep, path):
    """The same round as of the same values in NumPy; gradients don't matter."""
    logits = tensor_with_ties(4, VOCAB, dtype=dtype)
    edges = [
        sqs.Drafter(CODEC, keep, rng=np.random.default_rng(SEED)) for _ in range(2)
    ]
    for row in logits:
        tensor = row.clone().requires_grad_()
        token = edges[0].push(tensor, temperature=0.7)
        assert token == edges[1].push(core_row(row), temperature=0.7)
    assert edges[0].finish() == edges[1].finish()
    assert edges[0].state == pytest.approx(edges[1].state, abs=1e-8)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 1, 2)])
def test_rounds_without_bias_as_the_core(shape, dtype, path, monkeypatch):
    monkeypatch.setattr(rounding, "AT_ONCE", 3 * VOCAB)
    logits = tensor_with_ties(*shape, VOCAB, dtype=dtype).requires_grad_()
    rows = core_row(logits.detach()).reshape(-1, VOCAB)
    for temperature in (0, 5e-324, 0.3, 1.0, 1e300):
        numbers = rounding._draw(torch.Generator().manual_seed(SEED), len(rows))
        expected = CODEC.quantize_unbiased_rows(
            rows, temperature=temperature, rng=Words(numbers)
        )
        calls = [adapter.quantize_unbiased_rows]
        calls += [] if shape else [adapter.quantize_unbiased]
        for call in calls:
            source = torch.Generator().manual_seed(SEED)
            found = call(CODEC, logits, temperature=temperature, generator=source)
            assert [*([found] if call is not calls[0] else found)] == [*expected]


def test_numbers_of_rounding_have_64_bits():
    numbers = rounding._draw(torch.Generator().manual_seed(SEED), 10_000)
    assert numbers.dtype == np.uint64
    bits = np.unpackbits(numbers[:, None].view(np.uint8), axis=1)
    assert abs(bits.mean(0) - 0.5).max() < 0.025  # five standard deviations


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_bad_rows_are_named_whatever_the_rounding(value, path):
    logits, rng = tensor_with_ties(2, 4, VOCAB), torch.Generator()
    logits[1, 3] = value
    for temperature in (0, 1):
        with pytest.raises(ValueError, match=r"^logits\[1, 3\].*(contains|is|every)"):
            adapter.quantize_unbiased_rows(
                CODEC, logits, temperature=temperature, generator=rng
            )


@pytest.mark.parametrize("n", [0, 2])
def test_rounding_says_what_generator_it_expected(n, path):
    rows = torch.zeros(n, VOCAB)
    with pytest.raises(TypeError, match=r"rng must be a numpy.* got NoneType"):
        CODEC.quantize_unbiased_rows(rows.numpy(), rng=None)
    with pytest.raises(TypeError, match=r"^generator must be a torch.Generator, got"):
        adapter.quantize_unbiased_rows(CODEC, rows, generator=np.random.default_rng(0))


def test_rounding_waits_no_more_for_more_rows():
    counts = []
    for rows in (1, 30):
        with Operations() as operations:
            rounding._marked(tensor_with_ties(rows, VOCAB), 1.0, 9, [1] * rows, [])
        counts.append(operations.counts)
    assert counts[0] == counts[1]
    assert counts[0]["_local_scalar_dense"] == 0


def test_to_dense_undoes_quantize():
    rows = adapter.quantize_rows(CODEC, tensor_with_ties(3, VOCAB), sqs.TopK(9))
    for dtype in DTYPES:
        dense = adapter.to_dense(rows, dtype=dtype)
        assert dense.shape == (3, VOCAB)
        assert dense.dtype == dtype
    dense = adapter.to_dense(rows)
    assert np.array_equal(dense.numpy(), rows.to_dense())
    assert adapter.to_dense([rows[2]], device="meta").device.type == "meta"
    assert torch.equal(adapter.to_dense(rows[2]), dense[2])
    assert torch.equal(adapter.to_dense(tuple(rows)), dense)
    assert adapter.to_dense(rows[:0]).shape == (0, VOCAB)
    assert CODEC.quantize_probs(dense[2].numpy(), sqs.Threshold(0.0)) == rows[2]


def test_to_dense_says_what_it_expected():
    q = sqs.SparseDistribution([1, 4], [1, 3], vocab_size=5)
    other = sqs.SparseDistribution([1, 4], [1, 3], vocab_size=6)
    refuses("must not be empty", adapter.to_dense, [])
    refuses(r"got \[\(5, 4\), \(6, 4\)\]", adapter.to_dense, [q, other])
    with pytest.raises(TypeError, match=r"\[0\] must be a SparseDistribution, got str"):
        adapter.to_dense("q")
    with pytest.raises(TypeError, match=r"dtype must be a torch.dtype, got type"):
        adapter.to_dense(q, dtype=np.float32)
    with pytest.raises(TypeError, match=r"floating-point one, got torch.int64"):
        adapter.to_dense(q, dtype=torch.int64)


def random_round(rng, length):
    distributions = [
        CODEC.quantize(rng.normal(0, 3, VOCAB), sqs.TopK(20)) for _ in range(length)
    ]
    return sqs.Round(distributions, [q.sample(rng) for q in distributions])


def likely_target(round_, rng):
    """Target logits near the draft's, so that rounds end early, late and not at all."""
    dense = adapter.to_dense([*round_.distributions, round_.distributions[0]])
    noise = torch.from_numpy(rng.normal(0, 0.5, dense.shape))
    return (dense + 1e-4).log() + noise


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_verify_agrees_with_the_core(temperature, path):
    rng = np.random.default_rng(SEED)
    outcomes = Counter()
    for seed in range(200):
        round_ = random_round(rng, 4)
        logits = likely_target(round_, rng)
        uniforms = verifying._uniforms(5, torch.Generator().manual_seed(seed))
        core = sqs.verify(
            round_, (logits / temperature).softmax(-1).numpy(), Script(uniforms)
        )
        numbers = torch.Generator().manual_seed(seed)
        ours = adapter.verify(
            round_, logits, temperature=temperature, generator=numbers
        )
        assert ours == core
        outcomes[ours.accepted] += 1
    assert set(outcomes) == set(range(5))


def test_verify_takes_the_same_from_the_generator_whatever_comes():
    rng = np.random.default_rng(SEED)
    generator = torch.Generator()
    for seed in range(20):
        round_ = random_round(rng, 4)
        target = likely_target(round_, rng)
        adapter.verify(round_, target, generator=generator.manual_seed(seed))
        after = generator.get_state()
        torch.rand(5, dtype=torch.float64, generator=generator.manual_seed(seed))
        assert torch.equal(after, generator.get_state())


def test_the_default_generator_is_used_otherwise():
    round_ = random_round(rng := np.random.default_rng(SEED), 4)
    target, rows, found = likely_target(round_, rng), tensor_with_ties(5, VOCAB), []
    for own in None, torch.Generator().manual_seed(7):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            verdict = adapter.verify(round_, target, generator=own)
            (own or torch).manual_seed(7)
            counts = adapter.quantize_unbiased_rows(CODEC, rows, generator=own)
        found.append((verdict, counts))
    assert found[0] == found[1]


def eighths(*counts):
    return sqs.SparseDistribution(
        np.flatnonzero(counts), [c for c in counts if c], vocab_size=len(counts)
    )


def test_a_residual_that_rounds_to_zero_falls_back_to_the_target(monkeypatch, path):
    monkeypatch.setattr(verifying, "_uniforms", lambda n, _: [1.0, 0.99])
    q = eighths(4, 4)
    verdict = adapter.verify(sqs.Round([q], [0]), torch.zeros(2, 2), temperature=1.0)
    assert verdict == sqs.Verdict(0, 1)


def test_impossible_tokens_are_never_taken(monkeypatch, path):
    for u in (0.0, 1 - 2**-53):
        monkeypatch.setattr(verifying, "_uniforms", lambda n, _, u=u: [u] * n)
        logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]] * 2)
        round_ = sqs.Round([eighths(8, 0, 0)], [0])
        verdict = adapter.verify(round_, logits, temperature=1.0)
        assert verdict == sqs.Verdict(0, 1)


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.nan, "contains nan; values must be finite or -inf"),
        (torch.inf, "contains inf; values must be finite or -inf"),
        (-torch.inf, "every token is masked (-inf)"),
    ],
)
def test_verify_names_bad_rows(value, message, temperature, path):
    round_ = sqs.Round([eighths(4, 4)], [0])
    logits = torch.zeros(2, 2)
    logits[1] = value
    with pytest.raises(ValueError, match="target_logits") as caught:
        adapter.verify(round_, logits, temperature=temperature)
    assert str(caught.value) == f"target_logits[1]: {message}"
    rows, t = torch.cat([logits[:1], logits, logits[:1]]), [1, temperature, 0]
    with pytest.raises(ValueError, match="target_logits") as caught:
        adapter.verify_rounds([None, round_, None], rows, [0.5] * 4, temperature=t)
    assert str(caught.value) == f"rounds[1]: target_logits[2]: {message}"


def test_verify_says_what_it_expected():
    good = {"round_": sqs.Round([eighths(4, 4)], [0]), "logits": torch.zeros(2, 2)}
    for change, error, said in (
        ({"logits": [[0.0, 0.0]] * 2}, TypeError, "must be a torch.Tensor, got list"),
        ({"logits": torch.ones(2, 2) > 0}, TypeError, "float64, got torch.bool"),
        ({"logits": torch.zeros(1, 2)}, ValueError, r"\(2, 2\).*, got \(1, 2\)"),
        ({"temperature": -1.0}, ValueError, "temperature must be finite"),
        ({"round_": []}, TypeError, "a Round, got list"),
        ({"generator": np.random.default_rng(0)}, TypeError, "^generator must be a to"),
    ):
        round_, logits, *_ = (given := good | change).values()
        how = {name: given[name] for name in given.keys() - good.keys()}
        refuses(said, adapter.verify, round_, logits, error=error, **how)


def random_batch(seed, rounds):
    rng = np.random.default_rng(seed)
    batch = []
    logits = []
    for _ in range(rounds):
        length = int(rng.integers(0, 5))
        if length == 0:
            batch.append(None)
            logits.append(torch.from_numpy(rng.normal(0, 3, (1, VOCAB))))
            continue
        round_ = random_round(rng, length)
        logits.append(likely_target(round_, rng))
        batch.append(round_)
    temperatures = rng.choice([0, 0.5, 1.0, 1.7], rounds).tolist()
    rows = torch.cat(logits)
    return batch, rows, rng.random(len(rows)), temperatures


def target_probs(rows, batch, temperatures):
    sizes = [1 if round_ is None else len(round_) + 1 for round_ in batch]
    probs = []
    for part, temperature in zip(rows.double().split(sizes), temperatures, strict=True):
        if temperature == 0:
            probs.append(torch.eye(VOCAB, dtype=torch.float64)[part.argmax(-1)])
        else:
            probs.append((part / temperature).softmax(-1))
    return torch.cat(probs).numpy()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_batch_is_verified_as_by_the_core(dtype, path):
    for seed in range(40):
        batch, rows, draws, temperatures = random_batch(seed, 1 + seed % 7)
        rows = rows.to(dtype).masked_fill(torch.rand(rows.shape) < 0.05, -torch.inf)
        probs = target_probs(rows, batch, temperatures)
        expected = sqs.verify_rounds(batch, probs, draws)
        strided = rows.T.contiguous().T.requires_grad_()
        found = adapter.verify_rounds(batch, strided, draws, temperature=temperatures)
        assert found == expected
        probs = target_probs(rows, batch, [0.8] * len(batch))
        found = adapter.verify_rounds(batch, rows, torch.tensor(draws), temperature=0.8)
        assert found == sqs.verify_rounds(batch, probs, draws)


def test_a_batch_of_no_rounds(path):
    rows = torch.empty(0, VOCAB)
    assert adapter.verify_rounds([], rows, [], temperature=1.0) == []
    assert adapter.verify_rounds([], rows, [], temperature=[]) == []


def test_the_device_is_waited_for_twice_however_many_rounds(monkeypatch):
    for module in (quantizing, verifying):
        monkeypatch.setattr(module, "is_on_host", lambda rows: False)
    waits = []
    cpu = torch.Tensor.cpu
    monkeypatch.setattr(
        torch.Tensor, "cpu", lambda tensor: waits.append(tensor) or cpu(tensor)
    )
    counts = []
    for rounds in (6, 60):
        batch, rows, draws, temperatures = random_batch(SEED, rounds)
        assert {0} < set(temperatures)
        with Operations() as operations:
            adapter.verify_rounds(batch, rows, draws, temperature=temperatures)
        counts.append(operations.counts)
        assert len(waits) == 2
        assert max(map(torch.numel, waits)) <= 3 * len(rows)
        waits.clear()
    assert counts[0] == counts[1]
    assert counts[0]["nonzero"] == counts[0]["_local_scalar_dense"] == 0


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_the_core_verifies_logits_where_they_are(dtype, monkeypatch):
    seen = []
    verify = Core.verify_logits

    def look(round_, rows, *given):
        seen.append((rows.ctypes.data, rows.strides[0]))
        return verify(round_, rows, *given)

    monkeypatch.setattr(Core, "verify_logits", look)
    states = tensor_with_ties(7, 5, VOCAB, dtype=dtype)
    last = states[:, -1]
    rounds, draws = [None, sqs.Round([eighths(4, 4, *[0] * 201)], [0])], [0.5] * 3
    with using("native"):
        by_core = adapter.verify_rounds(rounds, last[:3], draws)
    step = 5 * VOCAB * dtype.itemsize
    assert seen == [(last[i].data_ptr(), step) for i in (0, 1)]
    with using("numba"):
        assert adapter.verify_rounds(rounds, last[:3], draws) == by_core
    assert len(seen) == 2


@pytest.mark.parametrize("backend", ["native", "numba"])
def test_a_shift_of_the_logits_changes_no_verdict(backend):
    rng = np.random.default_rng(SEED)
    rows = torch.from_numpy(np.round(rng.normal(0, 3, (4000, VOCAB)) * 8) / 8).float()
    rounds, draws = [None] * 4000, rng.random(4000)
    moved = [rows + shift for shift in (-1024, 32, 65536)]  # exact, of eighths
    for t in (0.1, 0.7):
        with using(backend):
            first, *others = (
                adapter.verify_rounds(rounds, logits, draws, temperature=t)
                for logits in (rows, *moved)
            )
        assert all(found == first for found in others)


@pytest.mark.parametrize("temperature", [1e-300, 1e-30])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_verify_at_the_lowest_and_highest_temperatures(dtype, temperature, path):
    """The largest logits have it all, and equal ones share it."""
    largest = torch.finfo(dtype).max
    for high, low in [(largest, 0.0), (0.0, -largest), (-largest / 2, -largest)]:
        row = torch.tensor([low, high, -torch.inf, high], dtype=dtype)
        rounds, draws = [None] * 4, [0.0, 0.49, 0.51, 1 - 2**-53]
        found = adapter.verify_rounds(
            rounds, row.expand(4, 4), draws, temperature=temperature
        )
        assert [verdict.token for verdict in found] == [1, 1, 3, 3]
    # At the highest all tokens that aren't masked are as likely as each other.
    row = torch.tensor([1.0, 9.0, -torch.inf, 5.0], dtype=dtype)
    found = adapter.verify_rounds(
        rounds, row.expand(4, 4), [0.33, 0.34, 0.66, 0.67], temperature=1 / temperature
    )
    assert [verdict.token for verdict in found] == [0, 1, 1, 3]


def test_a_device_draws_from_minute_residuals():
    """And from the row itself where nothing but a rounding error is left."""
    half = np.array([1.0, 1.0])
    for tail, tokens in [(1e-22, [3, 3]), (1e-260, [3, 3]), (1e-300, [0, 1])]:
        weights = torch.tensor([[1.0, 1.0, 0.0, tail]], dtype=torch.float64)
        from_it = [
            (0, draw, np.array([0, 1], np.uint32), half) for draw in (0.0, 1 - 2**-53)
        ]
        assert verifying._draw(weights, from_it) == tokens


def test_verify_rounds_says_what_it_expected():
    round_ = sqs.Round([eighths(4, 4)], [0])
    rows, draws = torch.zeros(3, 2), [0.5] * 3
    good = {"rounds": [round_, None], "target_logits": rows}
    good |= {"draws": draws, "temperature": 1.0}
    for change, error, message in [
        ({"rounds": round_}, TypeError, "rounds must be a sequence of rounds, got R"),
        ({"rounds": [round_, 0]}, TypeError, r"rounds\[1\] must be .* None, got int"),
        ({"rounds": [round_]}, ValueError, r"shape \(2, 2\).*, got \(3, 2\)"),
        ({"target_logits": rows.numpy()}, TypeError, "torch.Tensor, got ndarray"),
        ({"target_logits": rows[None]}, ValueError, r"got \(1, 3, 2\)"),
        ({"target_logits": rows[:, :1]}, ValueError, r"got \(3, 1\)"),
        ({"draws": [0.5] * 2}, ValueError, r"draws must have shape \(3,\)"),
        ({"draws": [0.5, 1.0, 0.5]}, ValueError, r"draws\[1\] must be in \[0, 1\)"),
        ({"draws": torch.zeros(3)}, TypeError, "draws must be float64, got float32"),
        ({"temperature": [1.0]}, ValueError, "one for each of 2 rounds, got 1"),
        ({"temperature": [1.0, -1.0]}, ValueError, "temperature must be finite"),
        ({"temperature": [1.0, "hot"]}, TypeError, "temperature must be a number"),
    ]:
        refuses(message, adapter.verify_rounds, error=error, **{**good, **change})
    assert len(adapter.verify_rounds(**good)) == 2


def test_probabilities_are_not_taken_for_logits():
    """Nor the other way round: each kind of call takes arrays of its own."""
    round_ = sqs.Round([eighths(4, 4)], [0])
    probs = torch.full((2, 2), 0.5)
    refuses("rng", sqs.verify, round_, probs.numpy(), error=TypeError)
    with pytest.raises(TypeError, match=r"sqs_codec\.torch\.verify takes logits as"):
        sqs.verify(round_, probs, np.random.default_rng(0))


CUTS = {}, {"top_k": 5}, {"top_p": 0.7, "min_p": 0.05}


def random_drafts(rng, rows):
    """Drafts that are right now and then, keys, positions and samplings."""
    drafts = []
    left = len(rows)
    while left:
        size = int(rng.integers(1, min(left, 5) + 1))
        left -= size
        drafts.append([0] * (size - 1))
    keys = [rng.bytes(16) for _ in drafts]
    positions = [int(2.0 ** rng.uniform(0, 63)) for _ in drafts]
    temperatures = rng.choice([0, 1e-40, 1e-3, 0.7, 1.0, 1e300], len(drafts)).tolist()
    samplings = [sqs.Sampling(t, **CUTS[rng.integers(3)]) for t in temperatures]
    start = 0
    for draft, key, position, own in zip(
        drafts, keys, positions, samplings, strict=True
    ):
        for i in range(int(rng.integers(0, len(draft) + 1))):
            row = core_row(rows[start + i])
            draft[i] = sqs.gumbel_draw(row, key, position + i, sampling=own)
        start += len(draft) + 1
    return drafts, keys, positions, samplings


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [2, 64, 203, 64 * 70 + 1])
def test_races_as_the_core(size, dtype, path):
    rng = np.random.default_rng(SEED)
    rows = tensor_with_ties(40, size, dtype=dtype)
    rows[:, 1] = 0.0
    drafts, *given, samplings = random_drafts(rng, rows)
    found = adapter.gumbel_verify_rounds(
        drafts, rows.T.contiguous().T, *given, sampling=samplings
    )
    start = 0
    for draft, *own, sampling, verdict in zip(
        drafts, *given, samplings, found, strict=True
    ):
        part = core_row(rows[start : start + len(draft) + 1])
        assert sqs.gumbel_verify(draft, part, *own, sampling=sampling) == verdict
        start += len(part)


@pytest.mark.parametrize("cuts", CUTS)
def test_one_draft_is_verified_as_by_the_core(cuts, path):
    rows = tensor_with_ties(4, VOCAB)
    given = [3, 1, 4], bytes(16), 7
    for temperature in (0, 0.7, Decimal("0.5")):
        how = sqs.Sampling(temperature, **cuts)
        own = adapter.gumbel_verify(given[0], rows, *given[1:], sampling=how)
        theirs = sqs.gumbel_verify(given[0], rows.numpy(), *given[1:], sampling=how)
        assert own == theirs
    with pytest.raises(ValueError, match=r"shape \(3, 203\).*, got \(4, 203\)"):
        adapter.gumbel_verify([3, 1], rows, *given[1:])
    for change, said in (
        ({"drafted": [3, 1, VOCAB]}, r"^drafted\[2\] must be in \[0, 202\], got 203"),
        ({"key": b"k"}, "^key must have 16 bytes, got 1"),
        ({"position": -1}, "^position must be in"),
    ):
        good = dict(zip(("drafted", "key", "position"), given, strict=True))
        refuses(said, adapter.gumbel_verify, logits=rows, **good | change)
    with pytest.raises(TypeError, match=r"^sampling must be a Sampling, got float"):
        adapter.gumbel_verify(given[0], rows, *given[1:], sampling=0.7)


def test_a_row_of_which_all_blocks_are_opened(monkeypatch):
    """Where few are looked at first, and the winner may be in another."""
    monkeypatch.setattr(racing, "OPENED", 1)
    monkeypatch.setattr(racing, "is_on_host", lambda rows: False)
    rows, keys = tensor_with_ties(30, 317), [bytes([i] * 16) for i in range(30)]
    races = []
    race = racing._race

    def note(rows, *given):
        races.append(len(rows))
        return race(rows, *given)

    monkeypatch.setattr(racing, "_race", note)
    found = adapter.gumbel_verify_rounds([[]] * 30, rows, keys, [7] * 30)
    drawn = [
        sqs.gumbel_draw(row.numpy(), key, 7)
        for row, key in zip(rows, keys, strict=True)
    ]
    assert [verdict.token for verdict in found] == drawn
    assert races[0] == 30 > races[1] > 0


def test_a_device_is_waited_for_once_in_a_race(monkeypatch):
    monkeypatch.setattr(racing, "is_on_host", lambda rows: False)
    counts = []
    for texts in (3, 30):
        rows = tensor_with_ties(texts, 8192)
        with Operations() as operations:
            adapter.gumbel_verify_rounds(
                [[]] * texts,
                rows,
                [bytes(16)] * texts,
                range(texts),
                sampling=sqs.Sampling(0.7),
            )
        counts.append(operations.counts)
    assert counts[0] == counts[1]
    assert counts[0]["nonzero"] == counts[0]["_local_scalar_dense"] == 0


def test_races_say_what_they_expected(path):
    good = {"drafted": [[1], []], "logits": torch.zeros(3, 2)}
    good |= {"keys": [bytes(16)] * 2, "positions": [0, 2]}
    bad = torch.zeros(3, 2)
    bad[2] = -torch.inf
    for change, error, message in [
        ({"drafted": [[1]]}, ValueError, r"shape \(2, 2\).*, got \(3, 2\)"),
        ({"drafted": [[2], []]}, ValueError, r"drafted\[0\]\[0\] must be in \[0, 1\]"),
        ({"logits": bad.numpy()}, TypeError, "torch.Tensor, got ndarray"),
        ({"logits": bad}, ValueError, r"logits\[2\]: every token is masked"),
        ({"logits": bad * 0}, ValueError, r"logits\[2\].* nan"),
        ({"keys": [bytes(16)]}, ValueError, "keys must be one for each of 2 texts, go"),
        ({"keys": [bytes(16), b"k"]}, ValueError, r"keys\[1\] must have 16 bytes, got"),
        ({"positions": [0, -1]}, ValueError, r"positions\[1\] must be in \[0, "),
        ({"sampling": [sqs.Sampling()]}, ValueError, "one for each of 2 rounds, got 1"),
        ({"sampling": 0.7}, TypeError, "sampling must be a Sampling, got float"),
    ]:
        with pytest.raises(error, match=message):
            adapter.gumbel_verify_rounds(**{**good, **change})
    none = [], torch.zeros(0, 2), [], []
    assert adapter.gumbel_verify_rounds(*none) == []


def test_the_core_does_not_import_torch():
    code = "import sys, sqs_codec; print('torch' in sys.modules)"
    assert output(code) == "False"


def test_the_adapter_imports_only_torch_and_the_core():
    code = """
import sys, torch, sqs_codec
before = set(sys.modules)
import sqs_codec.torch
others = "torch.", "sqs_codec.torch"
print(*(m for m in set(sys.modules) - before if not m.startswith(others)))
"""
    assert not output(code)


@pytest.mark.parametrize(
    ("logits", "words"),
    [
        (torch.empty(1, VOCAB, device="meta"), "a meta tensor"),
        (torch.ones(1, VOCAB).to_sparse(), "a torch.sparse_coo one"),
    ],
    ids=["meta", "sparse"],
)
def test_tensors_without_rows_are_refused(logits, words):
    keep = sqs.TopK(3)
    with pytest.raises(TypeError, match=f"a dense tensor with values, got {words}"):
        adapter.quantize_rows(CODEC, logits, keep)
    edge = sqs.Drafter(CODEC, keep, rng=np.random.default_rng(0))
    refuses(words, edge.push, logits[0], error=TypeError)
