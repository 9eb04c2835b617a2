"""Around every answer: which requests get one, which headers it has, and that it is counted.

A page from elsewhere, open in the browser of somebody who runs the server, can have that browser send requests here. It
cannot read the answers. But a host name of the page's owner may be pointed at this machine ("DNS rebinding"), and then
it could: so requests have to call the server by an IP address, by localhost or by a name it was given. And forms of
other pages are turned away by what browsers say of where a request comes from.
"""

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from laconic.errors import printable
from laconic.serve.service import Service

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
LINGER = 2.0  # seconds in which the rest of a refused body is thrown away, for clients that read no answer before
METHODS = ("GET", "HEAD", "POST", "OPTIONS")
Log = Callable[[str], None]


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, service: Service, paths: Collection[str], log: Log | None = None) -> None:
        """`paths` are counted under their names, all others as "other". `log` is given a line for each request."""
        self._app, self._service, self._paths, self._log = app, service, paths, log
        self._given = {_name(host) for host in service.settings.hosts}
        self._hosts = {"localhost", _name(socket.gethostname()), *self._given}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._service)
        app = self._refusal(Headers(scope=scope), scope["method"]) or self._app
        started = time.perf_counter()
        try:
            await app(scope, exchange.receive, exchange.send)
        finally:
            self._count(scope, exchange.status, time.perf_counter() - started)

    def _refusal(self, headers: Headers, method: str) -> ASGIApp | None:
        host = headers.get("host", "")
        name = _name(host)
        if name not in self._hosts and not _is_address(name):
            return _error(
                421,
                f"this server does not go by the name {printable(name)[:100]!r}; use its IP address or localhost, or "
                f"start it with --allow-host NAME",
            )
        if method in ("GET", "HEAD") or self._from_here(headers, host):
            return None
        return _error(403, "sent by a page of another site; send it from the server's own page, or from a program")

    def _from_here(self, headers: Headers, host: str) -> bool:
        """Whether a request comes from the server's own page, or from something that is no browser."""
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return False
        origin = headers.get("origin")
        if origin is None:
            return True
        sender = urlsplit(origin).netloc.lower()
        return sender == host.lower() or _name(sender) in self._given

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else "other"
        path = scope["path"] if scope["path"] in self._paths else "other"
        self._service.metrics.answered(path, method, status, seconds)
        if self._log:
            client = (scope.get("client") or ("-",))[0]
            asked = printable(scope["path"])[:200]
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            self._log(f"{now} {client} {method} {asked} {status} {1000 * seconds:.1f} ms")


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, service: Service) -> None:
        self._receive, self._send, self._service = receive, send, service
        headers = Headers(scope=scope)
        self._more = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._held_back = "expect" in headers  # a body that is not sent before it is asked for
        self.status = 499
        """Of the answer; 499 where the client has gone before it."""

    async def receive(self) -> Message:
        self._held_back = False
        message = await self._receive()
        self._more = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if self._service.stopping or self._more:
                headers["Connection"] = "close"
            if self._more and not self._held_back and self.status != 408:
                await self._drain()
        await self._send(message)

    async def _drain(self) -> None:
        """Throws away what is still to come: closed before, a connection would take the answer with it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while self._more:
                    await self.receive()


def _name(host: str) -> str:
    """Of a Host header, without the port."""
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return name.rstrip(".").lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _error(status: int, message: str) -> ASGIApp:
    return JSONResponse({"error": message}, status)
