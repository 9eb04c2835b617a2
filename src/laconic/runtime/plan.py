"""A plan as bytes, and taken apart: the layouts of native/plan.h as numpy sees them.

Reading here trusts nothing more than it must: sections lie within the bytes. That a program makes sense is what
`laconic_check` of the native library and the numpy path find out.
"""

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.errors import FormatError
from laconic.machine.files import atomically
from laconic.machine.reading import read_file
from laconic.runtime.operations import NONE, OPERATIONS, PROGRAMS

MAGIC, VERSION, ALIGNMENT = b"LACOPLAN", 1, 64
MOST_BYTES = 2**31  # of a plan that is read; the largest captioners that were published have a tenth of it

HEADER = np.dtype(
    [("magic", "S8")]
    + [
        (name, "<u4")
        for name in (
            "version", "bytes", "buffers_at", "buffers", "matrices_at", "matrices", "operations_at", "operations",
            "encode", "image", "images", "step", "arena_at", "arena_bytes", "words_at", "words_bytes", "vocabulary",
            "pad", "unk", "bos", "eos", "side", "channels", "pooled_channels", "positions", "grid", "pooled", "boxes",
            "logits", "scratch", "tokenization",
        )
    ]
    + [("scale", "<f4", 3), ("shift", "<f4", 3), ("words", "<u4"), ("reserved", "<u4", 24)]
)  # fmt: skip
BUFFER = np.dtype(
    [(name, "<u4") for name in ("rows", "space", "columns", "offset", "kept", "kept_from")] + [("reserved", "<u4", 2)]
)
MATRIX = np.dtype(
    [(name, "<u4") for name in ("rows", "columns", "form", "width")]
    + [("step", "<f4")]
    + [(name, "<u4") for name in ("bias", "at", "bytes", "block", "non_zeros")]
    + [("reserved", "<u4", 6)]
)
OPERATION = np.dtype([("code", "<u4"), ("arguments", "<u4", 15)])


@dataclass(frozen=True, eq=False)
class Plan:
    """A plan: `data` are its bytes, aligned to 64."""

    data: NDArray[np.uint8]

    @classmethod
    def of(cls, data: bytes | NDArray[np.uint8], name: str = "plan") -> "Plan":
        """Copies the bytes to where they are aligned. FormatError, naming `name`, for what is no plan."""
        found = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
        plan = cls(aligned(len(found)))
        plan.data[:] = found
        if len(found) < HEADER.itemsize or bytes(found[:8]) != MAGIC:
            raise FormatError(f"{name}: is no plan; make one with `laconic plan`")
        if plan.header["version"] != VERSION:
            raise FormatError(f"{name}: is a plan of version {plan.header['version']}, not {VERSION}; make it again")
        if not plan._sections_fit():
            raise FormatError(f"{name}: is damaged: its sections do not lie within it; make it again")
        return plan

    @classmethod
    def read(cls, path: str | PathLike[str]) -> "Plan":
        """Reads what `save` wrote. FormatError, naming the file, for anything else."""
        try:
            return cls.of(read_file(Path(path), MOST_BYTES), str(path))
        except (OSError, ValueError) as error:
            raise FormatError(f"{path}: cannot be read ({error}); give a plan") from None

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the plan, whole or not at all. FormatError where the path cannot be written."""
        try:
            with atomically(Path(path)) as file:
                file.write(self.data.data)
        except OSError as error:
            raise FormatError(f"{path}: cannot be written ({error.strerror}); check folder and free space") from None

    @cached_property
    def header(self) -> Any:
        return self.data[: HEADER.itemsize].view(HEADER)[0]

    @cached_property
    def buffers(self) -> Any:
        return self._section("buffers_at", "buffers", BUFFER)

    @cached_property
    def matrices(self) -> Any:
        return self._section("matrices_at", "matrices", MATRIX)

    @cached_property
    def operations(self) -> Any:
        return self._section("operations_at", "operations", OPERATION)

    @cached_property
    def arena(self) -> NDArray[np.uint8]:
        start = int(self.header["arena_at"])
        return self.data[start : start + int(self.header["arena_bytes"])]

    @property
    def reads_pooled(self) -> bool:
        return bool(self.header["pooled"] != NONE)

    @cached_property
    def unpacked(self) -> dict[int, Any]:
        """Matrices that the numpy path has unpacked."""
        return {}

    @cached_property
    def words(self) -> list[str]:
        start = int(self.header["words_at"])
        text = self.data[start : start + int(self.header["words_bytes"])].tobytes().decode()
        return text.split("\n")[:-1]

    def program(self, name: str) -> list[tuple[str, dict[str, int]]]:
        """Operations of one of PROGRAMS, by name, with their arguments by name."""
        counts = [int(self.header[program]) for program in PROGRAMS]
        start = sum(counts[: PROGRAMS.index(name)])
        codes = list(OPERATIONS.items())
        found = []
        for row in self.operations[start : start + counts[PROGRAMS.index(name)]]:
            operation, names = codes[int(row["code"])]
            found.append((operation, dict(zip(names, map(int, row["arguments"]), strict=False))))
        return found

    def constant(self, at: int, *shape: int) -> NDArray[np.float32] | None:
        """float32 numbers in the arena; None for NONE."""
        if at == NONE:
            return None
        count = int(np.prod(shape))
        return self.arena[at : at + 4 * count].view("<f4").reshape(shape)

    def _section(self, at: str, count: str, dtype: np.dtype[Any]) -> Any:
        start = int(self.header[at])
        return self.data[start : start + int(self.header[count]) * dtype.itemsize].view(dtype)

    def _sections_fit(self) -> bool:
        h = {
            name: int(self.header[name])
            for name in HEADER.names or ()
            if HEADER[name].kind == "u" and not HEADER[name].shape
        }
        sections = [
            (h["buffers_at"], h["buffers"] * BUFFER.itemsize),
            (h["matrices_at"], h["matrices"] * MATRIX.itemsize),
            (h["operations_at"], h["operations"] * OPERATION.itemsize),
            (h["arena_at"], h["arena_bytes"]),
            (h["words_at"], h["words_bytes"]),
        ]
        if h["bytes"] != len(self.data):
            return False
        return all(at % ALIGNMENT == 0 and at + size <= len(self.data) for at, size in sections)


def aligned(size: int) -> NDArray[np.uint8]:
    """Uninitialised bytes that begin at a multiple of 64."""
    held = np.empty(size + ALIGNMENT, np.uint8)
    start = -held.ctypes.data % ALIGNMENT
    return held[start : start + size]
