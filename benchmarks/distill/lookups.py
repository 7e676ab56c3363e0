"""Ask `sqs distill serve` for 10^5 texts, of which one in a hundred isn't in its file.

    python -m benchmarks.distill.lookups                             # ten minutes
    python -m benchmarks.distill.lookups --tokens 512 --lookups 800  # its speed
    python -m benchmarks.distill.lookups --quick                     # in miniature

The file has rows of SmolLM2 after random tokens; most texts begin as others do. Each
list that is answered is compared with the file's row, and each refusal with what it
should say, to the letter. It ends with 1 if one is wrong.
"""

import http.client
import json
import resource
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from rich.console import Console

import sqs_codec as sqs
from benchmarks.data.drafts import load_drafts
from benchmarks.distill.serving import serving
from benchmarks.tables import about, about_line, command, dim, table
from sqs_codec import distill

RESOLUTION, K, BATCH, TEXTS = 50, 64, 16, 1000

Text = list[int]


def write(path: Path, most: int, rows: int) -> None:
    """Write a file of texts that have so many tokens at most, and a third at least."""
    rng, drafts = np.random.default_rng(0), load_drafts()
    codec = sqs.Codec(drafts.vocab_size, RESOLUTION, prior=sqs.Prior.builtin("smollm2"))
    batches = (range(i, i + 92) for i in range(0, rows, 92))
    dense = (np.stack([drafts.row(i) for i in batch]) for batch in batches)
    parts = [codec.quantize_unbiased_rows(batch, rng=rng) for batch in dense]
    pool, text = sqs.SparseRows.concatenate(parts), Text()
    with distill.Writer(path, distill.Header(codec, model="SmolLM2")) as writer:
        for _ in range(TEXTS):
            n = int(rng.integers(most // 3, most + 1))
            text = text[: rng.integers(n)]
            text += rng.integers(100, size=n - len(text)).tolist()
            at = int(rng.integers(len(pool) - n))
            writer.write(text, pool[at : at + n])


class Asker:
    """Asks for texts of a file, and checks what comes."""

    def __init__(self, data: distill.Dataset, url: str) -> None:
        self.data, self.rng = data, np.random.default_rng(1)
        self.texts = [tokens.tolist() for tokens in data.tokens()]
        most = max(map(len, self.texts)) + 2
        padded = [text + (most - len(text)) * [-1] for text in self.texts]
        self.padded = np.array(padded, np.int8)
        self.server = http.client.HTTPConnection(url.removeprefix("http://"))
        self.found, self.tokens, self.bytes = Counter[str](), 0, 0

    def choose(self) -> tuple[str, Text]:
        """Return what is asked for: what it is, and its tokens."""
        text = self.texts[self.rng.integers(len(self.texts))]
        at, other = self.rng.integers(len(text)), int(self.rng.integers(100))
        near = {
            "changed": [*text[:at], other, *text[at + 1 :]],
            "more at the beginning": [other, *text],
            "more at the end": [*text, other],
        }
        if self.rng.random() < 0.01:
            kind = str(self.rng.choice([*near]))
            return f"one token {kind}", near[kind]
        if self.rng.random() < 0.2:
            return "a beginning", text[: at + 1]
        return "a text", text

    def shared(self, text: Text) -> NDArray[np.int64]:
        """Return how many tokens each stored text has in common with one."""
        asked = np.array([*text, -2], np.int8)
        return (self.padded[:, : asked.size] == asked).argmin(axis=1)

    def ask(self, batch: list[tuple[str, Text]]) -> None:
        """Ask for a batch; if there is something that isn't there, for the others."""
        body = {"prompt": [text for _, text in batch], "prompt_logprobs": K}
        self.server.request("POST", "/v1/completions", json.dumps(body))
        response = self.server.getresponse()
        data = response.read()
        self.server.close()  # as it may take a while until there is another
        answer = json.loads(data)
        for i, (kind, text) in enumerate(batch):
            if (most := int(self.shared(text).max())) == len(text):
                continue
            said = f"prompt[{i}] isn't in the file: no stored text goes on with token "
            said += f"{text[most]} at position {most}"
            is_right = response.status == 404 and answer["error"]["message"] == said
            self.found[f"{kind}: {'explained' if is_right else 'WRONG'}"] += 1
            return self.ask(batch[:i] + batch[i + 1 :])
        self.bytes += len(data)
        for (kind, text), choice in zip(batch, answer["choices"], strict=True):
            is_right = self.check(text, choice["prompt_logprobs"])
            self.found[f"{kind}: {'right' if is_right else 'WRONG'}"] += 1
            self.tokens += len(text)

    def check(self, text: Text, lists: list[Any]) -> bool:
        """Compare lists with the rows of the first text that begins so."""
        alike = np.flatnonzero(self.shared(text) == len(text))
        stored = self.data[int(min(alike, key=lambda i: (self.texts[i], i)))]
        ids, logprobs = distill.top_lists(stored.rows[: len(text) - 1], K)
        for own, i, x, found in zip(text[1:], ids, logprobs, lists[1:], strict=True):
            x = x[x > distill.NOTHING]
            want = dict(zip(map(str, i.tolist()), x.tolist(), strict=False))
            want.setdefault(str(own), distill.NOTHING)
            got = [(name, np.float32(each["logprob"])) for name, each in found.items()]
            if got != [*want.items()]:
                return False
        return lists[0] is None


def seconds() -> float:
    """Return what the server has had of a core."""
    here = psutil.Process().children()  # maybe with a tracker of Python's own
    [server] = (child for child in here if "serve" in child.cmdline())
    return float(sum(server.cpu_times()[:2]))  # for itself, and for it in the system


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    quick = {"lookups": 400, "tokens": 24, "rows": 184}
    parser = command("distill.lookups", __doc__, **quick)
    add = parser.add_argument
    add("--lookups", type=int, default=100_000, metavar="N", help="(default: 100000)")
    add("--tokens", type=int, default=24, metavar="N", help="of a text (default: 24)")
    parser.set_defaults(rows=1196)
    args = parser.parse_args(argv)
    with TemporaryDirectory() as folder:
        path = Path(folder, "teacher.parquet")
        write(path, args.tokens, args.rows)
        with serving(path) as url:
            asker, before = Asker(distill.open(path), url), seconds()
            while asker.found.total() < args.lookups:
                asker.ask([asker.choose() for _ in range(BATCH)])
            rate = asker.tokens / (seconds() - before)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    shown = table("What was asked for", "", "times")
    for kind, times in sorted(asker.found.items()):
        shown.add_row(kind, f"{times}")
    each = asker.tokens, asker.bytes / asker.tokens
    said = f"""\
{each[0]} tokens, {each[1]:.0f} bytes each; {rate:.0f} a second of the server's core, so
{1e5 / rate:.1f} cores for a trainer of 100 000; {memory / 1024:.0f} MiB"""
    Console().print(shown, said, dim(about_line(about())), sep="\n")
    return int(any("WRONG" in kind for kind in asker.found))


if __name__ == "__main__":
    sys.exit(main())
