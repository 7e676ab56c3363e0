"""Rows at once: the same as one by one, on any number of threads."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import sqs_codec as sqs
from tests.kit import make_prior, normal_rows

pytestmark = pytest.mark.usefixtures("backend")

V = 3000
RULES = [sqs.TopK(64), sqs.Threshold(0.01), sqs.TopP(0.9), sqs.Conformal()]


def rows(n, dtype=np.float32):
    return normal_rows(n, n, V, dtype)


@pytest.fixture
def codec(backend):
    return sqs.Codec(V)


@pytest.mark.parametrize("keep", RULES, ids=repr)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_rows_are_as_they_are_alone(codec, keep, dtype, threads):
    logits = rows(7, dtype)
    alone = [codec.quantize(row, keep, temperature=0.7) for row in logits]
    found = codec.quantize_rows(logits, keep, temperature=0.7, threads=threads)
    assert found == sqs.SparseRows.stack(alone)
    packets = codec.encode_logits_rows(logits, keep, temperature=0.7, threads=threads)
    assert packets == [codec.encode(q) for q in alone]
    assert packets == [codec.encode_logits(x, keep, temperature=0.7) for x in logits]


@pytest.mark.parametrize("threads", [1, 3])
def test_no_rows_and_one(codec, threads):
    assert len(codec.quantize_rows(rows(0), sqs.TopK(3), threads=threads)) == 0
    assert codec.encode_logits_rows(rows(0), sqs.TopK(3), threads=threads) == []
    (q,) = codec.quantize_rows(rows(1), sqs.TopK(3), threads=threads)
    assert codec.encode_logits_rows(rows(1), sqs.TopK(3), threads=threads) == [
        codec.encode(q)
    ]


def test_layouts(codec):
    logits, keep = rows(6), sqs.TopK(8)
    expected = codec.encode_logits_rows(logits, keep)
    spread = np.full((6, 4, V), np.nan, np.float32)
    spread[:, 2] = logits
    gapped = np.full((6, V + 5), np.nan, np.float32)
    gapped[:, 2 : V + 2] = logits
    frozen = logits.copy()
    frozen.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + logits.tobytes(), np.uint8)[1:].view("f4")
    turned = np.asfortranarray(logits), logits[::-1][::-1], logits.astype(">f4")
    others = spread[:, 2], gapped[:, 2 : V + 2], frozen, unaligned.reshape(6, V)
    for same in (*turned, *others):
        assert codec.encode_logits_rows(same, keep) == expected
    assert codec.encode_logits_rows(logits[::-1], keep) == expected[::-1]
    assert codec.encode_logits_rows(logits[::2], keep, threads=2) == expected[::2]
    same = np.broadcast_to(logits[0], (5, V))
    assert codec.encode_logits_rows(same, keep) == [expected[0]] * 5


@pytest.mark.parametrize(
    "one",
    [
        lambda rows: rows[::-1][5:],
        lambda rows: rows[::-2][:1],
        lambda rows: rows[::-1].T[:, :1].T,
        lambda rows: np.repeat(rows, 2, axis=1)[::-1][:1, ::2],
    ],
)
def test_one_row_of_a_reversed_view(codec, one):
    """NumPy keeps the negative stride that no second row makes use of."""
    row = one(rows(6))
    assert row.shape == (1, V)
    keep = sqs.TopK(8)
    expected = codec.encode(codec.quantize(row[0].copy(), keep))
    for threads in (1, 2):
        assert codec.encode_logits_rows(row, keep, threads=threads) == [expected]
        (q,) = codec.quantize_rows(row, keep, threads=threads)
        assert codec.encode(q) == expected
    assert codec.encode_logits_rows(rows(6)[::-1][:0], keep) == []


def test_other_codings(backend):
    logits, keep = rows(5), sqs.Threshold(0.01)
    for coding in ("enumerative", "bitpack"):
        codec = sqs.Codec(V, coding=coding)
        packets = codec.encode_logits_rows(logits, keep, threads=2)
        distributions = codec.quantize_rows(logits, keep, threads=2)
        assert packets == [codec.encode(q) for q in distributions]
        assert packets[3] == codec.encode_logits(logits[3], keep)


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, r"logits\[5\]\[77\] is nan"), (-np.inf, r"logits\[5\]: every token is")],
)
def test_the_first_bad_row_is_named(codec, value, message, threads):
    logits = rows(7)
    logits[5] = -np.inf
    logits[5, 77] = value
    logits[6] = np.nan
    for function in (codec.quantize_rows, codec.encode_logits_rows):
        with pytest.raises(ValueError, match=message):
            function(logits, sqs.TopK(3), threads=threads)


def test_arguments(codec):
    logits = rows(3)
    for function in (codec.quantize_rows, codec.encode_logits_rows):
        with pytest.raises(ValueError, match=r"shape \(B, 3000\), got \(3000,\)"):
            function(logits[0], sqs.TopK(3))
        with pytest.raises(ValueError, match=r"got \(3, 2999\)"):
            function(logits[:, :-1], sqs.TopK(3))
        with pytest.raises(TypeError, match="got int64"):
            function(np.zeros((3, V), np.int64), sqs.TopK(3))
        with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
            function(logits, sqs.TopK(3), threads=0)
        with pytest.raises(TypeError, match="threads must be an integer"):
            function(logits, sqs.TopK(3), threads=1.5)
        with pytest.raises(TypeError, match="keep must be a rule"):
            function(logits, 3)
        with pytest.raises(ValueError, match="temperature must be finite"):
            function(logits, sqs.TopK(3), temperature=-1)
    small = sqs.Codec(V, 1 << 16, "enumerative")
    given = [np.eye(1, V)[0] * 99, np.zeros(V), np.full(V, np.nan)]
    with pytest.raises(ValueError, match=r"logits\[1\]: coding 'enumerative' holds"):
        small.encode_logits_rows(given, sqs.TopK(2000))
    with pytest.raises(ValueError, match=r"^logits: coding 'enumerative' holds"):
        small.encode_logits(np.zeros(V), sqs.TopK(2000))
    with pytest.raises(ValueError, match=r"logits\[7\] is nan"):
        small.encode_logits(np.where(np.arange(V) == 7, np.nan, 0), sqs.TopK(20))


@pytest.mark.parametrize("classes", [0, 5])
def test_threads_share_a_codec(classes, backend):
    """One codec, used by many threads at once for different things."""
    codec = sqs.Codec(V, prior=make_prior(V, classes) if classes else None)
    logits = rows(24)
    jobs = [(row, keep) for row in logits for keep in RULES]
    expected = [
        codec.encode(codec.quantize(row, keep, temperature=0.7)) for row, keep in jobs
    ]
    start = threading.Barrier(8)

    def work(number):
        start.wait()
        found = []
        for row, keep in jobs:
            data = codec.encode_logits(row, keep, temperature=0.7)
            q = codec.decode(data)
            assert codec.quantize(row, keep, temperature=0.7) == q
            packet = codec.encode_round([q, q], [q.token_ids[0], q.token_ids[-1]])
            assert codec.decode_round(packet).distributions == (q, q)
            found.append(data)
            if len(found) % 20 == number:
                codec.encode_logits_rows(logits, keep, threads=2)
        return found

    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(work, range(8)))


def test_packets_of_a_batch_may_be_large(backend):
    codec = sqs.Codec(V, 1 << 16)
    logits = np.zeros((64, V), np.float32)
    packets = codec.encode_logits_rows(logits, sqs.TopK(V))
    assert packets == [codec.encode_logits(logits[0], sqs.TopK(V))] * 64


def test_distributions_can_not_be_written(codec):
    q = codec.quantize(rows(1)[0], sqs.TopK(8))
    assert pickle.loads(pickle.dumps(q)).dropped_mass == q.dropped_mass
    packet = codec.encode_round([q], [int(q.token_ids[0])])
    for each in (
        q,
        codec.quantize_probs(np.full(V, 1 / V), sqs.TopK(8)),
        *codec.quantize_rows(rows(2), sqs.TopK(8)),
        codec.decode(codec.encode(q)),
        *codec.decode_round(packet).distributions,
        sqs.SparseDistribution(q.token_ids, q.counts, V),
        pickle.loads(pickle.dumps(q)),
    ):
        for array in (each.token_ids, each.counts):
            while isinstance(array, np.ndarray):
                with pytest.raises(ValueError, match="WRITEABLE"):
                    array.flags.writeable = True
                array = array.base
