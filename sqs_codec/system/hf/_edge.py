"""A Hugging Face model at the edge, which drafts for a cloud's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
import transformers
from transformers.generation.utils import GenerateDecoderOnlyOutput

from sqs_codec import Sampling
from sqs_codec.system._base.chat import TextStream
from sqs_codec.system.edge import Edge
from sqs_codec.system.hf import _text
from sqs_codec.system.hf._cached import CachedModel
from sqs_codec.system.hf._models import HFModel, HFTokenizer, stop_tokens, vocab_size
from sqs_codec.system.session import Link

KNOWN_WARPERS = (
    transformers.TemperatureLogitsWarper,
    transformers.TopKLogitsWarper,
    transformers.TopPLogitsWarper,
    transformers.MinPLogitsWarper,
)
"""What `Sampling` says; the cloud can't apply any other processor."""


class Draft(CachedModel):
    """A model and its tokenizer, as a `sqs_codec.system.edge.TextDraft`.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A decoder whose cache can be rolled back, on any device and of any type of
        floats: its logits are copied to the CPU as float32.
    tokenizer : transformers.PreTrainedTokenizerBase, optional
        That of both models. By its fingerprint the cloud makes sure that it is; logits
        that pad a vocabulary beyond it are cropped. Without it nothing can be encoded.
    """

    n_ctx = None

    def __init__(self, model: HFModel, tokenizer: HFTokenizer | None = None) -> None:
        self.vocab_size = vocab_size(model, tokenizer)
        self.stop = stop_tokens(model, tokenizer)
        self.fingerprint = _text.tokenizer_fingerprint(tokenizer, self.vocab_size)
        self._tokenizer: HFTokenizer = tokenizer
        super().__init__(model, self.vocab_size)

    def twin(self) -> Draft:
        """Return a draft of the same weights, with a cache of its own."""
        return Draft(self.model, self._tokenizer)

    @property
    def has_template(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return getattr(self._tokenizer, "chat_template", None) is not None

    @property
    def sampling(self) -> dict[str, float]:
        """What the model's ``generation_config`` has for `Sampling`."""
        return _sampling(self.model.generation_config.to_diff_dict())

    def encode_prompt(self, prompt: str) -> list[int]:
        """Token ids of one user message, as the function of this name gives them."""
        return _text.encode_prompt(self._tokenizer, prompt)

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a chat in the template, up to where the answer begins."""
        return _text.encode_chat(self._tokenizer, messages)

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text as it is."""
        return list(self._tokenizer.encode(text))

    def stream(self, prompt: Sequence[int] = ()) -> TextStream:
        """Return the text of a completion, which comes token by token."""
        own = self._tokenizer
        # Cleaning up would drop spaces of the text.
        decode = functools.partial(own.decode, clean_up_tokenization_spaces=False)
        return TextStream(decode, own.convert_ids_to_tokens, prompt)


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
    """Let transformers' ``generate`` write with a cloud.

    For ``model.generate(..., custom_generate=custom_generate, edge=edge, link=link)``,
    where `model` is the draft model of the `Edge`, and the link is as `Edge.generate`
    takes it. Length, stop tokens, stopping criteria, temperature, ``top_k``, ``top_p``
    and ``min_p`` are those of the call and of the model's ``generation_config``.

    A second text, padding, and a logits processor, which the cloud can't apply, are a
    ValueError.
    """
    _check_call(model, edge, input_ids, logits_processor, model_kwargs)
    stop = generation_config.eos_token_id
    own = _sampling(generation_config.to_dict())
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
    """Refuse what a call of ``generate`` asks for and an edge can't give."""
    if not isinstance(edge.draft, Draft) or edge.draft.model is not model:
        raise ValueError("the edge is one of another model")
    if input_ids.shape[0] != 1:
        raise ValueError(f"expected one text, got {input_ids.shape[0]}")
    mask = model_kwargs.get("attention_mask")
    if mask is not None and not bool(mask.all()):
        raise ValueError("expected a text without padding")
    unknown = [p for p in logits_processor if not isinstance(p, KNOWN_WARPERS)]
    if unknown:
        names = ", ".join(sorted({type(processor).__name__ for processor in unknown}))
        raise ValueError(f"the cloud can't apply {names} to the target's logits")


def _sampling(config: Mapping[str, Any]) -> dict[str, Any]:
    known = Sampling().config()
    return {name: config[name] for name in known if config.get(name) is not None}
