"""The verifier as a server, and the edge's links to it (the extra ``[serve]``).

* `connect`: a link to a server
* `Service`: sessions of many edges over one target model
* `start_grpc`, `start_datagrams`: servers of a service, one per transport
* `Certificate`, `INSECURE`: how either end authenticates the other
"""

import importlib
from typing import TYPE_CHECKING

from sqs_codec._base.errors import needing
from sqs_codec.system._base.access import INSECURE, Certificate

if TYPE_CHECKING:
    from sqs_codec.system.serve._connect import connect
    from sqs_codec.system.serve._datagram.server import start_datagrams
    from sqs_codec.system.serve._grpc.server import start_grpc
    from sqs_codec.system.serve._service import Service

__all__ = [
    "INSECURE",
    "Certificate",
    "Service",
    "connect",
    "start_datagrams",
    "start_grpc",
]

_MODULES = {
    "Service": "_service",
    "connect": "_connect",
    "start_datagrams": "_datagram.server",
    "start_grpc": "_grpc.server",
}


if not TYPE_CHECKING:  # type checkers would take every misspelt name for an Any

    def __getattr__(name):
        """Import a name at its first use: `sqs --help` needs none, nor its packages."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        with needing(f"{__name__}.{name}", "serve"):
            module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
        return getattr(module, name)
