"""Many distributions as arrays."""

import pickle

import numpy as np
import pytest

import sqs_codec as sqs

GOOD = {"token_ids": [2, 7, 5, 0, 1, 2], "counts": [3, 1, 4, 1, 1, 2]}
GOOD |= {"offsets": [0, 2, 3, 6], "vocab_size": 8, "resolution": 4}


def test_rows_are_a_sequence_of_distributions():
    rows = sqs.SparseRows(**GOOD)
    singles = list(rows)
    assert rows[-1] == singles[2] == sqs.SparseDistribution([0, 1, 2], [1, 1, 2], 8)
    assert sqs.SparseRows.stack(singles) == rows == rows[:]
    assert list(rows[1:]) == singles[1:]
    assert list(rows[::-2]) == singles[::-2]
    assert list(rows[2:1]) == []
    assert pickle.loads(pickle.dumps(rows)) == rows
    assert rows != singles
    assert len({rows, rows[:], sqs.SparseRows(**GOOD), rows[1:]}) == 2
    with pytest.raises(IndexError):
        rows[3]


def test_parts_are_concatenated():
    rows = sqs.SparseRows(**GOOD)
    parts = [rows[1:], rows[:0], rows[::-2], rows]
    whole = sqs.SparseRows.concatenate(iter(parts))
    assert list(whole) == [q for part in parts for q in part]
    assert sqs.SparseRows.concatenate([rows[:0]]) == rows[:0]
    one = sqs.SparseRows.concatenate([rows])
    assert np.shares_memory(one.token_ids, rows.token_ids)  # as it is read-only


def test_dense_rows_equal_single_dense_rows():
    rows = sqs.SparseRows(**GOOD)
    dense = rows.to_dense(np.float64)
    assert np.array_equal(dense, [q.to_dense(np.float64) for q in rows])


def test_zero_rows_are_allowed():
    rows = sqs.SparseRows(**GOOD)[:0]
    assert len(rows) == 0
    assert rows.to_dense().shape == (0, 8)
    assert sqs.SparseRows([], [], [0], 8, 4) == rows
    codec = sqs.Codec(8, 4)
    assert codec.encode_rows([]) == codec.encode_rows(rows) == []


def test_returned_arrays_are_read_only():
    given = np.array(GOOD["token_ids"], np.uint32)
    rows = sqs.SparseRows(**{**GOOD, "token_ids": given})
    given[:] = 7
    assert rows == sqs.SparseRows(**GOOD)
    for array in (rows.token_ids, rows.counts, rows.offsets, rows[:2].token_ids):
        with pytest.raises(ValueError, match="cannot set WRITEABLE"):
            array.flags.writeable = True
