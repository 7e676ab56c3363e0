"""The codec in Hugging Face's transformers (the extra ``[hf]``).

`Edge` and `Cloud` are the two ends of a session, `Draft` is a model for any edge;
`custom_generate` makes an edge of transformers' own ``generate``.
"""

import os
import sys

if "torch" not in sys.modules:  # which reads this once
    # Threads that spin while they wait keep others from the cores that they wait for.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

try:
    from sqs_codec.system.hf._cloud import Cloud
    from sqs_codec.system.hf._edge import Draft, Edge, custom_generate
    from sqs_codec.system.hf._models import (
        CachedModel,
        LanguageModel,
        ModelError,
        Pair,
        encode_prompt,
        load_model,
        load_pair,
        tokenizer_fingerprint,
    )
    from sqs_codec.system.hf._reader import ModelReader
except ModuleNotFoundError as error:
    from sqs_codec._base.install import needs

    raise needs("sqs_codec.system.hf", error, "hf") from error

__all__ = [
    "CachedModel",
    "Cloud",
    "Draft",
    "Edge",
    "LanguageModel",
    "ModelError",
    "ModelReader",
    "Pair",
    "custom_generate",
    "encode_prompt",
    "load_model",
    "load_pair",
    "tokenizer_fingerprint",
]
