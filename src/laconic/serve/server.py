"""A server as a process: where it listens, and how it ends.

The first signal (SIGTERM, Ctrl-C) has it accept no more: what is asked from then on is told so (503), what was accepted
before is answered, and then it ends. A second one ends it at once.
"""

import asyncio
import ipaddress
import logging
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from laconic.errors import ConfigError, LaconicWarning
from laconic.machine.memory import return_memory
from laconic.serve.app import make_app
from laconic.serve.connection import MOST, Connection
from laconic.serve.guard import Log
from laconic.serve.service import Service

HEAD_BYTES = 16384  # of a request's head at most
KEEP_ALIVE = 15  # seconds for the next request of a connection
SPARE = 64  # file descriptors that are no connections
BACKLOG = 1024
TURNS = 4  # of asyncio's loop, in which a connection that it has accepted becomes one that it knows of; it takes two
LAST = 2.0  # seconds in which who has connected may still ask, when no further connections are accepted


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at all addresses of a host, all at one port; 0 is any port that is free.

    Raises ConfigError where there is no such host here, or the port is taken.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host}: no such host ({error}); give an address of this machine") from None
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        for family, kind, protocol, _, address in dict.fromkeys(found):
            # asyncio sends answers without delay (TCP_NODELAY) where a socket says that it is one of TCP
            one = opened.enter_context(socket.socket(family, kind, protocol or socket.IPPROTO_TCP))
            if os.name == "posix":
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                one.bind((address[0], port or (sockets[0].getsockname()[1] if sockets else 0), *address[2:]))
                one.listen(BACKLOG)
            except OSError as error:
                raise ConfigError(
                    f"--host {host} --port {port}: cannot listen there ({error.strerror}); give another port, 0 for "
                    "any that is free, or another address of this machine"
                ) from None
            sockets.append(one)
        opened.pop_all()
    return sockets


def beyond_loopback(sockets: Sequence[socket.socket]) -> bool:
    """Whether other machines may reach it."""
    return not all(ipaddress.ip_address(one.getsockname()[0].partition("%")[0]).is_loopback for one in sockets)


def address_of(listening: socket.socket, host: str) -> str:
    """Where a browser on this machine finds it."""
    shown, port = host, listening.getsockname()[1]
    if host in ("0.0.0.0", "", "::"):
        shown = "127.0.0.1" if listening.family == socket.AF_INET else "::1"
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def run(service: Service, sockets: list[socket.socket], say: Callable[[str], None], *, log: Log | None = None) -> None:
    """Serves until a signal, and until what was accepted before it is answered. `say` is told how the end goes on."""
    return_memory()
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every form that is damaged
    with warnings.catch_warnings():
        # of strangers' images: what is wrong with them is said in their answers
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.filterwarnings("ignore", category=LaconicWarning, module=r"laconic\.serve\.decoding")
        Server(service, say, log).run(sockets)


class Server(uvicorn.Server):
    """uvicorn's, with limits and an end of its own."""

    def __init__(self, service: Service, say: Callable[[str], None], log: Log | None = None) -> None:
        granted = service.settings
        head_seconds = min(granted.stall_timeout, granted.upload_timeout)
        super().__init__(
            uvicorn.Config(
                make_app(service, log),
                http=partial(Connection, head_seconds=head_seconds, most=_connections()),  # type: ignore[arg-type]
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE,
                h11_max_incomplete_event_size=HEAD_BYTES,
            )
        )
        self._service, self._say = service, say
        self._told = False

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().serve(sockets)
        finally:
            self._service.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes the doors. Who has just come in gets to ask, and to hear that the server is stopping."""
        loop = asyncio.get_running_loop()
        await self._stop_accepting()
        waiting = list(_connected(sockets or []))
        for server in self.servers:
            server.close()
        for one in waiting:
            await loop.connect_accepted_socket(self._connection, one)
        ends = loop.time() + LAST
        while self.server_state.connections and loop.time() < ends:
            await asyncio.sleep(0.01)
        await super().shutdown(sockets)

    async def _stop_accepting(self) -> None:
        """Has asyncio accept nobody, and finish with those whom it has: it forgets them where it closes meanwhile."""
        loop = asyncio.get_running_loop()
        with suppress(NotImplementedError):  # Windows
            for server in self.servers:
                for listening in server.sockets:
                    loop.remove_reader(listening.fileno())
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def _connection(self) -> asyncio.Protocol:
        made: type[Any] = self.config.http_protocol_class
        return made(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[no-any-return]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called for a signal, between any two instructions."""
        if self._service.stopping:
            os._exit(128 + sig)
        self._service.stopping = True

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second: whether to close the doors."""
        service = self._service
        if service.stopping:
            if service.working and not self._told:
                self._told = True
                self._say(f"stopping once {service.working} requests are answered; another Ctrl-C stops at once")
            self.should_exit = not service.working
        return await super().on_tick(counter)


def _connected(sockets: Sequence[socket.socket]) -> Iterator[socket.socket]:
    """Connections that wait to be accepted: closing what listens would end them without a word."""
    for listening in sockets:
        with suppress(OSError):  # there is none
            while True:
                yield listening.accept()[0]


def _connections() -> int:
    """How many connections there may be: each takes a file descriptor."""
    if sys.platform == "win32":
        return MOST
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MOST + SPARE:
        soft = MOST + SPARE if hard == resource.RLIM_INFINITY else min(MOST + SPARE, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MOST if soft == resource.RLIM_INFINITY else max(1, min(MOST, soft - SPARE))
