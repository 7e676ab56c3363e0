"""Settings for three kinds of uplink."""

from dataclasses import dataclass
from typing import Literal

from sqs_codec._base import checks
from sqs_codec._codec.codec import Codec
from sqs_codec._codec.keep import Keep, TopK
from sqs_codec._codec.prior import Prior

PresetName = Literal["thin", "balanced", "fat"]
"""Kinds of uplink."""


@dataclass(frozen=True)
class Preset:
    """A setting for a kind of uplink; made by `preset`.

    A distribution keeps `k` tokens, with counts that sum to `resolution`. A round has
    up to `max_tokens`, where about 70 to 75 % of them are accepted.
    """

    name: PresetName
    k: int
    resolution: int
    max_tokens: int

    def keep(self) -> Keep:
        """Return a keep rule for one drafter."""
        return TopK(self.k)

    def codec(self, vocab_size: int, prior: Prior | None = None) -> Codec:
        """Return what both ends agree on, as `Codec` describes it."""
        return Codec(vocab_size, self.resolution, prior=prior)


_PRESETS: dict[PresetName, Preset] = {
    made.name: made
    for made in (
        Preset("thin", k=16, resolution=16, max_tokens=4),
        Preset("balanced", k=64, resolution=100, max_tokens=4),
        Preset("fat", k=128, resolution=400, max_tokens=4),
    )
}
"""As ``docs/choosing.md`` fits them."""


def preset(name: PresetName) -> Preset:
    """Return a setting for a kind of uplink.

    Parameters
    ----------
    name : {"thin", "balanced", "fat"}
        For up to 20 kbit/s, up to 200 kbit/s, and more. ``docs/choosing.md`` has what
        each loses to the best setting of a link, and when another draft length or a
        planner is better.

    Examples
    --------
    >>> import numpy as np
    >>> import sqs_codec as sqs
    >>> thin = sqs.preset("thin")
    >>> thin
    Preset(name='thin', k=16, resolution=16, max_tokens=4)
    >>> codec, rng = thin.codec(vocab_size=1000), np.random.default_rng(0)
    >>> edge = sqs.Drafter(codec, thin.keep(), rng=rng, max_tokens=thin.max_tokens)
    >>> while edge.push(rng.normal(0, 4, 1000)) is not None:
    ...     pass
    >>> len(codec.decode_round(edge.finish()))
    4
    """
    return _PRESETS[checks.one_of("preset", name, PresetName)]
