"""A small captioner, photos, and servers: in the process without a network, and on a port of the loopback."""

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from laconic.captioner.engine import Engine
from laconic.serve.app import make_app
from laconic.serve.server import Server, listen
from laconic.serve.service import Service
from laconic.serve.settings import Settings
from laconic.spec.model import EncoderConfig

Photos = Callable[..., bytes]


@pytest.fixture(scope="session")
def engine(random_captioner: Any) -> Engine:
    return Engine.load(random_captioner("soft_attention", EncoderConfig("vgg_small", 64, 16)), threads=1)


@pytest.fixture(scope="session")
def photo() -> Photos:
    """photo(seed) is a JPEG of random pixels; photo(seed, "PNG", size=..) another one."""

    def make(seed: int, kind: str = "JPEG", size: tuple[int, int] = (60, 40)) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        return file.getvalue()

    return make


class Held(Engine):
    """An engine whose calls wait until they are let go; `calls` are the numbers of images in each."""

    def search(self, images: Any, decoding: Any) -> Any:
        calls, gate = self.__dict__["calls"], self.__dict__["gate"]
        calls.append(len(images))
        gate.wait(20)
        return super().search(images, decoding)


@pytest.fixture
def held(engine: Engine) -> Iterator[Held]:
    made = Held(engine.spec, engine.path, 1)
    made.__dict__.update(calls=[], gate=threading.Event())
    yield made
    made.__dict__["gate"].set()


@asynccontextmanager
async def _client(engine: Engine, **limits: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    service = Service(engine, "tiny", Settings(**limits))
    transport = httpx.ASGITransport(make_app(service))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=20) as client:
        yield client, service
    service.close()


@pytest.fixture
def talk() -> Callable[..., Any]:
    """talk(engine, story, **limits) runs `story(client, service)`, a coroutine, in a loop of its own."""

    def run(engine: Engine, story: Callable[[httpx.AsyncClient, Service], Awaitable[Any]], **limits: Any) -> Any:
        async def main() -> Any:
            async with _client(engine, **limits) as (client, service):
                return await story(client, service)

        return asyncio.run(main())

    return run


@pytest.fixture
def served() -> Callable[..., Any]:
    """`with served(engine, **limits) as (port, service):` has a real server in a thread."""

    @contextmanager
    def run(engine: Engine, **limits: Any) -> Iterator[tuple[int, Service]]:
        service = Service(engine, "tiny", Settings(**limits))
        sockets = listen("127.0.0.1", 0)
        server = Server(service, lambda text: None)
        thread = threading.Thread(target=server.run, args=(sockets,))
        thread.start()
        try:
            yield sockets[0].getsockname()[1], service
        finally:
            service.stopping = True
            thread.join(20)
        if thread.is_alive():
            pytest.fail("the server has not come to its end")

    return run
