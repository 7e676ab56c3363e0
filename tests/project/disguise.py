"""Run a command as if elsewhere: ``python -m tests.project.disguise COMMAND...``.

NumPy, OpenBLAS, torch and the C core take this machine for one without the fast
instructions, so that their sums round differently. Each has one thread; and until
the command ends, a process for each core wants all of it, and the ports on which the
commands of `sqs` listen by default are taken. ``--alone`` before the command leaves the
cores to it.
"""

import os
import platform
import socket
import subprocess
import sys
from contextlib import suppress

import numpy as np

BUSY = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): sum(range(100_000))"

KERNELS = {"x86_64": "Prescott", "aarch64": "ARMV8"}
"""Those of OpenBLAS that run on every such processor."""


PORTS = 8000, 8080, 8743
"""The defaults of ``sqs distill serve``, ``sqs proxy`` and ``sqs serve``."""


def take_ports() -> None:
    """Take the default ports, for this process and the command that replaces it."""
    for port in PORTS:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            taken = socket.socket(socket.AF_INET, kind)
            with suppress(OSError):  # taken by another process already
                taken.bind(("127.0.0.1", port))
            taken.set_inheritable(True)
            taken.detach()  # it stays open


def elsewhere() -> dict[str, str]:
    """Return the variables that make libraries take this machine for another."""
    used = np.show_config("dicts")["SIMD Extensions"].get("found", [])
    unused = os.environ.get("NPY_DISABLE_CPU_FEATURES", "").split()
    return {
        "NPY_DISABLE_CPU_FEATURES": " ".join([*unused, *used]),
        "OPENBLAS_CORETYPE": KERNELS.get(platform.machine(), ""),
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "SQS_ISA": "scalar",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


if __name__ == "__main__":
    command = sys.argv[1:]
    if alone := command[0] == "--alone":
        del command[0]
    take_ports()
    for _ in range(0 if alone else os.cpu_count() or 1):
        subprocess.Popen([sys.executable, "-c", BUSY, str(os.getpid())])
    os.execvpe(command[0], command, os.environ | elsewhere())
