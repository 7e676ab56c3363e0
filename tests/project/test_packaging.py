"""The files for `pip install`, as far as `.ci/run` doesn't install them anyway."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from importlib.metadata import entry_points, packages_distributions
from pathlib import Path

import pytest

from tests.backend.test_backend import (
    ADD_NUMBA,
    IMPORT,
    NO_NUMBA,
    REBUILD,
    ROUND_TRIP,
    import_error,
    output,
    python,
)
from tests.project.release import run
from tests.project.test_tree import imported_names

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy, without what was built here earlier."""
    copy = tmp_path_factory.mktemp("copy") / "sqs-codec"
    built = ("build", "dist", "*.egg-info", "*.so", "_sqs.c", "__pycache__")
    return shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", *built))


CODE = (
    ".c .cdef .cff .conf .cpp .css .h .hpp .html .in .js .lock .md .mjs .py .rs"
    " .service .tex .toml .typed .yaml .yml CMakeLists.txt durations.txt package.json"
)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git says what is shipped")
def test_each_data_file_names_its_source():
    files = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split()
    code = {"", *CODE.split()}
    data = [f for f in files if not {Path(f).suffix, Path(f).name} & code]
    page = (ROOT / "DATA.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+/.+?)` \|", page, re.MULTILINE)
    assert [f for f in data if not any(fnmatch(f, row) for row in rows)] == []
    assert [row for row in rows if not any(fnmatch(f, row) for f in data)] == []
    notice = (ROOT / "NOTICE").read_text("utf-8")
    assert [f for f in data if f.startswith("sqs_codec/") and f not in notice] == []


SETUP = """
import runpy, sys, sysconfig
from setuptools._distutils import sysconfig as of_headers
known = sysconfig.get_config_var
{}
sys.argv[0] = "setup.py"
runpy.run_path("setup.py")
"""
NO_HEADERS = SETUP.format('of_headers.get_python_inc = lambda *_, **__: "nowhere"')
FREE = 'sysconfig.get_config_var = lambda x: x == "Py_GIL_DISABLED" or known(x)'


@pytest.mark.all
@pytest.mark.parametrize(
    ("code", "compiler", "reason"),
    [
        ("setup.py", "/nowhere/cc -O2", "there is no C compiler '/nowhere/cc' here"),
        ("setup.py", "false", "the C compiler 'false' failed"),
        (NO_HEADERS, "false", "Python.h isn't here"),
    ],
    ids=["no compiler", "no success", "no headers"],
)
def test_a_failed_build_ends_with_instructions(
    code, compiler, reason, source, tmp_path
):
    options = [code] if code == "setup.py" else ["-c", code]
    places = ["--build-temp", tmp_path / "temp", "--build-lib", tmp_path / "lib"]
    how = {"cwd": source, "capture_output": True, "text": True}
    command = [sys.executable, *options, "build_ext", *places]
    done = subprocess.run(command, env=os.environ | {"CC": compiler}, **how)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1  # all that pip has to show
    assert done.stderr.startswith(f"sqs-codec: cannot build the C core, as {reason}")
    assert done.stderr.endswith("SQS_NO_NATIVE=1 pip install '.[numba]'\n")


@pytest.mark.all
def test_free_threaded_python_gets_a_wheel_without_the_stable_abi(source, tmp_path):
    copy = shutil.copytree(source, tmp_path / "source")
    command = [sys.executable, "-c", SETUP.format(FREE), "bdist_wheel"]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    (wheel,) = copy.glob("dist/*.whl")
    (core,) = (n for n in zipfile.ZipFile(wheel).namelist() if "/_sqs." in n)
    assert "abi3" not in wheel.name + core


@pytest.mark.all
def test_a_wheel_without_the_core(source, tmp_path):
    """As from `SQS_NO_NATIVE=1 pip install`: it takes Numba, or says so."""
    build = "build", "--wheel", "--no-isolation", "--outdir", tmp_path, source
    run(sys.executable, "-m", *build, SQS_NO_NATIVE="1")
    (wheel,) = tmp_path.glob("*.whl")
    assert re.fullmatch(r"sqs_codec-.*-py3-none-any\.whl", wheel.name)
    pure = tmp_path / "pure"
    options = "--no-deps", "--no-index", "--no-compile", "--target", pure
    run(sys.executable, "-m", "pip", "install", *options, wheel)
    assert output(ROUND_TRIP, pure, NUMBA_DISABLE_JIT="1") == "numba"
    run(pure / "bin" / "sqs", "--version", PYTHONPATH=str(pure))
    message = import_error(NO_NUMBA + IMPORT, pure)
    assert REBUILD in message
    assert ADD_NUMBA in message
    core = pure / "sqs_codec" / "_backend" / "_sqs.abi3.so"
    core.write_bytes(b"not a shared object")
    assert core.name in import_error(ROUND_TRIP, pure)
    assert python(IMPORT, pure, SQS_BACKEND="numba").returncode == 0


@pytest.mark.parametrize(
    ("name", "lacks", "extra"),
    [
        ("torch", "torch", "torch"),
        ("system.hf", "torch", "hf"),
        ("system.llama_cpp", "llama_cpp", "llama-cpp"),
        ("system.serve.start_grpc", "grpc", "serve"),
        ("system.proxy", "starlette", "proxy"),
        ("distill", "pyarrow", "distill"),
        ("system.teacher", "uvicorn", "distill,proxy"),
    ],
)
def test_a_missing_package_names_its_extra(name, lacks, extra):
    room, _, member = f"sqs_codec.{name}".rpartition(".")
    code = f"sys.modules[{lacks!r}] = None; from {room} import {member}"
    message = import_error(f"import sys; {code}")
    assert message.startswith(
        f"sqs_codec.{name} needs {lacks}: pip install '.[{extra}]'"
    )


def project():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    read = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return dict(read["project"])


NO_TORCH = """
import sys
sys.modules |= {"torch": None, "transformers": None}
from sqs_codec.cli import generate, proxy, serve
from sqs_codec.system.engine import BatchEngine, EngineConfig, make_engine
from sqs_codec.system.serve import Service, connect, start_datagrams, start_grpc
from sqs_codec.system.session import verify_jobs
make_engine(EngineConfig())
"""


def test_only_a_model_of_transformers_needs_torch():
    message = import_error(NO_TORCH)
    assert message.startswith("sqs_codec.system.hf needs torch: pip install '.[hf]'")
    extras = project()["optional-dependencies"]
    for extra in ("serve", "llama-cpp", "proxy", "ray"):
        others = {line for line in extras[extra] if line.startswith("sqs-codec")}
        assert others <= {"sqs-codec[serve]"}


@pytest.mark.parametrize(
    ("extra", "folder", "others"),  # and what transformers or the command imports
    [
        ("torch", "torch", set()),
        ("hf", "system/hf", {"accelerate"}),
        ("serve", "system/serve", set()),
        ("proxy", "system/_endpoint", set()),
        ("distill", "distill", {"tqdm"}),
        ("vllm", "system/vllm", set()),
        ("ray", "system/ray", set()),
        ("demo", "cli", {"gguf"}),
    ],
)
def test_an_extra_lists_the_imported_packages(extra, folder, others):
    lines = project()["optional-dependencies"][extra]
    needed = {re.split(r"[\[<>=]", line)[0].lower() for line in lines} - {"sqs-codec"}
    package = ROOT / "sqs_codec" / folder
    imported = {name for path in package.rglob("*.py") for name in imported_names(path)}
    roots = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names
    of = packages_distributions()
    found = {one.lower() for name in roots for one in of.get(name, [name])}
    distributions = {one.replace("_", "-") for one in found}
    assert needed <= distributions | others


@pytest.mark.parametrize("version", [None, "", "__version__ = 'dev'"])
def test_the_entry_point_of_vllm_does_no_harm(version, tmp_path):
    """Where there is no vLLM, or one that is nothing like those that are supported."""
    if version is not None:
        (tmp_path / "vllm.py").write_text(version)
    (found,) = entry_points(group="vllm.general_plugins", name="sqs")
    module, _, function = found.value.partition(":")
    call = f"from {module} import {function}; {function}(); import sys; "
    code = f"{call}print(*{{'torch', 'transformers', 'vllm'}} & {{*sys.modules}})"
    loaded = "" if version is None else "vllm"
    path = os.pathsep.join(map(str, (tmp_path, ROOT)))
    assert output(code, PYTHONPATH=path) == loaded
