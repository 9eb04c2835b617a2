"""Whole files from outside, read into no more memory than they may take."""

import json
import os
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 2**28  # COCO's annotations, the largest that are known, have 144 MB
MAX_JSON_VALUES = 24_000_000  # COCO's annotations have half as many


def read_file(path: Path, limit: int) -> bytes:
    """The bytes of a file, or of a pipe until it ends. Raises OSError as `open`, ValueError where there are more."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size  # 0 for what is no regular file
        data = file.read(min(size or limit, limit) + 1)
    if len(data) > limit:
        raise ValueError(f"has {max(size, len(data)):,} bytes; at most {limit:,} are read")
    return data


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> Any:
    """What a JSON file holds.

    Raises OSError as `open`, and ValueError where it is larger than `limit`, is no JSON, or holds more than
    MAX_JSON_VALUES values: in memory those take up to twenty times their bytes.
    """
    data = read_file(path, limit)
    values = sum(map(data.count, (b",", b"[", b"{")))
    if values > MAX_JSON_VALUES:
        raise ValueError(f"holds {values:,} values; at most {MAX_JSON_VALUES:,} are read")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from None
