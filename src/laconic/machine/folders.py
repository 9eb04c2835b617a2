"""Folders that are written whole or not at all."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from laconic.machine.files import locked

_RANDOM = re.compile(r"[a-z0-9_]{8}")  # what tempfile puts behind a prefix


@contextlib.contextmanager
def folder_atomically(folder: Path) -> Iterator[Path]:
    """A new, empty folder beside `folder`, which takes its place when the block ends.

    Where anything is raised within the block it is removed, and what was at `folder` stays as it was. An old folder is
    removed with all that is in it: see to it first that this may be. Missing parents are made. What a writer of
    `folder` that was killed has left beside it is put away. Raises OSError, which names `folder`.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        place = Path(tempfile.mkdtemp(prefix=_stem(folder), dir=folder.parent))
    except OSError as error:
        error.filename = str(folder)
        raise
    try:
        with _held(place):
            yield place
            place.chmod(0o755)
            if folder.exists():
                old = Path(tempfile.mkdtemp(prefix=_stem(folder, "old-"), dir=folder.parent))
                os.replace(folder, old)
                os.replace(place, folder)
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.replace(place, folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _stem(folder: Path, kind: str = "") -> str:
    return f".{folder.name}-{kind}"


@contextlib.contextmanager
def _held(place: Path) -> Iterator[None]:
    """A folder is locked meanwhile, which tells `_sweep` that its writer lives; where folders can be."""
    try:
        descriptor = os.open(place, os.O_RDONLY)
    except OSError:  # Windows
        yield
        return
    try:
        locked(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Puts away what killed writers of a folder have left: an old one that nothing has replaced goes back."""
    for kind in ("old-", ""):
        stem = _stem(folder, kind)
        for name in [name for name in os.listdir(folder.parent) if name.startswith(stem)]:
            if not _RANDOM.fullmatch(name[len(stem) :]):
                continue
            place = folder.parent / name
            with contextlib.suppress(OSError):  # another user's, gone meanwhile, or no folder
                descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    if not locked(descriptor, wait=False):
                        continue
                    if kind and not folder.exists():
                        os.replace(place, folder)
                    else:
                        shutil.rmtree(place, ignore_errors=True)
                finally:
                    os.close(descriptor)
