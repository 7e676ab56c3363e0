"""Lists of the likeliest tokens, out of what servers answered."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from sqs_codec.distill._header import damage
from sqs_codec.distill._imports.lists import Place
from sqs_codec.distill._imports.names import Names
from sqs_codec.distill._imports.responses import read_responses
from sqs_codec.distill._writer import Writer

__all__ = ["Names", "Place", "import_lists", "read_responses"]


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
