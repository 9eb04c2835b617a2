"""The files of a finished run as a report reads them, plain or compressed: `log.jsonl` or `log.jsonl.gz`.

Sizes are bounded before memory is taken, also of what a compressed file unpacks to. Knows nothing of what is in them.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from laconic.errors import DataError
from laconic.machine.files import atomically

MAX_JSON = 64 << 20  # bytes
# what reading damaged JSON or damaged gzip raises; EOFError is that of a compressed file that was cut short
DAMAGED = (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, EOFError, zlib.error)


def stored(path: Path) -> Path | None:
    """The file itself, or else the compressed one beside it; None where there is neither."""
    return next((one for one in (path, path.with_name(f"{path.name}.gz")) if one.is_file()), None)


def read_text(path: Path) -> str:
    """Text of a file, unpacked where its name ends in .gz. Raises one of DAMAGED."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        content = file.read(MAX_JSON + 1)
    if len(content) > MAX_JSON:
        raise ValueError(f"{path.name} has more than {MAX_JSON} bytes")
    return content.decode("utf8")


def write_compressed(path: Path, text: str) -> None:
    """Writes UTF-8 text with gzip, atomically; equal text gives equal bytes, since neither date nor name is kept."""
    with atomically(path) as file:
        file.write(gzip.compress(text.encode("utf8"), compresslevel=9, mtime=0))


def read_table(path: Path) -> dict[str, Any]:
    """A JSON object. Raises one of DAMAGED, ValueError for other JSON."""
    table = json.loads(read_text(path))
    if not isinstance(table, dict):
        raise ValueError(f"{path.name} holds no table")
    return table


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a training log; a line that was cut short is passed over, a missing log is empty."""
    found = stored(path)
    if found is None:
        return
    for line in read_text(found).splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield row


def read_captions(path: Path) -> dict[int | str, str] | None:
    """Caption of each image, in the order of the file; None where there is none.

    Raises:
        DataError: where it cannot be read, or holds no captions.
    """
    found = stored(path)
    if found is None:
        return None
    try:
        captions = {row["image_id"]: str(row["caption"]) for row in json.loads(read_text(found))}
    except DAMAGED as error:
        raise DataError(f"{found}: no captions can be read ({error}); train the run again") from None
    if not captions:
        raise DataError(f"{found}: {found.name} is empty; train the run again")
    return captions
