"""What came of each shard: a file of JSON lines, which is there once the shard is done and never changes."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from laconic.bulk.merge import Captioned
from laconic.bulk.once import write_once
from laconic.bulk.shards import Shards
from laconic.errors import DataError, printable

LOOK_EVERY = 5.0  # seconds between two listings of the folder, for a process that is busy itself


@dataclass
class Results:
    """The results in a folder; of what others do, an image some seconds old."""

    folder: Path
    shards: Shards
    _done: set[int] = field(default_factory=set)
    _looked: float = -LOOK_EVERY

    def look(self) -> None:
        """Sees what others have done since."""
        with os.scandir(self.folder) as entries:
            self._done = {int(entry.name) for entry in entries if entry.name.isdecimal()}
        self._looked = time.monotonic()

    def all_done(self) -> bool:
        return len(self._done) == len(self.shards)

    def images_done(self) -> int:
        """Of all processes."""
        if time.monotonic() - self._looked > LOOK_EVERY:
            self.look()
        last = len(self.shards) - 1
        missing = self.shards.size - self.shards.length(last) if last in self._done else 0
        return len(self._done) * self.shards.size - missing

    def undone(self, start: int) -> Iterator[int]:
        """Shards that are not known to be done, from `start` on and round."""
        count = len(self.shards)
        for step in range(count):
            shard = (start + step) % count
            if shard not in self._done:
                yield shard

    def has(self, shard: int) -> bool:
        """Whether a shard is done now."""
        if self._path(shard).exists():
            self._done.add(shard)
        return shard in self._done

    def publish(self, shard: int, rows: Sequence[Captioned]) -> None:
        """Where another process has done the same, its file stays. OSError as `write_once`."""
        lines = (json.dumps([row.name, row.caption, row.reason], separators=(",", ":")) + "\n" for row in rows)
        write_once(self._path(shard), "".join(lines).encode())
        self._done.add(shard)

    def __iter__(self) -> Iterator[Captioned]:
        """What came of every record, in order, a shard in memory. DataError where a file is damaged."""
        for shard in range(len(self.shards)):
            path = self._path(shard)
            try:
                rows = [Captioned(*json.loads(line)) for line in path.read_bytes().splitlines()]
            except (ValueError, TypeError):
                rows = []
            if len(rows) != self.shards.length(shard):
                raise DataError(f"{printable(path)}: damaged; delete it and give the same command again")
            yield from rows

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:07}"
