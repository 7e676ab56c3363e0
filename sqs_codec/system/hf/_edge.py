"""A Hugging Face model as the draft model of an edge."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
import transformers
from transformers.generation.utils import GenerateDecoderOnlyOutput

from sqs_codec import Sampling
from sqs_codec.system import edge
from sqs_codec.system.edge import Edge
from sqs_codec.system.hf._cached import CachedModel
from sqs_codec.system.hf._models import HFModel, HFTokenizer, vocab_size
from sqs_codec.system.hf._text import Tokenizer, known_sampling
from sqs_codec.system.session import Link

KNOWN_WARPERS = (
    transformers.TemperatureLogitsWarper,
    transformers.TopKLogitsWarper,
    transformers.TopPLogitsWarper,
    transformers.MinPLogitsWarper,
)
"""Processors that `Sampling` expresses; the cloud can't apply others."""


class Draft(CachedModel, edge.Draft):
    """A draft model and its tokenizer.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A decoder whose cache can be rolled back, of any device and dtype. Its logits
        are copied to the CPU as float32.
    tokenizer : transformers.PreTrainedTokenizerBase, optional
        The tokenizer of draft and target; the cloud compares fingerprints. Logits
        without a token are cropped. Without it no text can be encoded.
    """

    def __init__(self, model: HFModel, tokenizer: HFTokenizer | None = None) -> None:
        self.vocab_size = vocab_size(model, tokenizer)
        self.tokenizer: Tokenizer = Tokenizer(tokenizer, model)
        super().__init__(model, self.vocab_size)

    def twin(self) -> Draft:
        """Return a draft with the same weights and its own cache."""
        twin = copy.copy(self)
        CachedModel.__init__(twin, self.model, self.vocab_size)
        return twin


def custom_generate(
    model: HFModel,
    input_ids: torch.LongTensor,
    logits_processor: transformers.LogitsProcessorList,
    stopping_criteria: transformers.StoppingCriteriaList,
    generation_config: transformers.GenerationConfig,
    *,
    edge: Edge,
    link: Link | Callable[[], Link],
    **model_kwargs: Any,
) -> torch.Tensor | GenerateDecoderOnlyOutput:
    """Decode with a cloud in transformers' ``generate``.

    Call ``model.generate(..., custom_generate=custom_generate, edge=edge, link=link)``,
    where `model` is the draft model of the `Edge`, and `link` an argument of
    `Edge.generate`. Length, stop tokens, stopping criteria, temperature, ``top_k``,
    ``top_p`` and ``min_p`` come from the call or the model's ``generation_config``.

    More than one text, padding, and logits processors that the cloud can't apply raise
    a ValueError.
    """
    _check_call(model, edge, input_ids, logits_processor, model_kwargs)
    stop = generation_config.eos_token_id
    own = known_sampling(generation_config.to_dict())
    steps = edge.generate(
        input_ids[0].tolist(),
        link,
        max_tokens=generation_config.max_length - input_ids.shape[1],
        sampling=Sampling(**own if generation_config.do_sample else {"temperature": 0}),
        stop=stop if isinstance(stop, list) else [] if stop is None else [stop],
    )
    text: torch.Tensor = input_ids
    for token in (token for step in steps for token in step.tokens):
        text = torch.cat([text, text.new_tensor([[token]])], dim=-1)
        if bool(torch.as_tensor(stopping_criteria(text, None)).all()):
            break
    steps.close()
    if generation_config.return_dict_in_generate:
        return GenerateDecoderOnlyOutput(sequences=cast(torch.LongTensor, text))
    return text


def _check_call(
    model: HFModel,
    edge: Edge,
    input_ids: torch.LongTensor,
    logits_processor: transformers.LogitsProcessorList,
    model_kwargs: dict[str, Any],
) -> None:
    """Raise if a call of ``generate`` asks for anything that an edge can't do."""
    if not isinstance(edge.draft, Draft) or edge.draft.model is not model:
        raise ValueError("the draft of the edge is another model: pass its own")
    if input_ids.shape[0] != 1:
        raise ValueError(f"expected one text, got {input_ids.shape[0]}")
    mask = model_kwargs.get("attention_mask")
    if mask is not None and not bool(mask.all()):
        raise ValueError("expected a text without padding")
    unknown = [p for p in logits_processor if not isinstance(p, KNOWN_WARPERS)]
    if unknown:
        names = ", ".join(sorted({type(processor).__name__ for processor in unknown}))
        raise ValueError(f"the cloud can't apply {names} to the target's logits")
