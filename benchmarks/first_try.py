"""A first try: tokens a second as the planner has it, and from the cloud alone.

Runs README's commands: ``sqs serve`` on this machine, and beside it ``sqs generate``
and ``sqs proxy``, each with both ways of a prompt in turn.
"""

import itertools
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from rich.console import Console

from benchmarks.pair import PROMPTS
from benchmarks.tables import about, about_line, command, dim, table

SQS = [sys.executable, "-c", "from _sqs_command import main; raise SystemExit(main())"]
WAYS = "alone", "auto"
DRAWS = 2000  # of prompts, for an interval


def main() -> None:
    """Print a table."""
    parser = command("first_try", __doc__, texts=1, max_tokens=8, temperatures=[0.7])
    add = parser.add_argument
    add("--texts", type=int, choices=range(1, len(PROMPTS) + 1), default=5)
    add("--max-tokens", type=int, default=96, help="of a text")
    add("--temperatures", type=float, nargs="+", default=[0.3, 0.7, 1.0])
    args = parser.parse_args()
    shown = table("Tokens a second", "T", "", "alone", "planner", "times", "95 %")
    with started("serve", "--port=0") as port:
        cloud = f"--server=localhost:{port}", "--insecure"
        with socket.create_server(("127.0.0.1", 0)) as free:
            listen = f"--listen=127.0.0.1:{free.getsockname()[1]}"
        with started("proxy", listen, *cloud[:1]) as page:
            writers = {
                "generate": lambda *text: by_generate(cloud, args.max_tokens, *text),
                "proxy": lambda *text: by_proxy(page, args.max_tokens, *text),
            }
            for warmth, (name, write) in itertools.product(
                args.temperatures, writers.items()
            ):
                texts = [
                    [write(warmth, way, prompt) for way in WAYS]
                    for prompt in PROMPTS[: args.texts]
                ]
                shown.add_row(f"{warmth:g}", name, *row(np.array(texts)))
    Console().print(shown, dim(about_line(about("torch"))))


@contextmanager
def started(name: str, *options: str) -> Iterator[str]:
    """Run a server within this machine; yield its port."""
    asked = [*SQS, name, "--insecure", *options]
    with subprocess.Popen(asked, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        ready = re.compile(r".*http://127\.0\.0\.1:(\d+)/v1|Serving .* at .*:(\d+) ")
        try:
            for line in process.stderr:
                if found := ready.match(line):
                    yield found[1] or found[2]
                    break
            else:
                raise SystemExit(f"sqs {name} didn't start: {line}")
        finally:
            process.terminate()


def by_generate(
    cloud: tuple[str, ...], most: int, warmth: float, way: str, prompt: str
) -> tuple[int, float]:
    """Return the tokens of a text and its seconds, as the command says them."""
    text = [f"--temperature={warmth}", f"--max-tokens={most}", f"--mode={way}", prompt]
    done = subprocess.run(
        [*SQS, "generate", *cloud, *text], capture_output=True, text=True, check=True
    )
    found = re.search(r"(\d+) tokens, ([\d.]+) a second", done.stderr)
    assert found is not None
    return int(found[1]), int(found[1]) / float(found[2])


def by_proxy(
    port: str, most: int, warmth: float, way: str, prompt: str
) -> tuple[int, float]:
    """Return the tokens of a text and its seconds, as a client sees them."""
    asked: dict[str, object] = {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": most,
        "temperature": warmth,
    }
    if way != "auto":
        asked["sqs"] = {"mode": way}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(asked).encode(),
        {"Content-Type": "application/json"},
    )
    began = time.monotonic()
    with urllib.request.urlopen(request) as answer:
        tokens = json.load(answer)["usage"]["completion_tokens"]
    return tokens, time.monotonic() - began


def row(texts: "np.ndarray[tuple[int, int, int], np.dtype[np.float64]]") -> list[str]:
    """Return what [n, ways, (tokens, seconds)] come to, with an interval over n."""
    drawn = np.random.default_rng(0).integers(len(texts), size=(DRAWS, len(texts)))
    sums = np.concatenate([texts.sum(0)[None], texts[drawn].sum(1)])
    rates = sums[..., 0] / sums[..., 1]
    times = rates[:, 1] / rates[:, 0]
    low, high = np.quantile(times[1:], [0.025, 0.975])
    rest = f"{times[0]:.2f}", f"{low:.2f} to {high:.2f}"
    return [*(f"{rate:.1f}" for rate in rates[0]), *rest]


if __name__ == "__main__":
    main()
