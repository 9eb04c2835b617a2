"""Photos to pixels: as laconic reads them, a bounded number and memory at a time."""

import asyncio
import threading

import numpy as np
import pytest

from laconic.data.images import read_image_bytes, resize
from laconic.errors import DataError
from laconic.serve import decoding
from laconic.serve.decoding import LARGE, Decoder, Memory
from laconic.serve.settings import Settings
from laconic.serve.uploads import Photo, Uploads

SIDE = 64


def story(settings, work):
    async def main():
        decoder, uploads = Decoder(SIDE, 2, settings), Uploads(settings)

        def held(data):
            uploads.held += len(data)
            return Photo("", data, uploads)

        try:
            return await work(decoder, held)
        finally:
            decoder.close()
            for _ in range(500):  # what a thread had begun with is let go of when it is through
                if uploads.held:
                    await asyncio.sleep(0.01)
            assert uploads.held == 0

    return asyncio.run(main())


def test_pixels_are_those_that_laconic_reads(photo):
    images = [photo(1, size=(400, 300)), photo(2, "PNG"), photo(3, "PNG", (1200, 900))]

    async def work(decoder, held):
        return [await decoder.pixels(held(data)) for data in images]

    for data, found in zip(images, story(Settings(), work), strict=True):
        np.testing.assert_array_equal(found, resize(read_image_bytes(data, "x", SIDE), SIDE))


def counting(monkeypatch, large):
    """How many images are decoded at once: now, and at most."""
    lock, whole, counts = threading.Lock(), decoding.read_image_bytes, {"now": 0, "most": 0, "large": 0}

    def read(data, *given):
        with lock:
            counts["now"] += 1
            counts["most"] = max(counts["most"], counts["now"])
        pixels = whole(data, *given)
        with lock:
            counts["now"] -= 1
        return pixels

    monkeypatch.setattr(decoding, "read_image_bytes", read)
    return counts


def test_so_many_at_once_at_most(photo, monkeypatch):
    counts = counting(monkeypatch, large=False)
    small, large = photo(1), photo(2, "PNG", (900, 700))

    async def work(decoder, held):
        await asyncio.gather(*(decoder.pixels(held(data)) for data in [small] * 30 + [large] * 10))

    story(Settings(), work)
    assert 1 < counts["most"] <= 2 + LARGE


def test_large_ones_wait_for_memory_and_small_ones_do_not(photo, monkeypatch):
    gate, started, whole = threading.Event(), threading.Semaphore(0), decoding.read_image_bytes
    small, large = photo(1), photo(2, "PNG", (1000, 800))  # 5.6 MB to decode

    def read(data, *given):
        if len(data) > len(small):
            started.release()
            gate.wait(20)
        return whole(data, *given)

    monkeypatch.setattr(decoding, "read_image_bytes", read)

    async def work(decoder, held):
        bombs = [asyncio.create_task(decoder.pixels(held(large))) for _ in range(3)]
        while not started.acquire(blocking=False):
            await asyncio.sleep(0.01)
        await asyncio.gather(*(decoder.pixels(held(small)) for _ in range(10)))
        assert not started.acquire(blocking=False)  # of the large ones one has been begun: there is memory for one
        gate.set()
        await asyncio.gather(*bombs)

    story(Settings(decoding_bytes=8_000_000), work)


def test_what_nobody_waits_for_is_not_decoded(photo, monkeypatch):
    gate, reads, whole = threading.Event(), [], decoding.read_image_bytes

    def read(data, *given):
        reads.append(1)
        gate.wait(20)
        return whole(data, *given)

    monkeypatch.setattr(decoding, "read_image_bytes", read)

    async def work(decoder, held):
        tasks = [asyncio.create_task(decoder.pixels(held(photo(1)))) for _ in range(6)]
        while len(reads) < 2:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        gate.set()
        assert await decoder.pixels(held(photo(1))) is not None

    story(Settings(), work)
    assert len(reads) == 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damage_is_an_error_of_the_image(photo, kind):
    whole = photo(1, kind)
    rng = np.random.default_rng(0)

    async def work(decoder, held):
        said = []
        for _ in range(60):
            data = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.5 else whole)
            for at in rng.integers(0, max(1, len(data)), 5):
                data[at : at + 1] = bytes([rng.integers(256)])
            try:
                await decoder.pixels(held(bytes(data)))
            except DataError as error:
                said.append(str(error))
        return said

    said = story(Settings(), work)
    assert said
    assert not any(text.startswith("image: ") for text in said)


def test_memory_goes_to_who_came_first():
    async def main():
        memory, order = Memory(10), []

        async def take(name, size):
            await memory.take(size)
            order.append(name)

        tasks = [asyncio.create_task(take(name, size)) for name, size in (("a", 6), ("b", 8), ("c", 2))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == ["a"]  # c would fit, but b must not wait for ever
        memory.give_back(6)
        await asyncio.gather(*tasks)
        assert order == ["a", "b", "c"]

    asyncio.run(main())
