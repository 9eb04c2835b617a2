"""Images in tar files, such as WebDataset's shards: where each begins, and its bytes.

Only plain tar files are read: in a compressed one no member can be read without all before it. Files are taken as
hostile; nothing is unpacked, and names are only shown.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from laconic.data.formats import EXTENSIONS
from laconic.errors import DataError, printable

TAR = ".tar"
MOST_BYTES = 2**29  # of an image in a tar file: 120 million pixels of 4 bytes
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Member:
    """An image in a tar file, or with a `problem` why what follows in the file cannot be read."""

    name: str
    offset: int = 0
    size: int = 0
    problem: str = ""


def members(path: Path) -> Iterator[Member]:
    """The images of a tar file, in its order: visible members whose names are those of images. Others, such as texts
    beside them, are passed over. What stops the reading is the last Member: a damaged header, or the end of a file
    that is cut short."""
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # which would grow with the file
                if is_image_name(member.name) and not member.isdir():
                    plain = member.isreg() and not member.issparse()
                    yield Member(member.name, member.offset_data, member.size, "" if plain else "not a regular file")
            if not _ends(path, archive.offset):  # tarfile ends without a word at a damaged header
                yield Member("", problem=f"damaged at byte {archive.offset:,}; what follows is not read")
    except OSError as error:
        yield Member("", problem=f"cannot be read: {error.strerror or printable(error)}")
    except (tarfile.TarError, ValueError, EOFError, OverflowError, MemoryError) as error:
        yield Member("", problem=f"not a plain tar file, or damaged ({printable(error) or type(error).__name__})")


def member_bytes(path: Path, offset: int, size: int) -> bytes:
    """What `members` found there. DataError where it cannot be read whole."""
    if size > MOST_BYTES:
        raise DataError(f"{size:,} bytes; at most {MOST_BYTES:,} are read; make it smaller")
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise DataError(f"its tar file cannot be opened: {error.strerror}") from None
    if len(data) < size:
        raise DataError("its tar file is cut short; copy it again")
    return data


def is_image_name(path: str) -> bool:
    """Whether the last part of a path is visible and ends as images' names do."""
    name = path.rpartition("/")[2]
    return not name.startswith(".") and name.lower().endswith(EXTENSIONS)


def _ends(path: Path, offset: int) -> bool:
    with open(path, "rb") as file:
        file.seek(offset)
        return not file.read(_BLOCK).strip(b"\0")
