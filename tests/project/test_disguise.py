"""A command in disguise takes this machine for another."""

import subprocess
import sys

CODE = """
import socket
import numpy as np
import sqs_codec
from tests.project.disguise import PORTS

def can_listen(port):
    with socket.socket() as taken:
        try:
            taken.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

print(sqs_codec.isa(), np.show_config("dicts")["SIMD Extensions"].get("found", []))
print([*filter(can_listen, PORTS)])
"""


def test_a_command_sees_another_machine():
    """Its neighbors end with it, or what they could write wouldn't end."""
    python = sys.executable
    command = [python, "-m", "tests.project.disguise", python, "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "scalar []\n[]\n"
