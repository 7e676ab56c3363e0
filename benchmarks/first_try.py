"""A first try: tokens per second with the planner, and in the mode alone.

Runs README's commands: ``sqs serve`` on this machine, and ``sqs generate`` and
``sqs proxy``, each in both modes in turn.
"""

import itertools
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.experiments.estimate import draws, of_draws, shown
from benchmarks.harness.serving import HOST
from benchmarks.pair import PROMPTS
from benchmarks.tables import about, about_line, command, dim, table

SQS = [sys.executable, "-c", "from _sqs_command import main; raise SystemExit(main())"]

WAYS = "alone", "auto"


def main() -> None:
    """Print a table."""
    parser = command("first_try", __doc__, texts=1, max_tokens=8, temperatures=[0.7])
    add = parser.add_argument
    add("--texts", type=int, choices=range(1, len(PROMPTS) + 1), default=5)
    add("--max-tokens", type=int, default=96, help="tokens per completion, at most")
    add("--temperatures", type=float, nargs="+", default=[0.3, 0.7, 1.0])
    args = parser.parse_args()
    made = table("Tokens per second", "T", "", "alone", "planner", "ratio (95 %)")
    with running(["serve", "--insecure", "--port=0"], r" at \S+:(\d+) ") as port:
        cloud = ["--insecure", f"--server=localhost:{port}"]
        proxy = ["proxy", *cloud, "--listen=127.0.0.1:0"]
        with running(proxy, r"(\d+)/v1") as page:
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
                tokens, seconds = np.moveaxis(np.array(texts, float), 2, 0)
                weights = draws(len(texts))
                alone, planner = (weights @ tokens / (weights @ seconds)).T
                times = shown(of_draws(planner / alone).as_json(), ".2f")
                rates = f"{alone[0]:.1f}", f"{planner[0]:.1f}"
                made.add_row(f"{warmth:g}", name, *rates, times)
    Console().print(made, dim(about_line(about("torch"))))


def by_generate(
    cloud: list[str], most: int, warmth: float, way: str, prompt: str
) -> tuple[int, float]:
    """Return a completion's tokens and seconds, as the command reports them."""
    text = [f"--temperature={warmth}", f"--max-tokens={most}", f"--mode={way}", prompt]
    done = subprocess.run(
        [*SQS, "generate", *cloud, *text], capture_output=True, text=True, check=True
    )
    found = re.search(r"(\d+) tokens, ([\d.]+) tokens/s", done.stderr)
    assert found is not None
    return int(found[1]), int(found[1]) / float(found[2])


def by_proxy(
    port: int, most: int, warmth: float, way: str, prompt: str
) -> tuple[int, float]:
    """Return a completion's tokens and seconds, as a client sees them."""
    mode = {} if way == "auto" else {"sqs": {"mode": way}}
    began = time.monotonic()
    used = ask(port, prompt, most, temperature=warmth, **mode)
    return used["completion_tokens"], time.monotonic() - began


@contextmanager
def running(arguments: Sequence[str], port: str) -> Iterator[int]:
    """Run a command until the context ends; yield the port that it prints."""
    command = [*SQS, *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = (re.search(port, line) for line in process.stderr)
        try:
            match = next(filter(None, found), None)
            if match is None:
                raise RuntimeError(f"sqs {' '.join(arguments)} doesn't run")
            yield int(match[1])
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()


def ask(port: int, prompt: str, most: int, **more: object) -> dict[str, Any]:
    """Request a completion of at most `most` tokens; return its reported usage."""
    asked = {"messages": [{"role": "user", "content": prompt}], "max_tokens": most}
    url, kind = f"http://{HOST}:{port}/v1/chat/completions", "application/json"
    body = json.dumps({"model": "sqs", **asked, **more}).encode()
    request = urllib.request.Request(url, body, {"content-type": kind})
    with urllib.request.urlopen(request) as answer:
        usage: dict[str, Any] = json.load(answer)["usage"]
    return usage


if __name__ == "__main__":
    main()
