"""The limits of a server. Each is a bound on what strangers can make it spend."""

import math
from dataclasses import dataclass, field

from laconic.data.formats import MAX_PIXELS
from laconic.decode.search import Decoding
from laconic.errors import ConfigError

MOST_BEAM, MOST_LENGTH = 10, 50  # that a request may ask for, unless the server's own are higher


@dataclass(frozen=True)
class Settings:
    """What a server does, and what it grants a request.

    Attributes:
        decoding: how captions are searched where a request does not say so.
        threads: in which captions are made; 0: as many as there are processor cores.
        batch: images in one call of the engine at most.
        queue: images that are accepted and have no caption yet, of all requests, at most.
        max_images: of one request at most.
        body_bytes: of one request's body at most.
        pixels: of one image at most, told by its header.
        decoding_bytes: of memory that images take at most, together, while they are decoded.
        timeout: seconds that captioning may take once a body has arrived.
        upload_timeout: seconds that a body may take to arrive.
        stall_timeout: seconds that may pass until more of a request arrives.
        hosts: names that requests may call the server by, beside IP addresses, localhost and the machine's own name.
    """

    decoding: Decoding = field(default_factory=Decoding)
    threads: int = 0
    batch: int = 16
    queue: int = 64
    max_images: int = 16
    body_bytes: int = 32_000_000
    pixels: int = 50_000_000
    decoding_bytes: int = 176_000_000
    timeout: float = 30
    upload_timeout: float = 30
    stall_timeout: float = 10
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("batch", "queue", "max_images", "body_bytes", "pixels", "decoding_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, must be at least 1")
        for name in ("timeout", "upload_timeout", "stall_timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}, must be a number above 0")
        if self.pixels > MAX_PIXELS:
            raise ConfigError(f"pixels is {self.pixels:,}, must be at most {MAX_PIXELS:,}")
        if self.max_images > self.queue:
            raise ConfigError(
                f"max_images is {self.max_images}, for which the queue of {self.queue} has no room; give a longer queue"
            )

    @property
    def upload_bytes(self) -> int:
        """Of all bodies that are in memory at once, at most: room for two of the largest."""
        return max(64_000_000, 2 * self.body_bytes)

    @property
    def most_beam(self) -> int:
        """Captions that a request may have the search keep at a time."""
        return max(MOST_BEAM, self.decoding.beam)

    @property
    def most_length(self) -> int:
        """Words that a request may ask for."""
        return max(MOST_LENGTH, self.decoding.max_length)
