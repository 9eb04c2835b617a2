"""Which image files are read, told by their first bytes; and their headers, before memory is taken for pixels.

JPEG, PNG, WebP, GIF and BMP, and what else Pillow decodes with compiled code: AVIF, TIFF, JPEG 2000, PPM, PCX, SGI, Sun
and PSD, HEIF and JPEG XL where a plugin for Pillow has been registered. Left out are formats that other programs draw
(EPS, WMF), that are no photos (icons, textures), or that Python decodes byte by byte.
"""

import importlib
from functools import cache
from typing import Any, BinaryIO

from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from laconic.data.jpeg import JpegFile, check_scans
from laconic.errors import DataError

MAX_PIXELS = 120_000_000  # a 108-megapixel phone photo still opens
MAX_MEMORY = 2**30  # bytes that the pixels of one image may take while it is decoded
HEAD = 32  # bytes that tell a format
READ = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000, PPM, PCX, SGI, Sun or PSD"
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),
    *(".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".ppm", ".pgm", ".pbm", ".pnm", ".pcx", ".sgi", ".ras", ".psd"),
)
"""Of files that are images by their names; others are looked into."""


def is_image(head: bytes) -> bool:
    """Whether a file's first HEAD bytes are those of an image that `open_image` may read."""
    return _opener(head) is not None


def open_image(file: BinaryIO) -> ImageFile:
    """An image whose header has been read, at least one pixel and at most MAX_PIXELS large.

    Raises DataError, and for a damaged header anything. Uses Pillow's classes directly, because Image.open announces a
    large image by a process-wide warning.
    """
    head = file.read(HEAD)
    file.seek(0)
    if not head:
        raise DataError("the file is empty; copy or download it again")
    opener = _opener(head)
    if opener is None:
        raise DataError(f"not a {READ} image; convert it or leave it out")
    image: ImageFile = opener(file)
    width, height = image.size
    if not 0 < width * height <= MAX_PIXELS:
        raise DataError(f"{width} x {height} pixels; at most {MAX_PIXELS:,} pixels are read; make it smaller")
    if isinstance(image, JpegFile):
        check_scans(image, file)
    return image


def memory_of(image: ImageFile, whole: tuple[int, int]) -> int:
    """Bytes that decoding takes at most, with the RGB pixels that are made of it.

    `whole` is the size before a JPEG was asked to come smaller: one of several scans is held whole all the same.
    """
    if isinstance(image, JpegFile):
        held = 2 * image.layers if image.passes else 0
    else:
        held = _HELD.get(str(image.format), _HELD_ELSE)
    return image.width * image.height * (_STORED.get(image.mode, 4) + 3) + whole[0] * whole[1] * held


def _opener(head: bytes) -> Any:
    for magic, opener in _COMMON.items():
        if head.startswith(magic) and (magic != b"RIFF" or head[8:12] == b"WEBP"):
            return opener
    for name in _others():
        factory, accepts = Image.OPEN.get(name, (None, None))
        if accepts is not None and accepts(head) is True:  # a text where a library is missing
            return factory
    return None


@cache
def _others() -> tuple[str, ...]:
    """Formats beyond the common ones, once their plugins have been imported: each enters itself into Image.OPEN."""
    for module in _OTHERS.values():
        if module:
            importlib.import_module(f"PIL.{module}")
    return tuple(_OTHERS)


_COMMON: dict[bytes, Any] = {
    b"\xff\xd8\xff": JpegFile,
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"RIFF": WebPImageFile,
    b"GIF8": GifImageFile,
    b"BM": BmpImageFile,
}

_OTHERS = {
    "AVIF": "AvifImagePlugin",
    "TIFF": "TiffImagePlugin",
    "JPEG2000": "Jpeg2KImagePlugin",
    "PPM": "PpmImagePlugin",
    "PCX": "PcxImagePlugin",
    "SGI": "SgiImagePlugin",
    "SUN": "SunImagePlugin",
    "PSD": "PsdImagePlugin",
    "HEIF": None,
    "JXL": None,
}
"""Pillow's name of a format -> its plugin, None where another package brings it."""

_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}  # bytes of a pixel; others have 4
_HELD = {"PNG": 0, "BMP": 0, "GIF": 4, "WEBP": 12, "PPM": 0, "PCX": 0, "SGI": 0, "SUN": 0, "JPEG2000": 16}
_HELD_ELSE = 12
"""Bytes of a pixel that a format's decoder holds beside Pillow's own, at most."""
