"""Every good image comes out as upright RGB, every bad one as a DataError with its name."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from laconic.data.images import exif_orientation, preprocess, read_image, resize
from laconic.errors import DataError

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


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "GIF", "JPEG"])
def test_formats(tmp_path: Path, kind: str) -> None:
    options: dict[str, object] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    path = tmp_path / "photo.dat"  # the content decides, not the name
    path.write_bytes(encoded(photo(), kind, **options))
    got = read_image(path)
    assert got.shape == (48, 64, 3)
    assert got.dtype == np.uint8
    tolerance = {"JPEG": 12, "GIF": 30}.get(kind, 0)
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
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
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
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP"]))
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
