"""``sqs proxy`` with real clients, and with hostile ones."""

import asyncio
import http.client
import json
import random
import re
import signal
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from types import SimpleNamespace
from unittest.mock import Mock

import openai
import pytest
from starlette.testclient import TestClient

from sqs_codec import Sampling
from sqs_codec.cli import main as cli
from sqs_codec.system import edge
from sqs_codec.system._base.protocol import MODES
from sqs_codec.system._base.tokens import common_length
from sqs_codec.system._endpoint.errors import ApiError
from sqs_codec.system.engine import EngineConfig, make_engine
from sqs_codec.system.hf import Draft, Tokenizer, load_model
from sqs_codec.system.proxy import Completer, make_app
from sqs_codec.system.proxy._draft import Turns
from sqs_codec.system.proxy._request import REFUSED, parse
from sqs_codec.system.serve import INSECURE, connect
from sqs_codec.system.session import Setting
from tests.cli.test_demo import WORDS, save_model
from tests.cli.test_serve import run_while
from tests.system.proxy.test_server import Endpoint, Played
from tests.system.serve.kit import (
    CODEC,
    KEEP,
    PATIENCE,
    VOCAB,
    Server,
    Toy,
    serving,
    toy_logits,
    wait_until,
)

TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {{ m.content }} . {% endfor %}"
    "{% if messages[0].role == 'assistant' %}{{ raise_exception('no') }}{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "draft", 16, WORDS)
    save_model(folder / "target", 24, WORDS, seed=25)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with serving(make_engine(EngineConfig(target=str(folder / "target")))) as server:
        yield server


class Proxy(Endpoint):
    """An endpoint in a thread."""

    def __init__(self, folder, server, *, clients=8, **options):
        self.model = load_model(str(folder / "draft"))
        draft = Draft(self.model.model, self.model.tokenizer)
        self.completer = Completer(
            draft,
            draft.tokenizer,
            lambda: connect(server, security=INSECURE),
            server=server,
            clients=clients,
        )
        self.completer.check()
        app = make_app(self.completer, **options)
        super().__init__(app, clients=clients)
        self.url = f"http://127.0.0.1:{self.port}"
        self.call = TestClient(app, self.url).request  # as no client would

    def client(self, **options):
        """A client as people have it, but that it doesn't try again."""
        options = {"api_key": "none", "max_retries": 0} | options
        return openai.OpenAI(base_url=f"{self.url}/v1", **options)


@pytest.fixture(scope="module")
def proxy(folder, server):
    with closing(Proxy(folder, server.address)) as proxy:
        yield proxy


def ask(client, prompt="the fox", **options):
    options = {"max_tokens": 30, "model": "sqs"} | options
    return client.chat.completions.create(
        messages=[{"role": "user", "content": prompt}], **options
    )


def ours(**fields):
    return {"extra_body": {"sqs": fields}}


def test_a_client_may_choose_mode_and_link(proxy):
    client, texts = proxy.client(), {}
    link = {"rate": 1_000_000, "trip": 0.05}
    for mode in ("alone", "rounds", "hints"):
        seed = {} if mode == "rounds" else {"seed": 7}
        answer = ask(client, **seed, **ours(mode=mode, link=link))
        texts[mode] = answer.choices[0].message.content
        took = answer.usage.sqs
        assert took["seconds"] > 0.1  # a round trip for the hello, and one for the text
        assert (took["mode"], took["plan"].split(":")[1]) == (mode, " as asked")
        if mode != "hints":  # which may come too late
            assert bool(took["drafted"]) is (mode == "rounds")
    assert texts["alone"] == texts["hints"]


def test_a_tokenizer_panic_is_an_error_and_frees_its_seat(folder, server, monkeypatch):
    """The panic of tokenizers isn't an Exception."""
    with closing(Proxy(folder, server.address, clients=1)) as proxy:
        monkeypatch.setattr(Tokenizer, "encode", Mock(side_effect=BaseException))
        for _ in range(2):
            with pytest.raises(openai.InternalServerError, match="completion failed;"):
                ask(proxy.client())
        monkeypatch.undo()
        assert ask(proxy.client()).choices


def test_a_simulated_link_is_only_for_this_machine():
    here, there = (
        TestClient(make_app(Played()), base_url=f"http://{host}")
        for host in ("127.0.0.1", "192.0.2.7")
    )
    one_way = Played()
    one_way.modes = MODES[:1]
    less = TestClient(make_app(one_way), base_url="http://127.0.0.1")
    for client, local in (here, True), (there, False), (less, False):
        [model] = client.get("/v1/models").json()["data"]
        assert model["sqs"]["thin_links"] is local
    asked = {"prompt": "the", "sqs": {"mode": "alone", "link": {}}}
    answer = there.post("/v1/completions", json=asked)
    assert answer.status_code == 403
    assert answer.json()["error"]["param"] == "sqs.link"
    assert "on the endpoint's own machine" in answer.json()["error"]["message"]


def test_completions_match_sqs_generate(proxy, server, folder, capsys):
    given = ["--server", server.address, "--insecure", "--draft", str(folder / "draft")]
    capsys.readouterr()
    command = ["generate", "the fox", *given, "--seed", "7", "--max-tokens", "30"]
    assert cli.main(command) == 0
    expected = capsys.readouterr().out.removesuffix("\n")
    client = proxy.client()
    options = {"seed": 7, "temperature": 0.7}
    whole = ask(client, **options)
    assert whole.choices[0].message.content == expected
    assert whole.choices[0].finish_reason in ("stop", "length")
    usage = whole.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens == 2
    assert usage.sqs["tokens"] == usage.completion_tokens
    assert usage.sqs["bytes_up"] > 0
    assert usage.sqs["bytes_down"] > 0
    assert usage.sqs["mode"] in ("alone", "hints")  # as there is a seed

    usages = {"stream_options": {"include_usage": True}}
    *chunks, last = ask(client, **options, stream=True, **usages)
    said = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(said) == expected
    assert len(said) > 5
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    # The last bytes of a text may leave after they were counted.
    assert last.usage.sqs["bytes_up"] >= chunks[-2].sqs["bytes_up"]
    assert {chunk.sqs["origin"] for chunk in chunks} <= {"draft", "cloud"}
    assert last.usage.completion_tokens == usage.completion_tokens
    assert last.usage.sqs["plan"]

    options |= {"model": "sqs", "max_tokens": 30}
    plain = client.completions.create(prompt="the fox", **options)
    assert plain.choices[0].text == expected
    chunks = client.completions.create(prompt=[3, 4], stream=True, **options)
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected
    assert [model.id for model in client.models.list()] == ["sqs"]
    assert client.models.retrieve("sqs").owned_by == "sqs"


def test_eight_concurrent_clients_get_their_completions(proxy):
    client, prompts = proxy.client(), ["the fox " * n for n in range(1, 9)]

    def write(prompt):
        chunks = ask(client, prompt, temperature=0, max_tokens=24, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    alone = [*map(write, prompts)]
    assert len({*alone}) > 4
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(write, prompts)] == alone


def test_stop_strings(proxy):
    client = proxy.client()
    options = {"seed": 3, "temperature": 1.5}
    text = ask(client, **options).choices[0].message.content
    words = text.split(" ")
    stop = f"{words[3][-1]} {words[4]}"  # across tokens
    for given in (stop, ["never", stop]):
        answer = ask(client, **options, stop=given)
        assert answer.choices[0].message.content == text.partition(stop)[0]
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.completion_tokens < 10
    answer = ask(client, **options, stop=f"{text} and more")  # which is held back
    assert answer.choices[0].message.content == text


def test_held_back_text_comes_at_the_end(proxy, monkeypatch):
    late = Mock(**{"add.return_value": "", "rest.return_value": "late END of it"})
    monkeypatch.setattr(proxy.completer._tokenizer, "stream", lambda prompt: late)
    [choice] = ask(proxy.client(), max_tokens=4).choices
    assert choice.message.content == "late END of it"
    [choice] = ask(proxy.client(), max_tokens=4, stop="END").choices
    assert (choice.message.content, choice.finish_reason) == ("late ", "stop")


def test_templates(proxy, monkeypatch):
    client = proxy.client()
    chat = [
        {"role": "developer", "content": "fox"},
        {"role": "user", "content": [{"type": "text", "text": "the fox"}]},
    ]
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        client.chat.completions.create(model="sqs", messages=chat)
    monkeypatch.setattr(proxy.model.tokenizer, "chat_template", TEMPLATE)
    monkeypatch.setattr(proxy.completer._tokenizer, "has_template", True)
    answer = client.chat.completions.create(model="sqs", messages=chat, max_tokens=4)
    assert answer.usage.prompt_tokens == 7
    with pytest.raises(openai.BadRequestError, match="the chat template fails"):
        client.chat.completions.create(
            model="sqs", messages=[{"role": "assistant", "content": "fox"}]
        )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"logit_bias": {"3": 1}}, "logit_bias isn't supported"),
        ({"temperature": 3}, "temperature must be 0 to 2"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"seed": -1}, "seed must be 0 to"),
        ({"stop": "x" * 257}, "a stop string may have up to 256"),
        ({"model": "gpt-4o"}, "unknown model 'gpt-4o'"),
        ({"prompt": "the " * 5000}, "prompt has 5000 tokens;"),
        (ours(mode="fast"), 'alone, rounds, hints, got "fast"'),
        (ours(link={}), "sqs.link needs sqs.mode"),
        (ours(mode="hints", link={"rate": 9}), "sqs.link.rate must be 10000"),
        ({"seed": 1, **ours(mode="rounds")}, "seed can't be used with rounds"),
    ],
)
def test_refusals_raise_the_clients_exceptions(proxy, options, said):
    no_model = "model" in options
    kind = openai.NotFoundError if no_model else openai.BadRequestError
    with pytest.raises(kind, match=said) as caught:
        ask(proxy.client(), **options)
    assert {"message", "type", "param", "code"} == set(caught.value.body)


def test_any_request_gets_an_answer():
    """Randomly damaged requests."""
    rng = random.Random(0)
    values = [None, True, -1, 1.5, 1e400, "x", "\ud800", [], [3], [[]], {}, {"a": []}]
    values += [{"type": "text"}, [{"role": "user", "content": "the"}], "sqs", 10**30]
    names = [*REFUSED, "model", "messages", "prompt", "max_tokens", "temperature"]
    values += [{"mode": "hints", "link": {"trip": 1e9}}, {"link": []}]
    names += ["sqs", "top_k", "stop", "seed", "stream", "stream_options"]
    names += ["top_p", "user"]
    good = 0
    for _ in range(10_000):
        fields = {"messages": [{"role": "user", "content": "the"}], "prompt": "the"}
        some = rng.choices(names, k=rng.randrange(4))
        data = json.dumps(fields | {name: rng.choice(values) for name in some}).encode()
        if rng.random() < 0.3:
            at = rng.randrange(len(data))
            data = data[:at] + rng.randbytes(rng.randrange(3)) + data[at + 1 :]
        with suppress(ApiError):  # and nothing else
            parse(data, chat=rng.random() < 0.5, models=["sqs"], sampling=Sampling())
            good += 1
    assert 1000 < good < 9000


CHAT = "/v1/chat/completions"


def test_malformed_requests(proxy):
    for body in (b"", b"{", b"[]", b'"x"', b"[" * 100_000, b"\xff", b'{"seed": NaN}'):
        answer = proxy.call("POST", CHAT, content=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"
    for origin in "https://evil.example", "null", proxy.url:
        answer = proxy.call("POST", CHAT, json={}, headers={"Origin": origin})
        assert answer.status_code == (400 if origin == proxy.url else 403)


def test_a_body_without_end(proxy):
    for head in (b"Content-Length: 100000000\r\n", b"Transfer-Encoding: chunked\r\n"):
        with socket.create_connection(("127.0.0.1", proxy.port)) as raw:
            raw.sendall(b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: [::1]\r\n")
            raw.sendall(head + b"\r\n")
            sent = 0
            try:
                while sent < 100_000_000:
                    raw.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
                    sent += 65536
            except ConnectionError:
                pass
            assert sent < 20_000_000


def test_silent_clients_are_disconnected(proxy, monkeypatch):
    monkeypatch.setattr("sqs_codec.system._endpoint.server.SILENT_SECONDS", 0.1)
    for said in (b"", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\nGET "):
        with socket.create_connection(
            ("127.0.0.1", proxy.port), timeout=PATIENCE
        ) as raw:
            raw.sendall(said)
            while raw.recv(65536):
                pass


def slow_down(server, seconds, monkeypatch):
    """Have each call of a server's model last; return the list of calls to come."""
    verify, calls = server.engine.verifier.verify, list[int]()

    def slowly(jobs):
        calls.append(len(jobs))
        time.sleep(seconds)
        return verify(jobs)

    monkeypatch.setattr(server.engine.verifier, "verify", slowly)
    return calls


def test_disconnecting_ends_the_session(proxy, server, monkeypatch):
    calls = slow_down(server, 0.05, monkeypatch)  # so that a text takes ten seconds
    wait_until(lambda: not proxy.completer._answers)
    for _, own in proxy.completer._free:
        monkeypatch.setattr(own, "_stop", frozenset())
    body = {"prompt": "the fox", "max_tokens": 200}
    for stream in (True, False):
        data = json.dumps(body | {"stream": stream}).encode()
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port)
        connection.request("POST", "/v1/completions", data)
        if stream:
            connection.getresponse().read(100)
        wait_until(lambda: server.metric("sqs_sessions") == 1)
        connection.close()
        before = len(calls)
        wait_until(lambda: server.metric("sqs_sessions") == 0)
        assert len(calls) < before + 30


def test_too_many_clients_get_retry_after(folder, server):
    with closing(Proxy(folder, server.address, clients=1)) as proxy:
        asyncio.run(proxy.completer._seats.acquire())  # somebody has the only place
        with pytest.raises(openai.RateLimitError, match="simultaneous compl") as error:
            ask(proxy.client())
        assert error.value.response.headers["retry-after"] == "1"
        proxy.completer._seats.release()
        assert ask(proxy.client()).choices


def test_api_key_and_allowed_origins():
    site = "https://chat.example.org"
    client = TestClient(
        make_app(Played(), api_key="key", origins=[site]), "http://127.0.0.1"
    )
    for path in ("/v1/models", "/metrics"):
        for key, expected in ("", 401), ("another", 401), ("key", 200):
            answer = client.get(path, headers={"Authorization": f"Bearer {key}"})
            assert answer.status_code == expected
    assert "bearer token" in client.get("/v1/models").json()["error"]["message"]
    assert client.get("/health").status_code == 200
    for origin, allowed in (site, site), ("https://evil.example", None):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = client.options(CHAT, headers=asked)
        assert answer.headers.get("access-control-allow-origin") == allowed


def test_page_and_metrics(proxy):
    ask(proxy.client())
    page = proxy.call("GET", "/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in page.splitlines())
    assert float(lines["sqs_proxy_tokens_total"]) > 0
    assert float(lines["sqs_proxy_texts"]) == 0
    assert float(lines['sqs_proxy_requests_total{status="200"}']) > 0
    for path in ("/", "/page.js", "/page.css"):
        answer = proxy.call("GET", path)
        assert answer.status_code == 200
        assert answer.content
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_cloud_that_disappears(folder, port, monkeypatch):
    """It comes back in time, or it doesn't, before a text or in its midst."""
    config = EngineConfig(target=str(folder / "target"))
    options = {"seed": 5, "temperature": 1.5, "max_tokens": 200}
    first = Server(make_engine(config), port=port)
    with closing(Proxy(folder, first.address)) as proxy:
        client = proxy.client()
        expected = ask(client, **options).choices[0].message.content
        assert len(expected.split()) > 50
        stream = iter(ask(client, **options, stream=True))
        said = next(stream).choices[0].delta.content or ""
        first.stop()
        second = Server(make_engine(config), port=port)
        said += "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert said == expected
        proxy.completer._patience = 1.0
        slow_down(second, 0.1, monkeypatch)
        stream = iter(ask(client, **options, stream=True))
        next(stream)
        second.stop()
        with pytest.raises(openai.APIError, match=f"cloud at 127.0.0.1:{port}"):
            list(stream)
        with pytest.raises(openai.InternalServerError, match="nothing listens") as e:
            ask(client)
        assert e.value.status_code == 503


def test_the_command(folder, server):
    given = ["--server", server.address, "--insecure", "--draft", str(folder / "draft")]
    clients = rf"Proxy for {server.address}: API at (http://127.0.0.1:\d+)/v1,"

    def visit(said):
        url = re.search(clients, said)[1]
        assert urllib.request.urlopen(f"{url}/health", timeout=PATIENCE).status == 200

    command = ["proxy", *given, "--listen", "127.0.0.1:0"]
    status, _ = run_while(command, visit, signal.SIGINT)
    assert status == 130


def test_turns_are_in_order_of_arrival():
    turns, order = Turns(), list[int]()

    def take(i):
        with turns:
            order.append(i)

    threads = [threading.Thread(target=take, args=(i,)) for i in range(8)]
    with turns:
        for i, thread in enumerate(threads):
            thread.start()
            wait_until(lambda i=i: len(turns._waiting) == i + 1)
    for thread in threads:
        thread.join()
    assert order == [*range(8)]


class Counting(edge.Draft):
    """A draft that counts the tokens it reads, and agrees with its toy target."""

    vocab_size, read = VOCAB, 0
    tokenizer = SimpleNamespace(
        fingerprint=b"tokenize",
        stop=frozenset(),
        stream=lambda prompt: SimpleNamespace(add=lambda tokens: "", rest=lambda: ""),
    )

    def __init__(self):
        self.cached = []

    def twin(self):
        return Counting()

    def logits(self, tokens):
        """Read what isn't cached, one token at least."""
        known = min(common_length(self.cached, tokens), len(tokens) - 1)
        Counting.read += len(tokens) - known
        self.cached = list(tokens)
        return toy_logits(tokens)[None]


async def turn(completer, prompt):
    """Complete a prompt; return how many tokens the drafts read."""
    asked = json.dumps({"prompt": prompt, "max_tokens": 4, "temperature": 0})
    options = {"chat": False, "models": ["sqs"], "sampling": Sampling()}
    before = Counting.read
    answer = await completer.write(parse(asked.encode(), **options))
    while not (await answer.next()).last:
        pass
    assert answer.left.done()  # the next completion finds the seat free
    return Counting.read - before


@pytest.mark.parametrize("mode", MODES)
def test_a_chat_keeps_its_session_until_the_proxy_ends(mode):
    """Two chats that once overlapped have one each, also where no draft reads them.

    And where drafts read them, each reads only the new tokens.
    """
    of = {1: [], 2: []}
    both = threading.Barrier(2, timeout=PATIENCE)

    def note(jobs):
        for job in jobs:
            of[job.text[0]].append(job.session)

    async def turns():
        chats = [[i] * 600 for i in of]
        completer = Completer(
            Counting(),
            Counting.tokenizer,
            lambda: met() or server.link(),
            server="",
            settings=[Setting(CODEC, KEEP)],
            modes=[mode],
        )
        await asyncio.gather(*(turn(completer, chat) for chat in chats))
        met.side_effect = None
        for _ in range(3):
            for chat in chats:
                chat += chat[:20]
                read = await turn(completer, chat)
                assert mode == "hints" or read < 60
        assert len(server.service._sessions) == len(server._links) == 2
        await completer.close()

    with serving(Toy(note)) as server:
        met = Mock(side_effect=lambda: both.wait() and None, return_value=None)
        asyncio.run(turns())
        wait_until(lambda: not server.service._sessions)
    one, other = map(set, of.values())
    assert len(one) == len(other) == len(one - other) == 1
