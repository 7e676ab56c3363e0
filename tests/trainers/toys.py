"""A toy teacher's file, a toy student, and what its gradient is to be."""

from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from torch.utils.data import SequentialSampler

import sqs_codec as sqs
from sqs_codec import distill
from sqs_codec.torch import distillation_loss

V, L = 64, 16

STEPS, TEXTS = 100, 3
"""Of a run, and of a step; each row has a rounding of its own."""

ARGUMENTS = {
    "learning_rate": 0.0,
    "max_grad_norm": 0,
    "logging_steps": 1,
    "logging_nan_inf_filter": False,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "bf16": False,
}
"""For trainers whose steps are recorded and change nothing."""


def two_runs(n):
    """Places in a text of n tokens, as a chat with two answers has them."""
    return np.r_[1 : n // 3, n // 2 : n]


def toy_file(path, rounding_seed=0, *, count=6, places=two_runs, **said):
    """Write the same texts with one rounding of their distributions, and open them."""
    rng, rounding = map(np.random.default_rng, (7, rounding_seed))
    codec = sqs.Codec(V + said.get("tail", False), L)
    header = distill.Header(codec, **said)
    with distill.Writer(path, header) as writer:
        for n in rng.integers(6, 15, count):
            tokens = rng.integers(0, V, n)
            logits = rng.normal(0, 3, (n, codec.vocab_size))
            logits[:, V:] += 6  # a tail is likely
            rows = codec.quantize_unbiased_rows(
                logits[places(n)], temperature=header.temperature, rng=rounding
            )
            writer.write(tokens, rows, places(n))
    return distill.load(path)


def toy_student(seed=0, vocab_size=V):
    """Return a model of Hugging Face, of some 10 000 parameters."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,  # so that it isn't nearly uniform
    )
    return transformers.LlamaForCausalLM(config)


def toy_tokenizer():
    """Return a tokenizer of the toy's vocabulary."""
    words = tokenizers.models.WordLevel({str(i): i for i in range(V)}, unk_token="0")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(words), pad_token="0", eos_token="1"
    )


def example(index):
    """Return code of the page about trainers."""
    page = Path(__file__).parents[2] / "docs/distill/train.md"
    return page.read_text().split("```")[2 * index + 1].removeprefix("python")


def flat_gradient(student):
    """Return all gradients of a model as one vector."""
    return torch.cat([p.grad.flatten() for p in student.parameters()])


def our_gradient(texts, temperature=1.0):
    """Return loss and gradient of texts as one batch, by our loss."""
    batch, student = distill.collate([*texts]), toy_student()
    logits = student(batch.tokens, attention_mask=batch.attention_mask).logits
    loss = distillation_loss(logits, batch, temperature=temperature)
    loss.backward()
    return loss.item(), flat_gradient(student)


def gap(found, expected):
    """Return the largest difference of entries, in parts of the largest entry."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def steps(texts):
    """Yield the texts of each step."""
    for start in range(0, len(texts), TEXTS):
        yield [texts[i] for i in range(start, start + TEXTS)]


def gaps(gradients, texts):
    """Return how far the gradients of all steps are from ours."""
    pairs = zip(gradients, steps(texts), strict=True)
    return np.array([gap(found, our_gradient(own)[1]) for found, own in pairs])


def assert_ours(losses, gradients, texts):
    """Compare steps with ours; others leave the entropy out of their losses."""
    assert gaps(gradients, texts).max() < 1e-5
    for loss, own in zip(losses, steps(texts), strict=True):
        p = np.concatenate([x.rows.counts / x.rows.resolution for x in own])
        entropy = -(p * np.log(p)).sum() / sum(len(x.rows) for x in own)
        assert loss + entropy == pytest.approx(our_gradient(own)[0], abs=1e-5)


def by_parts(loss_of, texts, **settings):
    """Return losses and gradients of steps, by a loss made of a trainer's parts."""
    losses, gradients = [], []
    for own in steps(texts):
        student = toy_student()
        loss = loss_of(student, own, **settings)
        loss.backward()
        losses.append(loss.item())
        gradients.append(flat_gradient(student))
    return losses, gradients


class InOrder(transformers.Trainer):
    """Takes texts as they come."""

    def _get_train_sampler(self, *_):
        return SequentialSampler(self.train_dataset)


class Kept(transformers.TrainerCallback):
    """Keeps the loss and the gradient of each step."""

    def __init__(self):
        self.losses, self.gradients = [], []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients.append(flat_gradient(model))

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Keep a step's loss; figures of all steps have another name."""
        self.losses += [logs["loss"]] if "loss" in logs else []


def train(trainer):
    """Return losses and gradients of a trainer's steps."""
    trainer.add_callback(kept := Kept())
    trainer.train()
    return kept.losses, kept.gradients
