"""The toys as Hugging Face models, to check `generate` of transformers."""

from functools import cache
from typing import Any

import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    GenerationMixin,
    PretrainedConfig,
)
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel

from sqs_codec.testing._toy import VOCAB, Toy, row_after

__all__ = ["ToyModel", "as_model"]


class ToyModel(PreTrainedModel, GenerationMixin):
    """A causal language model of transformers that gives a toy's distributions."""

    config_class = PretrainedConfig

    def __init__(self, toy: Toy) -> None:
        config: Any = {"vocab_size": VOCAB, "num_hidden_layers": 1}
        super().__init__(PretrainedConfig(**config))
        self.embedding = torch.nn.Embedding(VOCAB, 1)  # has the model's device
        self.rows = torch.tensor(toy.rows, dtype=torch.float32).log()
        self.generation_config = GenerationConfig(top_k=0, pad_token_id=VOCAB - 1)  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> torch.nn.Embedding:
        """Return the only weights."""
        return self.embedding

    def get_output_embeddings(self) -> torch.nn.Embedding:
        """Return a module with one row per logit."""
        return self.embedding

    def forward(
        self,
        input_ids: torch.Tensor,
        past_key_values: Any = None,
        cache: Any = None,  # the name in transformers 5.20 and later
        logits_to_keep: int = 0,  # from the end; 0 keeps all
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Return the logits after each token."""
        past = past_key_values if cache is None else cache
        past = DynamicCache() if past is None else past
        length = past.get_seq_length() + 1 + torch.arange(input_ids.shape[1])
        states = length[None, None, :, None].float()
        past.update(states, states, 0)
        rows = self.rows[row_after(input_ids, length)[:, -logits_to_keep:]]
        out = CausalLMOutputWithPast(logits=rows)
        out["past_key_values" if cache is None else "cache"] = past
        return out


as_model = cache(ToyModel)
