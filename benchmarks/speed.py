"""How long every call takes, against other ways and the floor: ``sqs bench speed``.

    python -m benchmarks.speed --json speed.json --plots docs

Takes all options of ``sqs bench speed``. docs/performance.md has what it printed.
"""

from __future__ import annotations

import os
import sys

# Read by libraries as they load. Torch's threads are turned off by a call too, but
# those of what it links to may not be.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from sqs_codec import cli

if __name__ == "__main__":
    sys.exit(cli.main(["bench", "speed", *sys.argv[1:]]))
