"""The command ``sqs serve``: refused options, output, and shutdown."""

import asyncio
import dataclasses
import io
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing, redirect_stderr
from unittest.mock import Mock

import pytest

from sqs_codec.cli import options
from sqs_codec.cli import serve as module
from sqs_codec.cli.main import main
from sqs_codec.system.engine import BatchEngine, EngineConfig
from sqs_codec.system.hf import _models
from sqs_codec.system.serve import INSECURE, Certificate, connect
from sqs_codec.system.session import LinkError
from tests.certificates import issue
from tests.refusals import fails
from tests.system.serve import kit
from tests.system.serve.test_serve import last_words

TOKEN = "a-token-that-is-long-enough"
LOAD = module._load


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    """Tests set the access token themselves, and serve a toy model."""
    monkeypatch.delenv("SQS_TOKEN", raising=False)

    def load(args):
        return kit.batch(kit.Toy())

    monkeypatch.setattr(module, "_load", load)
    monkeypatch.setattr(options, "has_packages", lambda *_: True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--device cuda", "there is no cuda here: PyTorch "),
        ("--revision v1", "SmolLM2 has no revisions"),
        ("--target . --revision v1", ". is a directory, which has no revisions"),
        ("--engine-option a=1 --engine-option b=2", "transformers takes no options, "),
        ("--engine vllm --device cpu", "vLLM uses the device that it was built for"),
        ("--engine vllm --model a.gguf", "a GGUF file, which vllm can't run"),
    ],
)
def test_bad_options_are_refused_before_a_model_is_loaded(
    options, words, monkeypatch, capsys
):
    monkeypatch.setattr(module, "_load", LOAD)
    monkeypatch.setattr(_models, "devices", lambda: {"cpu"})
    monkeypatch.setattr(_models, "_load_model", None)
    fails(capsys, words, "serve", "--insecure", "--port", 0, *options.split())


def test_options_of_an_engine(monkeypatch):
    def make(config):
        found.append(config)
        raise ValueError("that will do")

    found = []
    monkeypatch.setattr(module, "_load", LOAD)
    monkeypatch.setattr(module, "make_engine", make)
    given = {
        "tensor-parallel-size=2": 2,
        "quantization=awq": "awq",
        "enforce_eager=True": True,
        "gpu_memory_utilization=0.5": 0.5,
        'hf_overrides={"a": [1]}': {"a": [1]},
        "seed=null": None,
    }
    options = [word for text in given for word in ("--engine-option", text)]
    arguments = ["--engine", "vllm", "--dtype", "float16", "--revision", "v1"]
    assert main(["serve", "--insecure", "--port", "0", *arguments, *options]) == 1
    names = [text.split("=")[0].replace("-", "_") for text in given]
    expected = dict(zip(names, given.values(), strict=True))
    config = EngineConfig("vllm", dtype="float16", revision="v1", options=expected)
    assert found == [config]


def test_only_what_is_listened_on_must_be_free(capsys, monkeypatch):
    """And a model isn't loaded before."""

    def load(*_):
        raise ValueError("loads a model")

    monkeypatch.setattr(module, "_load", load)
    for kind, taken in ((socket.SOCK_STREAM, "grpc"), (socket.SOCK_DGRAM, "datagram")):
        with socket.socket(socket.AF_INET, kind) as other:
            other.bind(("127.0.0.1", 0))
            port = str(other.getsockname()[1])
            if kind == socket.SOCK_STREAM:
                other.listen()
                options = "--insecure", "--port", 0, "--metrics-port", port
                words = f"127.0.0.1:{port}: Address already in use"
                fails(capsys, words, "serve", *options)
            for transport in ("grpc", "datagram", "both"):
                options = ["--insecure", "--port", port, "--transport", transport]
                assert main(["serve", *options]) == 1
                in_use = "already in use" in capsys.readouterr().err
                assert in_use == (transport in (taken, "both"))


class Slow(BatchEngine):
    """An engine that loads its model in a thread, by a function that takes long."""

    def __init__(self, load):
        super().__init__(kit.Toy())
        self.load, self.steps = load, []

    async def open(self):
        try:
            print("opening", flush=True)
            await asyncio.to_thread(self.load)
            return await super().open()
        finally:
            await asyncio.sleep(0.01)
            self.steps.append("opened")

    async def close(self):
        self.steps.append("closed")
        await super().close()


def test_stop_while_the_engine_opens(monkeypatch, capsys):
    def load():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)

    engine = Slow(load)
    monkeypatch.setattr(module, "_load", lambda _: engine)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert main(["serve", "--insecure", "--port", "0"]) == 0
    assert engine.steps == ["opened", "closed"]  # one after the other
    assert capsys.readouterr().err == f"{module.STOPPING}\n"
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_signal_stops_at_once():
    command = [sys.executable, "-m", "tests.cli.test_serve"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout.readline() == "opening\n"
        server.send_signal(signal.SIGINT)
        assert server.stderr.readline().startswith("Stopping")
        server.send_signal(signal.SIGINT)
        assert server.wait(kit.PATIENCE) == -signal.SIGINT


def run_while(arguments, use, end):
    """Run a command until a thread has used it; return its status and its output.

    Once it listens, `use` is called with its output; then a signal ends it.
    """
    said, ended, results = io.StringIO(), threading.Event(), []

    def client():
        try:
            kit.wait_until(lambda: "Ctrl-C stops" in said.getvalue() or ended.is_set())
            results.append(use(said.getvalue()))
        except BaseException as error:
            results.append(error)
        finally:
            if not ended.is_set():
                os.kill(os.getpid(), end)

    thread = threading.Thread(target=client)
    with redirect_stderr(said):
        thread.start()
        try:
            status = main(arguments)
        finally:
            ended.set()
            thread.join()
    assert results == [None], said.getvalue()
    return status, said.getvalue()


def serve_while(arguments, use):
    """Run ``sqs serve`` until its port has been used; return what it said."""

    def find(said):
        use(int(re.search(r"Serving .* at 127\.0\.0\.1:(\d+)", said)[1]))

    arguments = ["serve", "--port", "0", *arguments]
    status, said = run_while(arguments, find, signal.SIGTERM)
    assert status == 0
    return said


def write(port, **how):
    with closing(connect(f"localhost:{port}", **how)) as link:
        text = kit.converse(kit.edge_session([1, 2]), link, 20)
    assert text == kit.greedy([1, 2], 18)


@pytest.mark.parametrize(
    ("places", "given", "most"),
    [(0, "", 64), (3, "", 3), (100, "", 64), (3, "--max-sessions 5", 5)],
)
def test_the_default_number_of_sessions_fits_the_memory(
    monkeypatch, places, given, most
):
    found = []

    async def listen(args, service, *_):
        found.append(service.max_sessions)
        return 0

    engine = kit.batch(kit.Toy())
    engine._info = dataclasses.replace(engine._info, places=places)
    monkeypatch.setattr(module, "_load", lambda args: engine)
    monkeypatch.setattr(module, "_listen", listen)
    assert main(["serve", "--insecure", "--port", "0", *given.split()]) == 0
    assert found == [most]


def test_insecure_serves_plain_http(capsys):
    def use(port):
        write(port, security=INSECURE)
        url = re.search(r"http://\S+/metrics", sys.stderr.getvalue())[0]
        page = urllib.request.urlopen(url, timeout=kit.PATIENCE)
        assert b"sqs_text_tokens_total" in page.read()
        ports.append(port)

    ports = []
    arguments = ["--insecure", "--transport", "grpc", "--metrics-port", "0"]
    said = serve_while(arguments, use)
    assert capsys.readouterr().out == ""
    assert f"Serving a toy at 127.0.0.1:{ports[0]} (gRPC)" in said
    assert f"sqs generate --server 127.0.0.1:{ports[0]} --insecure" in said
    assert "Stopping" in said


@pytest.mark.parametrize(
    ("hosts", "named"),
    [
        (["localhost", "127.0.0.1"], r"127\.0\.0\.1"),
        (["cloud.example.org", "localhost"], r"cloud\.example\.org"),
    ],
)
def test_certificate_and_token(hosts, named, tmp_path, monkeypatch):
    issued = issue(tmp_path, *hosts)
    cert, key = issued.cert, issued.key
    monkeypatch.setenv("SQS_TOKEN", f"{TOKEN} {TOKEN}-of-another")

    def use(port):
        for token in (TOKEN, f"{TOKEN}-of-another"):
            write(port, security=Certificate(cert), token=token)

    said = serve_while(["--cert", str(cert), "--key", str(key)], use)
    command = rf"SQS_TOKEN=\.\.\. sqs generate --server {named}:\d+ --cert {cert}"
    assert re.search(command, said)
    assert "gRPC and datagrams" in said
    assert TOKEN not in said


def test_a_closed_terminal_does_not_end_the_server(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Mock(write=Mock(side_effect=BrokenPipeError)))
    module._say("it is renewed")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_sighup_renews_all_or_nothing(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(module, "_say", said.append)

    def load(_):
        os.kill(os.getpid(), signal.SIGHUP)  # it doesn't end what isn't there yet
        return kit.batch(kit.Toy())

    monkeypatch.setattr(module, "_load", load)
    gone = f"{TOKEN}-of-another"
    for name in ("old", "new", "now"):
        (tmp_path / name).mkdir()
    old = issue(tmp_path / "old", "localhost", "example.org")
    new = issue(tmp_path / "new", "localhost")
    ended = issue(tmp_path, "localhost", minutes=-1)
    cert, key, tokens = (tmp_path / "now" / name for name in ("cert", "key", "tokens"))
    seconds = itertools.count(10)

    def put(of, key_of, *lines):
        cert.write_bytes(of.cert.read_bytes())
        key.write_bytes(key_of.key.read_bytes())
        tokens.write_text("\n".join(["# of these", *lines]))

    def renew():
        before = len(said)
        os.kill(os.getpid(), signal.SIGHUP)
        kit.wait_until(lambda: len(said) > before)
        return said[-1]

    def use(port):
        def link(transport, token, of):
            timeout = next(seconds)  # or gRPC would share connections
            options = {"transport": transport, "timeout": timeout, "token": token}
            trusted = Certificate(of.cert)
            return connect(f"localhost:{port}", security=trusted, **options)

        kit.wait_until(lambda: bool(said))
        assert "other users of this machine can read the tokens" in said[0]
        tokens.chmod(0o600)
        kinds = ["grpc", "datagram"]
        links = [link(kind, token, old) for kind in kinds for token in (TOKEN, gone)]
        edges = [kit.edge_session([1], max_message=each.max_message) for each in links]
        for edge, each in zip(edges, links, strict=True):
            kit.converse(edge, each, 10)
        for wrong, words in (
            ((new, old, TOKEN), "can't load the certificate"),
            ((new, new), "tokens has no access token"),
            ((new, new, TOKEN, "short"), "tokens, line 3: an access token must have"),
            ((new, new, f"{TOKEN} x"), "line 2: an access token must have 1 to 512"),
            ((ended, ended, TOKEN), "the certificate is valid from"),
        ):
            put(*wrong)
            said_now = renew()
            assert said_now.startswith("certificate, key and tokens are unchanged: ")
            assert words in said_now
        key.unlink()
        assert "No such file" in renew()
        for kind in kinds:
            link(kind, gone, old).close()
        put(new, new, TOKEN)
        end = f"{new.certificate.not_valid_after_utc:%Y-%m-%d %H:%M}"
        assert renew() == (
            f"renewed: a certificate for localhost until {end} UTC; tokens: 1; "
            f"sessions that ended: 2; the certificate is no longer for example.org"
        )
        for kind in kinds:
            with pytest.raises(LinkError, match="trusted"):
                link(kind, TOKEN, old)
            with pytest.raises(LinkError, match="refused the access token"):
                link(kind, gone, new)
            link(kind, TOKEN, new).close()
        for edge, each in [*zip(edges, links, strict=True)][::2]:  # their token stays
            assert kit.converse(edge, each, 30) == kit.greedy([1], 29)
        for each in links[1::2]:
            assert "access token revoked" in last_words(each)
        for each in links:
            each.close()
        assert TOKEN not in " ".join(said)

    put(old, old, TOKEN, gone)
    tokens.chmod(0o644)
    files = ["--cert", str(cert), "--key", str(key), "--token-file", str(tokens)]
    before = signal.signal(signal.SIGHUP, lambda *_: said.append("not ignored"))
    serve_while(files, use)
    signal.signal(signal.SIGHUP, before)
    assert "not ignored" not in said


def test_a_missing_package_of_an_engine_is_named(monkeypatch, capsys):
    def load(_):
        raise ImportError("the engine needs jinja2")

    monkeypatch.setattr(module, "_load", load)
    fails(capsys, "the engine needs jinja2", "serve", "--insecure", "--port", 0)


@pytest.mark.parametrize(("model", "draft"), [("a.gguf", "FILE.gguf"), ("a", "MODEL")])
def test_a_draft_that_fits_is_named(model, draft):
    said = serve_while(["--insecure", "--model", model], lambda port: None)
    assert "To use it, with a smaller model that has the same tokenizer:\n" in said
    assert f' --draft {draft} "Why' in said


if __name__ == "__main__":  # for a test on a process
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_load", lambda _: Slow(lambda: time.sleep(kit.PATIENCE)))
        patch.setattr(options, "has_packages", lambda *_: True)
        sys.exit(main(["serve", "--insecure", "--port", "0"]))
