"""An edge of llama.cpp and a cloud of transformers, over gRPC."""

import subprocess
import sys

import pytest

from sqs_codec.system.edge import Edge, FixedPlan, RefusalError
from sqs_codec.system.engine import BatchEngine
from sqs_codec.system.hf import Cloud
from sqs_codec.system.hf._models import _smollm2_gguf
from sqs_codec.system.llama_cpp import Draft
from sqs_codec.system.session import Sampling
from tests.system.hf.test_edge import greedy
from tests.system.llama_cpp.files import write_model
from tests.system.serve.kit import serving

PLEA = "Tell me of a fox."
LENGTH = 32

WITHOUT_FRAMEWORKS = """\
import sys
for name in ("torch", "transformers", "tokenizers", "gguf"):
    sys.modules[name] = None  # to import it is an ImportError
from sqs_codec.cli.main import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def server(smollm2):
    cloud = Cloud(smollm2.target, vocab_size=49_152, tokenizer=smollm2.tokenizer)
    with serving(BatchEngine(cloud, tokenizer=cloud.fingerprint)) as server:
        yield server


def generate(server, *arguments):
    """Run ``sqs generate`` where no framework can be imported."""
    options = ["--server", server.address, "--insecure", "--threads", "1"]
    options += ["--draft", str(_smollm2_gguf()), "--max-tokens", str(LENGTH)]
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_FRAMEWORKS, "generate", *options, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.smoke
def test_greedy_text_is_the_targets_own_token_for_token(server, smollm2):
    draft = Draft(_smollm2_gguf())
    prompt = draft.encode_prompt(PLEA)
    edge = Edge(draft, planner=FixedPlan(4))
    steps = edge.generate(
        prompt, server.link, max_tokens=LENGTH, sampling=Sampling(temperature=0)
    )
    text = [token for step in steps for token in step.tokens]
    assert text == greedy(smollm2.target, tuple(prompt), LENGTH)
    assert edge.metrics.acceptance_rate > 0.7


def test_command_writes_the_targets_greedy_text_without_a_framework(server, smollm2):
    done = generate(server, "--temperature", "0", PLEA)
    assert done.returncode == 0, done.stderr
    expected = greedy(smollm2.target, tuple(smollm2.encode(PLEA)), LENGTH)
    said = smollm2.tokenizer.decode(expected, skip_special_tokens=True)
    assert done.stdout == said + "\n"
    assert done.stderr.startswith(f"{LENGTH} tokens")


def test_command_samples(server):
    done = generate(
        server, "--temperature", "0.7", "--seed", "1", "--top-k", "32", PLEA
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 5


def test_command_says_what_is_wrong(server):
    for arguments, said in (
        (["--draft", "/none.gguf"], "there is no file /none.gguf"),
        (["--draft", "/none"], "sqs generate needs torch, transformers"),
    ):
        done = generate(server, *arguments, PLEA)
        assert done.returncode == 1
        assert done.stdout == ""
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_cloud_refuses_another_vocabulary(server, tmp_path_factory):
    words = [f"word{i}" for i in range(49_152)]
    path = write_model(tmp_path_factory.mktemp("gguf") / "other.gguf", "llama", words)
    with pytest.raises(RefusalError, match="tokenizer"):
        next(Edge(Draft(path)).generate([1], server.link, max_tokens=4))
