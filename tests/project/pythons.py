"""Run the tests of `make quick` with each CPython from 3.10 to 3.14 on this machine.

    python -m tests.project.pythons              all of them
    python -m tests.project.pythons 3.10 3.14    these

Interpreters are those on PATH, of pyenv and of uv. Each gets an environment in
build/pythons. All of them import the C core that is built into the tree, because it
uses only the stable ABI of 3.10.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = [f"3.{minor}" for minor in range(10, 15)]
PACKAGES = ["hypothesis>=6.100", "pytest>=8", "pytest-xdist>=3.8", "tqdm>=4.60"]
TESTS = "-q -n 3 --dist loadfile --quick tests sqs_codec"

ASK = """
import sys
print(sys.implementation.name, "%d.%d" % sys.version_info[:2], sys.executable)
"""


def candidates(version: str) -> Iterator[Path]:
    """Yield where an interpreter of a version may be, the likeliest first."""
    for folder in os.environ["PATH"].split(os.pathsep):
        yield Path(folder, f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from pyenv.glob(f"versions/*/bin/python{version}")
    uv = (
        os.environ.get("UV_PYTHON_INSTALL_DIR")
        or Path.home() / ".local/share/uv/python"
    )
    yield from Path(uv).glob(f"*/bin/python{version}")


def find(version: str) -> str | None:
    """Return an interpreter of a version, if there is one that runs."""
    for path in candidates(version):
        if path.exists():
            asked = subprocess.run([path, "-c", ASK], capture_output=True, text=True)
            match asked.stdout.split(maxsplit=2):
                case "cpython", found, executable if found == version:
                    return executable.strip()
    return None


def check(version: str, python: str) -> bool:
    """Say whether the tests pass with an interpreter."""
    place = ROOT / "build" / "pythons" / version
    env = os.environ | {"PYTHON": python, "SQS_NO_NATIVE": "1"}
    steps = [
        [ROOT / ".ci" / "install", place, "--editable", f"{ROOT}[numba]", *PACKAGES],
        [place / "bin" / "python", "-m", "pytest", *TESTS.split()],
    ]
    return not any(subprocess.call(step, cwd=ROOT, env=env) for step in steps)


def main(versions: list[str]) -> str | None:
    """Check versions; say which of them fail."""
    found = {version: find(version) for version in versions}
    for version, python in found.items():
        print(f"CPython {version}: {python or 'not here, LEFT OUT'}", flush=True)
    here = {version: python for version, python in found.items() if python}
    failed = [version for version, python in here.items() if not check(version, python)]
    return f"FAILED with Python {', '.join(failed)}" if failed else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or VERSIONS))
