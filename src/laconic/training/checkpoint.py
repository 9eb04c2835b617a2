"""Checkpoints of a training run: written atomically, read without trusting them.

A checkpoint is a dict of tensors and plain values in torch's zip format, read with `weights_only`. A full disk or a
kill leaves the previous file as it was, and a bit that has flipped on the disk is found. Knows nothing of what is
inside.
"""

import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from laconic.errors import FormatError, TrainingError
from laconic.machine.files import atomically

FORMAT = 1


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes beside the target, then replaces it; TrainingError where that fails, with the old file intact."""
    failed: list[OSError] = []
    try:
        with atomically(path) as file:
            torch.save({"format": FORMAT, **state}, _Told(file, failed))  # type: ignore[arg-type]
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError about its own books
        reason = failed[0] if failed else error
        kept = "the previous checkpoint is intact" if path.exists() else "nothing was kept"
        raise TrainingError(
            f"{path}: checkpoint cannot be written ({reason}); {kept}; free the disk and continue with --resume"
        ) from error


class _Told:
    """A file for torch.save that keeps the error of a write, which torch loses."""

    def __init__(self, file: BinaryIO, failed: list[OSError]) -> None:
        self._file, self._failed = file, failed

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self._failed.append(error)
            raise

    def flush(self) -> None:
        self._file.flush()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint to the CPU; FormatError where it is damaged or of another format."""
    try:
        state = load_tensors(path)
    except FileNotFoundError:
        raise FormatError(f"{path}: no such checkpoint") from None
    except Exception as error:  # unpickling damaged bytes raises anything: IndexError, struct.error ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(
            f"{path}: damaged checkpoint ({reason}); move it away and train again, or restore it from a backup"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise FormatError(f"{path}: not a checkpoint of this version of laconic")
    return state


def load_tensors(path: Path, most_bytes: int | None = None) -> Any:
    """What torch.save has written, read to the CPU with `weights_only` once its checksums are known to be right.

    Takes no more memory than the file has bytes, as torch stores them, or than `most_bytes`. Damaged or hostile bytes
    raise anything, zipfile.BadZipFile and pickle.UnpicklingError among it.
    """
    with path.open("rb") as file:
        check_archive(file, most_bytes)
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wonders about foreign pickles before it refuses them
            return torch.load(file, map_location="cpu", weights_only=True)


def check_archive(file: BinaryIO, most_bytes: int | None = None) -> None:
    """Looks through a zip file of torch's, of which torch itself checks nothing.

    Raises:
        zipfile.BadZipFile: where an entry has another CRC-32 than is written of it, or is compressed, or all of them
            claim more bytes than the file has, or than `most_bytes`.
    """
    length = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise zipfile.BadZipFile(f"{packed[0]!r:.99} is compressed, and so takes more memory than it tells")
        if len({entry.filename for entry in entries}) < len(entries):
            raise zipfile.BadZipFile("an entry is there twice")
        size = sum(entry.file_size for entry in entries)
        if size > min(length, most_bytes or length):
            raise zipfile.BadZipFile(f"{size:,} bytes, the limit is {min(length, most_bytes or length):,}")
        damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"the checksum of {damaged!r:.99} is wrong")
