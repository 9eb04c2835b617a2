"""Sentences about two images, true or false: what one is, and the reader of NLVR2's files.

    pairs = load_nlvr2(root, "train")       # root holds train.json, dev.json ... and the folders of photos

The files are taken as hostile: sizes, types and names are checked before use. Reading opens no image.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laconic.data.examples import Dataset, Example
from laconic.data.photos import Photos, find_photos, photo_name
from laconic.data.questions import check_text
from laconic.errors import ConfigError, DataError, printable
from laconic.machine.reading import MAX_JSON_BYTES, read_file

FILES = {"train": "train.json", "val": "dev.json", "test": "test1.json"}
LABELS = {"True": 1, "False": 0}


@dataclass(frozen=True)
class Pair:
    """A sentence about two images.

    Attributes:
        left, right: rows of them among the images.
        sentence: as written.
        label: 1 where it is true of the two, else 0.
    """

    id: str
    left: int
    right: int
    sentence: str
    label: int


@dataclass(frozen=True)
class Pairs:
    """Images, and sentences about two of them."""

    images: Dataset
    items: Sequence[Pair]

    def first(self, count: int) -> "Pairs":
        """The first two images, and so on, with all sentences about them; all of them where there are fewer."""
        kept = set(list(dict.fromkeys((pair.left, pair.right) for pair in self.items))[:count])
        items = tuple(pair for pair in self.items if (pair.left, pair.right) in kept)
        seen = 1 + max((max(two) for two in kept), default=-1)
        return Pairs(tuple(self.images[row] for row in range(seen)), items)


def load_nlvr2(root: Path, split: str, photos: Photos = "some") -> Pairs:
    """One split of NLVR2, "train", "val" (its dev) or "test" (its test1), in the order of its file.

    A line of the file is a JSON table with `identifier`, `sentence` and `label`. The photos of identifier
    `dev-1-2-0` are `dev-1-2-img0.png` and `dev-1-2-img1.png` in the folder `dev`, of training in
    `images/train/<directory>`, each in `root` or in `root/images`. Raises ConfigError for another split, DataError for
    files that cannot be used.
    """
    if split not in FILES:
        raise ConfigError(f"nlvr2: no split {split!r}; it has {', '.join(FILES)}")
    path = root / FILES[split]
    images: dict[tuple[str, str], int] = {}
    items = []
    for where, row in _rows(path):
        identifier, sentence, label = row.get("identifier"), row.get("sentence"), row.get("label")
        if not isinstance(identifier, str) or identifier.count("-") < 1:
            raise DataError(f"{where}.identifier must be a text such as 'dev-1-2-0', not {identifier!r:.80}")
        if not isinstance(sentence, str) or not sentence.strip():
            raise DataError(f"{where}.sentence is no text; correct the file")
        check_text(sentence, f"{where}.sentence")
        if str(label) not in LABELS:
            raise DataError(f"{where}.label must be 'True' or 'False', not {label!r:.80}")
        folder = f"images/train/{row['directory']}" if "directory" in row else FILES[split].removesuffix(".json")
        stem = identifier.rpartition("-")[0]
        names = [photo_name(folder, f"{stem}-img{side}.png", where) for side in (0, 1)]
        left, right = (images.setdefault(name, len(images)) for name in names)
        items.append(Pair(identifier, left, right, sentence, LABELS[str(label)]))
    paths = find_photos(root, list(images), photos)
    return Pairs(tuple(Example("/".join(n), p) for n, p in zip(images, paths, strict=True)), tuple(items))


def _lines(path: Path) -> list[bytes]:
    try:
        return read_file(path, MAX_JSON_BYTES).splitlines()
    except OSError as error:
        raise DataError(f"{printable(path)}: {error.strerror}; put NLVR2's file there, or correct the root") from error
    except ValueError as error:
        raise DataError(f"{printable(path)}: {error}") from error


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        where = f"{printable(path)}: line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(f"{where} is no JSON; give NLVR2's own file, one table a line") from None
        if not isinstance(row, dict):
            raise DataError(f"{where} is no table; correct the file")
        found.append((where, row))
    if not found:
        raise DataError(f"{printable(path)}: is empty; give NLVR2's own file")
    return found
