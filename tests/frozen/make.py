"""Write the files of this version, once, and what is in them.

    python -m tests.frozen.make     before a release

They stay as they are, and `test_frozen.py` reads them with every later version. Packets
of every kind are in `tests/vectors`, with a digest next to this file.
"""

import json
import lzma
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

import sqs_codec as sqs
from sqs_codec import distill
from sqs_codec.distill._header import EXTRAS
from sqs_codec.system import small
from tests.kit import make_prior

FROZEN = Path(__file__).parent
V, SIZES = 300, {"C": 300, "e": 8, "g": 36, "h": 12, "p": 5}


def write_teacher(path: Path, prior: sqs.Prior, *extras: Any) -> None:
    """Write a file of a text with gaps, of one without its last place, and of one."""
    rng, codec = np.random.default_rng(0), sqs.Codec(V, 50, prior=prior)
    header = distill.Header(
        codec,
        model="a teacher",
        temperature=1.0 if extras else 0.7,
        tokenizer_fingerprint=b"8 bytes.",
        source="random numbers",
        extras=extras,
    )
    with distill.Writer(path, header) as writer:
        for places in ([2, 3, 4, 9, 10, 39], range(39), [0]):
            logits = rng.normal(0, 3, (len(places), V))
            logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            rows = codec.quantize_unbiased_rows(logits, rng=rng)
            at = np.repeat(np.arange(len(rows)), np.diff(rows.offsets))
            told = {
                "logprobs": logs[at, rows.token_ids],
                "token_logprobs": logs[:, 7],
                "likeliest": logits.argmax(1),
            }
            own = {name: told[name] for name in extras}
            tokens = rng.integers(0, V, places[-1] + 1)
            writer.write(tokens, rows, places, extras=own)


def write_draft(path: Path) -> None:
    """Write a network of random weights, some of them in int8, and its tokenizer."""
    rng = np.random.default_rng(1)
    words = {f"w{i}": i for i in range(V - 1)} | {"<unk>": V - 1}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    arrays = {
        "about": json.dumps(
            {
                "version": 1,
                "summary": "a small draft",
                "template": "w1 {{ messages[0]['content'] }} w2",
                "stop": [2],
            }
        ).encode(),
        "tokenizer": lzma.compress(tokenizer.to_str().encode()),
    }
    parts: dict[str, Any] = {k: np.frombuffer(x, np.uint8) for k, x in arrays.items()}
    parts |= {"inputs": np.arange(V), "columns": np.arange(V)}
    for name, shape in small._file.SHAPES.items():
        sizes = [SIZES[letter] for letter in shape]
        parts[name] = rng.normal(0, 0.5, sizes).astype(np.float32)
        if len(sizes) == 2:
            parts[f"{name}_scale"] = np.full(sizes[0], 1 / 64, np.float16)
            parts[name] = np.rint(64 * parts[name]).clip(-127, 127).astype(np.int8)
    np.savez_compressed(path, **parts)


def contents(folder: Path) -> dict[str, Any]:
    """Return what this version reads in a folder's files."""
    prior = sqs.Prior.load(folder / "own.sqsprior")
    found: dict[str, Any] = {"prior": prior.digest.hex()}
    for name in "teacher", "reference":
        data = distill.load(folder / f"{name}.parquet", prior=prior)
        texts = [
            {
                "tokens": text.tokens.tolist(),
                "places": text.places.tolist(),
                "ids": text.rows.token_ids.tolist(),
                "counts": text.rows.counts.tolist(),
                "offsets": text.rows.offsets.tolist(),
                "extras": {name: x.tolist() for name, x in text.extras.items()},
            }
            for text in data
        ]
        header = data.header.to_json()
        del header["check"]
        found[name] = {"header": header, "texts": texts}
    draft = small.Draft(folder / "draft.npz")
    tokenizer = getattr(draft, "tokenizer", draft)
    found["draft"] = {
        "summary": draft.summary,
        "stop": sorted(tokenizer.stop),
        "fingerprint": tokenizer.fingerprint.hex(),
        "prompt": [*tokenizer.encode_prompt("w5 w7")],
        "logits": draft.logits([1, 5, 7, 2])[0].tolist(),
    }
    return found


def main() -> None:
    """Write; a folder that is there stays as it is."""
    folder = FROZEN / sqs.__version__
    if folder.exists():
        sys.exit(f"{folder} is frozen: every later version has to read it")
    folder.mkdir()
    prior = make_prior(V, 2)
    prior.save(folder / "own.sqsprior")
    write_teacher(folder / "teacher.parquet", prior)
    write_teacher(folder / "reference.parquet", prior, *EXTRAS)
    write_draft(folder / "draft.npz")
    said = json.dumps(contents(folder), separators=(",", ":"))
    (folder / "contents.json").write_text(said + "\n", "utf-8")


if __name__ == "__main__":
    main()
