"""Many distributions as arrays."""

import pickle

import numpy as np
import pytest

import sqs_codec as sqs
from tests.refusals import refuses

GOOD = {"token_ids": [2, 7, 5, 0, 1, 2], "counts": [3, 1, 4, 1, 1, 2]}
GOOD |= {"offsets": [0, 2, 3, 6], "vocab_size": 8, "resolution": 4}


def test_is_a_sequence_of_distributions():
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


def test_parts_become_one():
    rows = sqs.SparseRows(**GOOD)
    parts = [rows[1:], rows[:0], rows[::-2], rows]
    whole = sqs.SparseRows.concatenate(iter(parts))
    assert list(whole) == [q for part in parts for q in part]
    assert sqs.SparseRows.concatenate([rows[:0]]) == rows[:0]
    one = sqs.SparseRows.concatenate([rows])
    assert np.shares_memory(one.token_ids, rows.token_ids)  # as nobody can write it


def test_dense_rows_are_those_of_each():
    rows = sqs.SparseRows(**GOOD)
    dense = rows.to_dense(np.float64)
    assert np.array_equal(dense, [q.to_dense(np.float64) for q in rows])
    refuses("floating-point", rows.to_dense, int, error=TypeError)


def test_there_may_be_no_rows():
    rows = sqs.SparseRows(**GOOD)[:0]
    assert len(rows) == 0
    assert rows.to_dense().shape == (0, 8)
    assert sqs.SparseRows([], [], [0], 8, 4) == rows
    codec = sqs.Codec(8, 4)
    assert codec.encode_rows([]) == codec.encode_rows(rows) == []


def test_nothing_returned_can_be_written():
    given = np.array(GOOD["token_ids"], np.uint32)
    rows = sqs.SparseRows(**{**GOOD, "token_ids": given})
    given[:] = 7
    assert rows == sqs.SparseRows(**GOOD)
    for array in (rows.token_ids, rows.counts, rows.offsets, rows[:2].token_ids):
        with pytest.raises(ValueError, match="cannot set WRITEABLE"):
            array.flags.writeable = True


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"offsets": [0, 2, 2, 6]}, "row 1 is empty"),
        ({"offsets": [0, 3, 2, 6]}, "row 1 is empty"),
        ({"offsets": [1, 2, 3, 6]}, "offsets must go from 0"),
        ({"offsets": [0, 2, 3]}, "offsets must go from 0"),
        ({"offsets": np.zeros(0, int)}, "offsets must go from 0"),
        ({"counts": [3, 1, 4]}, "offsets must go from 0"),
        ({"token_ids": [2, 7, 5, 0, 0, 2]}, "row 2 has token_ids that don't ascend"),
        ({"token_ids": [7, 2, 5, 0, 1, 2]}, "row 0 has token_ids that don't ascend"),
        ({"vocab_size": 7}, "row 0 has a token id outside the vocabulary of 7"),
        ({"counts": [3, 1, 4, 2, 0, 2]}, "row 2 has a count of 0"),
        ({"counts": [3, 1, 5, 1, 1, 2]}, "row 1 has counts that don't sum"),
        ({"resolution": 5}, "row 0 has counts that don't sum"),
    ],
)
def test_names_the_row_that_is_to_blame(change, error):
    refuses(error, sqs.SparseRows, **{**GOOD, **change})


def test_stacks_only_what_goes_together():
    q = sqs.SparseDistribution([1], [4], 8)
    refuses("must not be empty", sqs.SparseRows.stack, [])
    with pytest.raises(ValueError, match=r"\(8, 4\), \(9, 4\)"):
        sqs.SparseRows.stack([q, sqs.SparseDistribution([1], [4], 9)])
    refuses(r"distributions\[1\]", sqs.SparseRows.stack, [q, [1]], error=TypeError)
    rows = sqs.SparseRows.stack([q])
    with pytest.raises(ValueError, match=r"\(8, 4\), \(8, 5\)"):
        sqs.SparseRows.concatenate([rows, sqs.SparseRows([1], [5], [0, 1], 8, 5)])
    with pytest.raises(TypeError, match=r"parts\[0\] must be a SparseRows"):
        sqs.SparseRows.concatenate([q])
    refuses("must not be empty", sqs.SparseRows.concatenate, [])
