"""Captions of all shards as one file, in the listing's order: JSON lines, CSV, or COCO's results.

The file holds captions alone; what was skipped goes into a CSV file beside it. Both are UTF-8: a byte of a name that is
none is written as `\\udcXX` (`\\udce9` for the byte E9), which Python's JSON reads back as the name.
"""

import array
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from laconic.bulk.listing import Record
from laconic.bulk.tars import is_image_name
from laconic.errors import ConfigError, printable
from laconic.machine.files import atomically

SKIPPED_HEAD = "image,reason\n"
_COCO_NAME = re.compile(r"(?:COCO_[a-z]+\d{4}_)?0*(\d{1,18})")
_COCO_NAMES = "391895.jpg or COCO_val2014_000000391895.jpg"
NO_COCO_NAME = f"its name ends in no image's suffix, so that it has no COCO id; rename it as in {_COCO_NAMES}"


@dataclass(frozen=True, slots=True)
class Captioned:
    """What became of a record: a caption, or the reason why there is none."""

    name: str
    caption: str | None
    reason: str = ""


@dataclass(frozen=True)
class Format:
    """How a file of captions is written: `head`, the rows with `between` between them, `tail`."""

    row: Callable[[str, str], str]
    head: str = ""
    between: str = ""
    tail: str = ""
    identified: bool = False  # its rows name images by COCO's numbers


def format_of(out: Path) -> Format:
    """By the suffix. ConfigError where it is none of FORMATS."""
    found = FORMATS.get(out.suffix.lower())
    if found is None:
        raise ConfigError(f"{printable(out)}: captions are written to {', '.join(FORMATS)}; give it one of these ends")
    return found


def write_captions(rows: Iterable[Captioned], out: Path, skipped: Path) -> dict[str, int]:
    """Writes both files atomically; how many have captions, how many were skipped. OSError as `atomically`."""
    kind, captions, reasons = format_of(out), 0, 0
    with atomically(out) as file, atomically(skipped) as others:
        file.write(kind.head.encode())
        others.write(SKIPPED_HEAD.encode())
        for row in rows:
            if row.caption is None:
                others.write(_utf8(_csv_row(row.name, row.reason)))
                reasons += 1
            else:
                file.write(_utf8((kind.between if captions else "") + kind.row(row.name, row.caption)))
                captions += 1
        file.write(kind.tail.encode())
    return {"captions": captions, "skipped": reasons}


def with_coco_ids(records: Iterable[Record]) -> Iterator[Record]:
    """The same records, once it is certain that each image has an id, and at the end that no two have the same.

    Takes 8 bytes of memory an image. Raises ConfigError.
    """
    ids = array.array("q")
    for record in records:
        if record.problem:
            yield record
        elif not is_image_name(record.name):
            yield Record(record.name, problem=NO_COCO_NAME)
        else:
            ids.append(coco_id(record.name))
            yield record
    found = np.sort(np.frombuffer(ids, np.int64))
    twice = found[1:][found[1:] == found[:-1]]
    if len(twice):
        raise ConfigError(
            f"{len(twice):,} images have the COCO id of another, such as {twice[0]}; rename them, or write .jsonl or "
            ".csv, which name images by their paths"
        )


def coco_id(name: str) -> int:
    """391895 of "val/391895.jpg" and of "COCO_val2014_000000391895.jpg". ConfigError for other names."""
    stem = name.rpartition("/")[2].rpartition(".")[0]
    found = _COCO_NAME.fullmatch(stem)
    if not found or not stem.isascii():
        raise ConfigError(
            f"{printable(name)}: COCO results name images by number, and this has none as {_COCO_NAMES} have; "
            "write .jsonl or .csv instead"
        )
    return int(found[1])


def _csv_row(*fields: str) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue()


def _utf8(text: str) -> bytes:
    return text.encode("utf8", "backslashreplace")


FORMATS = {
    ".jsonl": Format(lambda name, caption: json.dumps({"image": name, "caption": caption}) + "\n"),
    ".csv": Format(_csv_row, head="image,caption\n"),
    ".json": Format(
        lambda name, caption: "\n" + json.dumps({"image_id": coco_id(name), "caption": caption}),
        head="[",
        between=",",
        tail="\n]\n",
        identified=True,
    ),
}
