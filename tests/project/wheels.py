"""Run the golden vectors on wheels, each in an interpreter that it is for.

    python -m tests.project.wheels DIST TAG VERSION COMMAND...

installs DIST's wheel for the platform TAG with what it needs for Python VERSION in a
folder of its own, and has COMMAND, such as ``qemu-aarch64 -L ROOT python3``
for AArch64, run ``tests/backend/test_vectors.py`` there, away from the source tree. The
last line says how many tests passed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
# pip asks its own Python, not the wheel's, whether the last two are needed.
TOOLS = ["colorama", "hypothesis", "pytest", "exceptiongroup", "tomli"]
WINE = ["numpy<2.2"]  # later ones call what the C library of wine 10 lacks

# Further tags of wheels that a platform accepts.
ALSO = {
    "manylinux": ["manylinux_2_28", "manylinux2014"],
    "musllinux": ["musllinux_1_1"],
}


def platforms(tag: str) -> list[str]:
    kind, _, rest = tag.partition("_")
    others = [f"{name}_{rest.split('_', 2)[-1]}" for name in ALSO.get(kind, [])]
    return [f"--platform={name}" for name in [tag, *others]]


def main(dist: str, tag: str, version: str, *command: str) -> int:
    (wheel,) = Path(dist).resolve().glob(f"*-{tag}.whl")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"),
                *("--target", work / "site", "--only-binary=:all:"),
                *(f"--python-version={version}", *platforms(tag)),
                *(wheel, *TOOLS, *(WINE if tag.startswith("win") else [])),
            ],
            check=True,
        )
        for name in ("tests", "csrc"):
            shutil.copytree(ROOT / name, work / name)
        options = "-q -p no:cacheprovider -p no:hypothesispytest -k native"
        done = subprocess.run(
            [
                *(*command, "-B", "-m", "pytest"),
                *(*options.split(), "tests/backend/test_vectors.py"),
            ],
            cwd=work,
            env={**os.environ, "PYTHONPATH": "site", "PYTHONUTF8": "1"},
        )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
