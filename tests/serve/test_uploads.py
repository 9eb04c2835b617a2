"""Bodies in memory: what is counted, and who has to go when there are too many."""

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from laconic.serve.settings import Settings
from laconic.serve.uploads import Uploads

CHUNK = 100_000


def request(receive: Callable[[], Awaitable[Any]], **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/caption", "headers": raw}, receive)


def body(*chunks: bytes, then: asyncio.Event | None = None) -> Callable[[], Awaitable[Any]]:
    """What a request receives: chunks, then the end, or where there is `then` none."""
    waiting = list(chunks)

    async def receive() -> Any:
        await asyncio.sleep(0)
        if not waiting and then is not None:
            await then.wait()
        return {
            "type": "http.request",
            "body": waiting.pop(0) if waiting else b"",
            "more_body": bool(waiting) or then is not None,
        }

    return receive


def refused(found: Any) -> tuple[int, str]:
    assert isinstance(found, HTTPException)
    return found.status_code, found.detail


def test_bytes_are_counted_until_the_photo_lets_go_of_them():
    async def story():
        uploads = Uploads(Settings())
        (photo,) = await uploads.read(request(body(b"x" * 10, b"y" * 20)))
        assert (photo.data, photo.size, uploads.held) == (b"x" * 10 + b"y" * 20, 30, 30)
        photo.drop()
        photo.drop()
        assert (photo.data, uploads.held) == (b"", 0)

    asyncio.run(story())


def test_a_photo_that_a_thread_has_is_counted_until_it_is_done():
    async def story():
        uploads = Uploads(Settings())
        (photo,) = await uploads.read(request(body(b"x")))
        photo.in_thread = True
        photo.forget()
        assert (uploads.held, photo.wanted) == (1, False)
        photo.in_thread = False
        photo.forget()
        assert uploads.held == 0

    asyncio.run(story())


def test_who_is_silent_for_longest_goes_where_memory_is_full():
    """Three large bodies stall, and fill it; a fourth one, and a small one of somebody quick, are read."""
    granted = Settings(body_bytes=30_000_000, stall_timeout=20)
    assert granted.upload_bytes == 64_000_000

    async def story():
        uploads, never = Uploads(granted), asyncio.Event()
        stalling = [
            asyncio.create_task(uploads.read(request(body(*[bytes(CHUNK)] * 200, then=never)))) for _ in range(3)
        ]
        while uploads.held < 60_000_000:
            await asyncio.sleep(0)
        photos = await uploads.read(request(body(*[bytes(CHUNK)] * 250)))
        photos += await uploads.read(request(body(b"small")))
        assert [photo.size for photo in photos] == [25_000_000, 5]
        assert uploads.held <= granted.upload_bytes
        for task in stalling:
            if not task.done():
                task.cancel()
        found = await asyncio.gather(*stalling, return_exceptions=True)
        for photo in photos:
            photo.drop()
        assert uploads.held == 0
        return found

    found = asyncio.run(story())
    gone = [one for one in found if isinstance(one, HTTPException)]
    assert [isinstance(one, HTTPException) for one in found] == [True, True, False]  # the first ones to fall silent
    assert {refused(one)[0] for one in gone} == {503}
    assert all(one.headers["Retry-After"] for one in gone)


def test_where_photos_that_wait_have_taken_all_memory_the_newest_is_told_to_come_again():
    async def story():
        uploads = Uploads(Settings(body_bytes=32_000_000))
        photos = [photo for _ in range(2) for photo in await uploads.read(request(body(bytes(32_000_000))))]
        with pytest.raises(HTTPException) as caught:
            await uploads.read(request(body(b"x")))
        assert refused(caught.value)[0] == 503
        photos[0].drop()
        assert await uploads.read(request(body(b"x")))

    asyncio.run(story())


def test_nothing_stays_of_a_body_that_breaks_off():
    async def story():
        uploads = Uploads(Settings())

        async def gone() -> Any:
            return {"type": "http.disconnect"}

        with pytest.raises(ClientDisconnect):
            await uploads.read(request(gone))
        with pytest.raises(HTTPException):
            await uploads.read(request(body(b"x"), content_type="multipart/form-data; boundary=y"))
        assert uploads.held == 0

    asyncio.run(story())


@pytest.mark.parametrize("length", ["99999999999999999999999999", "32000001"])
def test_a_length_that_is_too_much_is_refused_before_anything_is_read(length):
    async def story():
        with pytest.raises(HTTPException) as caught:
            await Uploads(Settings()).read(request(body(then=asyncio.Event()), content_length=length))
        assert refused(caught.value)[0] == 413

    asyncio.run(story())


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=y", "image/jpeg"])
def test_what_was_refused_takes_no_memory(kind):
    """Not even until Python looks for cycles."""
    head = b'--y\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n'

    async def story():
        with pytest.raises(HTTPException):
            await Uploads(Settings(body_bytes=9_000_000)).read(
                request(body(head, *[bytes(1_000_000)] * 10), content_type=kind)
            )

    gc.disable()
    tracemalloc.start()
    try:
        asyncio.run(story())
        assert tracemalloc.get_traced_memory()[0] < 2_000_000
    finally:
        tracemalloc.stop()
        gc.enable()
