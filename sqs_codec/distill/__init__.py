"""Files of teacher logits (the extra ``[distill]``).

`Writer` writes one Parquet file with a row per text, and resumes after an interruption;
`make` fills it from a `Reader`. `load` returns its texts, by index or in order, for a
``DataLoader`` with `collate`; `Lookup` finds a text by its tokens. `kld` and `measure`
return the KL divergence of another model from such a file.
"""

from sqs_codec._base.errors import needing

with needing("sqs_codec.distill", "distill"):
    from sqs_codec.distill._dataset import Dataset, Text, collate, load
    from sqs_codec.distill._divergence import KLD, Estimate
    from sqs_codec.distill._header import Header
    from sqs_codec.distill._kld import kld, measure
    from sqs_codec.distill._lists import top_lists
    from sqs_codec.distill._lookup import Lookup, MissError
    from sqs_codec.distill._make import make
    from sqs_codec.distill._tasks import Reader
    from sqs_codec.distill._writer import Writer

__all__ = [
    "KLD",
    "Dataset",
    "Estimate",
    "Header",
    "Lookup",
    "MissError",
    "Reader",
    "Text",
    "Writer",
    "collate",
    "kld",
    "load",
    "make",
    "measure",
    "top_lists",
]
