"""Servers as processes, clients that ask them over the loopback, and what they send: photos, and hostile uploads."""

import asyncio
import contextlib
import io
import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLIENTS, PHOTOS = 16, 64
TICKS = os.sysconf("SC_CLK_TCK")


# Servers


@dataclass(frozen=True)
class Served:
    """A server's process."""

    process: "subprocess.Popen[str]"
    port: int

    @property
    def cpu_seconds(self) -> float:
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / TICKS

    @property
    def peak_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


@contextlib.contextmanager
def served(command: Sequence[str]) -> Iterator[Served]:
    """Runs a server that prints its address first, and ends it."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if "http://" not in line:
            sys.exit(f"did not start: {' '.join(command)}")
        yield Served(process, int(line.split("http://")[1].split()[0].rpartition(":")[2]))
    finally:
        process.kill()
        process.wait()


# Clients


class Client:
    """One connection after the other, each for as many requests as the server likes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body. ConnectionRefusedError where nobody listens; other OSErrors, or EOFError, where a request
        got no answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
        except BaseException:
            self.close()
            raise
        if b"connection: close" in head:
            self.close()
        return int(head.split()[1]), body

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def request_of(image: bytes, length: int | None = None) -> bytes:
    """A request with one image in a form, as every framework reads it."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        + image
        + b"\r\n--x--\r\n"
    )
    head = f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {length or len(body)}\r\n\r\n"
    return b"POST /caption HTTP/1.1\r\nHost: 127.0.0.1\r\n" + head.encode() + body


def photos_at_hand() -> list[bytes]:
    """Requests with photos of Flickr8k, or where that is not there, with pictures that are smooth as photos are."""
    folder = Path(os.environ.get("LACONIC_SHARED", "../shared")) / "data/flickr8k/images"
    found = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))[:PHOTOS]]
    return [request_of(image) for image in found or [picture(seed) for seed in range(PHOTOS)]]


def picture(seed: int, side: int = 320) -> bytes:
    rough = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    return encoded(Image.fromarray(rough).resize((side * 4 // 3, side), Image.Resampling.BICUBIC), "JPEG")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def caption_in(body: bytes) -> str:
    found = json.loads(body)
    return str(found["images"][0]["caption"] if "images" in found else found["caption"])


async def closed_loop(port: int, requests: Sequence[bytes], seconds: float) -> int:
    """Answers that so many clients get who ask again as soon as they have one."""
    ends, done = time.perf_counter() + seconds, 0

    async def one(first: int) -> None:
        nonlocal done
        client = Client(port)
        for request in itertools.islice(itertools.cycle(requests), first, None):
            if time.perf_counter() > ends:
                break
            status, _ = await client.ask(request)
            if status != 200:
                sys.exit(f"status {status} under load")
            done += 1
        client.close()

    await asyncio.gather(*(one(4 * number) for number in range(CLIENTS)))
    return done


async def timed(client: Client, request: bytes, since: float) -> float:
    status, _ = await client.ask(request)
    if status != 200:
        sys.exit(f"status {status} at half of the load")
    return 1000 * (time.perf_counter() - since)


async def open_loop(port: int, photos: list[bytes], rate: float, seconds: float, rng: random.Random) -> list[float]:
    """Milliseconds of each of the requests that arrive, whether or not earlier ones have their answers."""
    idle: list[Client] = []

    async def one(photo: bytes, due: float) -> float:
        client = idle.pop() if idle else Client(port)
        taken = await timed(client, photo, due)
        idle.append(client)
        return taken

    tasks, due, ends = [], time.perf_counter(), time.perf_counter() + seconds
    while (due := due + rng.expovariate(rate)) < ends:
        await asyncio.sleep(max(0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(rng.choice(photos), due)))
    found = await asyncio.gather(*tasks)
    for client in idle:
        client.close()
    return found


def bad_uploads(photo: bytes) -> list[bytes]:
    """Cut files, bombs, wrong types, and of a sound request half, then nothing more."""
    noise, black = random.Random(0).randbytes(300_000), Image.new("RGB", (5990, 4000))
    bomb, scans = encoded(black, "PNG"), encoded(black, "JPEG", progressive=True)
    cheap = [
        request_of(picture(1)[:3000]),
        request_of(b"%PDF-1.7\n" + noise),
        request_of(encoded(Image.new("1", (20_000, 6000)), "PNG")),
        photo[: len(photo) // 2],  # and no more
        request_of(noise * 20),
        request_of(b"", 10**9),
        request_of(wordy()),
    ]
    dear = [request_of(image) for image in (bomb, bomb[:20_000], scans, scans[: len(scans) // 2])]
    return [*cheap, *cheap, *cheap, *dear]


def wordy() -> bytes:
    """A small PNG whose header has 60 megabytes of text in it, once that is unpacked."""
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    for number in range(60):
        text.add_text(f"key{number}", " " * 1_000_000, zip=True)
    return encoded(Image.new("RGB", (8, 8)), "PNG", pnginfo=text)
