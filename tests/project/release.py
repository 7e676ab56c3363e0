"""Rehearse a release of the commit: build its files into dist, and use them.

    python -m tests.project.release                   all checks
    python -m tests.project.release CHECK [3.10 ...]  one of them, on some Pythons

Each line has seconds by the clock, seconds of processors, and what passed. `build`
starts from two clones and fills dist; the other checks read dist. Interpreters are
those on PATH, of pyenv and of uv.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"
VERSIONS = [*(f"3.{minor}" for minor in range(10, 15)), "3.14t"]
MOST = 2_500_000
"""Bytes of a wheel: 1.0 MB more than the small draft, its largest file."""

TOOLS = ["hypothesis>=6.100", "pytest>=8", "pytest-xdist>=3.8", "tqdm>=4.60"]
OLDEST = "--resolution lowest-direct --only-binary :all:"
QUICK = "-n 3 --dist loadfile --quick tests sqs_codec"
VECTORS = "-o filterwarnings=default -k native tests/backend/test_vectors.py"
BESIDE = "conftest.py csrc docs pyproject.toml setup.py tests"  # what tests read
SOURCE = """CMakeLists.txt LICENSE MANIFEST.in NOTICE README.md _sqs_command.py bindings
    csrc pyproject.toml setup.py sqs_codec"""
INFO = """METADATA RECORD WHEEL entry_points.txt licenses/LICENSE licenses/NOTICE
    top_level.txt"""
APT = """APT::Architecture=arm64 APT::Architectures=arm64 APT::Sandbox::User=root
    Debug::NoLocking=1 Dir::State::status=/dev/null"""
DEBIAN = "python3", "libstdc++6"  # which NumPy needs
ASK = """
import sys, sysconfig
t = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
print(sys.implementation.name, "%d.%d" % sys.version_info[:2] + t, sys.executable)
"""

failed: list[str] = []


@contextmanager
def line(what: str) -> Iterator[None]:
    """Print how long a part of a check took, and whether it failed."""
    before = os.times()
    try:
        yield
    except (AssertionError, SystemExit) as error:
        print(error)
        failed.append(what)
        what = f"FAILED: {what}"
    took = [now - then for now, then in zip(os.times(), before, strict=True)]
    print(f"{took[4]:5.0f} {sum(took[:4]):5.0f}  {what}", flush=True)


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    """Run a command that must succeed, and return what it printed."""
    env = {k: v for k, v in os.environ.items() if k != "SQS_NO_NATIVE"} | variables
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, cwd=cwd, env=env, **how)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-6000:]}")
    return done.stdout


def find(version: str) -> str | None:
    """Return an interpreter of a version, if there is one that runs."""
    places = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep)]
    home = Path.home()
    for variable, own in ("PYENV_ROOT", ".pyenv"), ("UV_PYTHON_INSTALL_DIR", ""):
        folder = home / (os.environ.get(variable) or own or ".local/share/uv/python")
        places += folder.glob("versions/*/bin" if own else "*/bin")
    for path in (place / f"python{version}" for place in places):
        if path.exists():
            asked = subprocess.run([path, "-c", ASK], capture_output=True, text=True)
            match asked.stdout.split(maxsplit=2):
                case "cpython", found, executable if found == version:
                    return executable.strip()
    return None


def one(pattern: str) -> Path:
    """Return the file in dist that a pattern names."""
    (path,) = DIST.glob(pattern)
    return path


def tracked(*places: str) -> set[str]:
    """Return the files of the commit in some places."""
    return {*run("git", "ls-tree", "-r", "--name-only", "HEAD", *places).split()}


def build(work: Path, *_: str) -> None:
    """Build in two clones, with caches of their own, and compare."""
    made = []
    for name, zone, umask in ("one", "UTC", 0o022), ("two places", "Asia/Tokyo", 0o077):
        with line(f"sdist and wheels built in {name}"):
            clone, out = work / name / "clone", work / name / "dist"
            os.umask(umask)
            run("git", "clone", "--quiet", ROOT, clone)
            own = {"TZ": zone, "ZIG_GLOBAL_CACHE_DIR": str(work / name / "zig")}
            run(clone / ".ci" / "sdist", out, PYTHON=sys.executable, **own)
            run(sys.executable, clone / "bindings/wheels.py", "--out", out, **own)
            made.append({path.name: path.read_bytes() for path in out.iterdir()})
    os.umask(0o022)
    with line("both builds are equal, byte by byte; dist has them"):
        differ = {name for name, _ in made[0].items() ^ made[1].items()}
        assert not differ, differ
        shutil.rmtree(DIST, ignore_errors=True)
        shutil.copytree(work / "one" / "dist", DIST)


def contents(*_: str | Path) -> None:
    """Check each file's metadata, content and licenses."""
    import trove_classifiers
    import ziglang

    with line("metadata: twine check --strict, classifiers, links"):
        run(sys.executable, "-m", "twine", "check", "--strict", *DIST.glob("*.*"))
        with tarfile.open(one("*.tar.gz")) as archive:
            names = {m.name for m in archive if m.isfile()}
            (info,) = (n for n in names if re.fullmatch("[^/]+/PKG-INFO", n))
            said = archive.extractfile(info).read().decode()
        found = re.findall("^Classifier: (.+)$", said, re.M)
        assert {*found} <= trove_classifiers.classifiers
        tried = [f"Programming Language :: Python :: {v}" for v in VERSIONS[:-1]]
        assert [each for each in found if re.search(r":: 3\.\d+$", each)] == tried
        text, links = run("git", "show", "HEAD:README.md"), r"\]\((.+?)\)"
        kept = [x for x in re.findall(links, text) if x.startswith(("https:", "#"))]
        assert re.findall(links, said) == kept  # there are no files on PyPI
        project = run("git", "show", "HEAD:pyproject.toml")
        own = re.findall('^Repository = "(.+)"', project, re.M)
        urls = re.findall("^Project-URL: (.+)$", said, re.M)
        assert urls == [f"Repository, {url}" for url in own]
    with line("sdist: the source, and no test, benchmark or stray file"):
        rest = {n.split("/", 1)[1] for n in names if ".egg-info/" not in n}
        assert rest ^ tracked(*SOURCE.split()) == {"PKG-INFO", "setup.cfg"}
    package = tracked("sqs_codec", "_sqs_command.py")
    with line(f"wheels: the package and nothing else, at most {MOST / 1e6} MB each"):
        for wheel in DIST.glob("*.whl"):
            rest = {*zipfile.ZipFile(wheel).namelist()} ^ package
            rest = {re.sub(r".*(dist-info|_backend)/", "", name) for name in rest}
            core = {"_sqs.pyd" if "-win" in wheel.name else "_sqs.abi3.so"}
            assert rest == {*INFO.split()} | core, (wheel.name, rest)
            assert wheel.stat().st_size <= MOST, wheel.name
    with line("NOTICE: all data, and what Zig links into wheels"):
        notice = " ".join((ROOT / "NOTICE").read_text("utf-8").split())
        code = (".css", ".html", ".js", ".py", ".typed")
        assert all(n.endswith(code) or f" {n} " in notice for n in package)
        assert {*re.findall(r" ((?:sqs_codec|csrc)/\S+)", notice)} <= tracked()
        zig = Path(ziglang.__file__).parent
        for text in zig / "LICENSE", zig / "lib/libc/mingw/COPYING":
            assert " ".join(text.read_text("utf-8").split()) in notice, text
    with line("no other file names an owner or a license"):
        words = "-iE", r"copyright|licensed under|SPDX", "HEAD", "--", *SOURCE.split()
        found = {*run("git", "grep", "--name-only", *words).split()}
        own = "LICENSE", "NOTICE", "bindings/amalgamate.py"
        assert found == {f"HEAD:{name}" for name in own}, found


def install(place: Path, python: str, *arguments: str | Path, **variables: str) -> Path:
    """Make an environment, and return its interpreter."""
    run(ROOT / ".ci" / "install", place, *arguments, PYTHON=python, **variables)
    return place / "bin" / "python"


def readme(python: Path, backend: str) -> None:
    """Run the README's code on the installed package, away from the source."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "README.md").write_text(run("git", "show", "HEAD:README.md"))
        said = run(python, "-m", "doctest", "-v", "README.md", cwd=here)
        assert "Test passed." in said, said
        asked = "import sqs_codec as s; print(s.__file__, s.backend())"
        where, found = run(python, "-c", asked, cwd=here).split()
        assert Path(where).is_relative_to(python.parents[1]), where
        assert found == backend, found


def sdist(work: Path, *_: str) -> None:
    """Install the sdist by pip, as users do, with a compiler and without."""
    file, none = one("*.tar.gz"), {"UV": "", "CC": "/nowhere/cc"}
    with line("sdist with a compiler: README's code"):
        readme(install(work / "cc", sys.executable, file, UV=""), "native")
    with line("sdist without a compiler: pip says what to do"):
        said = ""
        try:
            install(work / "none", sys.executable, file, **none)
        except SystemExit as error:
            said = str(error)
        assert "there is no C compiler '/nowhere/cc' here" in said, said
    with line("sdist without a compiler, SQS_NO_NATIVE=1: README's code on Numba"):
        pure = {"SQS_NO_NATIVE": "1", **none}
        place = work / "numba"
        readme(install(place, sys.executable, f"{file}[numba]", **pure), "numba")


def test(python: Path, *options: str) -> None:
    """Run tests next to the installed package, as if it were the tree."""
    readme(python, "native")
    (to,) = python.parents[1].glob("lib/python3*/site-packages")
    run("git", "archive", f"--output={to}/tests.tar", "HEAD", *BESIDE.split())
    run("tar", "-xf", "tests.tar", cwd=to)
    said = run(python, "-m", "pytest", "-q", *options, cwd=to)
    print(f"             {said.splitlines()[-1]}")


def pythons(work: Path, *versions: str) -> None:
    """Test on each CPython what users get, with its oldest and newest packages."""
    for version in versions or VERSIONS:
        python = find(version)
        if python is None:
            print(f"    -     -  LEFT OUT: CPython {version}, which isn't here")
        elif version.endswith("t"):  # it has no stable ABI, nor Numba
            with line(f"CPython {version}, sdist: README's code, make quick"):
                test(
                    install(work / version, python, one("*.tar.gz"), *TOOLS),
                    *QUICK.split(),
                )
        else:
            wheel = one(f"*-manylinux*_{os.uname().machine}.whl")
            with line(f"CPython {version}, oldest NumPy and cffi: README, vectors"):
                old = install(
                    work / f"{version}-old", python, *OLDEST.split(), wheel, *TOOLS
                )
                test(old, *VECTORS.split())
            with line(f"CPython {version}, newest: README's code, make quick"):
                place, wanted = work / f"{version}-new", f"{wheel}[numba]"
                test(install(place, python, wanted, *TOOLS), *QUICK.split())


def emulated(work: Path, *_: str) -> None:
    """Run the vectors on the wheel for AArch64, with Debian's Python and QEMU."""
    if not (shutil.which("qemu-aarch64") and shutil.which("apt-get")):
        print("    -     -  LEFT OUT: AArch64, which takes QEMU and Debian's packages")
        return
    with line("wheel for AArch64, emulated: vectors"):
        root = work / "aarch64"
        for folder in "state/lists/partial", "cache/archives/partial":
            (root / folder).mkdir(parents=True)
        own = f"Dir::State={root}/state", f"Dir::Cache={root}/cache", *APT.split()
        apt = "apt-get", "--yes", *(f"-o{option}" for option in own)
        run(*apt, "update")
        run(*apt, "install", "--download-only", "--no-install-recommends", *DEBIAN)
        for package in root.glob("cache/archives/*.deb"):
            run("dpkg", "-x", package, root)
        (root / "lib").symlink_to("usr/lib")
        python = (root / "usr/bin/python3").resolve()
        tag, version = "manylinux_2_17_aarch64", python.name.removeprefix("python")
        command = "tests.project.wheels", DIST, tag, version, "qemu-aarch64", "-L", root
        said = run(sys.executable, "-m", *command, python)
        print(f"             {said.splitlines()[-1]}")


CHECKS = {each.__name__: each for each in (build, contents, sdist, pythons, emulated)}


def main(check: str = "", *versions: str) -> str | None:
    """Run all checks, or one; report failures."""
    with line("in all"), tempfile.TemporaryDirectory() as folder:
        for name in [check] if check else CHECKS:
            CHECKS[name](Path(folder), *versions)
        print("    -     -  LEFT OUT: wheels for musl, macOS and Windows, audited only")
    return f"FAILED: {'; '.join(failed)}" if failed else None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
