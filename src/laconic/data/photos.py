"""Where the photos lie that a file of annotations names. The names are taken as hostile."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from laconic.errors import DataError, printable

Photos = Literal["all", "some", "none"]
Name = tuple[str, str]  # folder, as a file of annotations states it, and file
IMAGE_FOLDERS = (
    ".",
    "images",
    "Images",
    "Flicker8k_Dataset",
    "Flickr8k_Dataset",
    "flickr30k-images",
    "flickr30k_images",
)  # the last five: as the archives unpack


def photo_name(folder: str, file: str, where: str) -> Name:
    """A photo's (folder, file) as stated; DataError at `where` if it could lead out of the root, or is no file name."""
    path = f"{folder}/{file}"
    if folder.startswith("/") or ".." in path.split("/") or any(char in path for char in "\\:\0"):
        raise DataError(f"{where}: {path!r} leads out of the root; do not trust this file")
    if "/" in file or file in ("", "."):
        raise DataError(f"{where}.filename must be the name of a file, not {file!r}")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise DataError(f"{where}: {path!r} is not the name of a file; correct it") from None
    return folder, file


def find_photos(root: Path, names: Sequence[Name], photos: Photos) -> list[Path]:
    """Where each photo lies: below `root` or one of IMAGE_FOLDERS; of one that is missing, where it should be.

    `photos` tells which have to be there: all, some, or none. Raises DataError where they are not.
    """
    paths = _find(root, names)
    missing = [name for name in names if name not in paths]
    if missing and (photos == "all" or (photos == "some" and len(missing) == len(names))):
        files = [printable("/".join(filter(None, name))) for name in missing]
        raise DataError(
            f"{printable(root)}: {len(missing)} of {len(names)} images are missing ({', '.join(files[:3])}"
            f"{', ...' if len(missing) > 3 else ''}); looked here and in "
            f"{', '.join(IMAGE_FOLDERS[1:])}; correct the root"
        )
    return [paths.get(name, root.joinpath(*name)) for name in names]


def _find(root: Path, names: Sequence[Name]) -> dict[Name, Path]:
    """One listing per folder: to ask for 120,000 files one by one takes minutes on a network drive."""
    listings = {
        folder: [(root / base / folder, _listing(root / base / folder)) for base in IMAGE_FOLDERS]
        for folder in {folder for folder, _ in names}
    }
    found = {}
    for folder, file in names:
        for place, files in listings[folder]:
            if file in files:
                found[folder, file] = place / file
                break
    return found


def _listing(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as files:
            return frozenset(file.name for file in files)
    except OSError:
        return frozenset()
