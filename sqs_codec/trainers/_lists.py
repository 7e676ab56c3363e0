"""A batch of a trainer's texts as the lists that a file has of them."""

import torch

from sqs_codec import distill


def stored_lists(
    lookup: distill.Lookup,
    tokens: torch.Tensor,
    filled: torch.Tensor,
    wanted: torch.Tensor,
    k: int,
    fits: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and log-probabilities [B, T, k], where the tokens are.

    The texts are those of tokens [B, T] that are filled, in stored texts or their
    beginnings; another one is a MissError, a wanted row that isn't stored a ValueError,
    which says what fits.
    """
    ids = torch.zeros(*tokens.shape, k, dtype=torch.int64)
    logprobs = torch.full(ids.shape, distill.NOTHING)
    has = torch.zeros(tokens.shape, dtype=torch.bool)
    for b, (row, own) in enumerate(zip(tokens.cpu(), filled.cpu().bool(), strict=True)):
        text = lookup.find(row[own].numpy())
        columns = own.nonzero()[:, 0]
        places = text.places[text.places < len(columns)]
        at = columns[torch.from_numpy(places)]
        lists = distill.top_lists(text.rows[: len(places)], k)
        ids[b, at], logprobs[b, at] = map(torch.from_numpy, lists)
        has[b, at] = True
    if (missing := wanted.cpu() & ~has).any():
        b, t = missing.nonzero()[0].tolist()
        said = f"text {b} of a batch has no distribution at position {t}"
        raise ValueError(f"{said}: {fits}")
    return ids.to(tokens.device), logprobs.to(tokens.device)
