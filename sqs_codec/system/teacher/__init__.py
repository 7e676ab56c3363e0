"""A stored teacher that speaks what trainers ask of vLLM.

`make_app` makes an ASGI application of a file, and ``sqs distill serve`` is a server of
that. It takes the extras ``[distill]`` and ``[proxy]``.
"""

try:
    from sqs_codec.system.teacher._app import make_app
except ModuleNotFoundError as error:
    from sqs_codec._base.install import needs

    raise needs("sqs_codec.system.teacher", error, "distill,proxy") from error

__all__ = ["make_app"]
