"""The torch adapter against the core, on the host's path and on the device's."""

from collections import Counter
from functools import partial
from itertools import product

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec._backend.native import Core
from sqs_codec._codec.keep import limits_of
from tests.backend.test_backend import output
from tests.backends import using
from tests.kit import Both, Given, any_round
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
ROUND = sqs.Round([sqs.SparseDistribution([0, 1], [4, 4], 2)], [0])


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


@pytest.mark.parametrize("keep", RULES, ids=repr)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_quantize_agrees_with_the_core(dtype, keep, path):
    """Ties too, signed zeros, a token that is all there is, strides and gradients."""
    logits = tensor_with_ties(3, 3, VOCAB, dtype=dtype)
    logits[0] = 0
    logits[0, 1, ::3] = -0.0
    logits[0, 2] = -torch.inf
    logits[0, 2, 2] = -1e4
    strided = logits.transpose(0, 2).contiguous().transpose(0, 2).requires_grad_()
    temperatures = 0, 5e-324, 1e-3, 0.3, 1.0, 2.5, 1e300
    shapes = strided, logits[:0], logits[1, 2]
    for rows, temperature in product(shapes, temperatures):
        found = adapter.quantize_rows(CODEC, rows, keep, temperature=temperature)
        for row, q in zip(rows.detach().reshape(-1, VOCAB), found, strict=True):
            for mass in (False, True):
                given = {"temperature": temperature, "dropped_mass": mass}
                core = CODEC.quantize(core_row(row), keep, **given)
                ours = adapter.quantize(CODEC, row, keep, **given)
                assert ours == core == q
                assert ours.dropped_mass == pytest.approx(core.dropped_mass, abs=1e-6)
                assert 0 <= (ours.dropped_mass or 0) < 1
    assert torch.equal(strided, logits)  # the caller's tensor doesn't change


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_core_reads_tensors_without_a_copy(dtype, monkeypatch):
    seen = []
    for own in Core.quantize_rows, Core.verify_logits:

        def look(first, rows, *given, call=own):
            seen.append((rows.ctypes.data, rows.strides[0]))
            return call(first, rows, *given)

        monkeypatch.setattr(Core, own.__name__, look)
    last = tensor_with_ties(3, 5, VOCAB, dtype=dtype)[:, -1]  # of a model
    half = sqs.SparseDistribution([0, 1], [4, 4], VOCAB)
    rounds, draws = [None, sqs.Round([half], [0])], [0.5] * 3
    with using("native"):
        adapter.quantize_rows(sqs.Codec(VOCAB), last, sqs.TopK(9))
        by_core = adapter.verify_rounds(rounds, last, draws)
    read = [last, last[0], last[1]][: 1 if dtype == torch.float64 else 3]
    step = 5 * VOCAB * dtype.itemsize
    assert seen == [(rows.data_ptr(), step) for rows in read]
    with using("numba"):
        assert adapter.verify_rounds(rounds, last, draws) == by_core
    assert len(seen) == len(read)


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


bad_values = pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.nan, r"(\[7\] is|: contains) nan; values must be finite or -inf"),
        (torch.inf, r"(\[7\] is|: contains) inf; values must be finite or -inf"),
        (-torch.inf, r": every token is masked \(-inf\)"),
    ],
)


@bad_values
@pytest.mark.parametrize("keep", [sqs.TopK(4), sqs.Threshold(0.1)], ids=repr)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bad_rows_are_named(dtype, value, message, keep, path):
    logits = tensor_with_ties(2, 4, VOCAB, dtype=dtype)
    logits[1, 3, slice(None) if value == -torch.inf else 7] = value
    for temperature in (0, 1):
        with pytest.raises(ValueError, match=rf"^logits\[1, 3\]{message}$"):
            adapter.quantize_rows(CODEC, logits, keep, temperature=temperature)
        with pytest.raises(ValueError, match=f"^logits{message}$"):
            adapter.quantize(CODEC, logits[1, 3], keep, temperature=temperature)
        with pytest.raises(ValueError, match=r"^logits\[1, 3\].*(contains|is|every)"):
            adapter.quantize_unbiased_rows(CODEC, logits, temperature=temperature)


class Operations(TorchDispatchMode):
    """Counts the operations that tensors meet, and keeps the bytes that they make."""

    def __init__(self):
        super().__init__()
        self.counts, self.sizes = Counter(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        out = func(*args, **(kwargs or {}))
        is_old = func.is_view or func._schema.is_mutable
        self.sizes += [] if is_old else [getattr(out, "nbytes", 0)]
        return out


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
def test_unbiased_rounding_agrees_with_the_core(shape, dtype, path, monkeypatch):
    monkeypatch.setattr(rounding, "AT_ONCE", 3 * VOCAB)
    logits = tensor_with_ties(*shape, VOCAB, dtype=dtype).requires_grad_()
    rows = core_row(logits.detach()).reshape(-1, VOCAB)
    for temperature in (0, 5e-324, 0.3, 1.0, 1e300):
        numbers = rounding._draw(torch.Generator().manual_seed(SEED), len(rows))
        expected = CODEC.quantize_unbiased_rows(
            rows, temperature=temperature, rng=Given(numbers)
        )
        calls = [adapter.quantize_unbiased_rows]
        calls += [] if shape else [adapter.quantize_unbiased]
        for call in calls:
            source = torch.Generator().manual_seed(SEED)
            found = call(CODEC, logits, temperature=temperature, generator=source)
            assert [*([found] if call is not calls[0] else found)] == [*expected]


def test_random_numbers_for_rounding_have_64_bits():
    numbers = rounding._draw(torch.Generator().manual_seed(SEED), 10_000)
    assert numbers.dtype == np.uint64
    bits = np.unpackbits(numbers[:, None].view(np.uint8), axis=1)
    assert abs(bits.mean(0) - 0.5).max() < 0.025  # five standard deviations


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


def likely_target(round_, rng):
    """Target logits near the draft's, so that rounds end early, late and not at all."""
    dense = adapter.to_dense([*round_.distributions, round_.distributions[0]])
    noise = torch.from_numpy(rng.normal(0, 0.5, dense.shape))
    return (dense + 1e-4).log() + noise


def test_a_generator_gives_equally_many_numbers(path):
    """One for each row, whatever is accepted; the default generator is torch's."""
    rng, rows = np.random.default_rng(SEED), tensor_with_ties(5, VOCAB)
    for seed in range(20):
        round_, counts = any_round(rng, CODEC, 4), []
        target = likely_target(round_, rng)
        for own in torch.Generator(), None:
            source = own or torch.default_generator
            with torch.random.fork_rng(devices=[]):
                source.manual_seed(seed)
                draws = torch.rand(5, dtype=torch.float64, generator=own)
                after = source.get_state()
                source.manual_seed(seed)
                found = adapter.verify(round_, target, temperature=1.7, generator=own)
                assert torch.equal(source.get_state(), after)
                counts += adapter.quantize_unbiased_rows(CODEC, rows, generator=own)
            given = [round_], target, draws
            assert [found] == adapter.verify_rounds(*given, temperature=1.7)
        assert counts[:5] == counts[5:]


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_impossible_tokens_are_never_drawn(draw, path):
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]] * 2)
    rounds = [sqs.Round([sqs.SparseDistribution([0], [8], 3)], [0])]
    assert adapter.verify_rounds(rounds, logits, [draw] * 2) == [sqs.Verdict(0, 1)]


@bad_values
@pytest.mark.parametrize("temperature", [0, 1])
def test_verify_names_bad_rows(value, message, temperature, path):
    logits = torch.zeros(2, 2)
    logits[1] = value
    how = {"temperature": temperature}
    refuses(rf"^target_logits\[1\]{message}$", adapter.verify, ROUND, logits, **how)
    rows, t = torch.cat([logits[:1], logits, logits[:1]]), [1, temperature, 0]
    given, said = (
        ([None, ROUND, None], rows, [0.5] * 4),
        r"^rounds\[1\]: target_logits",
    )
    refuses(rf"{said}\[2\]{message}$", adapter.verify_rounds, *given, temperature=t)


def random_batch(seed, rounds):
    rng, logits = np.random.default_rng(seed), []
    sizes = rng.integers(0, 5, rounds).tolist()
    batch = [any_round(rng, CODEC, length) if length else None for length in sizes]
    for round_ in batch:
        alone = torch.from_numpy(rng.normal(0, 3, (1, VOCAB)))
        logits.append(likely_target(round_, rng) if round_ else alone)
    temperatures = rng.choice([0, 0.5, 1.0, 1.7], rounds).tolist()
    rows = torch.cat(logits)
    return batch, rows, rng.random(len(rows)), temperatures


def target_probs(rows, batch, temperatures):
    sizes = [1 if round_ is None else len(round_) + 1 for round_ in batch]
    probs = []
    for part, t in zip(rows.double().split(sizes), temperatures, strict=True):
        greedy = torch.eye(VOCAB, dtype=torch.float64)[part.argmax(-1)]
        probs.append((part / t).softmax(-1) if t else greedy)
    return torch.cat(probs).numpy()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_batch_verifies_as_in_the_core(dtype, path):
    outcomes = set()
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
        outcomes |= {verdict.accepted for verdict in found}
    assert outcomes == {*range(5)}


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


def test_a_device_samples_from_minute_residuals():
    """And from the row itself where nothing but a rounding error is left."""
    half = np.array([1.0, 1.0])
    for tail, tokens in [(1e-22, [3, 3]), (1e-260, [3, 3]), (1e-300, [0, 1])]:
        weights = torch.tensor([[1.0, 1.0, 0.0, tail]], dtype=torch.float64)
        from_it = [
            (0, draw, np.array([0, 1], np.uint32), half) for draw in (0.0, 1 - 2**-53)
        ]
        assert verifying._draw(weights, from_it) == tokens


CUTS = {}, {"top_k": 5}, {"top_p": 0.7, "min_p": 0.05}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [2, 64, 203, 64 * 70 + 1])
def test_gumbel_verify_agrees_with_the_core(size, dtype, path):
    """For drafts that are right now and then, many at once or one."""
    rng = np.random.default_rng(SEED)
    sizes = rng.integers(1, 6, 14).tolist()
    rows = tensor_with_ties(sum(sizes), size, dtype=dtype)
    rows[:, 1] = 0.0
    keys = [rng.bytes(16) for _ in sizes]
    positions = [int(2.0 ** rng.uniform(0, 63)) for _ in sizes]
    temperatures = rng.choice([0, 1e-40, 1e-3, 0.7, 1.0, 1e300], len(sizes)).tolist()
    samplings = [sqs.Sampling(t, **CUTS[rng.integers(3)]) for t in temperatures]
    drafts, cores = [], []
    for part, key, position, own in zip(
        rows.split(sizes), keys, positions, samplings, strict=True
    ):
        draft, right = [0] * (len(part) - 1), int(rng.integers(len(part)))
        for i in range(right):
            row = core_row(part[i])
            draft[i] = sqs.gumbel_draw(row, key, position + i, sampling=own)
        given = key, position
        cores.append(sqs.gumbel_verify(draft, core_row(part), *given, sampling=own))
        assert adapter.gumbel_verify(draft, part, *given, sampling=own) == cores[-1]
        drafts.append(draft)
    strided = rows.T.contiguous().T
    given = drafts, strided, keys, positions
    assert adapter.gumbel_verify_rounds(*given, sampling=samplings) == cores


def test_all_blocks_of_a_row_may_be_opened(monkeypatch):
    """Where few are looked at first, and the winner may be in another."""
    monkeypatch.setattr(racing, "OPENED", 1)
    monkeypatch.setattr(racing, "is_on_host", lambda rows: False)
    rows, keys = tensor_with_ties(30, 317), [bytes([i] * 16) for i in range(30)]
    found = adapter.gumbel_verify_rounds([[]] * 30, rows, keys, [7] * 30)
    drawn = [*map(sqs.gumbel_draw, rows.numpy(), keys, [7] * 30)]
    assert [verdict.token for verdict in found] == drawn


def test_the_adapter_imports_only_torch_and_the_core():
    code = """
import sys, torch, sqs_codec
before = set(sys.modules)
import sqs_codec.torch
others = "torch.", "sqs_codec.torch"
print(*(m for m in set(sys.modules) - before if not m.startswith(others)))
"""
    assert not output(code)


def test_more_rows_need_no_more_waits_for_the_device(monkeypatch):
    """However many they are, each call takes the same operations."""
    for module in (quantizing, racing, verifying):
        monkeypatch.setattr(module, "is_on_host", lambda rows: False)
    waits, cpu = [], torch.Tensor.cpu
    monkeypatch.setattr(
        torch.Tensor, "cpu", lambda x: waits.append(x.numel()) or cpu(x)
    )

    def rounds(n):
        batch, *given, temperatures = random_batch(SEED, n)
        assert {0} < set(temperatures)
        return partial(adapter.verify_rounds, batch, *given, temperature=temperatures)

    def races(n):
        given = [[]] * n, tensor_with_ties(n, 8192), [bytes(16)] * n, range(n)
        how = sqs.Sampling(0.7)
        return partial(adapter.gumbel_verify_rounds, *given, sampling=how)

    def marks(n):
        return partial(rounding._marked, tensor_with_ties(n, VOCAB), 1, 9, [1] * n, [])

    def rows(keep, n):
        return partial(adapter.quantize_rows, CODEC, tensor_with_ties(n, VOCAB), keep)

    of_rules = ((partial(rows, keep), 1) for keep in RULES)
    for made, nonzero in (*of_rules, (marks, None), (races, 0), (rounds, 0)):
        counts = []
        for n in (6, 60):
            call = made(n)
            waits.clear()
            with Operations() as operations:
                call()
            counts.append(operations.counts)
            assert len(waits) <= 2
            assert made is not rounds or max(waits) <= 3 * len(call.args[1])
        assert counts[0] == counts[1]
        assert counts[0]["_local_scalar_dense"] == 0
        assert nonzero is None or counts[0]["nonzero"] == nonzero


ROW, ROWS, KEEP = torch.zeros(VOCAB), torch.zeros(3, 2), sqs.TopK(4)
MASKED = torch.tensor([[0.0, 0.0], [0.0, 0.0], [-torch.inf, -torch.inf]])
Q = sqs.SparseDistribution([1, 4], [1, 3], vocab_size=5)
WIDER = sqs.SparseDistribution([1, 4], [1, 3], vocab_size=6)
NUMPY = np.random.default_rng(0)
KEYS = [bytes(16)] * 2

quantize = partial(adapter.quantize, CODEC)
rows_of = partial(adapter.quantize_rows, CODEC)
unbiased = partial(adapter.quantize_unbiased_rows, CODEC)
dense = adapter.to_dense


def verify(logits=ROWS[:2], round_=ROUND, **options):
    adapter.verify(round_, logits, **options)


def verify_rounds(**change):
    good = {"rounds": [ROUND, None], "target_logits": ROWS, "draws": [0.5] * 3}
    adapter.verify_rounds(**good | change)


def race(**change):
    good = {"drafted": [1], "logits": ROWS[:2], "key": bytes(16), "position": 7}
    adapter.gumbel_verify(**good | change)


def races(**change):
    good = {"drafted": [[1], []], "logits": ROWS, "keys": KEYS, "positions": [0, 2]}
    adapter.gumbel_verify_rounds(**good | change)


VALUES = [
    (r"\[203\], got \[1, 203\]", lambda: quantize(ROW[None], KEEP)),
    (r"203\], got \[9\]", lambda: rows_of(ROW[:9], KEEP)),
    (r"203\], got \[\]", lambda: rows_of(ROW[0], KEEP)),
    ("temperature must be finite", lambda: quantize(ROW, KEEP, temperature=-1.0)),
    ("must not be empty", lambda: dense([])),
    (r"got \[\(5, 4\), \(6, 4\)\]", lambda: dense([Q, WIDER])),
    (r"\(2, 2\).*, got \(1, 2\)", lambda: verify(ROWS[:1])),
    ("temperature must be finite", lambda: verify(temperature=-1.0)),
    (r"shape \(2, 2\).*, got \(3, 2\)", lambda: verify_rounds(rounds=[ROUND])),
    (r"got \(1, 3, 2\)", lambda: verify_rounds(target_logits=ROWS[None])),
    (r"got \(3, 1\)", lambda: verify_rounds(target_logits=ROWS[:, :1])),
    (r"draws must have shape \(3,\)", lambda: verify_rounds(draws=[0.5] * 2)),
    (r"draws\[1\] must be in \[0, 1\)", lambda: verify_rounds(draws=[0.5, 1.0, 0.5])),
    ("one for each of 2 rounds, got 1", lambda: verify_rounds(temperature=[1.0])),
    ("must be finite", lambda: verify_rounds(temperature=[1.0, -1.0])),
    (r"shape \(1, 2\).*, got \(2, 2\)", lambda: race(drafted=[])),
    (r"^drafted\[0\] must be in \[0, 1\], got 2", lambda: race(drafted=[2])),
    ("^key must have 16 bytes, got 1", lambda: race(key=b"k")),
    ("^position must be in", lambda: race(position=-1)),
    (r"shape \(2, 2\).*, got \(3, 2\)", lambda: races(drafted=[[1]])),
    (r"drafted\[0\]\[0\] must be in \[0, 1\]", lambda: races(drafted=[[2], []])),
    (r"logits\[2\]: every token is masked", lambda: races(logits=MASKED)),
    (r"logits\[2\].* nan", lambda: races(logits=MASKED * 0)),
    ("keys must be one for each of 2 texts, go", lambda: races(keys=KEYS[:1])),
    (r"keys\[1\] must have 16 bytes, got", lambda: races(keys=[*KEYS[:1], b"k"])),
    (r"positions\[1\] must be in \[0, ", lambda: races(positions=[0, -1])),
    ("one for each of 2 rounds, got 1", lambda: races(sampling=[sqs.Sampling()])),
]

TYPES = [
    ("codec must be a Codec, got int", lambda: adapter.quantize(203, ROW, KEEP)),
    ("codec must be a Codec, got int", lambda: adapter.quantize_rows(203, ROW, KEEP)),
    ("Tensor, got ndarray", lambda: quantize(ROW.numpy(), KEEP)),
    ("float64, got torch.int64", lambda: quantize(ROW.long(), KEEP)),
    ("keep must be a rule such as TopK", lambda: quantize(ROW, 4)),
    ("values, got a meta tensor", lambda: rows_of(ROW[None].to("meta"), KEEP)),
    ("got a torch.sparse_coo one", lambda: rows_of(ROW[None].to_sparse(), KEEP)),
    ("^generator must be a torch.Gene", lambda: unbiased(ROW[None], generator=NUMPY)),
    ("^generator must be a torch.", lambda: unbiased(ROW[None][:0], generator=NUMPY)),
    (r"\[0\] must be a SparseDistribution, got str", lambda: dense("q")),
    ("dtype must be a torch.dtype, got type", lambda: dense(Q, dtype=np.float32)),
    ("floating-point one, got torch.int64", lambda: dense(Q, dtype=torch.int64)),
    ("must be a torch.Tensor, got list", lambda: verify([[0.0, 0.0]] * 2)),
    ("float64, got torch.bool", lambda: verify(ROWS[:2] > 0)),
    ("a Round, got list", lambda: verify(round_=[])),
    ("^generator must be a to", lambda: verify(generator=NUMPY)),
    (
        r"sqs_codec\.torch\.verify takes logits as",
        lambda: sqs.verify(ROUND, ROWS[:2], NUMPY),
    ),
    ("must be a sequence of rounds, got R", lambda: verify_rounds(rounds=ROUND)),
    (r"\[1\] must be .* None, got int", lambda: verify_rounds(rounds=[ROUND, 0])),
    ("Tensor, got ndarray", lambda: verify_rounds(target_logits=ROWS.numpy())),
    ("float64, got float32", lambda: verify_rounds(draws=torch.zeros(3))),
    ("must be a number", lambda: verify_rounds(temperature=[1.0, "hot"])),
    ("must be a Sampling, got float", lambda: race(sampling=0.7)),
    ("torch.Tensor, got ndarray", lambda: races(logits=ROWS.numpy())),
]


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        *((ValueError, *row) for row in VALUES),
        *((TypeError, *row) for row in TYPES),
    ],
)
def test_arguments_are_refused(error, words, call, path):
    refuses(words, call, error=error)


def test_nothing_is_verified_in_an_empty_batch(path):
    rows = torch.empty(0, VOCAB)
    assert adapter.gumbel_verify_rounds([], rows, [], []) == []
    for temperature in 1.0, []:
        assert adapter.verify_rounds([], rows, [], temperature=temperature) == []
