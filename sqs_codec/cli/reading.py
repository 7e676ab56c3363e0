"""Options and functions of commands that run a model over texts."""

from __future__ import annotations

import argparse
import contextlib
import glob
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqs_codec._base.files import require_file
from sqs_codec._base.words import shown
from sqs_codec.cli import options
from sqs_codec.system._base.kinds import LLAMA_CPP, TRANSFORMERS, VLLM, Kind, kind_of

if TYPE_CHECKING:
    from sqs_codec.distill import Dataset

READ = f"{options.MODEL}, or a GGUF file"
"""The forms of a model's name, for help."""

OPTIONS = ("engine", "engine_option", "threads", "ray", *options.LOADING)

OWN = {
    TRANSFORMERS: ("engine", "ray", *options.LOADING),
    VLLM: ("engine", "engine_option", "ray", "dtype"),
    LLAMA_CPP: ("threads",),
}
"""The options that each engine supports."""

FILES = "safetensors|bin|pt|gguf|json|model|txt|tiktoken|jinja|py"
"""Endings of files that affect a model's output: no README, log or `.parts`."""


def add_reading(add: options.Add) -> None:
    """Add the options for running models, without defaults."""
    said = "engine, except for GGUF files (default: transformers)"
    add("--engine", choices=["transformers", "vllm"], help=said)
    options.add_engine_option(add)
    said = "run N replicas on Ray on this machine"
    add("--ray", **options.number(int, 1, 1000), help=said)
    said = "threads of llama.cpp, for GGUF files (default: half of the cores)"
    add("--threads", **options.number(int, 1), help=said)
    options.add_loading(add)


def _kind(args: argparse.Namespace, model: str | None) -> Kind:
    if kind_of(model) is LLAMA_CPP:
        return LLAMA_CPP
    return VLLM if args.engine == "vllm" else TRANSFORMERS


def can_read(args: argparse.Namespace, models: Sequence[str | None]) -> bool:
    """Tell whether the engines of models are installed; reject unsupported options."""
    extras = ["distill"]
    for model in models:
        kind = _kind(args, model)
        for name in options.given(args, *OPTIONS):
            if name not in OWN[kind]:
                what = f"{model or 'SmolLM2'}, which {kind.name} runs"
                args.usage_error(f"--{name.replace('_', '-')} doesn't apply to {what}")
        extras += kind.extras(model)
    extras += options.given(args, "ray")
    command = args.called.removeprefix("sqs ")
    return options.has_packages(command, *dict.fromkeys(extras))


@contextlib.contextmanager
def open_reader(args: argparse.Namespace, model: str | None) -> Iterator[Any]:
    """Open a reader of a model, with the options of `add_reading`."""
    kind = _kind(args, model)
    if kind is LLAMA_CPP:
        own = options.given(args, "threads")
    elif kind is VLLM:
        given = dict(args.engine_option or ())
        own = {"options": given, **options.given(args, "dtype")}
    else:
        own = options.loading(args)
    make: Callable[[], Any] = partial(_make, kind.room, model, own)
    if replicas := options.given(args, "ray"):
        from sqs_codec.system.ray._reader import RayReader

        make = partial(RayReader, make, replicas["ray"])
    reader = make()
    is_to_end = isinstance(reader, contextlib.AbstractContextManager)
    with reader if is_to_end else contextlib.nullcontext(reader):
        yield reader


def _make(room: str, model: str | None, own: Mapping[str, Any]) -> Any:
    reader = import_module(f"sqs_codec.system.{room}").ModelReader
    if room != TRANSFORMERS.room:
        return reader(model, **own)
    from sqs_codec.system.hf import load_model

    return reader(load_model(model, **own))


def identity(args: argparse.Namespace, model: str | None) -> str:
    """Return a string that differs between models with the same name."""
    own = vars(args) | dict(args.engine_option or ())
    path, said = Path(model or ""), [model, own["revision"]]
    if kind_of(model) is LLAMA_CPP:  # and the other files of a split one
        split = r"(?i)-\d{5}(-of-\d{5}\.gguf)$"
        name = re.sub(split, r"-?????\1", glob.escape(path.name))
        said = [_contents(sorted(path.parent.glob(name)))]
    elif model and path.is_dir():
        files = (p for p in path.rglob("*") if re.search(rf"(?i)\.({FILES})$", p.name))
        said = [_contents(sorted(filter(Path.is_file, files)))]
    elif model:
        from huggingface_hub import snapshot_download

        how: dict[str, Any] = {"local_files_only": True, "ignore_patterns": "*"}
        how |= {"cache_dir": own.get("download_dir"), "revision": own["revision"]}
        with contextlib.suppress(ValueError, OSError):  # not from the hub
            said = [Path(snapshot_download(model, **how)).name]
    said += own["dtype"], own.get("quantization")
    return ", ".join(str(one) for one in said if one)


def digest(paths: Sequence[Path]) -> str:
    """Return the names of files and a digest of their contents."""
    return f"{' '.join(path.name for path in paths)} ({_contents(paths)})"


def _contents(paths: Sequence[Path]) -> str:
    state, size = blake2b(digest_size=8), sum(path.stat().st_size for path in paths)
    if size > 2e9:  # it takes 1 s per GB
        print(f"Reading {size / 1e9:.1f} GB to identify the files", file=sys.stderr)
    for path in paths:
        require_file(path)  # a pipe can be read only once
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                state.update(block)
    return state.hexdigest()


def progress(*around: Any, **how: Any) -> Any:
    """Return a progress bar of tqdm; in a log, one line per minute."""
    from tqdm import tqdm

    if sys.stderr.isatty():
        return tqdm(*around, **how)
    bar = tqdm(*around, **how, delay=60, mininterval=60, maxinterval=60, leave=False)
    bar.display = lambda *_, **__: print(bar, file=sys.stderr, flush=True)
    return bar


def say(dataset: Dataset) -> None:
    said = dataset.header.to_json()
    del said["check"]
    for name, value in said.items():
        print(f"{name}: {shown(str(value))}")
    n = dataset.sizes()
    print(
        f"{n.sequences} sequences of {n.tokens} tokens, {n.distributions} distributions"
    )
    for name, size in n.column_bytes.items():
        each = size / max(n.distributions, 1)
        print(f"{name} {size} bytes, {each:.2f} per distribution")
    each = n.file_bytes / max(n.tokens, 1)
    print(f"file {n.file_bytes} bytes, {each:.2f} per token")
