"""How an edge drafts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqs_codec import Codec, Keep
from sqs_codec._base import checks
from sqs_codec.system.session._wire import MAX_SETTINGS

__all__ = ["Setting", "check_settings"]


@dataclass(frozen=True)
class Setting:
    """A way to draft: what both ends agree on, and which tokens the edge keeps.

    Attributes
    ----------
    codec : Codec
    keep : Keep
        A stateful rule belongs to one session.
    """

    codec: Codec
    keep: Keep

    def __post_init__(self) -> None:
        checks.instance("codec", self.codec, Codec, "a Codec")
        checks.instance("keep", self.keep, Keep, "a rule such as TopK(64)")


def check_settings(settings: Sequence[Setting]) -> list[Setting]:
    """Return the settings of a session, if they are such."""
    found = list(settings)
    if not 1 <= len(found) <= MAX_SETTINGS:
        raise ValueError(
            f"settings must be 1 to {MAX_SETTINGS} of them, got {len(found)}"
        )
    for i, setting in enumerate(found):
        checks.instance(f"settings[{i}]", setting, Setting, "a Setting")
    sizes = {setting.codec.vocab_size for setting in found}
    if len(sizes) > 1:
        raise ValueError(
            f"settings must share one vocabulary, got those of {sorted(sizes)} tokens"
        )
    return found
