"""``sqs generate`` against a server in this process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
import transformers

from sqs_codec import cli
from sqs_codec.hf import Cloud, _models, load_model
from tests.serving import Server, serving
from tests.test_demo import WORDS, save_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of a draft, a target of the same words, and one of other words."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "draft": save_model(folder / "draft", 16, WORDS),
        "target": save_model(folder / "target", 24, WORDS, seed=1),
        "other": save_model(folder / "other", 16, [*WORDS[:-1], "rain"]),
    }


@pytest.fixture(scope="module")
def server(models: dict[str, str]) -> Iterator[Server]:
    """A server of the target, for one token."""
    target = load_model(models["target"])
    cloud = Cloud(target.model, vocab_size=13, tokenizer=target.tokenizer)
    with serving(
        cloud, tokenizer=cloud.fingerprint, tokens=["a-token-of-the-tests"]
    ) as server:
        yield server


def generate(server: Server, *arguments: str) -> int:
    return cli.main(
        ["generate", "--server", server.address, "--insecure", "the fox", *arguments]
    )


def test_text_goes_out_and_the_rest_to_standard_error(
    server: Server,
    models: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SQS_TOKEN", "a-token-of-the-tests")
    capsys.readouterr()
    arguments = ["--temperature", "0", "--max-tokens", "12", "--draft"]
    assert generate(server, *arguments, models["draft"]) == 0
    out, err = capsys.readouterr()
    target = load_model(models["target"])
    ids = target.tokenizer("the fox", return_tensors="pt")["input_ids"]
    text = target.model.generate(
        ids,
        max_new_tokens=12,
        do_sample=False,
        suppress_tokens=list(range(13, 24)),
        pad_token_id=0,
    )[0, ids.shape[1] :]
    assert out == target.tokenizer.decode(text, skip_special_tokens=True) + "\n"
    for words in (f"{len(text)} tokens", "a second", "uplink", "downlink", "plan:"):
        assert words in err
    # A rule of one's own is all that the planner may choose.
    assert generate(server, *arguments, models["draft"], "--alpha", "0.1") == 0
    assert capsys.readouterr().out == out


def test_what_goes_wrong_is_said_in_a_line(
    server: Server,
    models: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    draft = ["--draft", models["draft"]]
    token = ["--token", "a-token-of-the-tests"]
    for arguments, said in (
        ([*draft, "--token", "another-token"], "token"),
        (["--draft", models["other"], *token], "tokenizer"),
        (["--draft", models["draft"] + "s", *token], "cannot load"),
    ):
        capsys.readouterr()
        assert generate(server, *arguments) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("sqs generate: ")
        assert said in err
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--server 127.0.0.1 --insecure", "must be HOST:PORT"),
        ("--server 192.0.2.1:8743 --insecure", "192.0.2.1 isn't this machine"),
        ("--server a:1 --cert /none", "the certificate /none: No such file"),
        ("--server a:1 --cert /none --transport datagram", "/none: No such file"),
        ("--server a:1 --cert /dev/null", "/dev/null: it has no certificate"),
        ("--server a:1 --token \N{BULLET}", "visible ASCII characters"),
        ("--server a:1 --prior /none", "no file /none"),
        ("--server a:1 --draft /none", "/none: there is no such directory"),
    ],
)
def test_what_can_be_known_is_said_before_a_model_is_loaded(
    arguments: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(_models, "_load_model", None)
    assert cli.main(["generate", *arguments.split(), "a prompt"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sqs generate: ")
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_prompt_of_another_encoding(
    server: Server, models: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    prompt = os.fsdecode(b"the caf\xe9")
    options = ["--server", server.address, "--insecure", "--draft", models["draft"]]
    assert cli.main(["generate", *options, prompt]) == 1
    assert capsys.readouterr().err == "sqs generate: the prompt must be text in UTF-8\n"


def test_an_interrupt_ends_the_session(
    server: Server,
    models: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    tokenizer = transformers.PreTrainedTokenizerFast
    monkeypatch.setattr(tokenizer, "decode", interrupt)
    arguments = ["--max-tokens", "12", "--token", "a-token-of-the-tests", "--draft"]
    assert generate(server, *arguments, models["draft"]) == 130
    assert "uplink" in capsys.readouterr().err
    until = time.monotonic() + 5
    while server.metric("sqs_sessions") > 0 and time.monotonic() < until:
        time.sleep(0.01)
    assert server.metric("sqs_sessions") == 0
