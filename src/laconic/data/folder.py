"""Any folder of images as a data set for captioning: sorted, with subfolders, without captions."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from laconic.data.examples import Example, Skipped
from laconic.data.formats import EXTENSIONS, HEAD, READ, is_image
from laconic.errors import DataError, printable


def load_folder(root: Path, split: str = "all") -> tuple[Example, ...]:
    """The images of `list_images`. A folder has no splits: `split` makes no difference.

    Raises DataError if `root` is not a folder or holds no image.
    """
    return list_images(root)[0]


def list_images(root: Path) -> tuple[tuple[Example, ...], tuple[Skipped, ...]]:
    """Every image file below `root`, sorted by path, and what else lies there, with the reason why it is left out.

    The id is the path relative to `root`. A file whose name is that of an image is not opened; of others the first
    bytes tell. Linked folders are followed, each folder once; hidden files and folders are passed over. Raises
    DataError if `root` is not a folder or holds no image.
    """
    if not root.is_dir():
        raise DataError(f"{printable(root)}: no such folder; give the folder that holds the images")
    skipped: list[Skipped] = []
    images: list[Path] = []
    for path in _files(root, skipped):
        reason = _no_image(path)
        if reason:
            skipped.append(_skip(path, reason))
        else:
            images.append(path)
    if not images:
        said = f"; {len(skipped):,} files are none, the first: {skipped[0].reason}" if skipped else ""
        raise DataError(f"{printable(root)}: holds no image ({READ}){said}")
    names = sorted(path.relative_to(root) for path in images)
    found = tuple(Example(id=printable(name.as_posix()), image=root / name) for name in names)
    return found, tuple(sorted(skipped, key=lambda item: item.name))


def _files(root: Path, skipped: list[Skipped]) -> Iterator[Path]:
    """Visible files below `root`; linked folders come last, so that a folder goes by its own name where it has one."""

    def refuse(error: OSError) -> None:
        skipped.append(_skip(Path(error.filename), f"cannot be opened: {error.strerror}"))

    folders, seen = [root], set[object]()
    for start in folders:  # grows
        for place, below, files in os.walk(start, onerror=refuse):
            identity = _identity(place)
            if identity in seen:
                below.clear()
                skipped.append(_skip(Path(place), "a folder that is listed already under another name"))
                continue
            seen.add(identity)
            below[:] = sorted(name for name in below if not name.startswith("."))
            folders += [path for name in below if (path := Path(place, name)).is_symlink()]
            yield from (Path(place, name) for name in sorted(files) if not name.startswith("."))


def _identity(folder: str) -> object:
    """Equal for the same folder under two names."""
    try:
        found = os.stat(folder)
    except OSError:  # it has gone since it was listed
        return folder
    return found.st_dev, found.st_ino


def _no_image(path: Path) -> str:
    """Why a file is no image, as far as a look tells; empty where it may be one."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "not a regular file"
        if path.suffix.lower() in EXTENSIONS:
            return ""
        with open(path, "rb") as file:
            return "" if is_image(file.read(HEAD)) else "not an image of a kind that is read"
    except OSError as error:
        return f"cannot be opened: {error.strerror}"


def _skip(path: Path, reason: str) -> Skipped:
    name = printable(path)
    return Skipped(name, f"{name}: {reason}")
