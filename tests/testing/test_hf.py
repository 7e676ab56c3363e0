"""What the check says of transformers' assisted generation, by toys as models."""

import json
from dataclasses import replace
from functools import cache, partial, partialmethod

import numpy as np
import pytest
import torch
import transformers

import sqs_codec as sqs
from sqs_codec.system.edge import Edge, FixedPlan
from sqs_codec.system.hf import Draft
from sqs_codec.system.session import LocalLink, Setting
from sqs_codec.testing import LossyError, check_lossless
from sqs_codec.testing._mistakes import MISTAKES
from sqs_codec.testing._toy import DRAFT, PROMPT, VOCAB, row_after
from sqs_codec.testing.transformers import ToyModel, as_model
from tests.system.session.kit import Target
from tests.testing.loops import RAW, Loop


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assisted(prompt, draft, target, rng, model=as_model, assistant=as_model, **options):
    torch.manual_seed(int(rng.integers(2**32)))
    how = {"max_new_tokens": 5, "do_sample": True, **options}
    given = torch.tensor([prompt])
    ids = model(target).generate(given, assistant_model=assistant(draft), **how)
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
def test_a_draft_that_is_warped_and_accepted_by_all_of_q(cut, exact):
    warper, setting = cut.split()
    loop = Loop(1, f"hf {warper}", json.loads(setting))
    with pytest.raises(LossyError) as caught:
        check_lossless(replace(loop, **RAW).each, exact=exact)
    assert MISTAKES["another q"] in str(caught.value) or "No known" in str(caught.value)
    if exact:
        assert check_lossless(loop.each).method == "sum"


@pytest.mark.parametrize(
    ("warper", "uncut", "cuts"),
    [
        (transformers.TopKLogitsWarper, 64, 63),
        (transformers.TopPLogitsWarper, 0.9991, 0.9989),
        (transformers.MinPLogitsWarper, 0.0042, 0.0043),
        (transformers.EpsilonLogitsWarper, 0.0009, 0.001),
    ],
)
def test_what_the_note_says_of_settings(warper, uncut, cuts):
    logits = torch.tensor(DRAFT.logits(PROMPT))[None]
    for setting, whole in ((uncut, True), (cuts, False)):
        assert bool(warper(setting)(None, logits).isfinite().all()) == whole


def test_our_own_loop_of_sessions_is_right():
    def decode(prompt, draft, target, rng):
        edge = Edge(
            Draft(as_model(draft)),
            settings=[Setting(sqs.Codec(VOCAB), sqs.TopK(20))],
            planner=FixedPlan(2),
            rng=np.random.default_rng(rng.integers(2**32)),
        )
        link = LocalLink(Target(target, VOCAB))
        steps = edge.generate(list(prompt), link, max_tokens=3)
        return [token for step in steps for token in step.tokens]

    assert check_lossless(decode, trials=1000).method == "chi2"


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
        places = torch.arange(VOCAB * 1.0)[:, None]
        self.embedding = torch.nn.Embedding(VOCAB, 1, _weight=places)

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
        out["logits"] = self.rows[row_after(token, place + 2)]
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
    with pytest.raises(LossyError, match="tokens are sampled from a truncated"):
        check_lossless(decode, trials=1000)
    right = partialmethod(partial(one_hot, generator.get_candidates))
    monkeypatch.setattr(generator, "get_candidates", right)
    assert check_lossless(decode, trials=1000).method == "chi2"
