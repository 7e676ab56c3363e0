"""Serves stored teacher logits to trainers, with vLLM's API.

`make_app` makes an ASGI application from a file, which ``sqs distill serve`` runs. It
needs the extras ``[distill]`` and ``[proxy]``.
"""

from sqs_codec._base.errors import needing

with needing("sqs_codec.system.teacher", "distill,proxy"):
    from sqs_codec.system.teacher._app import make_app

__all__ = ["make_app"]
