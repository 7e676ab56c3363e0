"""`sqs proxy` before `sqs serve`, both from .venv, for all clients."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import reserved_port

ROOT = Path(__file__).parents[2]
KEY = "a-key-of-the-tests"

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks elsewhere


def pytest_configure(config: pytest.Config) -> None:
    """Leave what clients are warned of to their makers."""
    config.addinivalue_line("filterwarnings", "ignore")


@contextmanager
def running(log: Path, *command: str | Path, **environ: str) -> Iterator[str]:
    """Run a server at a free port, for PORT in the command; yield the address."""
    with reserved_port() as port, log.open("w") as said:
        filled = [str(word).replace("PORT", str(port)) for word in command]
        process = subprocess.Popen(
            filled, stdout=said, stderr=said, env=os.environ | environ
        )
        try:
            deadline = time.monotonic() + 600
            while process.poll() is None and time.monotonic() < deadline:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.2)
            else:
                pytest.fail(log.read_text())
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


@pytest.fixture(scope="session")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL that clients are given."""
    logs, sqs = tmp_path_factory.mktemp("logs"), ROOT / ".venv" / "bin" / "sqs"
    serve = sqs, "serve", "--insecure", "--port", "PORT"
    with running(logs / "serve", *serve) as cloud:
        draft = sqs, "proxy", "--insecure", "--server", cloud
        listen = "--listen", "127.0.0.1:PORT"
        with running(logs / "proxy", *draft, *listen, SQS_API_KEY=KEY) as address:
            yield f"http://{address}/v1"
