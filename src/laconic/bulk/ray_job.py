"""The same work as a Ray Data job: each actor is a worker, and each shard a row.

Claims and results are those of the shared file system, so that a job can be begun by Ray and ended by other processes,
and an actor that dies loses one shard.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from laconic.bulk.job import Request, check_request, counts, joined
from laconic.bulk.worker import Captioner, Watch, caption_folder, caption_listed
from laconic.decode.search import Decoding
from laconic.errors import MissingError

TASKS = 4  # for each actor: as many blocks of shards


class Actor:
    """Captions the shards whose numbers it is given, and tells how many there were.

    `load` runs on the actor's machine.
    """

    def __init__(self, request: Request, decoding: Decoding, load: Callable[[], Captioner]) -> None:
        self._held = ExitStack()
        self._job = self._held.enter_context(joined(request))
        self._decoding = decoding
        self._captioner = load()

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        done = caption_listed(self._job, [int(shard) for shard in rows["id"]], self._decoding, self._captioner)
        return {"done": np.array([done])}


def caption_on_cluster(
    request: Request, decoding: Decoding, load: Callable[[], Captioner], watch: Watch = lambda done, of: None
) -> dict[str, int]:
    """`caption_folder` by all processors of a Ray cluster: the one that is running, else this machine's.

    `load` is sent to the actors: a function of a module, or a partial of one. The photos and the output lie on a file
    system that all machines share. Raises MissingError without Ray, and as `caption_folder`.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingError("--cluster ray needs Ray Data; install it: pip install 'laconic[cluster]'") from None
    check_request(request)
    if counts(request) is None:
        with joined(request) as job:
            shards = len(job.shards)
            started = not ray.is_initialized()
            if started:
                ray.init(log_to_driver=False)
            try:
                actors = max(1, min(shards, int(ray.cluster_resources().get("CPU", 1))))
                numbers = ray.data.range(shards, override_num_blocks=min(shards, TASKS * actors))
                done = numbers.map_batches(
                    Actor,
                    fn_constructor_args=(request, decoding, load),
                    batch_size=None,
                    num_cpus=1,
                    concurrency=actors,
                )
                for _ in done.iter_batches(batch_size=1):
                    job.results.look()
                    watch(job.results.images_done(), job.shards.total)
            finally:
                if started:
                    ray.shutdown()
    return caption_folder(request, decoding, load, watch)  # what actors that died have left, and the output
