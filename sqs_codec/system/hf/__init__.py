"""The codec in Hugging Face's transformers (the extra ``[hf]``).

`Draft` is a draft model for an edge, and `Cloud` a verifier. With `custom_generate`,
transformers' own ``generate`` decodes through an edge.
"""

try:
    from sqs_codec.system.hf._cached import CachedModel
    from sqs_codec.system.hf._cloud import Cloud
    from sqs_codec.system.hf._edge import Draft, custom_generate
    from sqs_codec.system.hf._models import ModelError, load_model
    from sqs_codec.system.hf._reader import ModelReader
    from sqs_codec.system.hf._text import Tokenizer, encode_answers
except ModuleNotFoundError as error:
    from sqs_codec._base.install import needs

    raise needs("sqs_codec.system.hf", error, "hf") from error

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
