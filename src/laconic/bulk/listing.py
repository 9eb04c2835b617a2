"""What a folder of photos holds: one record for each file, lazily, in an order that depends on names alone.

Nothing is opened but tar files: whoever decodes a file sees whether it is an image. Memory is that of the names of one
folder on each level, at most RUN of them; those of a larger folder are sorted on disk.
"""

import heapq
import json
import os
import struct
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO

from laconic.bulk.tars import TAR, members
from laconic.errors import DataError, printable

RUN = 250_000  # names that are sorted in memory: some 40 MB
FILE, FOLDER, LINK = range(3)  # kinds of entries; a LINK leads to a folder
_SPILLED = struct.Struct("<HB")  # bytes of a name, kind

Entry = tuple[bytes, int]  # name, kind


@dataclass(frozen=True, slots=True)
class Record:
    """An image to caption, or why something that lies there is none.

    Attributes:
        name: the path below the folder, with "/"; of a tar file's member, that of the tar file and the member's.
        tar: the path of the tar file below the folder, "." where the folder is that file; "" for a file of its own.
        offset: of the member's bytes in the tar file.
        size: bytes of the member.
        problem: why there is nothing to caption; "" where there may be.
    """

    name: str
    tar: str = ""
    offset: int = 0
    size: int = 0
    problem: str = ""

    def line(self) -> bytes:
        """As a line of ASCII; names that are no UTF-8 are kept."""
        fields: list[str | int] = [self.name]
        if self.problem:
            fields.append(self.problem)
        elif self.tar:
            fields += [self.tar, self.offset, self.size]
        return json.dumps(fields, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> "Record":
        fields = json.loads(line)
        return cls(fields[0], problem=fields[1]) if len(fields) == 2 else cls(*fields)


def records(root: Path, scratch: Path, passed_over: Callable[[str], bool] = lambda path: False) -> Iterator[Record]:
    """Every visible file below `root`, a folder or a tar file; tar files below it are replaced by their images.

    Sorted by the bytes of the names, level by level. Linked folders are followed and come last, each folder once; what
    is hidden is passed over, and what `passed_over` says of a path. Names of folders too large for memory are sorted in
    temporary files in `scratch`. Raises DataError where `root` cannot be opened.
    """
    if not root.is_dir():
        yield from _of_tar(root, "", ".")
        return
    links, seen = deque([""]), set[tuple[int, int]]()
    while links:
        start = links.popleft()
        levels = [iter([(os.fsencode(start), FOLDER)])]
        above = [""]
        while levels:
            entry = next(levels[-1], None)
            if entry is None:
                levels.pop(), above.pop()
                continue
            name, kind = above[-1] + os.fsdecode(entry[0]), entry[1]
            if name and passed_over(os.path.join(root, name)):
                continue
            if kind == LINK:
                links.append(name)
            elif kind == FILE:
                yield from _of_tar(root / name, f"{name}/", name) if name.endswith(TAR) else (Record(name),)
            else:
                found = _opened(root, name, seen, scratch)
                if isinstance(found, Record):
                    yield found
                else:
                    levels.append(found)
                    above.append(f"{name}/" if name else "")


def holds_files(root: Path) -> bool:
    """Whether `root` is a file, or there is a visible file below it: told at the first one."""
    if not root.is_dir():
        return root.exists()
    for _, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(not name.startswith(".") for name in files):
            return True
    return False


def _of_tar(path: Path, prefix: str, tar: str) -> Iterator[Record]:
    for member in members(path):
        if member.problem:
            yield Record(f"{prefix}{member.name}".rstrip("/") or path.name, problem=member.problem)
        else:
            yield Record(f"{prefix}{member.name}", tar, member.offset, member.size)


def _opened(root: Path, name: str, seen: set[tuple[int, int]], scratch: Path) -> Iterator[Entry] | Record:
    """The entries of a folder, sorted; a record of the problem where it cannot be opened, or has been seen before."""
    place = root / name
    try:
        status = place.stat()
        identity = status.st_dev, status.st_ino
        if identity in seen:
            return Record(name, problem="a folder that is listed already under another name")
        entries = _sorted_entries(place, scratch)
    except OSError as error:
        reason = f"cannot be opened: {error.strerror}"
        if not name:
            raise DataError(f"{printable(root)}: {reason}; give the folder that holds the images") from None
        return Record(name, problem=reason)
    seen.add(identity)
    return entries


def _sorted_entries(folder: Path, scratch: Path) -> Iterator[Entry]:
    """By the bytes of their names; more than RUN of them are sorted on disk."""
    runs: list[Iterator[Entry]] = []
    with os.scandir(folder) as found:
        entries = ((os.fsencode(entry.name), _kind(entry)) for entry in found if not entry.name.startswith("."))
        while run := sorted(islice(entries, RUN)):
            if not runs and len(run) < RUN:
                return iter(run)
            runs.append(_spilled(run, scratch))
    return heapq.merge(*runs)


def _kind(entry: os.DirEntry[str]) -> int:
    try:
        if entry.is_dir():
            return LINK if entry.is_symlink() else FOLDER
    except OSError:  # a link that leads nowhere; whoever reads it tells why
        pass
    return FILE


def _spilled(run: list[Entry], scratch: Path) -> Iterator[Entry]:
    """The same entries, held in a file without a name."""
    file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - open until the last entry is read
    for name, kind in run:
        file.write(_SPILLED.pack(len(name), kind) + name)
    file.seek(0)
    return _read_back(file)


def _read_back(file: IO[bytes]) -> Iterator[Entry]:
    with file:
        for head in iter(partial(file.read, _SPILLED.size), b""):
            length, kind = _SPILLED.unpack(head)
            yield file.read(length), kind
