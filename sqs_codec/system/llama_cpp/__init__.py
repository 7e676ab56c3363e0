"""Models from GGUF files, run by llama.cpp (the extra ``[llama-cpp]``).

`Draft` is what `sqs_codec.system.edge.Edge` takes, `Cloud` is for the other end of its
sessions, run as `Options` say, and `ModelReader` is for `sqs_codec.distill`. They need
neither torch nor transformers: the file also says how prompts are encoded and what
tokens mean.
"""

try:
    from sqs_codec.system.llama_cpp._cloud import Cloud
    from sqs_codec.system.llama_cpp._draft import Draft
    from sqs_codec.system.llama_cpp._options import Options
    from sqs_codec.system.llama_cpp._reader import ModelReader
except ModuleNotFoundError as error:
    from sqs_codec._base.install import needs

    raise needs("sqs_codec.system.llama_cpp", error, "llama-cpp") from error

__all__ = ["Cloud", "Draft", "ModelReader", "Options"]
