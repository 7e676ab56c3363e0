"""A file of a teacher's distributions in DistillKit, which this doesn't import."""

from collections.abc import Mapping
from typing import Any

import torch

from sqs_codec import distill
from sqs_codec.trainers._lists import stored_lists

__all__ = ["StoredCompressor"]


class StoredCompressor:
    """What DistillKit's ``OfflineSignalSource`` calls for the teacher's lists.

    It finds them by the tokens of a batch: of texts that the file has or of their
    beginnings, padded at either end but not packed, and with the labels of
    `sqs_codec.trainers.datasets.as_dataset`. A file with a tail is a ValueError.
    """

    def __init__(self, data: distill.Dataset) -> None:
        if data.header.tail:
            raise ValueError(
                f"{data.path} has a tail, which DistillKit would leave out or share "
                "evenly: make the file from a model's logits"
            )
        self._lookup = distill.Lookup(data)
        self._width = data.header.codec.max_survivors  # that a row may have

    def decompress_to_sparse(
        self, batch: Mapping[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and log-probabilities [B, T, K]; a text that isn't there raises.

        Labels of rows without a distribution are a ValueError, other texts a MissError.
        """
        tokens = batch["input_ids"]
        filled = batch.get("attention_mask", torch.ones_like(tokens))
        wanted, k = batch["labels"] >= 0, self._width
        fits = "labels of as_dataset fit, and aren't to be shifted"
        return stored_lists(self._lookup, tokens, filled, wanted, k, fits)
