"""`sqs serve --ray` with a real model: its own text, and nothing left behind."""

import os
import re
import signal
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import psutil

from sqs_codec import Sampling
from sqs_codec.system.edge import Edge, FixedPlan
from sqs_codec.system.hf import Draft, load_model
from sqs_codec.system.serve import INSECURE, connect
from tests.system.hf.test_edge import greedy
from tests.system.ray.processes import descendants, wait_until

SQS = Path(sys.executable).with_name("sqs")

STOPPING = "Stopping; press Ctrl-C again to stop at once."
ADDRESS = re.compile(r" at (127\.0\.0\.1:\d+)")


@contextmanager
def gateway(*options):
    """Run `sqs serve --ray`; kill all remaining processes afterwards."""
    command = [SQS, "serve", "--ray", "--insecure", "--port", "0", *options]
    server = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield server
    finally:
        for pid in descendants(server.pid):
            os.kill(pid, signal.SIGKILL)
        server.kill()
        server.communicate()


def test_smollm2_completion_is_unchanged_and_no_process_remains():
    target = load_model(None)
    prompt = target.tokenizer.encode("Tell me of a fox.")
    with gateway() as server:
        where = next(filter(None, map(ADDRESS.search, server.stderr)))[1]
        edge = Edge(Draft(target.model, target.tokenizer), planner=FixedPlan(4))
        with closing(connect(where, security=INSECURE)) as link:
            steps = edge.generate(prompt, link, max_tokens=24, sampling=Sampling(0))
            text = [token for step in steps for token in step.tokens]
        assert text == greedy(target.model, tuple(prompt), 24)
        below = descendants(server.pid)
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=120)
        assert (server.returncode, err.strip()) == (0, STOPPING)
        wait_until(lambda: not any(map(psutil.pid_exists, below)))


def test_model_that_cannot_be_loaded():
    with gateway("--target", "/nowhere") as server:
        _, err = server.communicate(timeout=300)
        assert server.returncode == 1
        first, *slow, last = err.splitlines()  # with Ray's warnings on a busy machine
        assert first == "Loading the model ..."
        assert last == "sqs serve: cannot load /nowhere: there is no such directory"
        assert all(each.startswith("sqs serve: 0 of 2 replicas") for each in slow)


def test_stop_while_ray_starts():
    with gateway() as server:
        wait_until(lambda: bool(descendants(server.pid)))
        below = descendants(server.pid)
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=60)
        assert server.returncode == 0
        assert err == f"Loading the model ...\n{STOPPING}\n"
        wait_until(lambda: not any(map(psutil.pid_exists, below)))


def test_a_missing_cluster_is_reported():
    command = [SQS, "serve", "--ray", "127.0.0.1:1", "--insecure", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "sqs serve: no Ray at 127.0.0.1:1" in done.stderr
