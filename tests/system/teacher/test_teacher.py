"""``sqs distill serve``: the lists that trainers get, and its errors."""

import http.client
import json
import threading
import tracemalloc
from contextlib import ExitStack, closing
from functools import partial
from itertools import count
from unittest.mock import Mock

import numpy as np
import pytest
import uvicorn
from starlette.testclient import TestClient

import sqs_codec as sqs
from sqs_codec import distill
from sqs_codec.cli import main as cli
from sqs_codec.system._endpoint.errors import ApiError
from sqs_codec.system.teacher import _app, make_app
from sqs_codec.system.teacher._lists import BLOCK, ListWriter, Passage
from sqs_codec.system.teacher._request import MOST_BYTES, parse
from tests.system.proxy.test_server import Endpoint
from tests.system.serve.kit import PATIENCE, wait_until

V, L = 40, 12
PATH = "/v1/completions"
SITE = "https://site.example"
TEXTS = [[7, 3, 9, 9, 1, 4], [7, 3, 9, 2], [7, 3], [31, *range(20), *range(20)]]
HERE = TEXTS[0]


def store(path, texts=TEXTS, places=None, **said):
    """A file of texts with random distributions."""
    rng = np.random.default_rng(0)
    codec = sqs.Codec(V + said.get("tail", False), L)
    header = distill.Header(codec, model="a/teacher", temperature=1.5, **said)
    with distill.Writer(path, header) as writer:
        for text in texts:
            at = np.arange(len(text)) if places is None else places
            logits = rng.normal(0, 2, (len(at), codec.vocab_size))
            rows = codec.quantize_unbiased_rows(logits, rng=rng)
            writer.write(text, rows, at)
    return distill.load(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return store(tmp_path_factory.mktemp("files") / "teacher.parquet")


@pytest.fixture(scope="module")
def client(data):
    return TestClient(make_app(data), base_url="http://127.0.0.1")


def ask(client, prompt, k=L, **fields):
    return client.post(PATH, json={"prompt": prompt, "prompt_logprobs": k} | fields)


def lists(sequence, tokens, fill=0):
    """The expected answer for each token: log-probabilities in order."""
    found = [{} for _ in tokens]
    rows = zip(sequence.places + 1, sequence.rows.to_dense(float)[:, :V], strict=True)
    for position, p in rows:
        if position < len(tokens):
            order = [i for i in np.argsort(-p, kind="stable").tolist() if p[i]]
            found[position] = {i: np.log(p[i]) for i in order}
    for position, (own, logprobs) in enumerate(zip(tokens, found, strict=True)):
        if position and (fill or (logprobs and not sequence.tail)):
            logprobs.setdefault(own, -9999)
            others = (i for i in count() if i not in logprobs)
            while len(logprobs) < fill:
                logprobs[next(others)] = -9999
    return found


def check(answer, *texts):
    """Compare an answer with the lists of texts."""
    for choice, expected in zip(answer.json()["choices"], texts, strict=True):
        assert (choice["text"], choice["finish_reason"]) == ("", "length")
        for found, own in zip(choice["prompt_logprobs"], expected, strict=True):
            assert (found is None) == (not own)
            entries = [(int(i), *e.values()) for i, e in (found or {}).items()]
            assert entries == [
                (i, pytest.approx(logprob, rel=1e-6), rank, None)
                for rank, (i, logprob) in enumerate(own.items(), 1)
            ]


@pytest.mark.parametrize("fill", [0, L, 15, V])
@pytest.mark.parametrize(
    ("tail", "places"), [(False, None), (True, None), (False, [0, 2, 3])]
)
def test_lists_match_the_file(fill, tail, places, tmp_path, monkeypatch):
    monkeypatch.setattr("sqs_codec.system.teacher._lists.BLOCK", 200)
    texts = [text for text in TEXTS if len(text) > 3]
    data = store(tmp_path / "f", texts, places, tail=tail)
    app = make_app(data, fill=fill > 0)
    answer = ask(TestClient(app, base_url="http://[::1]"), texts, fill or L)
    assert answer.headers["content-type"] == "application/json"
    check(answer, *(lists(data[i], text, fill) for i, text in enumerate(texts)))
    n = sum(map(len, texts))
    usage = {"prompt_tokens": n, "completion_tokens": 0, "total_tokens": n}
    assert answer.json()["usage"] == usage
    assert answer.json()["model"] == "a/teacher"


def test_a_prefix_of_a_text_is_found(client, data):
    check(ask(client, [7, 3, 9, 2]), lists(data[1], TEXTS[1]))
    check(ask(client, [[31, 0], [31]], 10**30), lists(data[3], [31, 0]), [{}])


def test_long_lists_are_written_in_pieces():
    header = distill.Header(sqs.Codec(1000, 1000))
    ids, counts = [np.tile(one, 99) for one in (range(1000), [1] * 1000)]
    rows = sqs.SparseRows(ids, counts, np.arange(100) * 1000, 1000, 1000)
    tokens = np.ones(99, np.uint32)
    found = distill.Text(tokens, np.arange(99), rows, 1.0, False, {})
    found = found._replace(places=found.places[:-1], rows=rows[:-1])
    pieces = [*ListWriter(header).write(Passage(tokens, found), 0)]
    assert json.loads(b"[null%b]" % b"".join(pieces))[98]["999"]["rank"] == 1000
    assert max(piece.count(b"rank") for piece in pieces) <= BLOCK


def test_lists_are_filled_up_to_a_limit(data, monkeypatch):
    monkeypatch.setattr(_app, "BLOCK", 20)
    client = TestClient(make_app(data, fill=True), base_url="http://localhost")
    assert ask(client, [7, 3], 20).status_code == 200
    said = ask(client, [7, 3], 21).json()["error"]["message"]
    assert said == "prompt_logprobs may be up to 20 with filled lists"


def test_requests_of_trainers(client, data):
    """TRL 1.16 and axolotl 0.19; ms-swift sets the temperature to 0."""
    trl = {"model": "a/teacher", "max_tokens": 1, "temperature": 1.5}
    axolotl = {
        "echo": True,
        "logprobs": True,
        "top_logprobs": 64,
        "max_new_tokens": 0,
        "skip_special_tokens": False,
        "temperature": 1.5,
        "sampling_params": {"max_tokens": 0},
    }
    for fields in trl, axolotl, {"temperature": 0}, {"max_tokens": 0, "n": 1}:
        check(ask(client, [HERE], 64, **fields), lists(data[0], HERE))
    [model] = client.get("/v1/models").json()["data"]
    assert model["id"] == "a/teacher"
    assert client.get("/health").status_code == 200
    assert "GET /v1/models, " in client.get("/metrics").json()["error"]["message"]


def test_the_answer_has_the_clients_model_name(data):
    for names, own in (["*", "named"], "named"), (["*"], "a/teacher"):
        client = TestClient(make_app(data, names=names), base_url="http://localhost")
        assert ask(client, HERE).json()["model"] == own
        assert ask(client, HERE, model="other").json()["model"] == "other"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": "the fox"}, "prompt must be a list of at least one token"),
        ({"prompt": ["the"]}, "prompt[0] must be a token id, 0 to"),
        ({"prompt": []}, "prompt must be a list of at least one token id"),
        ({"prompt": [HERE, []]}, "prompt[1] must be a list of at least one token"),
        ({"prompt": [HERE, [[7]]]}, "prompt[1][0] must be a token id"),
        ({"prompt": [7, 2**40]}, "prompt[1] must be a token id"),
        ({"prompt": [7, 3.0]}, "token id, 0 to 39, got 3.0"),
        ({"prompt": [7, True]}, "got true"),
        ({"prompt": [7, -1]}, "got -1"),
        ({"prompt": [[7]] * 100_000}, "prompt may have up to 1024 texts"),
        ({"prompt_logprobs": None}, "12 is enough for every list, got null. Trainers"),
        ({"prompt_logprobs": 0}, "12 is enough for every list, got 0. Trainers"),
        ({"prompt_logprobs": 1}, "counts can only teach forward KL"),
        ({"prompt_logprobs": 2.0}, "prompt_logprobs must be a whole number, got 2.0"),
        (
            {"prompt_logprobs": 2, "prompt": [[7, 3], TEXTS[3]]},
            "learn a different distribution; prompt_logprobs=12 is",
        ),
        ({"temperature": 1}, "temperature must be 1.5"),
        ({"temperature": 10**400}, "temperature must be 0 to"),
        ({"max_tokens": 16}, "max_tokens can't be 16: this endpoint doesn't generate"),
        ({"n": 2}, "n can't be 2"),
        ({"stream": True}, "stream can't be true"),
        ({"truncate_prompt_tokens": 4}, "by all tokens of the prompt"),
        ({"model": "gpt-4o"}, "unknown model 'gpt-4o'; there is 'a/teacher'"),
    ],
)
def test_errors_name_valid_values(client, fields, said):
    answer = ask(client, **({"prompt": HERE, "k": L} | fields))
    assert answer.status_code == (404 if "model" in fields else 400)
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("asked", "position"),
    [([6, *HERE], 0), ([7, 3, 9, 8, 1, 4], 3), ([*HERE, 5], 6), ([30], 0)],
)
def test_a_miss_reveals_nothing_of_the_file(client, asked, position):
    for prompt, name in (asked, "prompt"), ([HERE, asked, [8]], "prompt[1]"):
        answer = ask(client, prompt)
        assert answer.status_code == 404
        assert answer.json()["error"] == {
            "message": f"{name} isn't in the file: no stored text goes on with token "
            f"{asked[position]} at position {position}",
            "type": "invalid_request_error",
            "param": name,
            "code": "unknown_text",
        }


def test_size_limit_of_a_request(client):
    for data in b"[" * 100_000, b'{"prompt": ' + b"[" * 100_000, b"", b"[]":
        assert client.post(PATH, content=data).status_code == 400
    assert client.post(PATH, content=b" " * (MOST_BYTES + 1)).status_code == 413


def teaching(data, **options):
    return closing(Endpoint(make_app(data, **options)))


def post(endpoint, prompt=HERE):
    """Send a request, and return the received part of its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, PATIENCE)
    body = json.dumps({"prompt": prompt, "prompt_logprobs": L})
    connection.request("POST", PATH, body)
    return connection


def status(connection):
    with closing(connection):
        answer = connection.getresponse()
        answer.read()
        return answer.status


@pytest.fixture
def held(monkeypatch):
    """Make calls of a function wait; return a list of them, and their event."""

    def hold(owner, name):
        calls, goes_on, own = [], threading.Event(), getattr(owner, name)

        def late(*given):
            calls.append(given)
            assert goes_on.wait(PATIENCE)
            return own(*given)

        monkeypatch.setattr(owner, name, late)
        return calls, goes_on

    return hold


def test_an_api_key_is_needed(data):
    client = TestClient(make_app(data, api_key="key"), "http://localhost")
    assert ask(client, HERE).status_code == 401
    client.headers["Authorization"] = "Bearer key"
    assert ask(client, HERE).status_code == 200


def test_other_requests_are_answered_meanwhile(data, held, monkeypatch):
    """While one answer is made, another waits, and one is too much."""
    monkeypatch.setattr(_app, "CALLS", _app.HEAVY + 2)
    monkeypatch.setattr(_app, "READING_SECONDS", 0.1)
    _, goes_on = held(_app.ListWriter, "write")
    with teaching(data) as endpoint:
        one, two = post(endpoint), post(endpoint, TEXTS[1])
        wait_until(lambda: status(post(endpoint)) == 429)
        assert endpoint.status("/health", "") == 200
        goes_on.set()
        assert (status(one), status(two)) == (200, 200)


def unfinished(endpoint, *headers):
    """Send a body's first byte."""
    half = endpoint.open()
    head = "POST /v1/completions HTTP/1.1", "Host: localhost", *headers
    half.sendall("\r\n".join([*head, "", "1\r\n{"]).encode())
    return closing(half)


def test_unfinished_bodies_make_room(data, monkeypatch):
    """At most `HEAVY` large ones are read at a time, and light requests don't wait."""
    monkeypatch.setattr(_app, "HEAVY", 3)
    monkeypatch.setattr(_app, "LIGHT", 100)
    monkeypatch.setattr(_app, "IDLE_SECONDS", 1e9)
    inside, most, read = [], [], _app.read_body

    async def counted(request, *given):
        small = request.headers.get("content-length") in ("41", "100")
        inside.append(small)
        most.append(inside.count(False))
        try:
            return await read(request, *given)
        finally:
            inside.remove(small)

    monkeypatch.setattr(_app, "read_body", counted)
    with teaching(data) as endpoint, ExitStack() as stack:
        for _ in range(6):
            for header in (
                f"Content-Length: {MOST_BYTES}",
                "Transfer-Encoding: chunked",
                "Content-Length: 3\r\nTransfer-Encoding: chunked",
                "Content-Length: 100",
            ):
                stack.enter_context(unfinished(endpoint, header))
        wait_until(lambda: len(inside) == 6 + 3)
        light = [post(endpoint, [7, 3]) for _ in range(3)]
        assert [status(one) for one in light] == [200] * 3
        monkeypatch.setattr(_app, "IDLE_SECONDS", 0)
        assert status(post(endpoint, TEXTS[3])) == 200
    assert max(most) == 3


def test_requests_of_lost_clients_are_not_parsed(data, held, monkeypatch):
    """Bodies are read one by one, as a long one takes the interpreter."""
    monkeypatch.setattr(_app, "LIGHT", 100)  # so that some have no place
    lanes, lane = [], _app._Lane
    monkeypatch.setattr(_app, "_Lane", lambda n: lanes.append(lane(n)) or lanes[-1])
    found, goes_on = held(_app, "parse")
    with teaching(data) as endpoint:
        first = post(endpoint, TEXTS[3])
        wait_until(lambda: found)
        asked = [post(endpoint, TEXTS[3]) for _ in range(20)]
        wait_until(lambda: lanes[1]._line)
        for one in asked:
            one.close()
        wait_until(lambda: len(endpoint.server._places) == 1 and not lanes[1]._line)
        goes_on.set()
        assert (status(first), status(post(endpoint, TEXTS[3]))) == (200, 200)
    assert len(found) == 2


@pytest.mark.parametrize("k", [2, L])
def test_a_damaged_file_is_an_error(data, k, monkeypatch):
    monkeypatch.setattr(
        distill.Lookup, "start", Mock(side_effect=ValueError("damaged"))
    )
    app = make_app(data)
    client = TestClient(app, "http://localhost", raise_server_exceptions=False)
    assert ask(client, [[7], HERE], k).status_code == 500


def test_light_requests_do_not_wait_for_heavy_ones(data, held, monkeypatch):
    monkeypatch.setattr(_app, "LIGHT", 100)
    written, goes_on = held(_app.ListWriter, "write")
    with teaching(data) as endpoint:
        heavy = [post(endpoint, TEXTS[3]) for _ in range(12)]
        wait_until(lambda: written)
        assert [status(post(endpoint, [7])) for _ in range(3)] == [200] * 3
        goes_on.set()
        assert [status(one) for one in heavy] == [200] * 12


def test_a_slow_reader_does_not_delay_others(tmp_path, monkeypatch):
    monkeypatch.setattr("sqs_codec.system._endpoint.server.READING_SECONDS", 1e9)
    data = store(tmp_path / "f", [[1] * 30_000, HERE])
    with teaching(data) as endpoint:
        unread = [post(endpoint, [[1] * 30_000]) for _ in range(12)]
        wait_until(
            lambda: any(
                v.busy and v.flow.write_paused for v in [*endpoint.server._places]
            )
        )
        assert status(post(endpoint)) == 200
        heavy = [[1] * 6000, *[HERE] * 9]
        assert status(post(endpoint, heavy)) == 200
        for one in unread:
            one.close()


def test_only_one_text_per_request_is_in_memory(tmp_path):
    data = store(tmp_path / "f", [[1] * 3000])
    with teaching(data) as endpoint:
        taken = []
        for n in 1, 1, 30:  # once for lasting allocations
            tracemalloc.start()
            with closing(post(endpoint, [[1] * 3000] * n)) as asked:
                read = partial(asked.getresponse().read, 1 << 16)
                assert sum(map(len, iter(read, b""))) > n * 3000
            taken.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert taken[2] < 1.5 * taken[1]


def test_a_body_takes_little_memory(data):
    """For every kind of large content."""
    for part in b"[[]],", b'{"":{}},', b'"ab",', b"-9,":
        body = b'{"prompt": [' + part * (MOST_BYTES // 16 // len(part)) + b"1]}"
        tracemalloc.start()
        with pytest.raises(ApiError, match=r"prompt"):
            parse(body, ["a/teacher"], data.header)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most * 16 < 80e6, part


def test_no_lookup_for_disconnected_clients(data, held):
    sought, goes_on = held(distill.Lookup, "start")
    with teaching(data) as endpoint:
        one = post(endpoint, [HERE] * 9)
        wait_until(lambda: sought)
        one.close()
        wait_until(lambda: not endpoint.server._places)
        goes_on.set()
    assert len(sought) == 1


def test_the_command(tmp_path, monkeypatch, capsys):
    ports = []

    def visit(server, sockets):
        ports.extend(each.getsockname()[1] for each in sockets)
        visitor = TestClient(server.config.app, base_url="http://127.0.0.1")
        [model] = visitor.get("/v1/models", headers={"Origin": SITE}).json()["data"]
        assert model["id"] == "named"
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", visit)
    store(path := tmp_path / "teacher.parquet", rounding="lattice")
    serve = ["distill", "serve", str(path), "--model-name=named"]
    serve += ["--allow-origin", SITE]
    assert cli.main([*serve, "--listen", "127.0.0.1:0"]) == 130
    said = capsys.readouterr().err
    assert "has the biased rounding lattice" in said
    [port] = ports
    assert f"Serving 4 texts at http://127.0.0.1:{port}, at temperature 1.5" in said
    with pytest.raises(SystemExit):
        cli.main([*serve, "--listen", "0.0.0.0:80"])
    assert "machines can reach 0.0.0.0" in capsys.readouterr().err


def test_only_known_hosts_are_served(data):
    app = make_app(data, hosts=["teacher.example.org"])
    for host, expected in ("teacher.example.org", 200), ("evil.example", 403):
        assert ask(TestClient(app, f"http://{host}"), HERE).status_code == expected


def test_no_request_is_parsed_during_shutdown(data, held):
    found, goes_on = held(_app, "parse")
    with teaching(data) as endpoint:
        asked = [post(endpoint, TEXTS[3]) for _ in range(20)]
        wait_until(lambda: found and len(endpoint.server._places) == 20)
        endpoint.server.should_exit = True
        wait_until(lambda: not endpoint.server._places)
        goes_on.set()
    assert len(found) == 1
    for one in asked:
        one.close()
