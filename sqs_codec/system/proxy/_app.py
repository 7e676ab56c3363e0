"""The ASGI application of ``sqs proxy``."""

import contextlib
import ipaddress
import logging
from collections.abc import AsyncIterator, Collection
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sqs_codec import Sampling
from sqs_codec.system._base.protocol import MODES
from sqs_codec.system._endpoint.app import make_endpoint, model_routes, read_body
from sqs_codec.system._endpoint.errors import ApiError
from sqs_codec.system._endpoint.fields import model_names
from sqs_codec.system.proxy import _request
from sqs_codec.system.proxy._completer import Completer
from sqs_codec.system.proxy._metrics import ProxyMetrics
from sqs_codec.system.proxy._reply import Reply, refusal

MOST_BYTES = 1 << 20  # maximum size of a body
NAME = "sqs"  # default name of the model
PAGE = Path(__file__).parent / "page"

PAGES = {"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript"}
SAFETY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
    "connection": "close",  # a client without the key gets one answer
}

log = logging.getLogger(__name__)


def make_app(
    completer: Completer,
    *,
    names: Collection[str] = (),
    sampling: Sampling | None = None,
    **access: Any,
) -> Starlette:
    """Make an ASGI application that answers clients.

    Parameters
    ----------
    names : collection of str
        Names of the model, by default "sqs"; ``*`` accepts any name.
    sampling : Sampling, optional
        Defaults for requests that don't set sampling options.
    access : dict
        ``api_key``: the key that clients must send as a bearer token; ``hosts``: host
        names of the endpoint, in addition to ``localhost`` and addresses; ``origins``:
        web sites whose pages may call it, such as ``https://chat.example.org``.
    """
    models = model_names(names, NAME)
    calls = _Calls(completer, models, sampling or Sampling())
    chat, text = (partial(calls.complete, chat=chat) for chat in (True, False))

    def page(path: str, kind: str) -> Route:
        file = PAGE / (path[1:] or "index.html")
        answer = Response(file.read_bytes(), 200, SAFETY, kind)
        return Route(path, answer, methods=["GET"])

    async def metrics(_: Request) -> Response:
        page = calls.metrics.page()
        return Response(page, headers={"content-type": CONTENT_TYPE_LATEST})

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await completer.close()

    return make_endpoint(
        [
            *map(page, PAGES, PAGES.values()),
            Route("/metrics", metrics),
            *model_routes(models, calls.about),
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/completions", text, methods=["POST"]),
        ],
        free=PAGES,
        refuse=partial(refusal, metrics=calls.metrics),
        lifespan=lifespan,
        **access,
    )


class _Calls:
    """Handlers of the API's routes."""

    def __init__(
        self, completer: Completer, models: list[str], sampling: Sampling
    ) -> None:
        self._completer, self._models, self._sampling = completer, models, sampling
        self.metrics = ProxyMetrics()
        self._had_tools = False

    def about(self, request: Request) -> dict[str, Any]:
        """Return what the page needs to know."""
        return {
            "sqs": {
                "sampling": asdict(self._sampling),
                # The page compares all modes over a slow link.
                "thin_links": _is_local(request)
                and {*MODES} == {*self._completer.modes},
            },
        }

    async def complete(self, request: Request, *, chat: bool) -> Reply:
        asked = _request.parse(
            await read_body(request, MOST_BYTES),
            chat=chat,
            models=self._models,
            sampling=self._sampling,
        )
        if asked.link and not _is_local(request):
            raise ApiError(
                "sqs.link works only on the endpoint's own machine; call it at "
                "127.0.0.1",
                status=403,
                param="sqs.link",
                code="not_local",
            )
        if asked.tools and not self._had_tools:
            self._had_tools = True
            log.warning("a client offers tools; answers are text and never call tools")
        request.scope["state"]["visitor"].busy = True  # until the answer is complete
        answer = await self._completer.write(asked)
        return Reply(self.metrics, asked, answer, chat=chat)


def _is_local(request: Request) -> bool:
    """Tell whether a request came to a loopback address."""
    host, _ = request.scope.get("server") or ("", 0)
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
