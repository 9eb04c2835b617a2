"""Region features: folder and file give back what was written; whatever lies is refused, with its name."""

import io
import json
import time
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from laconic import store
from laconic.data import region_arrays
from laconic.data.regions import (
    BOXES,
    FEATURES,
    RegionFile,
    RegionFolder,
    Regions,
    batches,
    boxes_beside,
    open_regions,
    read_regions,
    region_readers,
    write_regions,
)
from laconic.errors import DataError, FormatError, LaconicError

WIDTH = 6


def make(count: int, seed: int = 0, boxes: bool = True) -> Regions:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((2, count, 2)), axis=0)
    found = np.concatenate([corners[0], corners[1]], -1).astype(np.float32)
    return Regions(rng.standard_normal((count, WIDTH)).astype(np.float16), found if boxes else None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in (FEATURES, BOXES):
        (tmp_path / "bu" / part).mkdir(parents=True)
    for image, count in ((12, 3), (7, 1), (100, 5)):
        np.save(tmp_path / "bu" / FEATURES / f"{image}.npy", make(count, image).features.astype(np.float32))
        np.save(tmp_path / "bu" / BOXES / f"{image}.npy", make(count, image).boxes.astype(np.float64))
    return tmp_path / "bu"


def same(found: Regions, expected: Regions) -> None:
    np.testing.assert_array_equal(found.features, expected.features)
    assert (found.boxes is None) == (expected.boxes is None)
    if expected.boxes is not None:
        assert found.boxes.dtype == np.float32
        np.testing.assert_array_equal(found.boxes, expected.boxes)


def test_readers_of_a_file_a_folder_and_a_set(folder, tmp_path):
    regions = open_regions(folder, WIDTH)
    write_regions(tmp_path / "all.safetensors", ((image, regions[image]) for image in regions.ids()))
    for path in (folder, folder / FEATURES, tmp_path / "all.safetensors"):
        readers = list(region_readers(path, WIDTH))
        assert [Path(name).stem for name, _ in readers] == ["100", "12", "7"]
        for (_, read), count in zip(readers, (5, 3, 1), strict=True):
            assert read().features.shape == (count, WIDTH)
            assert read().boxes.shape == (count, 4)
    ((name, read),) = region_readers(folder / FEATURES / "12.npy", WIDTH)
    assert name == str(folder / FEATURES / "12.npy")
    same(read(), regions[12])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: holds no region features"):
        list(region_readers(tmp_path / "empty", WIDTH))


def test_a_look_finds_wrong_headers_and_boxes(folder):
    regions = open_regions(folder, WIDTH)
    for image in regions.ids():
        regions.check(image)
    np.save(folder / BOXES / "12.npy", np.zeros((2, 4)))
    with pytest.raises(DataError, match=r"12\.npy: boxes of shape \(2, 4\) for 3 regions"):
        regions.check(12)
    short = folder / FEATURES / "100.npy"
    short.write_bytes(short.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"100\.npy: truncated or damaged \(its end is missing\)"):
        regions.check(100)
    np.save(folder / FEATURES / "7.npy", np.zeros((1, WIDTH + 1)))
    with pytest.raises(DataError, match=r"7\.npy: an array of shape"):
        regions.check(7)


def test_a_look_finds_wrong_boxes_in_a_set(folder, tmp_path):
    regions, path = open_regions(folder, WIDTH), tmp_path / "all.regions"
    write_regions(path, ((image, regions[image]) for image in regions.ids()))
    content = path.read_bytes()
    path.write_bytes(content[:-16] + np.full(4, 9, "<f4").tobytes())  # the last box, of image 7
    packed = open_regions(path, WIDTH)
    packed.check(12)
    with pytest.raises(DataError, match=r"image 7: boxes are not x1"):
        packed.check(7)
    with pytest.raises(DataError, match="no image 8 in it"):
        packed.check(8)


def test_boxes_are_needed_left_out_or_taken_as_they_are(folder, tmp_path):
    bare = tmp_path / "bare"
    write_regions(bare, [(7, Regions(np.zeros((1, WIDTH), np.float32)))])
    whole = RegionFolder(folder, WIDTH)
    write_regions(tmp_path / "whole", ((image, whole[image]) for image in whole.ids()))
    (folder / BOXES / "7.npy").unlink()
    needed = open_regions(folder, WIDTH, boxes=True)
    assert needed[12].boxes is not None
    for look in (needed.check, needed.__getitem__):
        with pytest.raises(DataError, match=r"7\.npy: has no boxes; give cocobu_box_relative"):
            look(7)
    with pytest.raises(DataError, match="bare: has no boxes"):
        open_regions(bare, WIDTH, boxes=True)
    np.save(folder / BOXES / "100.npy", np.zeros((9, 4)))  # nobody looks
    for path in (folder, tmp_path / "whole", bare):
        regions = open_regions(path, WIDTH, boxes=False)
        for image in regions.ids():
            regions.check(image)
            assert regions[image].boxes is None
    assert open_regions(folder, WIDTH)[12].boxes is not None
    assert open_regions(folder, WIDTH)[7].boxes is None


def test_a_folder_and_the_file_made_of_it_are_alike(folder, tmp_path):
    regions = open_regions(folder, WIDTH)
    assert isinstance(regions, RegionFolder)
    assert list(regions.ids()) == ["100", "12", "7"]
    path = tmp_path / "all.regions"
    size = write_regions(path, ((image, regions[image]) for image in regions.ids()))
    assert size == path.stat().st_size
    packed = open_regions(path, WIDTH)
    assert isinstance(packed, RegionFile)
    assert list(packed.ids()) == ["100", "12", "7"]
    for both in (regions, packed):
        for image, count in ((12, 3), ("7", 1), (100, 5)):
            assert image in both
            same(both[image], make(count, int(image)))
        for unknown in (13, "../12", "a\0b", ""):
            assert unknown not in both
            with pytest.raises(DataError, match=r"no file|no image"):
                both[unknown]
    assert packed[12].features.dtype == np.float16
    assert not packed[12].features.flags.writeable


@settings(max_examples=30)
@given(st.lists(st.tuples(st.text("ab☃/ ", max_size=5), st.integers(1, 9)), min_size=1, unique_by=lambda r: r[0]))
def test_any_ids_and_any_numbers_of_regions(tmp_path_factory, images):
    path = tmp_path_factory.mktemp("file") / "x"
    made = {image: make(count, row, boxes=False) for row, (image, count) in enumerate(images)}
    write_regions(path, made.items())
    packed = RegionFile(path, WIDTH)
    assert list(packed.ids()) == list(made)
    for image, expected in made.items():
        same(packed[image], expected)


def test_the_file_is_legal_safetensors(folder, tmp_path):
    regions = RegionFolder(folder, WIDTH)
    write_regions(tmp_path / "x", ((image, regions[image]) for image in regions.ids()))
    with safe_open(tmp_path / "x", framework="np") as file:
        assert file.get_tensor("counts").tolist() == [5, 3, 1]
        np.testing.assert_array_equal(file.get_tensor("features")[5:8], regions[12].features)
        np.testing.assert_array_equal(file.get_tensor("boxes")[8:], regions[7].boxes)
        assert file.get_tensor("ids").tobytes() == b"100\n12\n7"


def test_boxes_are_optional_and_found_beside_their_features(folder):
    path = folder / FEATURES / "12.npy"
    assert boxes_beside(path) == folder / BOXES / "12.npy"
    assert boxes_beside(folder / "12.npy") is None
    (folder / BOXES / "12.npy").unlink()
    assert boxes_beside(path) is None
    same(RegionFolder(folder, WIDTH)[12], Regions(make(3, 12).features))


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((3, 5)), r"shape \(3, 5\).*float \(n, 6\)"),
        (np.zeros(WIDTH), r"shape \(6,\)"),
        (np.zeros((0, WIDTH)), r"1 to 1024 regions"),
        (np.zeros((1025, WIDTH), np.float16), r"1 to 1024 regions"),
        (np.zeros((3, WIDTH), np.int32), "array of int32"),
        (np.zeros((3, WIDTH), np.longdouble), "array of float128"),
        (np.zeros((3, WIDTH), "f4,f4"), "array of"),
        (np.array([[{}] * WIDTH]), "array of object"),
        (np.full((3, WIDTH), np.nan), "not finite"),
        (np.full((3, WIDTH), 1e300), "not finite"),
        (np.full((3, WIDTH), 1e5), "beyond float16"),
    ],
    ids=["width", "vector", "none", "many", "int", "longdouble", "struct", "pickle", "nan", "overflow", "large"],
)
def test_arrays_that_are_no_regions(array, says, tmp_path):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=rf"x\.npy: .*{says}"):
        read_regions(tmp_path / "x.npy", WIDTH)


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00" + bytes(99),
        b"PK\x03\x04" + bytes(99),
        b"\x80\x04\x95" + bytes(99),
        header("(3, 6)"),
        header("(3, 6)") + bytes(71),
        header("(1024, 10**9)"),
        header("(-3, 6)"),
        header("(True, 6)"),
        header("(" * 999),
        header("(4611686018427387904, 6)"),
        header("'ab'"),
    ],
    ids=[
        "empty", "magic", "version", "zip", "pickle", "no data", "short", "wide", "negative", "bool", "nested", "huge",
        "text",
    ],
)  # fmt: skip
def test_files_that_lie_are_refused_quickly_and_cheaply(data, tmp_path):
    (tmp_path / "x.npy").write_bytes(data)
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(DataError, match=r"x\.npy: "):
        read_regions(tmp_path / "x.npy", WIDTH)
    assert time.perf_counter() - started < 2
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.npy"):
        with pytest.raises(DataError, match="no such file"):
            read_regions(path, WIDTH)
    with pytest.raises(DataError, match="no folder cocobu_att"):
        open_regions(tmp_path, WIDTH)
    with pytest.raises(FormatError, match="absent"):
        open_regions(tmp_path / "absent", WIDTH)


# .npz files


def test_npz_files_alone_or_beside_npy(folder, tmp_path):
    np.savez_compressed(folder / FEATURES / "3.npz", feat=make(4, 3).features, other=np.zeros(9))
    np.savez(folder / FEATURES / "7.npz", feat=np.zeros((9, WIDTH), np.float32))  # the .npy file is read
    np.save(folder / BOXES / "3.npy", make(4, 3).boxes)
    regions = open_regions(folder, WIDTH)
    assert list(regions.ids()) == ["100", "12", "3", "7"]
    assert 3 in regions
    regions.check(3)
    same(regions[3], make(4, 3))
    same(regions[7], make(1, 7))
    names = [Path(name).name for name, _ in region_readers(folder, WIDTH)]
    assert names == ["100.npy", "12.npy", "3.npz", "7.npy"]
    alone = tmp_path / "alone" / FEATURES
    alone.mkdir(parents=True)
    (folder / FEATURES / "3.npz").rename(alone / "3.npz")
    assert open_regions(tmp_path / "alone", WIDTH)[3].features.shape == (4, WIDTH)


def zipped(member: bytes, name: str = "feat.npy", count: int = 1) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")
        for _ in range(count):
            archive.writestr(name, member)
    return buffer.getvalue()


LONG = b"\x93NUMPY\x02\x00" + (30 << 20).to_bytes(4, "little") + b"{" + b" " * (30 << 20)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "damaged"),
        (b"PK\3\4" + bytes(99), "damaged"),
        (zipped(header("(3, 6)") + bytes(72), "other.npy"), "no array 'feat' in it, only other"),
        (zipped(header("(3, 6)") + bytes(71)), "its end is missing"),
        (zipped(header("(3, 6)") + bytes(72))[:-30], "damaged"),
        (zipped(header("(1000, 6)") + bytes(72)), "its end is missing"),
        (zipped(header("(3, 7)") + bytes(84)), r"shape \(3, 7\)"),
        (zipped(LONG), "a header of 31,457,280 bytes"),
        (zipped(b"", count=65), "more than 64 arrays"),
        (bytes(2_000_000), "more than the regions of one image"),
    ],
    ids=["empty", "no zip", "other", "short", "cut", "lie", "width", "long header", "entries", "large"],
)
def test_npz_files_that_lie_are_refused_cheaply(data, says, tmp_path):
    (tmp_path / "x.npz").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"x\.npz: .*{says}"):
        read_regions(tmp_path / "x.npz", WIDTH)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_too_little_memory_is_not_damage(folder, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(region_arrays.npy, "read_array", full)
    with pytest.raises(DataError, match=r"12\.npy: too little memory"):
        read_regions(folder / FEATURES / "12.npy", WIDTH)


def test_batches_are_bounded_by_pairs_of_regions():
    def groups(*counts: int) -> list[list[int]]:
        found = ((count, Regions(np.zeros((count, 1), np.float32))) for count in counts)
        return [[count for count, _ in some] for some in batches(found, 3)]

    assert groups() == []
    assert groups(10, 36, 100, 10) == [[10, 36, 100], [10]]
    assert groups(1024, 1024, 10) == [[1024], [1024], [10]]
    assert groups(10, 700, 10, 10) == [[10, 700], [10, 10]]


@pytest.mark.parametrize(
    ("boxes", "says"),
    [
        (np.zeros((4, 4)), "for 3 regions"),
        (np.full((3, 4), 200.0), "divide pixels"),
        (np.array([[0.5, 0, 0.2, 1]] * 3), "x1, y1, x2, y2"),
        (np.zeros((3, 5)), r"\(n, 4\)"),
    ],
)
def test_wrong_boxes(boxes, says, folder):
    np.save(folder / BOXES / "12.npy", boxes)
    with pytest.raises(DataError, match=rf"{BOXES}/12\.npy: .*{says}"):
        RegionFolder(folder, WIDTH)[12]


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ([], "no image to write"),
        ([(1, make(2)), ("1", make(2))], "'1' is there twice"),
        ([("a\nb", make(2))], "cannot be printed"),
        ([("\x1b]0;owned\x07", make(2))], "cannot be printed"),
        ([(1, make(2)), (2, make(2, boxes=False))], "image 2: all images need boxes"),
        ([(1, make(2)), (2, Regions(np.zeros((2, 5)), make(2).boxes))], r"image 2: .*\(2, 5\)"),
        ([(1, Regions(np.full((2, WIDTH), 1e6)))], "image 1: .*float16"),
        ([(1, Regions(np.zeros((0, WIDTH))))], "image 1: "),
        ([(1, Regions(np.zeros((2, WIDTH)), np.full((2, 4), 7.0)))], "image 1: .*between 0 and 1"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(images, says, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(DataError, match=f"x: not written, .*{says}"):
        write_regions(path, iter(images))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataError, match="cannot be written"):
        write_regions(tmp_path / "absent" / "x", [(1, make(2))])


def forge(path: Path, change) -> None:
    """Writes a file of three images whose header `change` has altered."""
    write_regions(path, [(image, make(image + 1, image)) for image in range(3)])
    data = bytearray(path.read_bytes())
    head = json.loads(data[8:1032])
    change(head, data)
    data[8:1032] = json.dumps(head).encode().ljust(1024)
    path.write_bytes(data)


LIES = {
    "another kind": lambda head, data: head["__metadata__"].update(kind="model"),
    "no mark": lambda head, data: head.pop("__metadata__"),
    "entry missing": lambda head, data: head.update(extra=head.pop("boxes")),
    "another type": lambda head, data: head["features"].update(dtype="I16"),
    "another shape": lambda head, data: head["features"].update(shape=[3, 12]),
    "larger than the file": lambda head, data: head["features"].update(shape=[2**40, 6]),
    "boxes of three": lambda head, data: head["boxes"].update(shape=[8, 3]),
    "counts": lambda head, data: data.__setitem__(slice(1032 + 72, 1032 + 76), b"\xff\xff\xff\xff"),
    "the same id twice": lambda head, data: data.__setitem__(slice(len(data) - 101, None), b"0\n1\n1" + data[-96:]),
    "cut short": lambda head, data: data.__delitem__(slice(len(data) - 9, None)),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_damaged_file_is_refused_when_it_is_opened(lie, tmp_path):
    forge(tmp_path / "x", LIES[lie])
    with pytest.raises(LaconicError, match="x: "):
        RegionFile(tmp_path / "x", WIDTH)


def test_damaged_values_are_found_when_they_are_read(tmp_path):
    def spoil(head, data):
        data[1032:1034] = b"\x00\x7c"  # infinity, in the first image

    forge(tmp_path / "x", spoil)
    packed = RegionFile(tmp_path / "x", WIDTH)
    same(packed[1], make(2, 1))
    with pytest.raises(DataError, match="x: image 0: features are not finite"):
        packed[0]


def test_other_files_and_widths_are_told_apart(tmp_path):
    write_regions(tmp_path / "x", [(1, make(2))])
    with pytest.raises(DataError, match="6 wide, expected 2048"):
        RegionFile(tmp_path / "x", 2048)
    store.save({"w": np.zeros(3, np.float32)}, tmp_path / "model")
    with pytest.raises(DataError, match="model: holds no regions"):
        RegionFile(tmp_path / "model", WIDTH)
    with pytest.raises(FormatError):
        store.load(tmp_path / "x")


def test_the_published_features_of_five_photos(shared, tmp_path):
    regions = RegionFolder(shared / "data/coco_sample/bu", 2048)
    write_regions(tmp_path / "x", ((image, regions[image]) for image in regions.ids()))
    packed = RegionFile(tmp_path / "x", 2048)
    for image in regions.ids():
        exact, half = regions[image], packed[image]
        assert exact.boxes.shape == (len(exact.features), 4)
        np.testing.assert_allclose(half.features, exact.features, rtol=2**-11, atol=2**-25)
        np.testing.assert_array_equal(half.boxes, exact.boxes)
