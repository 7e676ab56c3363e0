"""The commands of ``sqs`` as processes, for what measures them from outside."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.harness.serving import HOST

SQS = [sys.executable, "-c", "from _sqs_command import main; raise SystemExit(main())"]


@contextmanager
def running(arguments: Sequence[str], port: str) -> Iterator[int]:
    """Run a command until the context ends; give the port that it names."""
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
    """Have `sqs proxy` answer in so many tokens at most; return the usage it says."""
    asked = {"messages": [{"role": "user", "content": prompt}], "max_tokens": most}
    url, kind = f"http://{HOST}:{port}/v1/chat/completions", "application/json"
    body = json.dumps({"model": "sqs", **asked, **more}).encode()
    request = urllib.request.Request(url, body, {"content-type": kind})
    with urllib.request.urlopen(request) as answer:
        usage: dict[str, Any] = json.load(answer)["usage"]
    return usage
