"""Rows at once: the same as one by one, on any number of threads."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import sqs_codec as sqs
from tests.kit import layouts, make_prior, normal_rows
from tests.refusals import refuses

pytestmark = pytest.mark.usefixtures("backend")

V = 3000
RULES = [sqs.TopK(64), sqs.Threshold(0.01), sqs.Conformal()]


def rows(n, dtype=np.float32):
    return normal_rows(n, n, V, dtype)


@pytest.fixture
def codec(backend):
    return sqs.Codec(V)


@pytest.mark.parametrize("keep", RULES, ids=repr)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_batch_rows_equal_single_rows(codec, keep, dtype, threads):
    logits = rows(7, dtype)
    alone = [codec.quantize(row, keep, temperature=0.7) for row in logits]
    found = codec.quantize_rows(logits, keep, temperature=0.7, threads=threads)
    assert found == sqs.SparseRows.stack(alone)
    assert {q.dropped_mass for q in found} == {None}


@pytest.mark.parametrize("threads", [1, 3])
def test_no_rows_and_one(codec, threads):
    assert len(codec.quantize_rows(rows(0), sqs.TopK(3), threads=threads)) == 0
    (q,) = codec.quantize_rows(rows(1), sqs.TopK(3), threads=threads)
    assert q == codec.quantize(rows(1)[0], sqs.TopK(3))


@pytest.mark.parametrize("threads", [1, 2])
def test_layouts(codec, threads):
    """NumPy keeps a negative stride that no second row makes use of."""
    logits, keep = rows(6), sqs.TopK(8)
    apart = np.repeat(logits, 2, axis=1)[:, ::2]
    for same in (
        *(*layouts(logits), logits.astype(">f4"), logits[::-1], logits[::2]),
        *(np.broadcast_to(logits[0], (5, V)), logits[::-1][5:], logits[::-2][:1]),
        *(logits[::-1].T[:, :1].T, apart[::-1][:1], logits[::-1][:0]),
    ):
        expected = [codec.quantize(row.copy(), keep) for row in same]
        found = codec.quantize_rows(same, keep, threads=threads)
        assert list(found) == expected


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
    refuses(message, codec.quantize_rows, logits, sqs.TopK(3), threads=threads)


def test_a_support_that_does_not_fit_is_named():
    codec, keep = sqs.Codec(V, 1 << 16, "enumerative"), sqs.TopK(2000)
    large = codec.quantize_rows([np.eye(1, V)[0] * 99, np.zeros(V)], keep)
    refuses(r"1024 tokens, got 2000 in row 1; keep fewer", codec.encode_rows, large)
    refuses("1024 tokens, got 2000; keep fewer", codec.encode, large[1])


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
            q = codec.quantize(row, keep, temperature=0.7)
            data = codec.encode(q)
            assert codec.decode(data) == q
            packet = codec.encode_round([q, q], [q.token_ids[0], q.token_ids[-1]])
            assert codec.decode_round(packet).distributions == (q, q)
            found.append(data)
            if len(found) % 20 == number:
                codec.encode_rows(codec.quantize_rows(logits, keep, threads=2))
        return found

    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(work, range(8)))


def test_packets_of_a_batch_may_be_large(backend):
    codec = sqs.Codec(V, 1 << 16)
    logits = np.zeros((64, V), np.float32)
    packets = codec.encode_rows(codec.quantize_rows(logits, sqs.TopK(V)))
    assert packets == [codec.encode(codec.quantize(logits[0], sqs.TopK(V)))] * 64


def test_distributions_are_read_only(codec):
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
