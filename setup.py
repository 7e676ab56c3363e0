"""Build the C core; read the version and the README. The rest is in pyproject.toml."""

import os
import re
import shutil
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, PlatformError

ROOT = Path(__file__).parent
HEADER = ROOT / "csrc" / "sqs.h"

WITHOUT = "SQS_NO_NATIVE=1 pip install '.[numba]'"

native = not os.environ.get("SQS_NO_NATIVE")

# A free-threaded Python before 3.15 has no stable ABI: each gets a wheel of its own.
stable = native and not sysconfig.get_config_var("Py_GIL_DISABLED")


class BuildCore(build_ext):
    """Builds the extension, with readable errors."""

    def build_extension(self, ext: Extension) -> None:
        """Compile, or exit with a message, which pip shows."""
        try:
            super().build_extension(ext)
        except (CCompilerError, PlatformError) as error:
            raise SystemExit(
                f"sqs-codec: cannot build the C core, as {self._reason(error)}; "
                f"to install without it: {WITHOUT}"
            ) from None

    def _reason(self, error: Exception) -> str:
        """Return the missing part, if any, with Debian's package for it."""
        command = getattr(self.compiler, "compiler", None)
        if not command:  # on Windows, where the error says what to install
            return str(error)
        if shutil.which(command[0]) is None:
            return (
                f"there is no C compiler {command[0]!r} here (on Debian and Ubuntu "
                "'apt install build-essential' adds one)"
            )
        if not any(Path(folder, "Python.h").exists() for folder in self.include_dirs):
            return (
                "Python.h isn't here (on Debian and Ubuntu 'apt install python3-dev' "
                "adds it)"
            )
        return f"the C compiler {command[0]!r} failed"


def version() -> str:
    """Return the version in sqs.h, its only place."""
    numbers = re.findall(
        r"^#define SQS_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$",
        HEADER.read_text(),
        re.MULTILINE,
    )
    if len(numbers) != 3:
        raise SystemExit(f"{HEADER} has no SQS_VERSION_MAJOR, MINOR and PATCH")
    return ".".join(numbers)


def readme() -> str:
    """Return README.md for PyPI, with links to files and pictures as text."""
    text = (ROOT / "README.md").read_text("utf-8")
    return re.sub(r"!?\[([^]]*)\]\((?![a-z]+:|#)[^)]*\)", r"\1", text)


setup(
    version=version(),
    long_description=readme(),
    long_description_content_type="text/markdown",
    verbose=0,  # pip then shows only the error; -v shows more
    cmdclass={"build_ext": BuildCore},
    cffi_modules=["bindings/build.py:ffi"] if native else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if stable else {},
)
