"""`sqs serve --ray` with a real model: the same texts, and nothing left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec.system.hf import encode_prompt, load_model, tokenizer_fingerprint
from sqs_codec.system.serve import connect
from sqs_codec.system.session import EdgeSession, Sampling, Setting
from tests.drafts import load_drafts
from tests.system.ray.processes import descendants, replicas, wait_until
from tests.system.serve.kit import try_exchange

SQS = Path(sys.executable).with_name("sqs")

SESSIONS = 16

ROUNDS = 6


@contextmanager
def gateway(*options):
    """Run `sqs serve --ray`; whatever is left of it afterwards is killed."""
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


def line(server, pattern):
    """Wait for a line of its standard error, and return what the pattern finds."""
    for words in server.stderr:
        if match := re.search(pattern, words):
            return match[1]
    pytest.fail("the server ended")


def write(where, number, text, tokenizer):
    """Some rounds of a session with its own seed, and the longest wait."""
    drafts = load_drafts()
    rng = np.random.default_rng(number)
    edge = EdgeSession(
        [Setting(sqs.Codec(drafts.vocab_size), sqs.TopK(32))],
        text,
        rng=rng,
        seed=bytes([number] * 16),
        # A flat law would show in which company a job was computed: floats round
        # differently, and of thousands of tokens a neighbour is drawn.
        sampling=Sampling(top_k=20),
        tokenizer=tokenizer,
    )
    link = connect(where, insecure=True)
    longest = 0.0
    try:
        left = ROUNDS
        while edge.waiting or left:
            if not edge.waiting:
                left -= 1
                for row in rng.integers(0, len(drafts), 3):
                    edge.push(drafts.row(int(row)))
                edge.flush()
            began = time.monotonic()
            assert try_exchange(edge, link, 300.0), "the cloud is silent"
            longest = max(longest, time.monotonic() - began)
            assert edge.refused is None
        return list(edge.text), longest
    finally:
        link.close()


def test_smollm2_with_replicas_killed():
    tokenizer = load_model(None).tokenizer
    fingerprint = tokenizer_fingerprint(tokenizer)
    prompts = [f"Tell me about the number {i}." for i in range(SESSIONS)]
    starts = [encode_prompt(tokenizer, prompt) for prompt in prompts]

    def write_all(where):
        with ThreadPoolExecutor(SESSIONS) as pool:
            each = [
                pool.submit(write, where, i, text, fingerprint)
                for i, text in enumerate(starts)
            ]
            texts, waits = zip(*(text.result() for text in each), strict=True)
        return list(texts), max(waits)

    with gateway() as server:
        where = line(server, r" at (127\.0\.0\.1:\d+)")
        undisturbed, wait = write_all(where)
        print(f"\nundisturbed, the longest wait is {wait:.1f} s")
        old = replicas(server.pid)
        assert len(old) == 2
        with ThreadPoolExecutor() as pool:
            texts = pool.submit(write_all, where)
            time.sleep(1.0)
            os.kill(min(old), signal.SIGKILL)
            wait_until(lambda: bool(replicas(server.pid) - old))
            time.sleep(1.0)  # it is loading the model
            began = time.monotonic()
            for pid in replicas(server.pid) - old:
                os.kill(pid, signal.SIGKILL)
            disturbed, wait = texts.result()
        print(f"with replicas killed, the longest wait is {wait:.1f} s")
        assert disturbed == undisturbed
        line(server, "(2) replicas are running")
        seconds = time.monotonic() - began
        print(f"two replicas again {seconds:.1f} s after the last SIGKILL")
        below = descendants(server.pid)
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=120)
        assert (server.returncode, err) == (0, "Stopping; once more stops at once.\n")
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--target /nowhere", "cannot load /nowhere: there is no such directory"),
        ("--engine-option a=1", "the engine transformers takes no options, not a"),
    ],
)
def test_model_that_cannot_be_loaded(options, said):
    with gateway(*options.split()) as server:
        _, err = server.communicate(timeout=300)
        assert server.returncode == 1
        first, *slow, last = err.splitlines()  # on a busy machine Ray says it is slow
        assert (first, last) == ("Loading the model ...", f"sqs serve: {said}")
        assert all(each.startswith("sqs serve: 0 of 2 replicas") for each in slow)
        assert not descendants(server.pid)


def test_stop_while_ray_starts():
    with gateway() as server:
        wait_until(lambda: bool(descendants(server.pid)))
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=60)
        assert server.returncode == 0
        assert err == "Loading the model ...\nStopping; once more stops at once.\n"
        assert not descendants(server.pid)


def test_no_such_cluster():
    command = [SQS, "serve", "--ray", "127.0.0.1:1", "--insecure", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "sqs serve: no Ray at 127.0.0.1:1" in done.stderr
