"""The verifier in vLLM's worker by itself: chunks, gaps, and what fails."""

import numpy as np
import pytest
import torch
from vllm.pooling_params import PoolingParams
from vllm.v1.pool.metadata import PoolingMetadata, PoolingStates

from sqs_codec import Round, Sampling, SparseDistribution
from sqs_codec.system.session import VerifyHints, VerifyRound
from sqs_codec.system.vllm._message import (
    FAILED,
    READ,
    SHORT,
    TASK,
    pack_job,
    unpack_job,
)
from sqs_codec.system.vllm._verifier import RoundPooler, _collect
from tests.system.vllm.kit import SAMPLINGS

V = 6
GREEDY = Sampling(temperature=0)


def job(tokens):
    """A job after the first of `tokens`, with the others as its draft."""
    round_ = None
    if tokens[1:]:
        sure = [SparseDistribution([token], [1], V) for token in tokens[1:]]
        round_ = Round(sure, tokens[1:])
    return VerifyRound(b"", tokens[:1], round_, np.full(len(tokens), 0.5), GREEDY)


def successors(hidden):
    """Logits of a model that counts; its hidden states are the tokens."""
    logits = torch.zeros(len(hidden), V + 2)
    logits[:, V:] = 9  # of padding
    logits[torch.arange(len(hidden)), (hidden[:, 0].long() + 1) % V] = 1
    logits[hidden[:, 0] < 0] = torch.nan
    return logits


def step(pooler, *requests, state=None):
    """Have a step read positions start to end of requests, and return the answers."""
    fields, texts, starts, ends = zip(*requests, strict=True)
    metadata = PoolingMetadata(
        prompt_lens=torch.tensor([*map(len, texts)]),
        prompt_token_ids=None,
        prompt_token_ids_cpu=None,
        pooling_params=[
            PoolingParams(task=TASK, extra_kwargs=each and {"sqs": each})
            for each in fields
        ],
        pooling_states=[state or PoolingStates() for _ in requests],
    )
    metadata.build_pooling_cursor(
        np.subtract(ends, starts), torch.tensor(ends), torch.device("cpu")
    )
    read = [token for _, text, start, end in requests for token in text[start:end]]
    hidden = torch.tensor(read, dtype=torch.float32)[:, None]
    answers = pooler(hidden, metadata)
    hidden.fill_(-1)  # vLLM may use the memory again
    return [None if answer is None else tuple(answer.tolist()) for answer in answers]


TEXT = [5, 4, 3, 2, 1, 0, 1, 2, 5]  # and 3 would have followed
FIELDS = pack_job(job(TEXT[5:]))
WHOLE = FIELDS, TEXT, 0, 9


def test_one_matrix_for_all_requests_of_a_step():
    sizes = []

    def logits(hidden):
        sizes.append(len(hidden))
        return successors(hidden)

    pooler = RoundPooler(logits, V)
    one = pack_job(job(TEXT[8:]))
    reading = {"draws": []}
    hinted = pack_job(VerifyHints(b"", TEXT[:6], TEXT[6:], bytes(16), GREEDY))
    answers = step(
        pooler,
        WHOLE,
        (hinted, TEXT, 0, 9),
        (one, TEXT, 3, 9),
        (reading, TEXT, 0, 9),
        (None, TEXT, 0, 9),  # vLLM's own, to warm up
        (FIELDS, TEXT, 0, 8),  # to be gone on with
        (FIELDS, TEXT, 6, 9),  # the rest is cached
    )
    assert answers == [(2, 3), (2, 3), (0, 0), READ, READ, None, SHORT]
    assert sizes == [4 + 4 + 1]


def test_chunks_gaps_and_preemptions():
    """Positions come in any order; the answer is right, or `SHORT` if one lacks."""
    rng = np.random.default_rng(3)
    pooler, found = RoundPooler(successors, V), set()
    for _ in range(500):
        state, answer = PoolingStates(), None
        position = reach = int(rng.integers(9))
        known = 0  # what comes before is known, as far as it is wanted
        while answer is None:
            if rng.random() < 0.2:  # preempted, and then in the cache up to here
                position = int(rng.integers(reach + 1))
            known = 9 if position <= max(known, 5) else 0
            end = int(rng.integers(position, 9)) + 1
            known = min(known, end)
            [answer] = step(pooler, (FIELDS, TEXT, position, end), state=state)
            position, reach = end, max(reach, min(end, 8))
        assert answer == ((2, 3) if known else SHORT)
        assert not state.hidden_states_cache
        found.add(answer)
    assert found == {(2, 3), SHORT}


def test_unwanted_rows_are_not_kept():
    kept = []
    assert len(_collect(kept, torch.zeros(7, 1), 7, 9)) == 0
    assert [len(rows) for rows in kept] == [0]
    assert kept[0].untyped_storage().nbytes() == 0


def test_other_tensor_parallel_ranks_do_not_answer():
    pooler = RoundPooler(lambda hidden: None, V)
    assert step(pooler, WHOLE, (FIELDS, TEXT, 6, 9)) == [READ, SHORT]


@pytest.mark.parametrize(
    "bad",
    [
        (FIELDS | {"packet": b"\xff\xff"}, TEXT),
        (FIELDS | {"draws": [2.0] * 4}, TEXT),
        (FIELDS | {"draws": [0.5] * 3}, TEXT),
        (FIELDS, [*TEXT[:7], -1, 5]),  # the model gives NaN
    ],
)
def test_a_failing_request_does_not_affect_others(bad):
    found = step(RoundPooler(successors, V), WHOLE, (*bad, 0, 9), WHOLE)
    assert found == [(2, 3), FAILED, (2, 3)]


def test_jobs_survive_serialization():
    rng = np.random.default_rng(4)
    key = bytes(range(16))
    for sampling in SAMPLINGS:
        sent = VerifyHints(b"x", [7, 8, 9], [1, 5], key, sampling)
        got = unpack_job(pack_job(sent), V)
        assert (got.hints, got.key, len(got.text)) == ([1, 5], key, 3)
        assert (got.wanted, got.sampling) == (3, sampling)
        sent = VerifyRound(b"x", [1], job(TEXT[5:]).round, rng.random(4), sampling)
        got = unpack_job(pack_job(sent), V)
        assert got.round == sent.round
        assert got.draws.tolist() == sent.draws.tolist()
        assert got.sampling == sampling
