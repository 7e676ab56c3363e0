"""What docs/deploy starts is what `sqs serve` takes."""

import argparse
import json
import re
import shlex
from pathlib import Path

import pytest

from sqs_codec.cli import serve

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
IMAGE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", "")
MANIFEST = (DEPLOY / "kubernetes.yaml").read_text()
UNIT = (DEPLOY / "sqs-serve.service").read_text().replace("\\\n", "")
ENTRYPOINT = json.loads(IMAGE.partition("ENTRYPOINT")[2])
MORE = re.findall(r"[\w.-]+", MANIFEST.partition("args: [")[2].partition("]")[0])
STARTED = shlex.split(UNIT.partition("ExecStart=")[2].partition("\n")[0])


@pytest.mark.parametrize("words", [ENTRYPOINT, ENTRYPOINT + MORE, STARTED])
def test_what_is_started(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    serve.fill(parser)
    assert words[1] == "serve"
    args = parser.parse_args(words[2:])
    names = [args.cert.name, args.key.name, args.token_file.name]
    assert names == ["cert.pem", "key.pem", "tokens"]
    assert (args.port, args.metrics_port) == (8743, 9090)
    assert args.metrics_host == (
        "0.0.0.0" if words[-len(MORE) :] == MORE else "127.0.0.1"
    )
