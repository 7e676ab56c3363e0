"""The symbols of an extension module; `make wheels` builds and audits wheels."""

import shutil
import subprocess
import sys

import pytest

from sqs_codec._backend import _sqs


@pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("nm"), reason="needs Linux and nm"
)
def test_the_module_exports_nothing_but_its_init():
    nm = "nm", "-D", "--defined-only", _sqs.__file__
    exported = subprocess.run(nm, capture_output=True, text=True, check=True)
    assert [line.split()[-1] for line in exported.stdout.splitlines()] == [
        "PyInit__sqs"
    ]
