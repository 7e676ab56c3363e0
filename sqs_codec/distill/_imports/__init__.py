"""Lists of the likeliest tokens, out of the files of those who keep or return them."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from sqs_codec._base.files import read_file
from sqs_codec.distill._header import damage
from sqs_codec.distill._imports.distillkit import Compression, read_distillkit
from sqs_codec.distill._imports.lists import Place
from sqs_codec.distill._imports.names import Names
from sqs_codec.distill._imports.responses import read_responses
from sqs_codec.distill._writer import Writer

__all__ = ["Compression", "Names", "Place", "import_lists", "read_lists"]

PARQUET = b"PAR1"
"""What a file of it begins with."""


def read_lists(
    path: str | os.PathLike[str], names: Names, compression: Compression | None
) -> Iterator[Place]:
    """Read a file of any of these kinds, as its beginning tells them apart."""
    if read_file(path, len(PARQUET)) == PARQUET:
        return read_distillkit(path, compression)
    return read_responses(path, names)


def import_lists(places: Iterable[Place], writer: Writer) -> Counter[str]:
    """Write texts with their lists; return what is to know of them, and how often.

    A ValueError names the place. What came before is written, and a writer that goes on
    leaves it out.
    """
    notes: Counter[str] = Counter()
    done = len(writer)
    quantize = writer.header.codec.quantize_top_logprobs_rows
    for place, texts in places:
        with damage(place):
            for text in texts:
                notes.update(text.notes)
                if not len(text.token_ids):
                    notes["answers without a list that can be kept were left out"] += 1
                elif done:
                    done -= 1
                else:
                    rows = quantize(text.token_ids, text.logprobs)
                    at = text.first - 1 + np.arange(len(rows))
                    writer.write(text.tokens, rows, at)
    return notes
