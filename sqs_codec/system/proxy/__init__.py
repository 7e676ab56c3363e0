"""A local endpoint for chat clients that drafts for them (the extra ``[proxy]``).

* `Completer`: writes completions for several clients with a cloud and a draft model
* `make_app`: the ASGI application that answers clients
"""

from sqs_codec._base.errors import needing

with needing("sqs_codec.system.proxy", "proxy"):
    from sqs_codec.system.proxy._app import make_app
from sqs_codec.system.proxy._completer import Completer

__all__ = ["Completer", "make_app"]
