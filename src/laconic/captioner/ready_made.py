"""Captioners that come with laconic, trained by it: what `laconic caption photo.jpg` and `laconic.load()` use.

Each is a packed file beside the data sets it learned from, in `laconic/data/`; docs/READY_MADE.md is its model card.
"""

from os import PathLike
from pathlib import Path

import laconic
from laconic.errors import ConfigError

SMALLEST = "flickr8k_tiny"
READY_MADE = (SMALLEST, "flickr8k_small")
"""Names of the files, without their ending; the first is the one that is used where none is named."""

FOLDER = Path(laconic.__file__).parent / "data"


def packed_file(path: str | PathLike[str]) -> Path:
    """The file that a path stands for: itself, or where there is none, the ready-made captioner of that name.

    Raises ConfigError where that one did not come with this installation.
    """
    named = Path(path)
    if str(path) not in READY_MADE or named.exists():
        return named
    file = FOLDER / f"{path}.safetensors"
    if not file.is_file():
        raise ConfigError(
            f"{path}: this installation of laconic lacks it ({file}); install laconic again, or name a file"
        )
    return file
