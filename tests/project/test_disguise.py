"""A command in disguise takes this machine for another."""

import sys

from tests.project.release import run

CODE = """
import numpy as np
import sqs_codec
print(sqs_codec.isa(), np.show_config("dicts")["SIMD Extensions"].get("found", []))
"""


def test_a_command_sees_another_machine():
    disguise = sys.executable, "-m", "tests.project.disguise", "--alone"
    assert run(*disguise, sys.executable, "-c", CODE).strip() == "scalar []"
