"""Photos to pixels, in threads, within bounds of memory.

Most photos take little: a JPEG is decoded near the size that the captioner sees. They go through at once, as many side
by side as there are threads. Whatever its header says takes more waits for its turn, so that large images never stand
in the way of others, nor fill the memory.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import TypeVar

from laconic.data.formats import open_image
from laconic.data.images import Pixels, memory_to_decode, read_image_bytes, resize
from laconic.errors import DataError
from laconic.serve.settings import Settings
from laconic.serve.uploads import Photo

SMALL = 4 * 2**20  # bytes that an image may take while it is decoded without waiting for its turn
LARGE = 2  # of the others are decoded side by side, where both fit
PACKED_TEXTS, MOST_TEXTS = (b"zTXt", b"iTXt"), 16  # of a PNG, which are unpacked with its header: a megabyte each
NAME = "image"  # in messages, whose texts a stranger's names shall not fill

T = TypeVar("T")


class Decoder:
    """Reads photos as a captioner sees them."""

    def __init__(self, side: int, threads: int, settings: Settings) -> None:
        """`side`: rows and columns of the square that photos are resized to."""
        self._side, self._settings = side, settings
        self._pool = ThreadPoolExecutor(threads + LARGE, "laconic-decode")
        self._small, self._large = asyncio.Semaphore(threads), asyncio.Semaphore(LARGE)
        self._memory = Memory(settings.decoding_bytes)
        self._tasks: set[asyncio.Task[Pixels]] = set()

    async def pixels(self, photo: Photo) -> Pixels:
        """uint8 (side, side, 3), as laconic.data.images reads and resizes them; the photo's bytes are dropped.

        Raises DataError: not an image, damaged, or beyond a limit. Where the caller is cancelled, what a thread has
        begun goes on until it is done, and is counted as long.
        """
        task = asyncio.create_task(self._decode(photo))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            photo.forget()
            raise

    def _done(self, task: asyncio.Task[Pixels]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # which nobody may be waiting for any more

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _decode(self, photo: Photo) -> Pixels:
        try:
            async with self._small:
                needed = await self._in_thread(photo, self._glance)
                if needed <= SMALL:
                    return await self._in_thread(photo, self._read)
            if needed > self._settings.decoding_bytes:
                raise DataError(
                    f"takes {needed:,} bytes of memory to decode; this server grants an image "
                    f"{self._settings.decoding_bytes:,}; make it smaller"
                )
            async with self._large:
                await self._memory.take(needed)
                try:
                    return await self._in_thread(photo, self._read)
                finally:
                    self._memory.give_back(needed)
        finally:
            photo.drop()

    async def _in_thread(self, photo: Photo, work: Callable[[bytes], T]) -> T:
        if not photo.wanted:
            raise DataError("nobody waits for it any more")
        photo.in_thread = True
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._pool, _outcome, work, photo.data)
        finally:
            photo.in_thread = False
        if isinstance(found, str):
            raise DataError(found)
        return found

    def _glance(self, data: bytes) -> int:
        """Bytes that decoding takes, told by the header; 0 where that is damaged, which `_read` says better."""
        if sum(map(data.count, PACKED_TEXTS)) > MOST_TEXTS and data.startswith(b"\x89PNG"):
            raise DataError(f"more than {MOST_TEXTS} texts beside its pixels, which no photo has; save it anew")
        try:
            image = open_image(BytesIO(data))
            width, height = image.size
            if width * height > self._settings.pixels:
                raise DataError(
                    f"{width} x {height} pixels; this server reads at most {self._settings.pixels:,}; make it smaller"
                )
            return memory_to_decode(image, self._side)
        except DataError:
            raise
        except Exception:  # decoders of hostile bytes raise anything
            return 0

    def _read(self, data: bytes) -> Pixels:
        return resize(read_image_bytes(data, NAME, self._side), self._side)


def _outcome(work: Callable[[bytes], T], data: bytes) -> T | str:
    """What work comes to, or what its DataError says: the error itself would keep the calls that it went through, and
    with them the bytes and half an image."""
    try:
        return work(data)
    except DataError as error:
        return str(error).removeprefix(f"{NAME}: ")


class Memory:
    """So many bytes for all: who wants some waits until it has its turn and they are free."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._hand_out()
        await turn

    def give_back(self, size: int) -> None:
        self._free += size
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, turn = self._waiting.popleft()
            self._free -= size
            turn.set_result(None)
