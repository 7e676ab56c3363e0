"""Models from GGUF files, run by llama.cpp (the extra ``[llama-cpp]``).

`Draft` is a draft model for `sqs_codec.system.edge.Edge`, `Cloud` a verifier with
`Options`, and `ModelReader` a reader for `sqs_codec.distill`. None needs torch or
transformers, as GGUF files include the tokenizer.
"""

from sqs_codec._base.errors import needing

with needing("sqs_codec.system.llama_cpp", "llama-cpp"):
    from sqs_codec.system.llama_cpp._cloud import Cloud
    from sqs_codec.system.llama_cpp._draft import Draft
    from sqs_codec.system.llama_cpp._options import Options
    from sqs_codec.system.llama_cpp._reader import ModelReader

__all__ = ["Cloud", "Draft", "ModelReader", "Options"]
