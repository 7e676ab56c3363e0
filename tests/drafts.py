"""Read the shipped rows: ``drafts.npz``, ``targets.npz`` and ``languages.npz``.

The first two were written by a program that left (docs/decisions.md), the third by
``make_corpus.py``;
``DATA.md`` has the sources of all data here, and their licenses.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAFTS = Path(__file__).with_name("data") / "drafts.npz"
TARGETS = DRAFTS.with_name("targets.npz")
LANGUAGES = DRAFTS.with_name("languages.npz")

VOCAB_SIZE = 49_152
"""V of SmolLM2."""

GEMMA_VOCAB_SIZE = 262_144
"""V of Gemma 3 270M."""

LOGIT_UNIT = 2.0**-10
"""The unit of an int16 logit of the file."""


@dataclass(frozen=True)
class Rows:
    """Real logits of a model, one row for every position of some answers."""

    prompt: NDArray[np.unsignedinteger]
    """[N]: number of the prompt; the rows of a prompt are consecutive positions."""
    position: NDArray[np.uint16]
    """[N]: place in the answer, from 0."""
    token: NDArray[np.unsignedinteger]
    """[N]: the target's token at that position."""
    ids: NDArray[np.unsignedinteger]
    """[N, 384]: the model's most probable tokens in descending order."""
    logits: NDArray[np.float32]
    """[N, 384]: their logits at temperature 1, minus the row's largest."""
    tail: NDArray[np.float32]
    """[N]: log of the sum of exp(logit) over all other tokens, on the same scale."""
    vocab_size: int = field(default=VOCAB_SIZE, kw_only=True)
    """V."""

    def __len__(self) -> int:
        return len(self.token)

    def row(self, index: int) -> NDArray[np.float32]:
        """Logits of one row, float32 [V], with the tail spread evenly.

        At temperature 1 the 384 tokens and the tail have the probabilities that
        the model gave them; how the tail is spread within itself is lost.
        """
        ids = self.ids[index]
        share = self.tail[index] - np.log(self.vocab_size - ids.size)
        row = np.full(self.vocab_size, share, dtype=np.float32)
        row[ids] = self.logits[index]
        return row


@dataclass(frozen=True)
class Drafts(Rows):
    """The draft model's rows."""

    category: NDArray[np.str_]
    """[N]: kind of prompt."""
    dense: NDArray[np.float16]
    """[6, V]: whole rows as the model gave them."""
    dense_row: NDArray[np.uint16]
    """[6]: the indices of these rows among the N."""


@dataclass(frozen=True)
class Languages(Rows):
    """Gemma's rows, of held-out texts in ten languages.

    Of each row there are 256 tokens and the tail.
    """

    language: NDArray[np.str_]
    """[N]: an ISO 639 code, or "code"."""


def load_drafts() -> Drafts:
    """Load the draft model's rows.

    >>> drafts = load_drafts()
    >>> drafts.row(0).shape, float(drafts.row(0).max())
    ((49152,), 0.0)
    """
    return Drafts(**_arrays(DRAFTS))


def load_targets() -> Rows:
    """Load the target model's rows, of the same positions as the draft's."""
    return Rows(**_arrays(TARGETS))


def load_languages() -> Languages:
    """Load Gemma's rows."""
    arrays = _arrays(LANGUAGES)
    arrays["prompt"] = arrays.pop("text")
    return Languages(**arrays, vocab_size=GEMMA_VOCAB_SIZE)


def held_out(drafts: Drafts) -> NDArray[np.bool_]:
    """Return which rows are held out, bool [N].

    They are those of every second category. All figures of the entropy coding are
    measured on them, because its tables were fitted to the others.
    """
    return np.isin(drafts.category, held_out_categories(drafts.category.tolist()))


def held_out_categories(categories: Iterable[str]) -> list[str]:
    """Return every second category."""
    return sorted(set(categories))[1::2]


def _arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        arrays = dict(file)
    arrays["logits"] = arrays["logits"].astype(np.float32) * np.float32(LOGIT_UNIT)
    return arrays
