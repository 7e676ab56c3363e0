"""Tests in a disguise: what a command takes this machine for."""

import subprocess
import sys

CODE = """
import numpy as np
import sqs_codec

print(sqs_codec.isa(), np.show_config("dicts")["SIMD Extensions"].get("found", []))
"""


def test_a_command_finds_another_machine():
    """Its neighbours end with it, or what they could write wouldn't end."""
    python = sys.executable
    command = [python, "-m", "tests.project.disguise", python, "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "scalar []\n"
