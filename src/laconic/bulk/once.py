"""Files that appear whole and once, whoever else is about to write the same."""

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


def write_once(path: Path, data: bytes) -> bool:
    """Writes a file, unless it is there; whether it was written here.

    The bytes are on the disk when the name appears. Of several processes that write the same path one writes it, on NFS
    too, where the file system knows hard links; elsewhere the last of those that come in the same moment. Raises
    OSError as `open` and `write` do, FileNotFoundError where the folder is gone.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return _link(temporary, path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_json_once(path: Path, value: Mapping[str, Any]) -> bool:
    """`write_once` of a JSON object."""
    return write_once(path, json.dumps(value, indent=1).encode() + b"\n")


def _link(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return temporary.stat().st_nlink > 1  # NFS answers so where its first answer was lost
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            return False
        os.replace(temporary, path)
    return True
