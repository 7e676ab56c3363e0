"""llama.cpp at one end or at both, and transformers at the other, over gRPC."""

import json
import re
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import pytest

from sqs_codec.system.engine import EngineConfig, make_engine
from sqs_codec.system.hf._models import _smollm2_gguf
from tests.system.serve.kit import PATIENCE

PLEA = "Tell me of a fox."
LENGTH = 32

WITHOUT_FRAMEWORKS = """\
import sys
lacks = "torch", "transformers", "tokenizers", "gguf"
for name in lacks:
    sys.modules[name] = None  # to import it is an ImportError
from sqs_codec._base import install
install.is_installed = lambda name: name not in lacks
from sqs_codec.cli.main import main
sys.exit(main())
"""


def generate(address, *arguments):
    """Run ``sqs generate`` where no framework can be imported."""
    options = ["--server", address, "--insecure", "--threads", "1"]
    options += ["--draft", str(_smollm2_gguf()), "--max-tokens", str(LENGTH)]
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_FRAMEWORKS, "generate", *options, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


@contextmanager
def running(*arguments):
    """Also run another command; return its first output and its address."""
    command = [sys.executable, "-c", WITHOUT_FRAMEWORKS, *arguments, "--insecure"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            found = None
            while found is None:
                said = process.stderr.readline()
                assert said, "it ended early"
                found = re.search(r"(127\.0\.0\.1:\d+)(/v1| \()", said)
            yield said, found[1]
        finally:
            process.terminate()
            process.stderr.read()


@pytest.fixture(scope="module")
def served():
    own = ["--model", str(_smollm2_gguf()), "--engine-option", "threads=1"]
    with running("serve", "--port", "0", *own) as found:
        yield found


@pytest.mark.smoke
def test_both_ends_run_without_a_framework(served):
    said, address = served
    assert re.search(
        r" by llama\.cpp, on .*CPU \d.*; 11 sessions of 4,096 tokens at", said
    )
    done = generate(address, "--temperature", "0", "--mode", "rounds", PLEA)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 5
    accepted = re.match(rf"{LENGTH} tokens.*\n(\d+)% of", done.stderr)[1]
    assert int(accepted) > 70  # of the same file


def test_a_proxy_runs_without_a_framework(served):
    pytest.importorskip("uvicorn")
    own = ["--draft", str(_smollm2_gguf()), "--threads", "1"]
    own += ["--listen", "127.0.0.1:0"]
    chat = {"messages": [{"role": "user", "content": PLEA}], "max_tokens": 8}
    with running("proxy", "--server", served[1], *own) as (_, address):
        url = f"http://{address}/v1/chat/completions"
        with urllib.request.urlopen(url, json.dumps(chat).encode(), PATIENCE) as answer:
            said = json.load(answer)
    assert said["usage"]["completion_tokens"] == 8
    # The file's template begins with a message of its own.
    assert said["usage"]["prompt_tokens"] > 25


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"engine": "llama.cpp"}, "needs a GGUF file as its target"),
        ({"engine": "llama.cpp", "target": "."}, "\\. is a folder"),
        ({"target": "none.GGUF"}, "there is no file none.GGUF"),
        ({"target": "a.gguf", "device": "cpu"}, "device is for models of transformers"),
        ({"target": "a.gguf", "dtype": "float32"}, "dtype is for models of transf"),
        ({"target": "a.gguf", "revision": "1"}, "revision is for models of transf"),
        ({"target": "a.gguf", "options": {"threads": "x"}}, "threads must be an int"),
    ],
)
def test_a_bad_configuration_is_refused(config, words):
    with pytest.raises((ValueError, OSError), match=words):
        make_engine(EngineConfig(**config))
