"""Image files to pixels: read, resize, preprocess.

Every format of laconic.data.formats, every colour mode they can hold, and a DataError with the file's name for whatever
cannot be read. Nothing here touches the process (no warning filters, no Pillow settings), so any number of threads may
decode; large images take turns. Knows nothing of captions or data sets.
"""

import hashlib
import os
import stat
import struct
import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from io import BytesIO
from os import PathLike
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from laconic.data.formats import MAX_MEMORY, memory_of, open_image
from laconic.data.jpeg import END, OTHER_END, JpegFile, is_complete
from laconic.errors import DataError, LaconicWarning, printable
from laconic.spec.pixels import Normalization

Pixels = NDArray[np.uint8]
"""An image: uint8, shape (height, width, 3), RGB."""

LARGE = 2**28  # bytes: of images that take more, one is decoded at a time
BAND = 2**20  # pixels that are converted or resized at once

_one_large = threading.Lock()


def read_image(path: str | PathLike[str], min_side: int | None = None) -> Pixels:
    """Read an image file as uint8 RGB of shape (height, width, 3), upright.

    Grey, palette, 16-bit and CMYK images are converted; transparent pixels are laid on white; the
    EXIF orientation is applied; of an animation the first frame is read. With `min_side`, a larger
    JPEG may come back at 1/2, 1/4 or 1/8 of its size, its shorter side still at least `min_side`
    pixels: for what is resized anyway, decoding is then several times faster. A JPEG that has all its
    pixels, but no end mark, is read with a LaconicWarning.

    Raises DataError: no such file, empty, truncated or damaged, not an image, more than MAX_PIXELS or MAX_MEMORY.
    """
    return _read_named(printable(path), lambda: _open(path), min_side)


def read_image_bytes(data: bytes, name: str, min_side: int | None = None) -> Pixels:
    """`read_image` of what a file holds, such as a member of a tar file; errors call it `name`."""
    return _read_named(printable(name), lambda: BytesIO(data), min_side)


def from_pillow(image: Image.Image) -> Pixels:
    """What `read_image` makes of an image that Pillow has opened: upright, RGB, laid on white where it is transparent.

    Raises DataError for floating-point pixels, and what Pillow raises where the file behind the image is damaged.
    """
    return _upright(_to_rgb(image), exif_orientation(_exif(image.info)))


def resize(image: Pixels, size: int) -> Pixels:
    """Resize to (size, size, 3), bilinear with antialiasing; the aspect ratio is not kept."""
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    # Rows are shrunk before columns, a few at a time. Pillow by itself begins with either, and from version 13 on with
    # columns where an image is tall: some pixels would then depend on the version, by one.
    image = np.concatenate([_shrink(rows, (size, len(rows))) for rows in _bands(image)])
    return _shrink(image, (size, size))


def preprocess(image: Pixels, size: int) -> NDArray[np.float32]:
    """The usual encoders' input: float32 (3, size, size), RGB / 127.5 - 1 as in TensorFlow-slim."""
    return Normalization()(resize(image, size))


def exif_orientation(exif: bytes) -> int:
    """The orientation tag (1..8) of an EXIF block; 1, upright, if it is absent or damaged.

    Pillow's own EXIF parser reports damage as a warning, which is process-wide state; this one
    reads the only tag needed.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(order + "L", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, offset)
        for entry in range(offset + 2, offset + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHLH", tiff, entry)
            if (tag, kind) == (0x0112, 3):
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _read_named(name: str, opened: Callable[[], BinaryIO], min_side: int | None) -> Pixels:
    try:
        with opened() as file:
            pixels, ended = _read(file, min_side)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except Exception as error:  # decoders of hostile bytes raise anything: SyntaxError, struct.error, EOFError...
        if isinstance(error, MemoryError) or "out of memory" in str(error):
            raise DataError(f"{name}: too little memory is free to read it; close other programs") from error
        what = printable(error) or type(error).__name__
        raise DataError(f"{name}: truncated or damaged ({what}); copy it again or leave it out") from error
    if not ended:
        warnings.warn(f"{name}: has no end mark; its pixels are all there and are read", LaconicWarning, stacklevel=3)
    return pixels


def _open(path: str | PathLike[str]) -> BinaryIO:
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):  # opening one waits for a writer
            raise DataError("a pipe; give an image file")
        return open(path, "rb")
    except OSError as error:
        raise DataError(f"cannot be opened: {error.strerror}") from error
    except ValueError as error:  # a NUL in it, or a lone surrogate
        raise DataError(f"not the name of a file ({printable(error)})") from error


def _read(file: BinaryIO, min_side: int | None) -> tuple[Pixels, bool]:
    """An image's pixels, and whether the file ends as it should."""
    image = open_image(file)
    try:
        return _decode(image, min_side), True
    except OSError as error:
        # Pillow's own errors, such as that of a file that has come to its end, carry no number.
        if not isinstance(image, JpegFile) or error.errno is not None or not is_complete(file, image.layers):
            raise
        pixels = _without_end_mark(file, min_side)
        if pixels is None:
            raise
        return pixels, False


def _without_end_mark(file: BinaryIO, min_side: int | None) -> Pixels | None:
    """The pixels of a JPEG that ends too early; None where some are missing: what follows then changes them."""
    found = []
    for ending in (OTHER_END, END):
        file.seek(0)
        image = JpegFile(file)
        image.ending = ending
        pixels = _decode(image, min_side)
        found.append(hashlib.sha256(pixels.data).digest())
    return pixels if found[0] == found[1] else None


def memory_to_decode(image: ImageFile, min_side: int | None) -> int:
    """Bytes that decoding an opened image takes; with `min_side`, as in `read_image`, it is set to a smaller form."""
    whole = image.size
    if min_side is not None:
        ratio = min_side / min(whole)
        image.draft(None, (int(whole[0] * ratio), int(whole[1] * ratio)))
    return memory_of(image, whole)


def _decode(image: ImageFile, min_side: int | None) -> Pixels:
    whole = image.size
    memory = memory_to_decode(image, min_side)
    if memory > MAX_MEMORY:
        raise DataError(
            f"{whole[0]} x {whole[1]} pixels take {memory:,} bytes to decode; at most {MAX_MEMORY:,} are taken; "
            "make it smaller"
        )
    with _one_large if memory > LARGE else nullcontext():
        image.load()
        return from_pillow(image)


def _exif(info: dict[Any, Any]) -> bytes:
    exif = info.get("exif", b"")
    return exif if isinstance(exif, bytes) else b""


def _to_rgb(image: Image.Image) -> Pixels:
    width, height = image.size
    rows = max(1, BAND // width)
    if rows >= height:
        return np.array(_rgb(image))
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        pixels[top : top + rows] = np.asarray(_rgb(band))
    return pixels


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: 65535 is white, so 257 steps make one
        grey = (np.asarray(image).astype(np.int32).clip(0, 65535) + 128) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise DataError("pixels are floating-point numbers, whose white is not known; save it with 8 bits")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """EXIF 2.3, tag 0x0112, says where row 0 and column 0 lie; this puts them back."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _bands(image: Pixels) -> list[Pixels]:
    rows = max(1, BAND // image.shape[1])
    return [image[top : top + rows] for top in range(0, len(image), rows)]


def _shrink(image: Pixels, size: tuple[int, int]) -> Pixels:
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
