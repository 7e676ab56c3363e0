"""What the check says of vLLM's rejection sampler, called by itself on a CPU."""

from functools import partial

import numpy as np
import pytest
import torch
import vllm
from vllm.platforms import current_platform
from vllm.v1.sample import rejection_sampler
from vllm.v1.sample.logits_processor import LogitsProcessors
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.sampler import Sampler
from vllm.v1.spec_decode.metadata import SpecDecodeMetadata

from sqs_codec.testing import LossyError, check_lossless


def verified(sampler, prompt, draft, target, rng):
    """A round of two tokens that a rejection sampler verifies."""
    torch.manual_seed(int(rng.integers(2**32)))
    text = list(prompt)
    for _ in range(2):
        text.append(int(torch.multinomial(torch.tensor(draft(text)), 1)))
    texts = [text[: len(prompt) + i] for i in range(3)]
    q = torch.tensor(np.array([draft(text) for text in texts[:2]])).float()
    p = torch.tensor(np.array([target.logits(text) for text in texts])).float()
    drafted = SpecDecodeMetadata.make_dummy([text[len(prompt) :]], q.device)
    drafted.target_logits_indices[:] = torch.arange(2)
    drafted.bonus_logits_indices[:] = 2
    settings = dict.fromkeys(SamplingMetadata.__dataclass_fields__) | {
        "temperature": torch.ones(1), "all_greedy": False, "all_random": True,
        "generators": {}, "no_penalties": True, "output_token_ids": [[]],
        "bad_words_token_ids": {}, "logitsprocs": LogitsProcessors(),
    }  # fmt: skip
    written = sampler(drafted, q, p, SamplingMetadata(**settings)).sampled_token_ids
    return [int(token) for token in written[0] if token >= 0]


def expanded(x, ends, _, replace_from=0, replace_to=0):
    """Do what vLLM's function of the name is for."""
    counts = torch.diff(ends, prepend=ends.new_zeros(1))
    return torch.where(x == replace_from, replace_to, x).repeat_interleave(counts)


@pytest.mark.filterwarnings("ignore:.*reduce_op:FutureWarning")  # of vLLM's imports
def test_the_rejection_sampler(monkeypatch):
    """Its kernels are right, but each token's temperature is memory nobody wrote.

    On a CPU `expand_batch_to_tokens` fills a copy in int64, and only a tensor of that
    type is no copy.
    """
    current_platform.import_kernels()  # as a worker does
    current_platform.register_triton_kernel_overrides()
    sampler = rejection_sampler.RejectionSampler(Sampler())
    decode = partial(verified, sampler)
    if vllm.__version__ == "0.32.0":
        torch.use_deterministic_algorithms(True)  # memory that nobody writes is NaN
        with pytest.raises((LossyError, ValueError)):
            check_lossless(decode, trials=3000)
        torch.use_deterministic_algorithms(False)
        monkeypatch.setattr(rejection_sampler, "expand_batch_to_tokens", expanded)
    assert check_lossless(decode, trials=3000).method == "chi2"
