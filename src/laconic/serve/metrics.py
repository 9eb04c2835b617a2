"""What is counted of a server, in Prometheus' text format. Nothing in it says what was uploaded, or by whom."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counts of one server, in a registry of their own: two servers of one process do not add up."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "laconic_requests", "Requests that were answered.", ["path", "method", "status"], registry=registry
        )
        self._seconds = Histogram(
            "laconic_request_seconds",
            "From a request's head to its answer.",
            ["path"],
            buckets=SECONDS,
            registry=registry,
        )
        self._captions = Counter("laconic_captions", "Images that were captioned.", registry=registry)
        self._refused = Counter("laconic_images_refused", "Images that could not be read.", registry=registry)
        self._batches = Histogram(
            "laconic_batch_images", "Images in one call of the engine.", buckets=SIZES, registry=registry
        )
        self._queue = Gauge("laconic_queue_images", "Decoded images that wait for a caption.", registry=registry)
        self._accepted = Gauge(
            "laconic_accepted_images", "Images that are accepted and have no answer yet.", registry=registry
        )
        self._uploads = Gauge("laconic_upload_bytes", "Bytes of uploads in memory.", registry=registry)

    def answered(self, path: str, method: str, status: int, seconds: float) -> None:
        """A request. `path` and `method` are of a small set, whatever was asked for."""
        self._requests.labels(path, method, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def captioned(self, images: int, refused: int) -> None:
        """What became of the images of a request."""
        self._captions.inc(images)
        self._refused.inc(refused)

    def called(self, images: int) -> None:
        """A call of the engine, with so many images."""
        self._batches.observe(images)

    def watch_queue(self, length: Callable[[], float]) -> None:
        self._queue.set_function(length)

    def watch(self, accepted: Callable[[], float], held: Callable[[], float]) -> None:
        self._accepted.set_function(accepted)
        self._uploads.set_function(held)

    def text(self) -> bytes:
        return bytes(generate_latest(self._registry))
