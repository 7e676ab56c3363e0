"""A causal model that reads the new tokens of many texts in one row.

Only attention mixes tokens; all other layers process each token by itself. So a row may
hold tokens of many texts without padding, each token with its own position. `_attend`,
registered in transformers, handles the texts one by one: it extends each text's KV
cache and attends to it. A rollback only lowers a length.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch.nn.functional import scaled_dot_product_attention

from sqs_codec.system._caching import TextPiece
from sqs_codec.system.hf._cached import LAYERS, TOLERANCE
from sqs_codec.system.hf._models import HFModel, ModelError, check_rollback, share

ATTENTION = "sqs_codec"
"""The name of `_attend` in transformers."""

LOOKS_AT_LENGTH = frozenset({"dynamic", "longrope"})
"""Rotary embeddings whose angles depend on the longest text of a row."""

KeysValues = tuple[torch.Tensor, torch.Tensor]
"""A layer's part of a KV cache: keys, values, each [heads, tokens, dim]."""

Layout = dict[int, KeysValues]
"""The shapes and dtypes of a cache, from samples of each layer."""

Attend = Callable[..., torch.Tensor]
_READING: ContextVar[Attend] = ContextVar("sqs_codec_row")
"""The attention of the current forward pass. A keyword wouldn't reach `_attend` in
every model."""


@dataclass(eq=False)
class Cache:
    """The KV cache of one text. Entries after its length are unused."""

    tokens: list[int] = field(default_factory=list)
    buffers: dict[int, KeysValues] = field(default_factory=dict)
    capacity: int = 0  # of the buffers, in tokens

    def grow(self, layout: Layout, capacity: int) -> None:
        """Enlarge the buffers layer by layer, so that only one has two copies."""
        length = len(self.tokens)
        for layer, samples in layout.items():
            keys, values = (
                torch.empty(
                    (len(like), capacity, like.shape[-1]),
                    dtype=like.dtype,
                    device=like.device,
                )
                for like in samples
            )
            if layer in self.buffers:
                old = self.buffers[layer]
                keys[:, :length] = old[0][:, :length]
                values[:, :length] = old[1][:, :length]
            self.buffers[layer] = keys, values
        self.capacity = capacity


class RaggedModel:
    """A model that reads pieces of texts, with the parameters of a given model."""

    def __init__(self, model: HFModel, vocab_size: int) -> None:
        config = model.config.get_text_config()
        _refuse(model, config)
        self.max_text = _longest(config)
        self._vocab_size = vocab_size
        self._device = model.get_input_embeddings().weight.device
        self._model = share(model).eval()
        self._model.set_attn_implementation(ATTENTION)
        self.layout = self._probe(config.num_hidden_layers)
        pairs = self.layout.values()
        layers = [sum(like[:, 0].nbytes for like in pair) for pair in pairs]
        # With the second copy of a layer that `Cache.grow` needs
        self.token_bytes = sum(layers) + max(layers)
        self._compare(model)

    def read(self, pieces: Sequence[TextPiece[Cache]]) -> torch.Tensor:
        """Add the tokens to their caches; return the wanted logits [n, V]."""
        ends = [*itertools.accumulate(len(piece.tokens) for piece in pieces)]
        logits = self._logits(
            _Row(pieces, ends).attend,
            [token for piece in pieces for token in piece.tokens],
            [place for piece in pieces for place in range(piece.past, piece.end)],
            [
                place
                for piece, end in zip(pieces, ends, strict=True)
                for place in range(end - piece.wanted, end)
            ],
        )
        for piece in pieces:
            piece.cache.tokens += piece.tokens
        return logits

    @torch.inference_mode()
    def _logits(
        self, attend: Attend, tokens: list[int], positions: list[int], wanted: list[int]
    ) -> torch.Tensor:
        """Return the logits of a forward pass in which `_attend` calls `attend`."""
        row, places, kept = (
            torch.tensor(values, dtype=torch.int64, device=self._device)
            for values in (tokens, positions, wanted)
        )
        reading = _READING.set(attend)
        try:
            out = self._model(
                input_ids=row[None],
                position_ids=places[None],
                use_cache=False,
                logits_to_keep=kept,
            )
        finally:
            _READING.reset(reading)
        logits: torch.Tensor = out.logits[0, :, : self._vocab_size]
        return logits

    def _probe(self, layers: int) -> Layout:
        """Run two tokens to find the layout of each layer's KV cache."""
        samples: Layout = {}

        def note(layer: int, query: torch.Tensor, *given: Any) -> torch.Tensor:
            samples[layer] = given[:2]
            return query.new_zeros(query.shape[1], query.shape[0], given[1].shape[-1])

        try:
            rows = len(self._logits(note, [0, 0], [0, 1], [1]))
        except TypeError as error:
            raise ModelError(f"{_name(self._model)}: {error}") from error
        if rows != 1:
            raise ModelError(
                f"{_name(self._model)} gives {rows} rows of logits where 1 was asked "
                f"for by logits_to_keep"
            )
        if len(samples) != layers:
            raise ModelError(
                f"{_name(self._model)} has {layers} layers, and the attention of only "
                f"{len(samples)} can be replaced, as `Cloud` has to"
            )
        return samples

    def _compare(self, model: HFModel) -> None:
        """Check this model's logits of two short texts against the given model's."""
        size = self._vocab_size
        texts = [[(7 * i + 1) * size // 61 % size for i in range(n)] for n in (6, 9)]
        dtype = self.layout[0][0].dtype
        caches = [Cache() for _ in texts]
        for cache in caches:
            cache.grow(self.layout, 9)
        for part in slice(0, 4), slice(4, None):
            rows = self.read(
                [TextPiece(c, t[part], 1) for c, t in zip(caches, texts, strict=True)]
            )
        for row, text in zip(rows, texts, strict=True):
            with torch.inference_mode():
                ids = torch.tensor([text], device=self._device)
                own = model(input_ids=ids, use_cache=False).logits[0, -1]
                own = own[: self._vocab_size].float()
                error = float((row - own).abs().max() / own.std())
            if not error <= TOLERANCE[dtype]:
                raise ModelError(
                    f"{_name(model)} gives other logits once its attention is "
                    f"replaced (off by {error:.2g} of their spread), so that `Cloud` "
                    f"can't serve it"
                )


@dataclass(frozen=True)
class _Row:
    """Pieces, and the positions in the row at which they end."""

    pieces: Sequence[TextPiece[Cache]]
    ends: Sequence[int]
    masks: dict[Any, tuple[int, torch.Tensor | None]] = field(default_factory=dict)

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None,
    ) -> torch.Tensor:
        """Return the attention outputs of all pieces, [tokens, heads, dim]."""
        heads, tokens, _ = query.shape
        out = query.new_empty(tokens, heads, value.shape[-1])
        groups = heads // key.shape[0]
        for piece, stop in zip(self.pieces, self.ends, strict=True):
            place = slice(stop - len(piece.tokens), stop)
            keys, values = piece.cache.buffers[layer]
            keys[:, piece.past : piece.end] = key[:, place]
            values[:, piece.past : piece.end] = value[:, place]
            first, mask = self._mask(piece, groups, window, query)
            # Heads with shared keys are computed as more queries of one head.
            q = query[:, place]
            seen = scaled_dot_product_attention(
                q.reshape(1, key.shape[0], -1, q.shape[-1]),
                keys[None, :, first : piece.end],
                values[None, :, first : piece.end],
                attn_mask=mask,
                scale=scaling,
            )
            out[place] = seen.view(heads, q.shape[1], -1).transpose(0, 1)
        return out

    def _mask(
        self,
        piece: TextPiece[Cache],
        groups: int,
        window: int | None,
        query: torch.Tensor,
    ) -> tuple[int, torch.Tensor | None]:
        """Return the first visible key, and the mask to add to scores if any."""
        known = piece, groups, window, query.device
        if known in self.masks:
            return self.masks[known]
        first = max(0, piece.past + 1 - window) if window else 0
        mask = None
        if len(piece.tokens) > 1:
            places = torch.arange(piece.past, piece.end, device=query.device)[:, None]
            others = torch.arange(first, piece.end, device=query.device)
            hidden = others > places
            if window:
                hidden |= others <= places - window
            mask = torch.zeros(hidden.shape, dtype=query.dtype, device=query.device)
            mask = mask.masked_fill(hidden, -torch.inf).repeat(groups, 1)
        self.masks[known] = first, mask
        return first, mask


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: object,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: object = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Implement transformers' attention interface: tensors [1, heads, tokens, dim]."""
    if softcap is not None or s_aux is not None:
        kind = "attention sinks" if softcap is None else "capped attention scores"
        raise ModelError(f"`Cloud` can't serve models with {kind}")
    layer: Any = module.layer_idx
    attend = _READING.get()
    out = attend(layer, query[0], key[0], value[0], scaling, sliding_window)
    return out[None], None


transformers.AttentionInterface.register(ATTENTION, _attend)


def _refuse(model: HFModel, config: Any) -> None:
    """Raise if a model's configuration shows that it can't be served."""
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{_name(model)} has an encoder; `Cloud` serves decoders")
    check_rollback(_name(model), model)
    kinds = set(getattr(config, "layer_types", None) or ()).difference(LAYERS)
    if kinds:
        raise ModelError(
            f"{_name(model)} has layers of the kinds {sorted(kinds)}; `Cloud` serves "
            f"{sorted(LAYERS)}"
        )


def _longest(config: Any) -> int:
    """Return the longest text whose logits don't depend on other texts of a row."""
    longest = int(getattr(config, "max_position_embeddings", None) or sys.maxsize)
    rope = getattr(config, "rope_parameters", None)  # may be nested by kind of layer
    for parameters in (rope, *(rope or {}).values()):
        if isinstance(parameters, dict):
            kind = parameters.get("rope_type")
            original = parameters.get("original_max_position_embeddings")
            if kind in LOOKS_AT_LENGTH and original:
                longest = min(longest, int(original))
    return longest


def _name(model: HFModel) -> str:
    return model.config.name_or_path or type(model).__name__
