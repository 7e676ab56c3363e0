"""A draft model in NumPy, 1 % of its target's size (the extra ``[small]``).

`Draft` is a GRU over a part of the target's vocabulary, with a pointer to earlier
tokens of the text. ``docs/serving/small-draft.md`` makes one for any target.
"""

try:
    from sqs_codec.system.small._draft import Draft
except ModuleNotFoundError as error:
    from sqs_codec._base.install import needs

    raise needs("sqs_codec.system.small", error, "small") from error

__all__ = ["Draft"]
