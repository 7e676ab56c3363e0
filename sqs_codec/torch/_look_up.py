"""Look-up of log-probabilities on the logits' device."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sqs_codec.torch._tensors import detached


def on_host(logits: torch.Tensor) -> NDArray[Any]:
    """Return logits as an array of float32 or float64."""
    values = detached("logits", logits)
    return values.to(torch.promote_types(values.dtype, torch.float32)).numpy()


def look_up_part(
    logits: torch.Tensor,
    rows: NDArray[np.int64],
    ids: NDArray[np.int64],
    following: NDArray[np.int64],
    temperature: float,
) -> tuple[NDArray[Any], ...]:
    """Return log-probabilities of ids in rows [n, V], and the most probable ids."""
    values = detached("logits", logits)
    where, asked = values.device, (rows, ids, following)
    at, given, next_ = (torch.from_numpy(x).to(where) for x in asked)
    with torch.inference_mode():
        x = values.to(torch.promote_types(values.dtype, torch.float32))
        largest, likeliest = x.max(1)
        y = (x - largest[:, None]).div_(temperature)
        own, follows = y[at, given], y.gather(1, next_.clamp(min=0)[:, None])[:, 0]
        logs = y.exp_().sum(1, dtype=torch.float64).log()
        found = (own - logs[at]).float(), (follows - logs).float(), likeliest
    return tuple(part.cpu().numpy() for part in found)
