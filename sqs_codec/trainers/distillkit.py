"""A file of a teacher's distributions in DistillKit, which this doesn't import."""

from collections.abc import Mapping
from typing import Any

import torch

from sqs_codec import distill

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
        ids = torch.zeros(*tokens.shape, self._width, dtype=torch.int64)
        logprobs = torch.full(ids.shape, distill.NOTHING)
        filled = batch.get("attention_mask", torch.ones_like(tokens)).bool().cpu()
        missing = batch["labels"].cpu() >= 0
        for b, (row, own) in enumerate(zip(tokens.cpu(), filled, strict=True)):
            text = self._lookup.find(row[own].numpy())
            columns = own.nonzero()[:, 0]
            here = text.places < len(columns)
            at = columns[torch.from_numpy(text.places[here])]
            lists = distill.top_lists(text.rows, self._width)
            ids[b, at], logprobs[b, at] = (torch.from_numpy(x[here]) for x in lists)
            missing[b, at] = False
        if missing.any():
            b, t = missing.nonzero()[0].tolist()
            raise ValueError(
                f"labels[{b}, {t}] isn't -100, but the file has no distribution there: "
                "those of as_dataset fit, and aren't to be shifted"
            )
        return ids.to(tokens.device), logprobs.to(tokens.device)
