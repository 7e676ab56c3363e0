"""Completions of a float32 file never change, and have its output distribution."""

import itertools
import math
import re
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace

import llama_cpp as llama
import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec import Sampling
from sqs_codec._codec.truncation import truncate
from sqs_codec.system._base.tokens import common_length
from sqs_codec.system.edge import Edge, FixedPlan, Hints
from sqs_codec.system.llama_cpp import Cloud, Draft, Options
from sqs_codec.system.serve import INSECURE, connect
from sqs_codec.system.session import LocalLink, VerifyHints, VerifyRound
from tests.relay import Link, Relay, StreamRelay
from tests.system.llama_cpp.files import WIDTH, WORDS, write_model
from tests.system.serve.kit import GREEDY

PROMPT, LENGTH, SEEDS = [5, 7, 11], 80, range(4)
ALONE, HINTS = FixedPlan(0), FixedPlan(hints=Hints())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A target and a draft that is wrong now and then."""
    folder = tmp_path_factory.mktemp("gguf")
    words = [*WORDS[:6], *(f"word{i}" for i in range(58))]
    other = {"output_norm.weight": np.random.default_rng(1).uniform(0.6, 1.4, WIDTH)}
    target = write_model(folder / "target.gguf", "llama", words, context=256)
    given = folder / "draft.gguf", "llama", words
    return target, write_model(*given, context=256, tensors=other)


def make_edge(files, plan):
    return Edge(Draft(files[1], threads=1), planner=plan)


def write(edge, link, **given):
    """Yield a text as it grows."""
    text = []
    for step in edge.generate(PROMPT, link, max_tokens=LENGTH, stop=[], **given):
        text += step.tokens
        yield text


def last(texts):
    [*_, text] = texts
    return text


@contextmanager
def serving(files):
    command = [sys.executable, "-m", "sqs_codec", "serve", "--insecure", "--port", "0"]
    command += ["--target", files[0], "--target-ms", "5"]  # so that hints are in time
    for option in "repeatable=true", "threads=1", "parallel=8":
        command += ["--engine-option", option]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            words = next(line for line in server.stderr if line.startswith("Serving"))
            yield server, int(re.search(r":(\d+) \(", words)[1])
        finally:
            server.kill()


def link(port, transport):
    return lambda: connect(f"127.0.0.1:{port}", transport=transport, security=INSECURE)


def local(files):
    cloud = Cloud(files[0], options=Options(threads=1, parallel=8, repeatable=True))
    return lambda: LocalLink(cloud, tokenizer=cloud.fingerprint)


def test_seeded_completions_survive_any_link_and_sigkill(files):
    cloud, edges = local(files), [make_edge(files, HINTS) for _ in SEEDS]
    own = [last(write(make_edge(files, ALONE), cloud, seed=seed)) for seed in SEEDS]
    assert len({*map(tuple, own)}) == len(SEEDS)

    def hinted(*links):
        given = zip(edges, links, SEEDS, strict=False)
        return [write(edge, link, seed=seed) for edge, link, seed in given]

    with serving(files) as (server, port), ThreadPoolExecutor() as pool:
        for transport in "grpc", "datagram":
            assert [*pool.map(last, hinted(*[link(port, transport)] * 4))] == own
        assert sum(edge.metrics.accepted for edge in edges)
        with Relay(port, Link(loss=0.2)) as udp, StreamRelay(port) as tcp:
            texts = hinted(link(udp.port, "datagram"), link(tcp.port, "grpc"))
            for growing in texts:
                assert len(next(text for text in growing if len(text) > 9)) < LENGTH
            server.kill()
            with serving(files) as (_, udp.server_port):
                tcp.server_port = udp.server_port
                assert [*map(last, texts)] == own[:2]


@pytest.mark.smoke
def test_greedy_completions_match_llama_cpp(files):
    with closing(llama.Llama(str(files[0]), n_ctx=256, verbose=False)) as model:
        own = [*itertools.islice(model.generate(PROMPT, temp=0.0), LENGTH)]
    cloud = local(files)
    for plan in ALONE, FixedPlan(4):
        assert last(write(make_edge(files, plan), cloud, sampling=GREEDY)) == own


# Of tokens 0 to 3, 0 and 1 together have FIRST of a text's last token, modulo 2, and 0
# and 2 have SECOND of the one before: independently, so that a row is of eighths.
FIRST, SECOND = (0.25, 0.75), (0.0, 0.5, 1.0, 0.5)
DRAFT = np.array([[1, 1, 0, 2, 0, 0], [1, 2, 1, 0, 0, 0]])
"""Quarters, by the last token. All that a number is held to lies on eighths, too."""
STARTS, NEVER = ([2, 3], [1, 2, 3], [0, 1, 2, 3]), 1e-26
CUTS = {}, {"top_k": 2}, {"top_p": 0.7}, {"min_p": 0.4}


def factors(last, before):
    """Logarithms of the factors of a row."""
    first, second = FIRST[last % 2], SECOND[before]
    chances = [first, first, 1 - first, 1 - first, 0, 0], [second, 1 - second] * 3
    return np.log(np.maximum(chances, NEVER))


def row_after(text, sampling):
    row = sum(factors(*text[:-3:-1]))[None]
    return truncate(row, replace(sampling, temperature=1.0))[0]


@pytest.fixture(scope="module")
def verify(tmp_path_factory):
    """Have jobs done by a file of these rows at temperature 2, 16 sessions at once."""
    names = "attn_q", "attn_k", "attn_v", "attn_output", "ffn_down"
    made = {f"blk.0.{name}.weight": np.zeros((WIDTH, WIDTH)) for name in names}
    query, key, value, back, _ = made.values()
    embedding, output = np.zeros((2, len(WORDS), WIDTH))
    one, two = np.sqrt(WIDTH / np.array([1, 2]))  # what a norm makes of ones
    for i in range(4):
        embedding[i, i], value[i, i], back[4 + i, i] = 1, 1 / one, 1
        # Turned by a radian a place, these agree where the key is one place before.
        query[0, i], key[:2, i] = 20 / one, 20 * np.array([np.cos(1), np.sin(1)]) / one
        output[:6, [i, 4 + i]] = 2 * factors(i, i).T / two
    made |= {"token_embd.weight": embedding, "output.weight": output}
    path = tmp_path_factory.mktemp("gguf") / "law.gguf"
    write_model(path, "llama", tensors=made)
    cloud = Cloud(path, options=Options(threads=1, parallel=16))

    def verdicts(jobs):
        for first in range(0, len(jobs), 16):
            group = enumerate(jobs[first : first + 16])
            yield from cloud.verify([replace(x, session=bytes([i])) for i, x in group])

    return verdicts


@pytest.mark.parametrize("cut", CUTS)
def test_rounds_keep_the_files_output_distribution(verify, cut):
    """All drafts of two tokens, and all eighths of the numbers that verify them."""
    jobs, weights, own = [], [], Sampling(2.0, **cut)
    for tokens in itertools.product(range(4), repeat=2):
        rows = [DRAFT[last % 2] for last in (STARTS[0][-1], tokens[0])]
        weight = math.prod(int(row[x]) for row, x in zip(rows, tokens, strict=True))
        drafted = [sqs.SparseDistribution(np.flatnonzero(x), x[x > 0], 6) for x in rows]
        for eighths in itertools.product(range(8), repeat=3) if weight else ():
            draws = (np.array(eighths) + 0.5) / 8
            text = STARTS[len(jobs) // 16 % 3]  # not what the session has cached
            jobs.append(VerifyRound(b"", text, sqs.Round(drafted, tokens), draws, own))
            weights.append(weight)
    found = defaultdict(lambda: np.zeros(6, int))
    for job, weight, verdict in zip(jobs, weights, verify(jobs), strict=True):
        text = [*job.drafted[: verdict.accepted], verdict.token]
        for i, token in enumerate(text):
            found[tuple(text[:i])][token] += weight
    assert max(map(len, found)) == 2
    for begun, seen in found.items():
        chances = np.exp(row_after([*STARTS[0], *begun], own))
        eighths = np.rint(8 * chances / chances.sum()).astype(int)
        assert [*8 * seen] == [*eighths * seen.sum()], f"after {begun}"


@pytest.mark.smoke
@pytest.mark.parametrize("cut", CUTS)
def test_hints_change_no_token(verify, cut):
    """Whichever two: a key draws from the rows themselves."""
    hints, own = [*itertools.product(range(4), repeat=2)], Sampling(2.0, **cut)
    for i in range(30):
        text, key, drawn = STARTS[i % 3], bytes([i] * 16), []
        for place in range(len(text), len(text) + 3):
            row = row_after([*text, *drawn], own)
            drawn.append(sqs.gumbel_draw(row, key, place))
        jobs = [VerifyHints(b"", text, two, key, own) for two in hints]
        for two, verdict in zip(hints, verify(jobs), strict=True):
            right = common_length(two, drawn)
            assert verdict == sqs.Verdict(right, drawn[right])
