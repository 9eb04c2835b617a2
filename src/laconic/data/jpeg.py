"""What Pillow leaves open about JPEG files: how many scans they have, and whether only their end mark is missing.

Source: ITU-T T.81, annex B (markers) and G.1.2 (progressive scans).
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import BinaryIO

from PIL.JpegImagePlugin import JpegImageFile

from laconic.errors import DataError

END = b"\xff\xd9"
OTHER_END = b"\xaa\x55" * 32 + END  # for END the decoder makes up zeros; from the first bit on, these are others
MAX_SCANS = 64  # encoders write 1 to 20
MAX_SCANNED = 1_500_000_000  # pixels times scans, which take some 15 s; a 108-megapixel photo may have 13 scans
MAX_BYTES = 2**28  # of a file that has to be looked through

_CHUNK = 1 << 20
_COEFFICIENTS = 64
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_ALONE = (0x01, 0xD8)  # markers without a segment
# 0xFF in a scan's data is followed by 0 or a restart marker, 0xFF before a marker may be repeated
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")


class JpegFile(JpegImageFile):
    """A JPEG whose EXIF is left alone (Pillow reads the resolution there and warns of damage).

    ending  what the decoder gets where the file ends before its image does, once
    passes  whether it may have more scans than one, so that its coefficients are held until the last
    """

    ending = b""
    passes = False
    _last = b""

    def _open(self) -> None:
        super()._open()  # up to the data of the first scan
        header = 6 + 2 * self.layers  # bytes, where the first scan has all components, and so is the only one
        end = self.fp.tell()  # type: ignore[union-attr]
        self.fp.seek(max(0, end - header))  # type: ignore[union-attr]
        only = header.to_bytes(2) + bytes([self.layers])
        self.passes = "progressive" in self.info or self.fp.read(len(only)) != only  # type: ignore[union-attr]

    def _read_dpi_from_exif(self) -> None:
        pass

    def load_read(self, read_bytes: int) -> bytes:
        data: bytes = self.fp.read(read_bytes)  # type: ignore[union-attr]
        if not data and self.ending:
            # Where half a marker is left, 0xFF, the 0 makes data of it; the end mark itself may follow any number.
            cut = self._last == b"\xff" and self.ending != END
            data, self.ending = b"\0" * cut + self.ending, b""
        self._last = data[-1:]
        return data


def check_scans(image: JpegFile, file: BinaryIO) -> None:
    """DataError where a file has more scans than an encoder writes: each costs a pass over the whole image."""
    if not image.passes:
        return
    most = min(MAX_SCANS, MAX_SCANNED // max(1, image.width * image.height))
    if _at_most(file, bytes((0xFF, _START_OF_SCAN)), most):
        return
    count = 0  # of scans alone; thumbnails, and whatever follows the image, may look like some
    for count, _ in enumerate(_scans(_content(file)), 1):
        if count > most:
            raise DataError(f"more than {most} scans, which no encoder writes for this size; leave it out")


def is_complete(file: BinaryIO, layers: int) -> bool:
    """Whether its scans give every coefficient of every component to the last bit."""
    known: dict[int, set[int]] = defaultdict(set)
    for header in _scans(_content(file)):
        components = header[1 : 1 + 2 * header[0] : 2]
        first, last, bits = header[1 + 2 * len(components) :][:3]
        if bits & 15 == 0:
            for component in components:
                known[component].update(range(first, last + 1))
    return len(known) == layers and all(len(found) >= _COEFFICIENTS for found in known.values())


def _at_most(file: BinaryIO, pattern: bytes, most: int) -> bool:
    file.seek(0)
    count, before = 0, b""
    while chunk := file.read(_CHUNK):
        count += (before + chunk).count(pattern)
        before = chunk[-1:]
        if count > most:
            return False
    return True


def _content(file: BinaryIO) -> bytes:
    file.seek(0)
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DataError(f"a JPEG of more than {MAX_BYTES:,} bytes with parts that look like scans; save it anew")
    return data


def _scans(data: bytes) -> Iterator[bytes]:
    """What the segment of each scan says: number of components, two bytes each, first and last coefficient, bits."""
    at = 0
    while found := _MARKER.search(data, at):
        at, marker = found.end(), found[1][0]
        if marker == _END_OF_IMAGE:
            return
        if marker in _ALONE:
            continue
        length = int.from_bytes(data[at : at + 2])
        if marker == _START_OF_SCAN:
            yield data[at + 2 : at + length]
        at += max(2, length)
