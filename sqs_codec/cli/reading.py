"""What has a model read texts, and says what came of it."""

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
"""What a model is, that reads texts."""

OPTIONS = ("engine", "engine_option", "threads", "ray", *options.LOADING)
"""The options of `add_reading`."""

OWN = {
    TRANSFORMERS: ("engine", "ray", *options.LOADING),
    VLLM: ("engine", "engine_option", "ray", "dtype"),
    LLAMA_CPP: ("threads",),
}
"""Those of what runs the model."""

FILES = "safetensors|bin|pt|gguf|json|model|txt|tiktoken|jinja|py"
"""Endings of files that decide what a model says: no README, log or `.parts`."""

LARGE = 2 * 10**9
"""Bytes of files above which reading them, 1 s per GB, is said."""


def add_reading(add: options.Add) -> None:
    """Add the options that say how models are run, without defaults."""
    said = "what runs a model that is no GGUF file (default: transformers)"
    add("--engine", choices=["transformers", "vllm"], help=said)
    options.add_engine_option(add)
    said = "have so many replicas of the model, which Ray starts on this machine"
    add("--ray", **options.number(int, 1, 1000), help=said)
    said = "what llama.cpp runs a GGUF file on (default: half of the machine's cores)"
    add("--threads", **options.number(int, 1), help=said)
    options.add_loading(add)


def _kind(args: argparse.Namespace, model: str | None) -> Kind:
    if kind_of(model) is LLAMA_CPP:
        return LLAMA_CPP
    return VLLM if args.engine == "vllm" else TRANSFORMERS


def can_read(args: argparse.Namespace, models: Sequence[str | None]) -> bool:
    """Say whether what reads these is installed; refuse options that it hasn't."""
    extras = ["distill"]
    for model in models:
        kind = _kind(args, model)
        for name in options.given(args, *OPTIONS):
            if name not in OWN[kind]:
                what = f"{model or 'SmolLM2'}, which {kind.name} reads"
                args.usage_error(f"--{name.replace('_', '-')} isn't for {what}")
        extras += kind.extras(model)
    extras += options.given(args, "ray")
    command = args.called.removeprefix("sqs ")
    return options.has_packages(command, *dict.fromkeys(extras))


@contextlib.contextmanager
def open_reader(args: argparse.Namespace, model: str | None) -> Iterator[Any]:
    """Have a model read texts, by what `add_reading` says; the reader has a name."""
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
    """Return a string that differs between models of the same name, once loaded."""
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
        with contextlib.suppress(ValueError, OSError):  # it isn't of the hub
            said = [Path(snapshot_download(model, **how)).name]
    said += own["dtype"], own.get("quantization")
    return ", ".join(str(one) for one in said if one)


def digest(paths: Sequence[Path]) -> str:
    """Return the names of files and what tells their contents apart."""
    return f"{' '.join(path.name for path in paths)} ({_contents(paths)})"


def _contents(paths: Sequence[Path]) -> str:
    state, size = blake2b(digest_size=8), sum(path.stat().st_size for path in paths)
    if size > LARGE:
        print(f"Reading {size / 1e9:.1f} GB, to recognize the files", file=sys.stderr)
    for path in paths:
        require_file(path)  # a pipe could be read but once
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                state.update(block)
    return state.hexdigest()


def progress(*around: Any, **how: Any) -> Any:
    """Return a bar of tqdm: for a terminal, or for a log, as a line a minute."""
    from tqdm import tqdm

    if sys.stderr.isatty():
        return tqdm(*around, **how)
    bar = tqdm(*around, **how, delay=60, mininterval=60, maxinterval=60, leave=False)
    bar.display = lambda *_, **__: print(bar, file=sys.stderr, flush=True)
    return bar


def say(dataset: Dataset) -> None:
    """Say what a file is, and how much it has."""
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
        print(f"{name} {size} bytes, {each:.2f} a distribution")
    each = n.file_bytes / max(n.tokens, 1)
    print(f"file {n.file_bytes} bytes, {each:.2f} a token")
