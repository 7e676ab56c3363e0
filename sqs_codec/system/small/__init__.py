"""A draft of a hundredth of its target, in NumPy (the extra ``[small]``).

`Draft` is a gated recurrence over a part of the target's vocabulary, beside which it
points at what the text said before. ``docs/serving/small-draft.md`` makes one for any
target.
"""

try:
    from sqs_codec.system.small._draft import Draft
except ModuleNotFoundError as error:
    from sqs_codec._base.install import needs

    raise needs("sqs_codec.system.small", error, "small") from error

__all__ = ["Draft"]
