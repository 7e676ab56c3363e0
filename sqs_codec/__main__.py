"""``python -m sqs_codec`` is the ``sqs`` command."""

import sys

from sqs_codec.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
