"""`laconic serve` under load: beside a plain PyTorch server, at half of what it can, under attack, and told to stop.

    python benchmarks/serving.py --csv results/serving.csv

Servers are processes on this machine, and clients reach them over the loopback. The rival is what one writes in a few
lines: FastAPI, or Starlette where that is not installed, and the same captioner in PyTorch, in one process with
PyTorch's own number of threads. Both get the same photos in turns. Wall times depend on how busy the machine is, which
the column `load` tells; CPU times are those of the server's process. Clients and requests: serving_load.py.
"""

import argparse
import asyncio
import contextlib
import csv
import itertools
import json
import os
import random
import signal
import socket
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from serving_load import (
    CLIENTS,
    PHOTOS,
    Client,
    Served,
    bad_uploads,
    caption_in,
    closed_loop,
    open_loop,
    photos_at_hand,
    served,
    timed,
)

from laconic.bench.processor import processor, versions

TIMES_BAR, LATENCY_BAR, PEAK_BAR = 4.0, 3.0, 400e6
HOSTILE, AT_ONCE = 1000, 50
STALL = 2  # seconds of a slow sender, until the server has enough
LACONIC = [sys.executable, "-m", "laconic", "serve", "--port", "0"]
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", type=Path, help="file for the numbers")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rival", action="store_true", help=argparse.SUPPRESS)  # this process is the rival
    given = parser.parse_args()
    if given.rival:
        rival()
        return
    photos = photos_at_hand()
    rows: list[Row] = []
    for name in given.only:
        for row in asyncio.run(PARTS[name](photos, given.rounds)):
            rows.append(finished({"part": name, **row}))
            print(*(f"{key}={value}" for key, value in list(rows[-1].items())[:-4]), flush=True)
    if given.csv:
        names = list(dict.fromkeys(name for row in rows for name in row))
        with given.csv.open("w", newline="", encoding="utf8") as file:
            writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    print(json.dumps(rows))


def finished(row: Row) -> Row:
    """A row with whether its bar is met, and where that was."""
    bar, less = row["bar"], row.pop("less_is_better", True)
    row["met"] = row["reached"] <= bar if less else row["reached"] >= bar
    row |= {"load": os.getloadavg()[0], "processor": processor()}
    row["versions"] = " ".join(f"{name}={version}" for name, version in versions().items())
    row["command"] = " ".join(["python", *sys.argv])
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}


# The rival


def rival() -> None:
    """A plain server: the captioner in PyTorch, behind an endpoint."""
    import uvicorn

    import laconic

    captioner = laconic.load(backend="torch")

    def caption_of(file: Any) -> dict[str, str]:
        pixels = np.asarray(Image.open(file).convert("RGB"))
        return {"caption": captioner.caption([pixels])[0]}

    try:
        from fastapi import FastAPI, UploadFile

        app: Any = FastAPI()

        @app.post("/caption")
        def caption(image: UploadFile) -> dict[str, str]:
            return caption_of(image.file)

    except ModuleNotFoundError:
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.requests import Request
        from starlette.responses import JSONResponse
        from starlette.routing import Route

        async def answer(request: Request) -> JSONResponse:
            async with request.form() as form:
                return JSONResponse(await run_in_threadpool(caption_of, form["image"].file))

        app = Starlette(routes=[Route("/caption", answer, methods=["POST"])])

    listening = socket.socket(proto=socket.IPPROTO_TCP)  # so that asyncio sends answers without delay
    listening.bind(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listening])


def framework() -> str:
    """What the rival is made with."""
    try:
        import fastapi
    except ModuleNotFoundError:
        return "Starlette"
    return f"FastAPI {fastapi.__version__}"


# Throughput, beside the rival


async def throughput(photos: list[bytes], rounds: int) -> list[Row]:
    """Captions per second with 16 clients, of both servers in turns."""
    with served(LACONIC) as ours, served([sys.executable, __file__, "--rival"]) as theirs:
        said: list[list[str]] = []
        for server in (ours, theirs):
            client = Client(server.port)
            said.append([caption_in((await client.ask(photo))[1]) for photo in photos])
            client.close()
        rates: dict[Served, list[tuple[float, float]]] = {ours: [], theirs: []}
        for _ in range(rounds):
            for server, found in rates.items():
                started, cpu = time.perf_counter(), server.cpu_seconds
                done = await closed_loop(server.port, photos, 4)
                taken = time.perf_counter() - started
                found.append((done / taken, 1000 * (server.cpu_seconds - cpu) / done))
    (mine, my_cpu), (other, other_cpu) = (map(statistics.median, zip(*found, strict=True)) for found in rates.values())
    times = statistics.median(a[0] / b[0] for a, b in zip(*rates.values(), strict=True))
    common = {"clients": CLIENTS, "rival": framework(), "equal_captions": sum(map(str.__eq__, *said)), "photos": PHOTOS}
    more = {"bar": TIMES_BAR, "less_is_better": False, **common}
    return [
        {"what": "captions per second, times the rival's", "reached": times, "laconic": mine, "other": other, **more},
        {
            "what": "captions per CPU second, times the rival's", "reached": other_cpu / my_cpu,
            "laconic": 1000 / my_cpu, "other": 1000 / other_cpu, **more,
        },
    ]  # fmt: skip


# Latency at half of the load


async def latency(photos: list[bytes], rounds: int) -> list[Row]:
    """Milliseconds of an answer at half of the rate that 16 clients reach, arrivals at random, and of one at a time."""
    alone: list[float] = []
    loaded: list[float] = []
    rng = random.Random(0)
    with served(LACONIC) as server:
        await closed_loop(server.port, photos, 1)
        rate = await closed_loop(server.port, photos, 4) / 4 / 2
        for _ in range(rounds):
            client = Client(server.port)
            for photo in photos[:40]:
                alone.append(await timed(client, photo, time.perf_counter()))
            client.close()
            loaded += await open_loop(server.port, photos, rate, 6, rng)
    single, tail = statistics.median(alone), float(np.quantile(loaded, 0.99))
    row = {
        "alone_ms": single,
        "alone_99_ms": float(np.quantile(alone, 0.99)),
        "rate": rate,
        "requests": len(loaded),
        "bar": LATENCY_BAR,
    }
    median = statistics.median(loaded)
    return [
        {
            "what": "median latency, times one alone",
            "reached": median / single,
            "bar": LATENCY_BAR,
            "ms": median,
            **row,
        },
        {"what": "99 % latency, times one alone", "reached": tail / single, "bar": LATENCY_BAR, "ms": tail, **row},
    ]


# Under attack


async def hostile(photos: list[bytes], rounds: int) -> list[Row]:
    """Uploads that mean harm, 50 at once, and two honest clients beside them."""
    uploads, statuses = itertools.cycle(bad_uploads(photos[0])), Counter[int]()
    honest: list[float] = []
    refused, over = 0, asyncio.Event()

    async def attack(port: int, turns: Iterator[int]) -> None:
        for _ in turns:
            client = Client(port)
            with contextlib.suppress(OSError, EOFError):
                status, _ = await asyncio.wait_for(client.ask(next(uploads)), 60)
                statuses[status] += 1
            client.close()

    async def ask(port: int) -> None:
        nonlocal refused
        client = Client(port)
        for photo in itertools.cycle(photos):
            if over.is_set():
                break
            started = time.perf_counter()
            status, _ = await client.ask(photo)
            refused += status != 200
            honest.append(time.perf_counter() - started)
        client.close()

    with served([*LACONIC, "--stall-timeout", str(STALL)]) as server:
        turns = iter(range(HOSTILE))
        beside = [asyncio.create_task(ask(server.port)) for _ in range(2)]
        await asyncio.gather(*(attack(server.port, turns) for _ in range(AT_ONCE)))
        over.set()
        await asyncio.gather(*beside)
        peak, alive = server.peak_bytes, server.process.poll() is None
    answered = " ".join(f"{status}:{count}" for status, count in sorted(statuses.items()))
    more = {"requests": HOSTILE, "statuses": answered, "honest": len(honest), "honest_longest_s": max(honest)}
    return [
        {"what": "peak bytes of memory under attack", "reached": peak, "bar": PEAK_BAR, **more},
        {"what": "honest requests that were refused", "reached": refused, "bar": 0, **more},
        {"what": "servers that fell", "reached": int(not alive), "bar": 0, **more},
    ]


# Told to stop


async def stopped(photos: list[bytes], rounds: int) -> list[Row]:
    """Requests that got no answer where the server was told to stop (SIGTERM) while 16 clients were asking."""
    lost = answered = told = 0
    codes = []
    for turn in range(rounds):
        with served(LACONIC) as server:

            async def one(first: int, port: int = server.port) -> None:
                nonlocal lost, answered, told
                client = Client(port)
                for photo in itertools.islice(itertools.cycle(photos), first, None):
                    try:
                        status, _ = await client.ask(photo)
                    except ConnectionRefusedError:
                        return
                    except (OSError, EOFError):
                        lost += 1
                        continue
                    answered, told = answered + (status == 200), told + (status == 503)

            clients = [asyncio.create_task(one(4 * number)) for number in range(CLIENTS)]
            await asyncio.sleep(1.5 + turn / 10)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.gather(*clients)
            codes.append(await asyncio.to_thread(server.process.wait, 60))
    more = {"stops": rounds, "answered": answered, "told_to_come_again": told, "clients": CLIENTS}
    return [
        {"what": "requests without an answer at a stop", "reached": lost, "bar": 0, **more},
        {"what": "exit codes that are not 0", "reached": sum(map(bool, codes)), "bar": 0, **more},
    ]


PARTS: dict[str, Callable[[list[bytes], int], Awaitable[list[Row]]]] = {
    "throughput": throughput,
    "latency": latency,
    "hostile": hostile,
    "stopped": stopped,
}

if __name__ == "__main__":
    main()
