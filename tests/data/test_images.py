"""Every good image comes out as upright RGB, every bad one as a DataError with its name."""

import io
import os
import re
import struct
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from laconic.data import images, jpeg
from laconic.data.images import exif_orientation, preprocess, read_image, resize
from laconic.errors import DataError, LaconicWarning

RED, WHITE = (255, 0, 0), (255, 255, 255)


def photo(height: int = 48, width: int = 64) -> Image.Image:
    """Smooth and different in every corner, so that a wrong turn or colour shows."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    channels = (255 * x / width, 255 * y / height, 255 * (1 - x / width) * (1 - y / height))
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "kind", ["PNG", "BMP", "WEBP", "GIF", "JPEG", "TIFF", "AVIF", "JPEG2000", "PPM", "PCX", "SGI", "MPO"]
)
def test_formats(tmp_path: Path, kind: str) -> None:
    options: dict[str, object] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 95},
        "MPO": {"quality": 95},
        "AVIF": {"quality": 95, "subsampling": "4:4:4"},
    }.get(kind, {})
    path = tmp_path / "photo.dat"  # the content decides, not the name
    path.write_bytes(encoded(photo(), kind, **options))
    got = read_image(path)
    assert got.shape == (48, 64, 3)
    assert got.dtype == np.uint8
    tolerance = {"JPEG": 12, "MPO": 12, "GIF": 30, "AVIF": 12}.get(kind, 0)
    assert np.abs(got.astype(int) - np.asarray(photo()).astype(int)).max() <= tolerance


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (2, 2), 77), (77, 77, 77)),
        (Image.new("1", (2, 2), 1), WHITE),
        (Image.new("LA", (2, 2), (0, 0)), WHITE),
        (Image.new("RGBA", (2, 2), (255, 0, 0, 255)), RED),
        (Image.new("RGBA", (2, 2), (0, 0, 0, 51)), (204, 204, 204)),  # 20 % black over white
        (Image.new("RGB", (2, 2), RED).convert("P"), RED),
        (Image.fromarray(np.full((2, 2), 65535, np.uint16)), WHITE),
        (Image.fromarray(np.full((2, 2), 100 * 257, np.uint16)), (100, 100, 100)),
    ],
    ids=["grey", "bilevel", "clear", "opaque", "fifth", "palette", "16-bit white", "16-bit grey"],
)
def test_modes(tmp_path: Path, image: Image.Image, expected: tuple[int, int, int]) -> None:
    image.save(tmp_path / "image.png")
    assert (read_image(tmp_path / "image.png") == expected).all()


def test_transparent_palette(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png", transparency=b"\xff\x00")
    image.save(tmp_path / "a.gif", transparency=1)
    for name in ("a.png", "a.gif"):
        assert read_image(tmp_path / name).tolist() == [[list(RED), list(WHITE)]]


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - RED).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif", "avif"])
def test_exif_orientation(tmp_path: Path, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{kind}"
    photo().save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(read_image(path), expected)


@given(st.binary(max_size=60), st.sampled_from([b"", b"II*\0", b"MM\0*", b"Exif\0\0II*\0"]))
def test_any_exif_gives_an_orientation(noise: bytes, start: bytes) -> None:
    assert 1 <= exif_orientation(start + noise) <= 8


def test_damaged_exif_neither_warns_nor_stops(tmp_path: Path) -> None:
    whole = Image.Exif()
    whole[0x0112], whole[0x010F] = 6, "maker" * 9
    data = encoded(photo(), "JPEG", exif=whole.tobytes()[:40])
    (tmp_path / "a.jpg").write_bytes(data)
    with (
        pytest.warns(UserWarning, match=r"Tag data|Corrupt EXIF"),
        Image.open(io.BytesIO(data)) as image,
    ):
        image.getexif()  # what Pillow does with it, or this test shows nothing
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "a.jpg").size == 48 * 64 * 3


def test_min_side_decodes_smaller_but_never_too_small(tmp_path: Path) -> None:
    photo(480, 640).save(tmp_path / "a.jpg", quality=95)
    assert read_image(tmp_path / "a.jpg", min_side=224).shape == (240, 320, 3)
    assert read_image(tmp_path / "a.jpg", min_side=241).shape == (480, 640, 3)
    assert read_image(tmp_path / "a.jpg", min_side=9999).shape == (480, 640, 3)
    whole = resize(read_image(tmp_path / "a.jpg"), 96).astype(int)
    drafted = resize(read_image(tmp_path / "a.jpg", min_side=96), 96).astype(int)
    assert np.abs(whole - drafted).mean() < 1.5


def huge_png(side: int) -> bytes:
    """A few bytes that announce side x side pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 4) + b"IDAT"


BAD = {
    "empty.jpg": (b"", "is empty"),
    "text.png": (b"<html>not found</html>", "not a JPEG"),
    "audio.webp": (b"RIFF\0\0\0\0WAVEfmt ", "not a JPEG"),
    "cut.jpg": (encoded(photo(), "JPEG")[:-300], "truncated"),
    "cut.png": (encoded(photo(), "PNG")[:-500], "truncated"),
    "cut.webp": (encoded(photo(), "WEBP")[:-100], "truncated"),
    "cut.gif": (encoded(photo(), "GIF")[:-900], "truncated"),
    "cut.bmp": (encoded(photo(), "BMP")[:-900], "truncated"),
    "head.jpg": (encoded(photo(), "JPEG")[:20], "truncated"),
    "broken.png": (encoded(photo(), "PNG").replace(b"IDAT", b"IDAX"), "truncated or damaged"),
    "bomb.png": (huge_png(60_000), "60000 x 60000 pixels; at most 120,000,000"),
    "flat.png": (huge_png(0), "truncated or damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named(tmp_path: Path, name: str) -> None:
    data, reason = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_image(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert reason in str(caught.value)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg: cannot be opened: No such file"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="cannot be opened: Is a directory"):
        read_image(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_hostile_bytes_read_or_raise_data_error(tmp_path: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM"]))
    content = bytearray(encoded(photo(9, 12), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "x").write_bytes(content)
    try:
        got = read_image(tmp_path / "x")
    except DataError:
        return
    assert got.dtype == np.uint8
    assert got.ndim == 3


def test_threads_agree_with_one(tmp_path: Path) -> None:
    paths = []
    for index in range(24):
        paths.append(tmp_path / f"{index}.jpg")
        photo(60 + index, 80).save(paths[-1])
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(read_image, paths))
    for path, pixels in zip(paths, together, strict=True):
        np.testing.assert_array_equal(pixels, read_image(path))


# JPEG: the end of the file, and many scans


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 95, "subsampling": 0}])
@pytest.mark.parametrize("end", [b"", b"\xff"], ids=["cut", "half"])
def test_a_jpeg_without_its_end_mark_is_read_with_a_warning(
    tmp_path: Path, options: dict[str, Any], end: bytes
) -> None:
    whole, path = encoded(photo(33, 41), "JPEG", **options), tmp_path / "a.jpg"
    path.write_bytes(whole)
    expected = read_image(path)
    path.write_bytes(whole.removesuffix(b"\xff\xd9") + end)
    with pytest.warns(LaconicWarning, match=r"a\.jpg: has no end mark; its pixels are all there"):
        np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_that_lacks_pixels_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3)).astype(np.uint8))
    whole, path = encoded(noise, "JPEG", **options), tmp_path / "a.jpg"
    scans = [match.start() for match in re.finditer(b"\xff\xda", whole)]
    for end in (*range(len(whole) - 40, len(whole) - 2), *scans[1:]):  # a progressive one also between two scans
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match="truncated"):
            read_image(path)


def progressive(scans: int, behind: bytes = b"") -> bytes:
    """A small progressive JPEG whose last scan comes again and again."""
    whole = encoded(photo(16, 16), "JPEG", progressive=True)
    last = whole[whole.rfind(b"\xff\xda") : -2]
    return whole[:-2] + last * (scans - whole.count(b"\xff\xda")) + whole[-2:] + behind


def test_scans_are_counted_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    for allowed in (progressive(jpeg.MAX_SCANS), progressive(10, behind=b"\xff\xda" * 100)):
        path.write_bytes(allowed)
        read_image(path)
    path.write_bytes(progressive(jpeg.MAX_SCANS + 1))
    with pytest.raises(DataError, match=r"a\.jpg: more than 64 scans"):
        read_image(path)
    monkeypatch.setattr(jpeg, "MAX_SCANNED", 9 * 16 * 16)
    path.write_bytes(progressive(10))
    with pytest.raises(DataError, match="more than 9 scans"):
        read_image(path)


def test_one_scan_for_each_component_is_counted_too(tmp_path: Path) -> None:
    """A sequential JPEG whose scans hold one component each makes the decoder go over all of them, too."""
    whole = encoded(photo(16, 16).convert("L"), "JPEG")
    frame, scan = whole.index(b"\xff\xc0"), whole.index(b"\xff\xda")
    three = b"\xff\xc0\0\x11\x08\0\x10\0\x10\3" + b"".join(bytes([c, 0x11, 0]) for c in (1, 2, 3))
    head = whole[:frame] + three + whole[frame + 13 : scan]
    each = [whole[scan:-2].replace(b"\xff\xda\0\x08\1\1", b"\xff\xda\0\x08\1" + bytes([c])) for c in (1, 2, 3)]
    path = tmp_path / "a.jpg"
    path.write_bytes(head + b"".join(each) + b"\xff\xd9")
    assert read_image(path).shape == (16, 16, 3)
    path.write_bytes(head + b"".join(each * 30) + b"\xff\xd9")
    with pytest.raises(DataError, match="more than 64 scans"):
        read_image(path)


# Memory


def test_large_images_are_converted_and_resized_in_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (61, 47, 4)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, image in {
        "rgba": Image.fromarray(pixels),
        "rgb": Image.fromarray(pixels[..., :3]),
        "grey": Image.fromarray(pixels[..., 0].astype(np.uint16) * 257),
        "palette": Image.fromarray(pixels[..., :3]).convert("P"),
    }.items():
        image.save(tmp_path / f"{name}.png", exif=exif)
        at_once = read_image(tmp_path / f"{name}.png")
        small = resize(at_once, 20)
        with monkeypatch.context() as patch:
            patch.setattr(images, "BAND", 47 * 7)
            np.testing.assert_array_equal(read_image(tmp_path / f"{name}.png"), at_once)
            np.testing.assert_array_equal(resize(at_once, 20), small)


def test_reading_takes_little_more_than_the_pixels(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2000, 2000), np.uint16)).save(tmp_path / "a.png")
    tracemalloc.start()
    read_image(tmp_path / "a.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 2000 * 2000 + 20 * images.BAND


def test_memory_is_bounded_by_bytes_and_large_images_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(40, 60).save(tmp_path / "a.png")
    photo(40, 60).save(tmp_path / "a.jpg", progressive=True, subsampling=0)
    monkeypatch.setattr(images, "LARGE", 0)
    assert read_image(tmp_path / "a.png").shape == (40, 60, 3)
    assert not images._one_large.locked()
    monkeypatch.setattr(images, "MAX_MEMORY", 40 * 60 * 7)
    assert read_image(tmp_path / "a.png").shape == (40, 60, 3)
    with pytest.raises(DataError, match=r"a\.jpg: 60 x 40 pixels take 31,200 bytes to decode; at most 16,800"):
        read_image(tmp_path / "a.jpg")  # its coefficients are held, too
    monkeypatch.setattr(images, "MAX_MEMORY", 40 * 60 * 7 - 1)
    with pytest.raises(DataError, match="16,800 bytes"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("error", [MemoryError(), OSError("out of memory when reading image file")])
def test_a_sound_photo_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def full(*_: object) -> None:
        raise error

    photo().save(tmp_path / "a.png")
    monkeypatch.setattr(images, "_decode", full)
    with pytest.raises(DataError, match=r"a\.png: too little memory is free") as caught:
        read_image(tmp_path / "a.png")
    assert "damaged" not in str(caught.value)


def test_names_in_errors_are_one_printable_line(tmp_path: Path) -> None:
    for name in (b"a\nb\x1b[31m.jpg", b"caf\xe9.jpg"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.write_bytes(b"nothing")
        with pytest.raises(DataError) as caught:
            read_image(path)
        assert str(caught.value).isprintable()
        str(caught.value).encode()
    with pytest.raises(DataError, match=r"x\\x00y: not the name of a file"):
        read_image("x\0y")
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match="a pipe; give an image file"):
        read_image(tmp_path / "pipe.jpg")


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 3), 0.5, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="floating-point"):
        read_image(tmp_path / "a.tif")


def test_resize_is_antialiased() -> None:
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = resize(np.repeat(checks[..., None], 3, axis=2), 8)
    assert small.shape == (8, 8, 3)
    assert np.abs(small.astype(int) - 127).max() <= 6  # plain bilinear would give black and white


def test_preprocess_is_the_tf_slim_convention() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0], image[..., 2] = 255, 51
    got = preprocess(image, 4)
    assert got.shape == (3, 4, 4)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_allclose(got[:, 1, 2], [1.0, -1.0, -0.6], atol=1e-7)


def test_photos(shared: Path) -> None:
    for path in sorted((shared / "data/coco_sample/val2014").glob("*.jpg")):
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(read_image(path), expected)
