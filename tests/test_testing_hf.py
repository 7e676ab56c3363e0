"""What the check says of transformers' assisted generation, by toys as models."""

from __future__ import annotations

from functools import cache, partial, partialmethod

import pytest
import torch
import transformers

from sqs_codec.testing import LossyError, check_lossless
from sqs_codec.testing._toy import DRAFT
from sqs_codec.testing.transformers import ToyModel, as_model


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assisted(prompt, draft, target, rng, model=as_model, assistant=as_model, **options):
    torch.manual_seed(int(rng.integers(2**32)))
    ids = model(target).generate(
        torch.tensor([prompt]),
        assistant_model=assistant(draft),
        max_new_tokens=4,
        do_sample=True,
        **options,
    )
    return ids[0, len(prompt) :]


def test_an_assistant_is_right():
    read = []
    hook = as_model(DRAFT).register_forward_hook(lambda *_: read.append(1))
    assert check_lossless(assisted, trials=1000).method == "chi2"
    hook.remove()
    assert len(read) > 2000  # it did draft


class Gemma4Target(ToyModel):
    """Gives what Gemma 4's assistant drafts from: here each token's place."""

    def __init__(self, toy):
        super().__init__(toy)
        self.embedding = torch.nn.Embedding(4, 1, _weight=torch.arange(4.0)[:, None])

    def get_input_embeddings(self):
        """Return what makes a vector of a token: itself."""
        return self.embedding

    def forward(self, input_ids, **options):
        """Return a toy's logits, and places."""
        out = super().forward(input_ids, **options)
        end = out["cache"].get_seq_length()
        places = torch.arange(end - input_ids.shape[1], end)
        out["hidden_states"] = (places[None, :, None].float(),)
        out["shared_kv_states"] = {}
        return out


class Gemma4AssistantToy(ToyModel):
    """Drafts after a token of a vector and a place, and gives the next place."""

    def forward(self, inputs_embeds, **_):
        """Return logits, and the next place."""
        token, place = inputs_embeds.long().unbind(-1)
        out = transformers.utils.ModelOutput()
        out["logits"] = self.rows[(token + place + 2) % 4]
        out["last_hidden_state"] = inputs_embeds[..., 1:] + 1
        return out


@cache
def gemma_assistant(toy):
    model = Gemma4AssistantToy(toy)
    model.generation_config.num_assistant_tokens = 2
    return model


def one_hot(own, self, input_ids, **options):
    """Hand on what the tokens were drawn from: each had probability 1."""
    ids, logits = own(self, input_ids, **options)
    if logits is not None:
        drafted = ids[:, input_ids.shape[1] :, None]
        logits = torch.full_like(logits, -torch.inf).scatter(-1, drafted, 0.0)
    return ids, logits


@pytest.mark.skipif(transformers.__version__ != "5.24.0", reason="may be mended")
def test_gemma_4_assistants_hand_on_another_q(monkeypatch):
    """They draft the most probable token, and it is accepted by all of q."""
    generators = transformers.generation.candidate_generator
    generator = generators.SinglePositionMultiTokenCandidateGenerator
    decode = partial(assisted, model=cache(Gemma4Target), assistant=gemma_assistant)
    with pytest.raises(LossyError, match=r"total variation 0\.4"):
        check_lossless(decode, trials=1000)
    right = partialmethod(partial(one_hot, generator.get_candidates))
    monkeypatch.setattr(generator, "get_candidates", right)
    assert check_lossless(decode, trials=1000).method == "chi2"
