"""The codec in Hugging Face's transformers (the extra ``[hf]``).

`Draft` is a draft model for an edge, and `Cloud` a verifier. With `custom_generate`,
transformers' own ``generate`` decodes through an edge.
"""

from sqs_codec._base.errors import needing

with needing("sqs_codec.system.hf", "hf"):
    from sqs_codec.system.hf._cached import CachedModel
    from sqs_codec.system.hf._cloud import Cloud
    from sqs_codec.system.hf._edge import Draft, custom_generate
    from sqs_codec.system.hf._models import ModelError, load_model
    from sqs_codec.system.hf._reader import ModelReader
    from sqs_codec.system.hf._text import Tokenizer, encode_answers

__all__ = [
    "CachedModel",
    "Cloud",
    "Draft",
    "ModelError",
    "ModelReader",
    "Tokenizer",
    "custom_generate",
    "encode_answers",
    "load_model",
]
