"""The listing of a folder on disk: one line a record, and where every few of them begin, so that any shard is read
without the others."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from laconic.bulk.listing import Record
from laconic.errors import DataError, printable

UNIT = 32  # records whose beginning the index tells
MOST_SHARDS = 20_000  # files in a folder
_PLACE = Struct("<Q")


@dataclass(frozen=True)
class Shards:
    """A listing that has been written.

    Attributes:
        path: of its lines; the index lies beside it.
        total: records.
        unit: records whose beginning the index tells.
        size: records of a shard, a multiple of `unit`; the last may have fewer.
        digest: SHA-256 of the lines.
    """

    path: Path
    total: int
    unit: int
    size: int
    digest: str

    def __len__(self) -> int:
        return -(-self.total // self.size)

    def length(self, shard: int) -> int:
        """Records of a shard."""
        return min(self.size, self.total - shard * self.size)

    def __getitem__(self, shard: int) -> list[Record]:
        """Records of a shard. DataError where the files are damaged."""
        first = shard * self.size // self.unit
        last = min(first + self.size // self.unit, -(-self.total // self.unit))
        try:
            with open(_index(self.path), "rb") as file:
                begin, end = self._place(file.fileno(), first), self._place(file.fileno(), last)
            with open(self.path, "rb") as file:
                file.seek(begin)
                found = [Record.of_line(line) for line in file.read(end - begin).splitlines()]
        except (ValueError, TypeError, IndexError, EOFError):
            found = []
        if len(found) != self.length(shard):
            raise DataError(f"{printable(self.path)}: damaged; delete its folder to begin anew")
        return found

    def _place(self, index: int, unit: int) -> int:
        os.lseek(index, unit * _PLACE.size, os.SEEK_SET)
        data = os.read(index, _PLACE.size)
        if len(data) != _PLACE.size:
            raise EOFError
        return int(_PLACE.unpack(data)[0])


def write_shards(records: Iterable[Record], path: Path, size: int | None = None) -> Shards:
    """Writes the listing to a `path` of this process's own. Shards have `size` records, by default UNIT or as many as
    make MOST_SHARDS shards. Memory does not grow with the listing."""
    unit, total, written, digest = size or UNIT, 0, 0, hashlib.sha256()
    with open(path, "xb") as lines, open(_index(path), "xb") as index:
        for record in records:
            if total % unit == 0:
                index.write(_PLACE.pack(written))
            line = record.line()
            lines.write(line)
            digest.update(line)
            written += len(line)
            total += 1
        index.write(_PLACE.pack(written))
        for file in (lines, index):
            file.flush()
            os.fsync(file.fileno())
    units = max(1, -(-total // (unit * MOST_SHARDS)))
    return Shards(path, total, unit, unit * units, digest.hexdigest())


def _index(path: Path) -> Path:
    return path.with_name(f"{path.name}.index")
