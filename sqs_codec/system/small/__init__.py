"""A draft model in NumPy, 1 % of its target's size (the extra ``[small]``).

`Draft` is a GRU over a part of the target's vocabulary, with a pointer to earlier
tokens of the text. ``docs/serving/small-draft.md`` makes one for any target.
"""

from sqs_codec._base.errors import needing

with needing("sqs_codec.system.small", "small"):
    from sqs_codec.system.small._draft import Draft

__all__ = ["Draft"]
