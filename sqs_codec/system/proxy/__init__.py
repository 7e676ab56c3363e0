"""A local endpoint for chat clients, which drafts behind it (the extra ``[proxy]``).

* `Completer`: writes texts for several clients with one cloud and one draft model
* `make_app`: what answers clients, an ASGI application

``sqs proxy`` is made of both, and of `sqs_codec.system._endpoint`.
"""

try:
    from sqs_codec.system.proxy._app import make_app
except ModuleNotFoundError as error:
    from sqs_codec._base.install import needs

    raise needs("sqs_codec.system.proxy", error, "proxy") from error
from sqs_codec.system.proxy._completer import Completer

__all__ = ["Completer", "make_app"]
