"""Serves stored teacher logits to trainers, with vLLM's API.

`make_app` makes an ASGI application from a file, which ``sqs distill serve`` runs. It
needs the extras ``[distill]`` and ``[proxy]``.
"""

try:
    from sqs_codec.system.teacher._app import make_app
except ModuleNotFoundError as error:
    from sqs_codec._base.install import needs

    raise needs("sqs_codec.system.teacher", error, "distill,proxy") from error

__all__ = ["make_app"]
