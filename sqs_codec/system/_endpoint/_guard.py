"""Access control of an endpoint."""

import contextlib
import hmac
import ipaddress
import itertools
import re
import time
from collections.abc import Callable, Collection
from types import SimpleNamespace

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sqs_codec.system._base.access import bearer
from sqs_codec.system._endpoint.errors import ApiError
from sqs_codec.system._endpoint.server import HEADER_BYTES

AUTHORITY = re.compile(
    r"(\[[0-9a-f]*:[0-9a-f:.]*\]|[0-9a-z_.-]+)(?::([0-9]{1,5}))?", re.I
)
"""A host name or address, with an optional port."""


class Guard:
    """Refuses foreign web sites and host names, and calls without the API key."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        refuse: Callable[[ApiError], Response],
        free: Collection[str],
        api_key: str | None,
        hosts: Collection[str],
        origins: Collection[str],
    ) -> None:
        self._app, self._refuse, self._free = app, refuse, free
        self._key = None if api_key is None else api_key.encode()
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._origins = set(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        # Our own server sets the visitor; other servers don't.
        nobody = SimpleNamespace(waits=False, gone=False)
        visitor = scope.setdefault("state", {}).setdefault("visitor", nobody)
        try:
            self._check(scope)
            if scope["path"] not in self._free:
                self._check_key(scope)
                visitor.known, visitor.since = True, time.monotonic()
        except ApiError as error:
            return await self._refuse(error)(scope, receive, send)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        if sum(map(len, itertools.chain(*scope["headers"]))) > HEADER_BYTES:
            said = f"the headers may have up to {HEADER_BYTES} bytes"
            raise ApiError(said, status=431)
        authority = _header(scope, "host")
        if not self._knows(authority):
            raise ApiError(
                f"unknown host name {authority[:99]!r}; to allow it, start the "
                f"endpoint with --allow-host",
                status=403,
                code="unknown_host",
            )
        origin = _header(scope, "origin")
        own = f"{scope['scheme']}://{authority}"
        if origin and origin != own and origin not in self._origins:
            raise ApiError(
                f"pages of {origin[:99]} may not call this endpoint; to allow them, "
                f"start it with --allow-origin",
                status=403,
                code="unknown_origin",
            )

    def _check_key(self, scope: Scope) -> None:
        shown = bearer(_header(scope, "authorization")) or ""
        if self._key and not hmac.compare_digest(shown.encode("latin-1"), self._key):
            raise ApiError(
                "missing or wrong API key; send the key that the endpoint was started "
                "with, as a bearer token",
                status=401,
                code="invalid_api_key",
            )

    def _knows(self, authority: str) -> bool:
        found = AUTHORITY.fullmatch(authority)
        if found is None or int(found[2] or 0) > 65535:
            return False
        host = found[1].lower()
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(host.strip("[]"))
            return True
        return host in self._hosts


def _header(scope: Scope, name: str) -> str:
    """Return the value of a header, or an empty string."""
    found = Headers(scope=scope).getlist(name)
    if len(found) > 1:
        raise ApiError(f"the header {name} may occur only once")
    return found[0] if found else ""
