"""The check on transformers' assisted generation, with toy models."""

import json
from dataclasses import replace

import pytest
import torch

from sqs_codec.system.hf import Draft
from sqs_codec.testing import LossyError, check_lossless
from sqs_codec.testing._mistakes import MISTAKES
from sqs_codec.testing._toy import DRAFT
from sqs_codec.testing.transformers import as_model
from tests.testing.loops import RAW, Loop


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assisted(prompt, draft, target, rng):
    torch.manual_seed(int(rng.integers(2**32)))
    how = {"max_new_tokens": 5, "do_sample": True, "assistant_model": as_model(draft)}
    ids = as_model(target).generate(torch.tensor([prompt]), **how)
    return ids[0, len(prompt) :]


@pytest.mark.parametrize(
    ("cut", "exact"),
    [
        *((f"top-p {mass}", True) for mass in (0.9, 0.95)),
        *((f"top-k {k}", True) for k in (2, 50)),
        *((f"min-p {share}", True) for share in (0.05, 0.1)),
        *(("top-p 0.95", False), ("top-k 50", False)),  # which texts show least
    ],
)
def test_a_warped_draft_accepted_with_the_full_q(cut, exact):
    warper, setting = cut.split()
    loop = Loop(1, f"hf {warper}", json.loads(setting))
    with pytest.raises(LossyError) as caught:
        check_lossless(replace(loop, **RAW).each, exact=exact)
    assert MISTAKES["another q"] in str(caught.value) or "No known" in str(caught.value)
    if exact:
        assert check_lossless(loop.each).method == "sum"


def test_a_toy_drafts_for_an_edge():
    assert Draft(as_model(DRAFT)).vocab_size == DRAFT.vocab_size


def test_assisted_generation_is_lossless():
    read = []
    hook = as_model(DRAFT).register_forward_hook(lambda *_: read.append(1))
    assert check_lossless(assisted, trials=1000).method == "chi2"
    hook.remove()
    assert len(read) > 2000  # it did draft
