"""Options and functions of commands that draft with a server."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, get_args

import sqs_codec as sqs
from sqs_codec._base.words import shown
from sqs_codec.cli import options
from sqs_codec.system._base import kinds
from sqs_codec.system._base.hub import lacks_folder
from sqs_codec.system.edge import Mode, Prefer

if TYPE_CHECKING:
    from sqs_codec import Sampling
    from sqs_codec.system._base.chat import Tokenizer
    from sqs_codec.system.edge import Draft
    from sqs_codec.system.session import Link, Setting

TEMPLATE = 1024
"""Maximum tokens that a chat template adds to a prompt."""


def add_mode(add: options.Add) -> None:
    said = "mode of decoding (default: the planner chooses)"
    add("--mode", choices=["auto", *get_args(Mode)], default="auto", help=said)
    said = (
        "goal of the planner: speed, or the fewest bytes on the wire, where the cloud "
        "decodes alone and sends 8 tokens per message (default: speed)"
    )
    add("--prefer", choices=get_args(Prefer), default="speed", help=said)


def add_model(add: options.Add) -> None:
    draft = f"draft model: {options.MODEL}, or a file that ends in .gguf or .npz"
    add("--draft", metavar="MODEL", help=draft)
    options.add_drop_layers(add, 0, "a small draft model instead of SmolLM2")
    options.add_loading(add)
    said = "threads of the draft model (default: 1; with a GGUF file, half the cores)"
    add("--threads", **options.number(int, 1), help=said)


def add_server(add: options.Add) -> None:
    add("--server", required=True, metavar="HOST:PORT", help="address of sqs serve")
    said = "datagram takes fewer bytes, but some networks block it"
    add("--transport", choices=["grpc", "datagram"], default="grpc", help=said)
    add(
        "--cert",
        metavar="FILE",
        help="PEM file of certificates to trust: the server's own or its issuer's "
        "(default: those of well-known authorities)",
    )
    add(
        "--token",
        default=os.environ.get("SQS_TOKEN"),
        help="access token (default: $SQS_TOKEN, which hides it from other users of "
        "this machine)",
    )
    said = "without encryption; only to a server on this machine"
    add("--insecure", action="store_true", help=said)


def carry_out(
    args: argparse.Namespace,
    work: Callable[[argparse.Namespace], object],
    *extras: str,
) -> int:
    """Check a command's options and packages, call `work`, return the exit status."""
    if args.insecure and args.cert:
        args.usage_error("--insecure and --cert exclude each other")
    if args.draft and args.drop_layers is not None:
        args.usage_error("--drop-layers needs SmolLM2; leave out --draft")
    if args.draft is None and args.drop_layers is None:
        args.draft = kinds.SMALL
    kind, found = kinds.kind_of(args.draft), options.given(args, *options.LOADING)
    if found and kind.why:
        name = next(iter(found))
        args.usage_error(f"--{name} needs a transformers model: {kind.why}")
    own = ["serve"] * (kind is kinds.TRANSFORMERS) + kind.extras(args.draft)
    if not options.has_packages(args.called.removeprefix("sqs "), *own, *extras):
        return 1

    # gRPC would also print what the errors say.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    options.log_warnings(args.called)
    try:
        # Errors that need no model come before one is loaded.
        options.find_prior(args.prior)
        if kind is kinds.LLAMA_CPP:
            import_module("sqs_codec.system.llama_cpp")  # checks its packages
        elif kind is kinds.TRANSFORMERS and args.draft and lacks_folder(args.draft):
            raise ValueError(f"cannot load {args.draft}: there is no such directory")
        work(args)
    # Refusals, and errors of llama.cpp's package and torch, are RuntimeErrors.
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    return 0


def modes(args: argparse.Namespace) -> Sequence[Mode]:
    return get_args(Mode) if args.mode == "auto" else [args.mode]


def load(args: argparse.Namespace, longest: int) -> tuple[Draft, Tokenizer]:
    """Load the draft model; in llama.cpp with memory for `longest` tokens."""
    kind = kinds.kind_of(args.draft)
    if sys.stderr.isatty() and kind is not kinds.NUMPY:
        print(f"Loading {shown(args.draft or 'SmolLM2')} as draft ...", file=sys.stderr)
    if kind is kinds.LLAMA_CPP:
        from sqs_codec.system import llama_cpp

        gguf = llama_cpp.Draft(args.draft, n_ctx=longest, threads=args.threads)
        return gguf, gguf.tokenizer
    if kind is kinds.NUMPY:
        from sqs_codec.system import small

        own = small.Draft(args.draft)
        print(f"Drafting with {shown(own.summary)}", file=sys.stderr)
        return own, own.tokenizer
    from sqs_codec.system.hf import Draft, load_model

    loading = options.loading(args) | options.given(args, "drop_layers")
    import torch  # after hf, which checks how its threads wait

    # Steps of a small model are too short for several threads.
    torch.set_num_threads(args.threads or 1)
    model = load_model(args.draft, drafts=True, **loading)
    print(f"Drafting with {shown(model.summary)} {model.placement}", file=sys.stderr)
    draft = Draft(model.model, model.tokenizer)
    return draft, draft.tokenizer


def settings(
    args: argparse.Namespace, vocab_size: int, tokenizer: Tokenizer
) -> list[Setting]:
    """Return the setting of the options, or the defaults for the planner."""
    from sqs_codec.system.session import Setting

    prior = options.find_prior(args.prior, tokenizer.fingerprint)
    codec = sqs.Codec(vocab_size, prior=prior)
    if args.kept is not None:
        return [Setting(codec, sqs.TopK(args.kept))]
    if args.alpha is not None:
        return [Setting(codec, sqs.Conformal(alpha=args.alpha))]
    return Setting.defaults(vocab_size, prior)


def sampling(args: argparse.Namespace, tokenizer: Tokenizer) -> Sampling:
    """Return the sampling: from options, else from the draft's files, else defaults."""
    from sqs_codec import Sampling

    own = dict(tokenizer.sampling)
    # Files leave out a temperature of 1.
    default = {"temperature": 1.0 if own else options.TEMPERATURE}
    given = options.given(args, "temperature", "top_k", "top_p", "min_p")
    return Sampling(**default | own | given)


def connect(args: argparse.Namespace) -> Link:
    from sqs_codec.system.serve import INSECURE, Certificate, connect

    trusted = Certificate(args.cert) if args.cert else None
    security = INSECURE if args.insecure else trusted
    how = options.given(args, "transport", "token")
    return connect(args.server, security=security, **how)
