"""One connection: what uvicorn's own lacks against clients that are slow, or that send work instead of bytes.

uvicorn waits for the head of a request without end, takes a tenth of a millisecond for each byte of a body that comes
in chunks of one, and has room for any number of connections. Here a head has its time, chunks have a least size, and of
too many connections the one that has been silent for longest goes, unless it waits for its answer.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST = 512  # connections
SLICE = 4096  # bytes that are parsed before it is looked at what they were
PATIENCE = 4 * SLICE  # bytes of a body, with the lines around its chunks, until their size counts
LEAST_SHARE = 0.8  # of what is sent for a body that has to be the body itself: chunks of some 30 bytes, and larger ones
LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Connection(H11Protocol):
    """HTTP/1.1 for one client.

    head_seconds   that a request's head may take to arrive
    most           connections of the server
    heard          when the client sent something last, by the loop's clock
    """

    def __init__(self, *arguments: Any, head_seconds: float, most: int = MOST, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_seconds, self._most = head_seconds, most
        self._timer: asyncio.TimerHandle | None = None
        self._sent = self._useful = 0  # bytes for the body that is being read, and those of the body itself
        self.heard = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.heard = self.loop.time()
        self._expect_head()
        if len(self.connections) > self._most:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.heard = self.loop.time()
        for start in range(0, len(data), SLICE):
            if self.transport.is_closing():
                return
            self._slice(data[start : start + SLICE])
        if self.answering:
            self._stop_timer()
        else:
            self._expect_head()

    @property
    def answering(self) -> bool:
        """Whether a request is here that has no whole answer yet."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def arriving(self) -> bool:
        """Whether the client has still to send something."""
        return not self.answering or self.cycle.more_body

    def _slice(self, data: bytes) -> None:
        reading = self.answering and self.cycle.more_body
        cycle, before = self.cycle, len(self.cycle.body) if reading else 0
        super().data_received(data)
        if not reading or self.cycle is not cycle or not cycle.more_body:
            self._sent = self._useful = 0
            return
        self._sent += len(data)
        self._useful += len(cycle.body) - before
        if self._sent > PATIENCE and self._useful < LEAST_SHARE * self._sent:
            self.transport.abort()

    # Time

    def _expect_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._head_seconds, self._late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self.answering or self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:  # half a head is here
            self.transport.write(LATE)
        self.conn.send(h11.ConnectionClosed())
        self.transport.close()

    # Room

    def _make_room(self) -> None:
        """Ends the connection of whoever has been silent for longest, where too many are open."""
        mine = [one for one in self.connections if isinstance(one, Connection) and not one.transport.is_closing()]
        if len(mine) > self._most:  # among them is this one, which waits for no answer
            min((one for one in mine if one.arriving), key=lambda one: one.heard).transport.abort()
