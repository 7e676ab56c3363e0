"""A model with a KV cache that can be rolled back."""

import contextlib
import functools
import inspect
from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from sqs_codec.system.hf._models import HFModel

FULL, SLIDING = LAYERS = "full_attention", "sliding_attention"  # supported layers
MASKED = "eager", "sdpa"  # attention implementations that accept any mask

TOLERANCE = {
    torch.float64: 1e-3,
    torch.float32: 1e-3,
    torch.float16: 0.1,
    torch.bfloat16: 0.3,
}
"""Maximum rounding error of a logit, in standard deviations of its row."""


class CachedModel:
    """A causal model with the KV cache of a text, or of texts that share a prefix.

    The cache is a list of cells, one per token. Each cell has a parent, the cell of the
    token before it.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    vocab_size : int
        V: number of logits to return.
    """

    def __init__(self, model: HFModel, vocab_size: int) -> None:
        self.model = model
        self._vocab_size = vocab_size
        # Without the model's configuration the cache keeps all positions, also those
        # outside a sliding window, so that it can be cropped.
        self._cache = transformers.DynamicCache()
        # Maps (parent cell or -1, token) to a cell, in the cache's order.
        self._cells: dict[tuple[int, int], int] = {}
        self._windows = _windows(model.config.get_text_config())
        # transformers renamed the argument in its version 5.20.
        names = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in names else "past_key_values"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {type(self.model).__name__}>"

    def __len__(self) -> int:
        """Return the number of cached tokens."""
        return len(self._cells)

    def logits(self, tokens: Sequence[int], last: int = 1) -> NDArray[np.float32]:
        """Logits [last, V] after each of the last tokens of a text.

        The model reads only tokens that aren't cached. Cached tokens that aren't in the
        text are dropped.
        """
        return _as_array(self.tensor(tokens, last))

    def tensor(self, tokens: Sequence[int], last: int = 1) -> torch.Tensor:
        """Do as `logits`, but return a tensor of the model's device and dtype."""
        if not 1 <= last <= len(tokens):
            raise ValueError(f"last must be 1 to {len(tokens)}, not {last}")
        with self._whole_or_empty():
            # The model has to read the last tokens again to give their logits.
            self._retain(self._path(tokens)[: len(tokens) - last])
            fresh = list(tokens[len(self._cells) :])
            rows = self._read(fresh, last)
            for token in fresh:
                self._cells[len(self._cells) - 1, token] = len(self._cells)
        return rows

    def branches(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Logits [w, V] after each of w texts that share a prefix.

        A model that accepts a mask reads them in one forward pass, any other model one
        after another. Cached tokens that are in no text are dropped.
        """
        lengths = [len(text) for text in texts]
        if not lengths or 0 in lengths:
            raise ValueError(f"expected texts of tokens, got some of {lengths} tokens")
        if len(texts) > 1 and self._reads_trees:
            with self._whole_or_empty():
                return self._grow(texts)
        return np.concatenate([self.logits(text) for text in texts])

    @contextlib.contextmanager
    def _whole_or_empty(self) -> Iterator[None]:
        """Clear the cache if a change is interrupted: its layers may differ."""
        try:
            yield
        except BaseException:
            self._cache, self._cells = transformers.DynamicCache(), {}
            raise

    @functools.cached_property
    def _reads_trees(self) -> bool:
        """Whether the model's logits for a small tree are right."""
        if not self._windows:
            return False
        tree, alone = (CachedModel(self.model, self._vocab_size) for _ in range(2))
        a, b, c, d = (i * self._vocab_size // 5 for i in range(1, 5))
        texts = [[a, c, d], [a, c, b]]
        try:
            tree._grow([[a, b], [a, c]])
            rows = tree._grow(texts)
        except Exception:  # models may fail on such a mask in any way
            return False
        own = np.concatenate([alone.logits(text) for text in texts])
        return bool(abs(rows - own).max() <= TOLERANCE[self.model.dtype] * own.std())

    def _path(self, tokens: Sequence[int]) -> list[int]:
        """Return the cells of the longest cached prefix of a text."""
        path: list[int] = []
        for token in tokens:
            cell = self._cells.get((path[-1] if path else -1, token))
            if cell is None:
                break
            path.append(cell)
        return path

    def _retain(self, cells: Collection[int]) -> None:
        """Drop all other cells. With each cell its parent must be kept."""
        kept = sorted(cells)
        surplus = len(self._cells) - len(kept)
        if not surplus:
            return
        start = next((i for i, cell in enumerate(kept) if i != cell), len(kept))
        moved = kept[start:]
        with torch.inference_mode():
            layers: list[Any] = self._cache.layers if moved else []
            for layer in layers:
                for states in (layer.keys, layer.values):
                    states[..., start : len(kept), :] = states[..., moved, :]
        self._cache.crop(-surplus)
        places = {-1: -1} | {cell: i for i, cell in enumerate(kept)}
        self._cells = {
            (places[before], token): places[cell]
            for (before, token), cell in self._cells.items()
            if cell in places
        }

    def _grow(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Read the new tokens of texts; a mask shows each token only its own text."""
        paths = [self._path(text) for text in texts]
        # The model has to read a text's last token again, so its children go, too.
        ends = {p[-1] for p, t in zip(paths, texts, strict=True) if len(p) == len(t)}
        self._retain({c for p in paths for c in takewhile(lambda c: c not in ends, p)})
        cells = self._cells.copy()
        leaves = []
        for text in texts:
            cell = -1
            for token in text:
                cell = cells.setdefault((cell, token), len(cells))
            leaves.append(cell)
        past = len(self._cells)
        before, tokens = zip(*cells, strict=True)
        at = torch.tensor(leaves, device=self.model.device) - past
        rows = self._read(tokens[past:], at, **self._sight(before, past))
        self._cells = cells
        return _as_array(rows)

    def _sight(self, before: Sequence[int], past: int) -> dict[str, Any]:
        """Return positions of new cells, and masks that show each its ancestors."""
        device, dtype = self.model.device, self.model.dtype
        rows = len(before) - past
        hidden = torch.full((1, 1, rows, len(before)), -torch.inf, dtype=dtype)
        masks = {kind: hidden.clone() for kind in self._windows}
        positions = []
        for row in range(rows):
            path = [past + row]
            while before[path[-1]] >= 0:
                path.append(before[path[-1]])
            positions.append(len(path) - 1)
            for kind, mask in masks.items():
                mask[0, 0, row, path[: self._windows[kind]]] = 0
        given = {kind: mask.to(device) for kind, mask in masks.items()}
        return {
            "position_ids": torch.tensor([positions], device=device),
            "attention_mask": given if SLIDING in given else given[FULL],
        }

    def _read(
        self, tokens: Sequence[int], wanted: int | torch.Tensor, **options: Any
    ) -> torch.Tensor:
        """Add tokens to the cache; return the last `wanted` logits, or those at it."""
        with torch.inference_mode():
            out = self.model(
                input_ids=torch.tensor([tokens], device=self.model.device),
                use_cache=True,
                logits_to_keep=wanted,
                **{self._cache_argument: self._cache},
                **options,
            )
        cropped: torch.Tensor = out.logits[0, :, : self._vocab_size]
        return cropped


def _as_array(logits: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(logits.float().cpu().numpy(), dtype=np.float32)


def _windows(config: Any) -> dict[str, int | None]:
    """Return the window of each kind of layers; empty if masks aren't supported."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ([FULL] if window is None else [])
    if config._attn_implementation not in MASKED or set(kinds).difference(LAYERS):
        return {}
    return {kind: window if kind == SLIDING else None for kind in kinds}
