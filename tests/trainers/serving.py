"""A server of a stored teacher, in a process of its own."""

import re
import signal
import subprocess
import sys
from contextlib import contextmanager

SQS = [sys.executable, "-c", "from _sqs_command import main; raise SystemExit(main())"]
ADDRESS = re.compile(r" at (http://127\.0\.0\.1:\d+): ")


@contextmanager
def serving(path, *options):
    """Serve a file on this machine; yield its address."""
    command = ["distill", "serve", str(path), "--listen", "127.0.0.1:0", *options]
    with subprocess.Popen([*SQS, *command], stderr=subprocess.PIPE, text=True) as run:
        try:
            match = next(filter(None, map(ADDRESS.search, run.stderr)), None)
            assert match, "sqs distill serve doesn't run"
            yield match[1]
        finally:
            run.send_signal(signal.SIGINT)
            run.communicate()
