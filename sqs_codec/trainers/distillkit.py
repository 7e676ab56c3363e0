"""A teacher file in DistillKit, which this module doesn't import."""

from collections.abc import Mapping
from typing import Any

import torch

from sqs_codec import distill
from sqs_codec.distill._lists import NOTHING

__all__ = ["StoredCompressor"]


class StoredCompressor:
    """Provides the teacher's lists to DistillKit's ``OfflineSignalSource``.

    It finds them by the tokens of a batch: texts of the file or their beginnings,
    padded at either end but not packed, with the labels of
    `sqs_codec.trainers.datasets.as_dataset`. A file with a tail is a ValueError.
    """

    def __init__(self, data: distill.Dataset) -> None:
        if data.header.tail:
            raise ValueError(
                f"{data.path} has a tail, which DistillKit can't represent: make the "
                "file from a model's logits"
            )
        self._lookup = distill.Lookup(data)
        self._width = data.header.codec.max_survivors

    def decompress_to_sparse(
        self, batch: Mapping[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and log-probabilities [B, T, K].

        A text that isn't in the file is a MissError; a label without a distribution is
        a ValueError.
        """
        tokens, wanted = batch["input_ids"], batch["labels"].cpu() >= 0
        filled = batch.get("attention_mask", torch.ones_like(tokens)).cpu().bool()
        ids = torch.zeros(*tokens.shape, self._width, dtype=torch.int64)
        logprobs = torch.full(ids.shape, NOTHING)
        has = torch.zeros(tokens.shape, dtype=torch.bool)
        for b, (row, own) in enumerate(zip(tokens.cpu(), filled, strict=True)):
            text = self._lookup.find(row[own].numpy())
            columns = own.nonzero()[:, 0]
            places = text.places[text.places < len(columns)]
            at = columns[torch.from_numpy(places)]
            lists = distill.top_lists(text.rows[: len(places)], self._width)
            ids[b, at], logprobs[b, at] = map(torch.from_numpy, lists)
            has[b, at] = True
        if (missing := wanted & ~has).any():
            b, t = missing.nonzero()[0].tolist()
            raise ValueError(
                f"text {b} of a batch has a label but no distribution at position {t}: "
                "use the labels of as_dataset, and don't shift them"
            )
        return ids.to(tokens.device), logprobs.to(tokens.device)
