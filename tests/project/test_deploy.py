"""The commands of docs/deploy are valid for `sqs serve`."""

import argparse
import json
import re
import shlex
from pathlib import Path

import pytest

from sqs_codec.cli import serve

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"


def after(name, what):
    """The line of a file after some words."""
    text = (DEPLOY / name).read_text().replace("\\\n", "")
    return text.partition(what)[2].partition("\n")[0]


IMAGE = json.loads(after("Dockerfile", "ENTRYPOINT"))
POD = IMAGE + re.findall(r"[\w.-]+", after("kubernetes.yaml", "args: "))
UNIT = shlex.split(after("sqs-serve.service", "ExecStart="))


@pytest.mark.parametrize("words", [IMAGE, POD, UNIT])
def test_deployments_start_with_the_right_options(words):
    parser = argparse.ArgumentParser()
    serve.fill(parser)
    args = parser.parse_args(words[2:])
    names = [args.cert.name, args.key.name, args.token_file.name]
    assert (words[1], names) == ("serve", ["cert.pem", "key.pem", "tokens"])
    assert (args.port, args.metrics_port) == (8743, 9090)
    assert args.metrics_host == ("0.0.0.0" if words is POD else "127.0.0.1")
