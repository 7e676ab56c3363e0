"""The codec in Hugging Face's transformers (the extra ``[hf]``).

`Draft` is a model for an edge, `Cloud` one for the other end of its sessions;
`custom_generate` makes an edge of transformers' own ``generate``. `verify_jobs` judges
by logits on any device.
"""

import os
import sys

if "torch" not in sys.modules:  # which reads this once
    # Threads that spin while they wait keep others from the cores that they wait for.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

try:
    from sqs_codec.system.hf._cached import CachedModel
    from sqs_codec.system.hf._cloud import Cloud
    from sqs_codec.system.hf._edge import Draft, custom_generate
    from sqs_codec.system.hf._models import (
        LanguageModel,
        ModelError,
        load_model,
        load_pretrained,
        placement,
        weights_of,
    )
    from sqs_codec.system.hf._reader import ModelReader, TextReader
    from sqs_codec.system.hf._sampling import verify_jobs
    from sqs_codec.system.hf._text import encode_answers
    from sqs_codec.system.hf._tokenizer import Tokenizer
except ModuleNotFoundError as error:
    from sqs_codec._base.install import needs

    raise needs("sqs_codec.system.hf", error, "hf") from error

__all__ = [
    "CachedModel",
    "Cloud",
    "Draft",
    "LanguageModel",
    "ModelError",
    "ModelReader",
    "TextReader",
    "Tokenizer",
    "custom_generate",
    "encode_answers",
    "load_model",
    "load_pretrained",
    "placement",
    "verify_jobs",
    "weights_of",
]
