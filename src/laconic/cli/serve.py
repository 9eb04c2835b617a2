"""The verb `serve`: a captioner over HTTP."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from laconic.captioner.ready_made import SMALLEST
from laconic.cli.arguments import model_file
from laconic.cli.messages import say, show
from laconic.cli.paths import OptionalPath
from laconic.errors import ConfigError


@dataclass(frozen=True)
class Serve:
    """Serves a captioner: a page to drop photos on, and an HTTP API (docs/SERVING.md). Ctrl-C ends it."""

    file: Annotated[OptionalPath, Positional, arg(metavar="[FILE]")] = None
    """A packed captioner, or the folder of a finished run; by default the captioner that comes with laconic
    (docs/READY_MADE.md)."""
    host: str = "127.0.0.1"
    """Address to listen at. By default only programs of this machine reach it; 0.0.0.0 is all addresses."""
    port: int = 8000
    """Port to listen at; 0 for any that is free."""
    allow_host: tuple[str, ...] = ()
    """Host names that requests may call the server by, beside IP addresses, localhost and the machine's own name."""
    beam: int = 3
    """How many captions the search keeps at a time where a request does not say so; 1 is greedy search."""
    max_length: int = 20
    """Words of a caption at most, where a request does not say so."""
    length_penalty: float = 0.0
    """Divide the log-probability of a caption by its length to this power before captions are compared; 0 favours
    short ones."""
    threads: int = 0
    """Processor threads; 0 for all. Captions do not depend on it."""
    batch: int = 16
    """Images that are captioned in one call of the engine at most."""
    queue: int = 64
    """Images that are accepted and have no caption yet at most; further requests are told to come again (503)."""
    timeout: float = 30
    """Seconds that captioning a request may take (504)."""
    upload_timeout: float = 30
    """Seconds that a request may take to arrive (408)."""
    stall_timeout: float = 10
    """Seconds that may pass until more of a request arrives (408)."""
    max_images: int = 16
    """Images of one request at most (413)."""
    max_megabytes: float = 32
    """Of a request's body at most (413). Bodies in memory take twice as much together, and 64 MB at least."""
    max_megapixels: float = 50
    """Of one image at most."""
    decoding_megabytes: float = 176
    """Of memory for decoding images, all together. An image that takes more, by its header, is refused."""
    access_log: FlagCreatePairsOff[bool] = False
    """Write a line for each request to standard error."""


def serve(options: Serve) -> None:
    """Serves until it is told to stop, and what was accepted is answered."""
    if not 0 <= options.port < 2**16:
        raise ConfigError(f"--port {options.port}: must be from 0 to {2**16 - 1}")
    from laconic.captioner.engine import Engine
    from laconic.decode.search import Decoding
    from laconic.serve.server import address_of, beyond_loopback, listen, run
    from laconic.serve.service import Service
    from laconic.serve.settings import Settings

    settings = Settings(
        Decoding(options.beam, options.max_length, options.length_penalty),
        threads=options.threads,
        batch=options.batch,
        queue=options.queue,
        max_images=options.max_images,
        body_bytes=_whole("--max-megabytes", options.max_megabytes),
        pixels=_whole("--max-megapixels", options.max_megapixels),
        decoding_bytes=_whole("--decoding-megabytes", options.decoding_megabytes),
        timeout=options.timeout,
        upload_timeout=options.upload_timeout,
        stall_timeout=options.stall_timeout,
        hosts=options.allow_host,
    )
    file = options.file or Path(SMALLEST)
    packed = model_file(file)
    service = Service(Engine.load(packed, threads=1), packed.stem, settings)
    sockets = listen(options.host, options.port)
    if beyond_loopback(sockets):
        say(
            f"listens at {options.host}, beyond this machine: whoever reaches it can have photos captioned, without a "
            "password and unencrypted; leave --host out to keep to this machine"
        )
    show(f"{packed.stem} captions photos at {address_of(sockets[0], options.host)} (Ctrl-C stops it)")
    run(service, sockets, say, log=say if options.access_log else None)


def _whole(option: str, millions: float) -> int:
    """So many millions, as a whole number."""
    if not 0 < millions < math.inf:
        raise ConfigError(f"{option} {millions:g}: must be a number above 0")
    return int(1e6 * millions)
