"""Make ``docs/playground/rows.json``, the distributions of the playground.

    python -m benchmarks.data.make_playground

They are `ROWS`, shipped rows of SmolLM2 and Gemma 3 that nothing was fitted to, from
nearly certain to wide open, one of Gemma for each language. The tokenizers come with
the packages of the models. The file is a list of objects:

====== =====================================================================
model  "smollm2" or "gemma3"
what   the kind of text
text   the last `TEXT` characters of what was written before
tokens what the first `SHOWN` of the ids say
ids    the most probable tokens, in order
logits of these, in units of 2^-10; the largest is 0
rest   the logit of each other token: float32, the tail spread evenly
====== =====================================================================
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.experiments.models import gemma3_pair
from benchmarks.pair import smollm2_pair
from tests.drafts import LOGIT_UNIT, Rows, load_drafts, load_languages

OUT = Path(__file__).parents[2] / "docs" / "playground" / "rows.json"
TEXT, SHOWN = 60, 24

ROWS = {
    "smollm2": (1116, 505, 808, 1126, 830, 533, 1150, 938),
    "gemma3": (489, 1327, 613, 1504, 1297, 1544, 824, 447, 419, 742, 576),
}
"""By model: places in ``drafts.npz`` and ``languages.npz``."""


def main() -> None:
    """Write the file and say how large it is."""
    drafts, languages = load_drafts(), load_languages()
    found = [
        *pick("smollm2", drafts, drafts.category, smollm2_pair(2).tokenizer),
        *pick("gemma3", languages, languages.language, gemma3_pair().tokenizer),
    ]
    lines = ",\n".join(
        json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in found
    )
    OUT.write_text(f"[{lines}]\n", "utf-8")
    print(f"{OUT.name}: {len(found)} rows, {OUT.stat().st_size} bytes")


def pick(model: str, rows: Rows, kinds: Any, tokenizer: Any) -> Iterator[Any]:
    """Yield the objects of one model."""
    for at in ROWS[model]:
        before = rows.token[at - int(rows.position[at]) : at].tolist()
        ids = rows.ids[at].tolist()
        others = np.setdiff1d(np.arange(len(ids) + 1), ids)
        yield {
            "model": model,
            "what": str(kinds[at]),
            "text": tokenizer.decode(before)[-TEXT:],
            "tokens": [tokenizer.decode([token]) for token in ids[:SHOWN]],
            "ids": ids,
            "logits": np.rint(rows.logits[at] / LOGIT_UNIT).astype(int).tolist(),
            "rest": float(rows.row(at)[others[0]]),
        }


if __name__ == "__main__":
    main()
