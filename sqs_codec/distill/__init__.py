"""Distributions of a teacher, kept in a file (the extra ``[distill]``).

`Writer` writes one Parquet file, a row a sequence of tokens, and goes on where it was
interrupted; `make` lets a `Reader` of texts fill it. `open` reads it: sequence by
sequence, by index or in order, for training with a ``DataLoader``, whose batches
`collate` makes.
"""

try:
    from sqs_codec.distill._batch import collate
    from sqs_codec.distill._dataset import Dataset, Sequence, Sizes, open
    from sqs_codec.distill._header import Header, NumberName
    from sqs_codec.distill._make import Reader, make
    from sqs_codec.distill._writer import Writer
except ModuleNotFoundError as error:
    from sqs_codec._base.install import needs

    raise needs("sqs_codec.distill", error, "distill") from error

__all__ = [
    "Dataset",
    "Header",
    "NumberName",
    "Reader",
    "Sequence",
    "Sizes",
    "Writer",
    "collate",
    "make",
    "open",
]
