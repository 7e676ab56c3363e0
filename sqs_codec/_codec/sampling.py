"""How tokens are sampled from a model's logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqs_codec._base import checks

MOST_K = (1 << 31) - 1  # of `Sampling.top_k`: engines store it as int32


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled: a temperature and three truncations.

    The order is temperature, `top_k`, `top_p`, `min_p`, as in transformers. Each
    truncation applies to the tokens that the previous one kept.

    Attributes
    ----------
    temperature : float
        At 0 the most probable token is chosen, and truncations have no effect.
    top_k : int
        Keep this number of the most probable tokens; 0 keeps all.
    top_p : float
        Keep the smallest set of tokens with this total probability; 1 keeps all.
    min_p : float
        Keep tokens with at least this fraction of the largest probability; 0 keeps all.

    Examples
    --------
    >>> Sampling(temperature=0.7, top_p=0.9)
    Sampling(temperature=0.7, top_k=0, top_p=0.9, min_p=0.0)
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (
            ("temperature", checks.temperature(self.temperature)),
            ("top_k", checks.in_range("top_k", self.top_k, 0, MOST_K)),
            ("top_p", checks.finite("top_p", self.top_p, 0, 1)),
            ("min_p", checks.finite("min_p", self.min_p, 0, 1)),
        ):
            object.__setattr__(self, name, value)

    def config(self) -> dict[str, Any]:
        """Return the attributes as plain JSON types."""
        return dict(vars(self))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Sampling:
        """Return the sampling of a `config`; ValueError for missing or unknown keys."""
        checks.instance("sampling", config, Mapping, "a mapping")
        known = {field.name for field in dataclasses.fields(cls)}
        if set(config) != known:
            got = sorted(map(str, config))
            raise ValueError(f"sampling must have the keys {sorted(known)}, got {got}")
        return cls(**config)

    @property
    def _truncates(self) -> bool:
        cuts = self.top_k, self.top_p, self.min_p
        return self.temperature > 0 and cuts != (0, 1, 0)


DEFAULT = Sampling()


def checked(sampling: Sampling | None) -> Sampling:
    """Return the `sampling` argument of a call, or the default."""
    if sampling is None:
        return DEFAULT
    checks.instance("sampling", sampling, Sampling, "a Sampling")
    return sampling
