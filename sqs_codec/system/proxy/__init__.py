"""A local endpoint for chat clients that drafts for them (the extra ``[proxy]``).

* `Completer`: writes completions for several clients with a cloud and a draft model
* `make_app`: the ASGI application that answers clients
"""

try:
    from sqs_codec.system.proxy._app import make_app
except ModuleNotFoundError as error:
    from sqs_codec._base.install import needs

    raise needs("sqs_codec.system.proxy", error, "proxy") from error
from sqs_codec.system.proxy._completer import Completer

__all__ = ["Completer", "make_app"]
