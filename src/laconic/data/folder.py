"""Any folder of images as a data set for captioning: sorted, with subfolders, without captions."""

from pathlib import Path

from laconic.data.examples import Example
from laconic.data.images import EXTENSIONS
from laconic.errors import DataError


def load_folder(root: Path, split: str = "all") -> tuple[Example, ...]:
    """Every image file below `root`, sorted by path; the id is the path relative to `root`.

    A folder has no splits: `split` makes no difference. Files are chosen by extension and not
    opened; hidden files and folders are passed over. Raises DataError if `root` is not a folder or
    holds no image.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder that holds the images")
    names = sorted(
        path.relative_to(root) for path in root.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file()
    )
    visible = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    if not visible:
        raise DataError(f"{root}: holds no image ({', '.join(EXTENSIONS)})")
    return tuple(Example(id=name.as_posix(), image=root / name) for name in visible)
