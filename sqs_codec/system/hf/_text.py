"""Text that comes token by token."""

from __future__ import annotations

from collections.abc import Iterable

from sqs_codec.system.hf._models import HFTokenizer

__all__ = ["TextStream"]


class TextStream:
    """What tokens say, as far as it is whole characters.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
    """

    def __init__(self, tokenizer: HFTokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = 0

    def __repr__(self) -> str:
        return f"<TextStream of {len(self._ids)} tokens>"

    def add(self, tokens: Iterable[int]) -> str:
        """Return what these tokens add to the text; special ones add nothing."""
        self._ids += tokens
        said = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        whole = said.rstrip("\N{REPLACEMENT CHARACTER}")
        fresh = whole[self._shown :]
        self._shown = max(self._shown, len(whole))
        return str(fresh)
