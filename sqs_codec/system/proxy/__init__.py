"""A local endpoint for chat clients, which drafts behind it (the extra ``[proxy]``).

* `Completer`: writes texts for several clients with one cloud and one draft model
* `make_app`: what answers clients, an ASGI application
* `make_server`: a server of it

``sqs proxy`` is made of both.
"""

from __future__ import annotations

try:
    from sqs_codec.system.proxy._app import make_app
    from sqs_codec.system.proxy._server import make_server
except ModuleNotFoundError as error:
    from sqs_codec._base.install import needs

    raise needs("sqs_codec.system.proxy", error, "proxy") from error
from sqs_codec.system.proxy._completer import Completer

__all__ = ["Completer", "make_app", "make_server"]
