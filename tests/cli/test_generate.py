"""``sqs generate`` against a server in this process."""

import argparse
import signal
import sys

import pytest

import sqs_codec as sqs
from sqs_codec._base import install
from sqs_codec.cli import generate as generate_
from sqs_codec.cli import main as cli
from sqs_codec.cli.drafting import settings
from sqs_codec.cli.options import SMOLLM2_FINGERPRINT as SMOLLM2
from sqs_codec.system._base.chat import TextStream
from sqs_codec.system.edge import Step
from sqs_codec.system.edge._metrics import Completion, EdgeMetrics
from sqs_codec.system.engine import EngineConfig, make_engine
from sqs_codec.system.hf import _models, load_model
from sqs_codec.system.small import Draft
from tests.cli.test_demo import WORDS, save_model
from tests.refusals import fails
from tests.system.serve.kit import serving, wait_until


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a draft, a target of the same words, and one of other words."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "draft": save_model(folder / "draft", 16, WORDS),
        # By its first 12 tokens it prefers each by 20 times bfloat16's rounding.
        "target": save_model(folder / "target", 24, WORDS, seed=25),
        "other": save_model(folder / "other", 16, [*WORDS[:-1], "rain"]),
    }


@pytest.fixture(scope="module", params=["float32"])
def server(models, request):
    """A server of the target, for one token."""
    engine = make_engine(EngineConfig(target=models["target"], dtype=request.param))
    with serving(engine, tokens=["a-token-of-the-tests"]) as server:
        yield server


def generate(server, *arguments):
    return cli.main(
        ["generate", "--server", server.address, "--insecure", "the fox", *arguments]
    )


@pytest.mark.parametrize(
    ("server", "dtype"),
    [("float32", "float32"), ("bfloat16", "bfloat16"), ("float16", "bfloat16")],
    indirect=["server"],
)
def test_only_the_completion_goes_to_standard_output(
    server, dtype, models, monkeypatch, capsys
):
    monkeypatch.setenv("SQS_TOKEN", "a-token-of-the-tests")
    capsys.readouterr()
    arguments = ["--temperature", "0", "--max-tokens", "12", "--dtype", dtype]
    arguments += ["--draft", models["draft"]]
    assert generate(server, *arguments, "--draft-length", "3") == 0
    out, err = capsys.readouterr()
    assert f"Drafting with {models['draft']} on cpu in {dtype}, 0 MiB\n" in err
    target = load_model(models["target"], dtype=dtype)
    ids = target.tokenizer("the fox", return_tensors="pt")["input_ids"]
    how = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    text = target.model.generate(ids, suppress_tokens=list(range(13, 24)), **how)
    text = text[0, ids.shape[1] :]
    said = target.tokenizer.decode(text, skip_special_tokens=True)
    assert out == f" {said}\n"  # as after the prompt
    for words in (f"{len(text)} tokens", "tokens/s", "accepted", "Last mode:"):
        assert words in err
    # A rule of one's own is all that the planner may choose.
    assert generate(server, *arguments, "--alpha", "0.1") == 0
    assert capsys.readouterr().out == out


def test_errors_take_one_line(server, models, capsys):
    draft = ["--draft", models["draft"]]
    token = ["--token", "a-token-of-the-tests"]
    for arguments, said in (
        ([*draft, "--token", "another-token"], "token"),
        (["--draft", models["other"], *token], "tokenizer"),
        (["--draft", models["draft"] + "s", *token], "cannot load"),
    ):
        command = "generate", "--server", server.address, "--insecure", "the fox"
        *lines, _ = fails(capsys, said, *command, *arguments).splitlines()
        assert not lines or lines[0].startswith("Drafting with ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--server 127.0.0.1 --insecure", "must be HOST:PORT"),
        ("--server 192.0.2.1:8743 --insecure", "192.0.2.1 isn't this machine"),
        ("--server a:1 --cert /none", "the certificate /none: No such file"),
        ("--server a:1 --cert /none --transport datagram", "/none: No such file"),
        ("--server a:1 --cert /dev/null", "/dev/null must be a file, but is a device"),
        ("--server a:1 --token \N{BULLET}", "visible ASCII characters"),
        ("--server a:1 --prior /none", "no file /none"),
        ("--server a:1 --draft /none", "/none: there is no such directory"),
        ("--server localhost:1 --insecure --draft .", "nothing listens on this port"),
    ],
)
def test_errors_come_before_a_model_is_loaded(arguments, said, monkeypatch, capsys):
    monkeypatch.setattr(_models, "_load_model", None)
    err = fails(capsys, said, "generate", *arguments.split(), "a prompt")
    assert len(err.splitlines()) == 1


def test_modes_are_obeyed_and_a_seed_fixes_the_output(server, models, capsys):
    token = ["--token", "a-token-of-the-tests", "--max-tokens", "30"]
    texts = {}
    for way, plan in (
        ("--draft-length 3", "draft 3"),
        ("--mode rounds", "draft"),
        ("--mode alone --seed 7", "the cloud decodes alone"),
        ("--mode hints --seed 7", "hints of 3"),
        ("--seed 7", ""),
        ("--mode alone --seed 8", "the cloud decodes alone"),
    ):
        assert generate(server, "--draft", models["draft"], *way.split(), *token) == 0
        texts[way], err = capsys.readouterr()
        assert f"Last mode: {plan}" in err, way
        if plan and "hints" not in plan:  # which may have come in time
            assert ("nothing was drafted" in err) == ("alone" in plan), way
            assert "in mode alone" not in err, way
    modes = "--mode alone --seed 7", "--mode hints --seed 7", "--seed 7"
    assert len({texts[way] for way in modes}) == 1
    assert texts["--mode alone --seed 8"] != texts["--seed 7"]


@pytest.mark.parametrize(
    ("asked", "fingerprint", "prior"),
    [
        (None, SMOLLM2, "smollm2"),
        (None, b"another ", None),
        ("none", SMOLLM2, None),
        ("gpt2", SMOLLM2, "gpt2"),
    ],
)
def test_the_prior_fits_the_vocabulary(asked, fingerprint, prior):
    args = argparse.Namespace(prior=asked, kept=None, alpha=None)
    size = 50_257 if asked == "gpt2" else 49_152
    tokenizer = argparse.Namespace(fingerprint=fingerprint)
    expected = None if prior is None else sqs.Prior.builtin(prior)
    for setting in settings(args, size, tokenizer):
        assert setting.codec.prior == expected


def test_llama_cpp_without_a_library(tmp_path, monkeypatch, capsys):
    """As where it was built for a GPU that isn't there."""
    (tmp_path / "llama_cpp.py").write_text("raise RuntimeError('no libcudart.so')")
    monkeypatch.syspath_prepend(tmp_path)
    ours = "llama_cpp", "sqs_codec.system.llama_cpp"
    for name in [name for name in sys.modules if name.startswith(ours)]:
        monkeypatch.delitem(sys.modules, name)  # as if nothing had imported them
    monkeypatch.delattr("sqs_codec.system.llama_cpp", raising=False)
    options = ["--server", "localhost:1", "--insecure", "--draft", "model.gguf"]
    monkeypatch.setattr(install, "is_installed", lambda name: True)
    assert cli.main(["generate", *options, "a prompt"]) == 1
    assert capsys.readouterr().err == "sqs generate: no libcudart.so\n"


def test_an_unfinished_character_comes_at_the_end(capsys):
    own = Draft().tokenizer
    step = Step(tuple(own.encode("x\U0001f98a")[:2]), 0, 0, 0, 0, 0, "")
    steps = Completion((step for step in [step]), EdgeMetrics(tokens=2))
    generate_._show(steps, own.stream())
    assert capsys.readouterr().out == "x\ufffd\n"


def test_an_interrupt_ends_the_session(server, models, monkeypatch, capsys):
    def interrupt(*_, **__):
        signal.raise_signal(signal.SIGINT)
        raise AssertionError

    monkeypatch.setattr(TextStream, "add", interrupt)
    arguments = ["--max-tokens", "12", "--token", "a-token-of-the-tests", "--draft"]
    before = signal.signal(signal.SIGINT, lambda *_: pytest.fail("a process ends here"))
    try:
        assert generate(server, *arguments, models["draft"]) == 130
    finally:
        assert signal.signal(signal.SIGINT, before) is not before
    assert "bytes per token" in capsys.readouterr().err
    wait_until(lambda: server.metric("sqs_sessions") == 0)
