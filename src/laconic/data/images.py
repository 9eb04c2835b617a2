"""Image files to pixels: read, resize, preprocess.

Five formats (JPEG, PNG, WebP, GIF, BMP), every colour mode they can hold, and a DataError with the
file's name for whatever cannot be read. Nothing here touches the process (no warning filters, no
Pillow settings), so any number of threads may decode. Knows nothing of captions or data sets.
"""

import struct
from os import PathLike, fspath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from laconic.errors import DataError
from laconic.spec.pixels import Normalization

Pixels = NDArray[np.uint8]
"""An image: uint8, shape (height, width, 3), RGB."""

MAX_PIXELS = 120_000_000  # 360 MB decoded; a 108-megapixel phone photo still opens
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


def read_image(path: str | PathLike[str], min_side: int | None = None) -> Pixels:
    """Read an image file as uint8 RGB of shape (height, width, 3), upright.

    Grey, palette, 16-bit and CMYK images are converted; transparent pixels are laid on white; the
    EXIF orientation is applied; of an animation the first frame is read. With `min_side`, a larger
    JPEG may come back at 1/2, 1/4 or 1/8 of its size, its shorter side still at least `min_side`
    pixels: for what is resized anyway, decoding is then several times faster.

    Raises DataError: no such file, empty, truncated or damaged, not an image, more than MAX_PIXELS.
    """
    try:
        with open(path, "rb") as file:
            return _decode(_open_image(file), min_side)
    except DataError as error:
        raise DataError(f"{fspath(path)}: {error}") from None
    except OSError as error:
        if error.strerror:  # the file system's own errors carry one, Pillow's never do
            raise DataError(f"{fspath(path)}: cannot be opened: {error.strerror}") from error
        raise DataError(_damaged(path, error)) from error
    except Exception as error:  # decoders of hostile bytes raise anything: SyntaxError, struct.error, EOFError...
        raise DataError(_damaged(path, error)) from error


def resize(image: Pixels, size: int) -> Pixels:
    """Resize to (size, size, 3), bilinear with antialiasing; the aspect ratio is not kept."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


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


class _JpegFile(JpegImageFile):
    """A JPEG whose EXIF is left alone; Pillow reads the resolution there and warns of damage."""

    def _read_dpi_from_exif(self) -> None:
        pass


def _open_image(file: BinaryIO) -> ImageFile:
    """Read the header only.

    Pillow's classes directly, because Image.open announces a large image by a process-wide warning.
    """
    head = file.read(16)
    file.seek(0)
    if not head:
        raise DataError("the file is empty; copy or download it again")
    for magic, opener in _FORMATS.items():
        if head.startswith(magic) and (magic != b"RIFF" or head[8:12] == b"WEBP"):
            image: ImageFile = opener(file)
            break
    else:
        raise DataError("not a JPEG, PNG, WebP, GIF or BMP image; convert it or leave it out")
    width, height = image.size
    if not 0 < width * height <= MAX_PIXELS:
        raise DataError(f"{width} x {height} pixels; at most {MAX_PIXELS:,} pixels are read; make it smaller")
    return image


def _decode(image: ImageFile, min_side: int | None) -> Pixels:
    if min_side is not None:
        ratio = min_side / min(image.size)
        image.draft(None, (int(image.width * ratio), int(image.height * ratio)))
    image.load()
    turn = _UPRIGHT.get(exif_orientation(_exif(image.info)))
    upright = _to_rgb(image)
    return np.array(upright if turn is None else upright.transpose(turn))


def _exif(info: dict[Any, Any]) -> bytes:
    exif = info.get("exif", b"")
    return exif if isinstance(exif, bytes) else b""


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: 65535 is white, so 257 steps make one
        grey = (np.asarray(image, dtype=np.int64).clip(0, 65535) + 128) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _damaged(path: str | PathLike[str], error: Exception) -> str:
    what = str(error) or type(error).__name__
    return f"{fspath(path)}: truncated or damaged ({what}); copy it again or leave it out"


_FORMATS: dict[bytes, Any] = {
    b"\xff\xd8\xff": _JpegFile,
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"RIFF": WebPImageFile,
    b"GIF8": GifImageFile,
    b"BM": BmpImageFile,
}

_UPRIGHT = {  # EXIF 2.3, tag 0x0112, says where row 0 and column 0 lie; this puts them back
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
