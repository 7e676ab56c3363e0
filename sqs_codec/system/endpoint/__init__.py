"""What endpoints for clients of HTTP are made of (the extra ``[proxy]``).

* `make_endpoint`: an ASGI application of routes, with a guard before them
* `model_routes`: those that say how a model is called
* `make_server`: a server of it, and who has a place in that
* `ApiError`, `refusal`: what a client is told instead of an answer
* `read_body`, `load`, `field`, `string`, `check_model`, `shown`: what a request says
"""

from sqs_codec.system.endpoint._app import make_endpoint, model_routes, read_body
from sqs_codec.system.endpoint._errors import ApiError, refusal
from sqs_codec.system.endpoint._fields import check_model, field, load, shown, string
from sqs_codec.system.endpoint._server import make_server

__all__ = [
    "ApiError",
    "check_model",
    "field",
    "load",
    "make_endpoint",
    "make_server",
    "model_routes",
    "read_body",
    "refusal",
    "shown",
    "string",
]
