"""Folders that are written whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def folder_atomically(folder: Path) -> Iterator[Path]:
    """A new, empty folder beside `folder`, which takes its place when the block ends.

    Where anything is raised within the block it is removed, and what was at `folder` stays as it was. An old folder is
    removed with all that is in it: see to it first that this may be. Missing parents are made. Raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield place
        place.chmod(0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            os.replace(folder, old)
            os.replace(place, folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(place, folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)
