"""A toy teacher's file, a toy student, and what its gradient is to be."""

import numpy as np
import tokenizers
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

import sqs_codec as sqs
from sqs_codec import distill
from sqs_codec.torch import distillation_loss

V, L = 64, 16
CODEC = sqs.Codec(V, L)

STEPS, TEXTS = 100, 3
"""Of a run, and of a step; each row has a rounding of its own."""


def two_runs(n):
    """Places in a text of n tokens, as a chat with two answers has them."""
    return np.r_[1 : n // 3, n // 2 : n]


def toy_texts(count, places=two_runs):
    """Return tokens, places and the teacher's logits there, the same each time."""
    rng = np.random.default_rng(7)
    texts = []
    for n in rng.integers(6, 15, count):
        tokens, logits = rng.integers(0, V, n), rng.normal(0, 3, (n, V))
        texts.append((tokens, places(n), logits[places(n)].astype(np.float32)))
    return texts


def toy_file(path, rounding_seed=0, *, count=6, places=two_runs, temperature=1.0):
    """Write the texts with one rounding of the teacher's distributions, and open it."""
    rng = np.random.default_rng(rounding_seed)
    header = distill.Header(CODEC, temperature=temperature)
    with distill.Writer(path, header) as writer:
        for tokens, own, logits in toy_texts(count, places):
            rows = CODEC.quantize_unbiased_rows(
                logits, temperature=temperature, rng=rng
            )
            writer.write(tokens, rows, own)
    return distill.open(path)


def toy_student(seed=0, vocab_size=V):
    """Return a model of Hugging Face, of some 10 000 parameters."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,  # so that it isn't nearly uniform
    )
    return LlamaForCausalLM(config)


def logits_of(student, batch):
    return student(batch.tokens, attention_mask=batch.attention_mask).logits


def flat_gradient(student):
    """Return all gradients of a model as one vector."""
    return torch.cat([p.grad.flatten() for p in student.parameters()])


def our_gradient(student, items, temperature=1.0):
    """Return loss and gradient of the sequences as one batch, by our loss."""
    batch = distill.collate(list(items))
    student.zero_grad()
    loss = distillation_loss(logits_of(student, batch), batch, temperature=temperature)
    loss.backward()
    return loss.item(), flat_gradient(student)


def dense_gradient(student, count=6, places=two_runs, temperature=1.0):
    """Return loss and gradient against the teacher's whole softmax."""
    student.zero_grad()
    losses = []
    for tokens, own, logits in toy_texts(count, places):
        log_p = student(torch.from_numpy(tokens)[None]).logits[0, own].log_softmax(-1)
        q = (torch.from_numpy(logits) / temperature).softmax(-1)
        losses.append(-(q * log_p).sum(-1))
    loss = torch.cat(losses).mean()
    loss.backward()
    return loss.item(), flat_gradient(student)


def lessons(data):
    """Yield texts of each step, our loss, the entropy of their rows and our gradient.

    Without what would follow a text's last token, which trainers of labels leave out.
    """
    student = toy_student()
    items = [x._replace(places=x.places[:-1], rows=x.rows[:-1]) for x in data]
    for start in range(0, len(items), TEXTS):
        own = items[start : start + TEXTS]
        p = np.concatenate([x.rows.counts / x.rows.resolution for x in own])
        entropy = -(p * np.log(p)).sum() / sum(len(x.rows) for x in own)
        loss, gradient = our_gradient(student, own)
        yield own, loss, entropy, gradient


def toy_tokenizer():
    """Return a tokenizer of the toy's vocabulary."""
    words = tokenizers.models.WordLevel({str(i): i for i in range(V)}, unk_token="0")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(words), pad_token="0", eos_token="1"
    )


def gap(found, expected):
    """Return the largest difference of entries, in parts of the largest entry."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


class Gradients(TrainerCallback):
    """Keeps the gradient of each step; with ``max_grad_norm=0``, as none is clipped."""

    def __init__(self):
        self.seen = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        """Copy it before an optimizer sees it."""
        self.seen.append(flat_gradient(model))
