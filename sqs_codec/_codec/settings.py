"""Presets for three kinds of uplink."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

SETTINGS: Mapping[Literal["thin", "balanced", "fat"], tuple[int, int]] = (
    MappingProxyType({"thin": (16, 32), "balanced": (64, 100), "fat": (128, 400)})
)
"""The k of `TopK` and the resolution for each kind of uplink.

"thin" is for up to 20 kbit/s, "balanced" for up to 200 kbit/s, "fat" for faster
uplinks. See ``docs/codec/choosing.md``.
"""
