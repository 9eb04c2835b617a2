"""Feature cache: never stale, resumable at any image, equal to a direct evaluation, clear failures."""

import copy
import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from laconic.data import Example, load, resize
from laconic.data.regions import Regions, open_regions, write_regions
from laconic.errors import ConfigError, TrainingError
from laconic.models.encoders import build_encoder, normalize
from laconic.models.layers import Conv
from laconic.spec.encoders import normalization_of
from laconic.spec.model import EncoderConfig
from laconic.spec.pixels import Normalization
from laconic.training import features, image_cache
from laconic.training.features import PixelCache, RegionSource, cache_features, cache_key, cache_pixels

CONFIG = EncoderConfig("mobilenet_v1_025", size=32, stride=16)
COUNT = 11


@pytest.fixture(scope="module")
def encoder():
    """Random weights under which images matter."""
    torch.manual_seed(0)
    encoder = build_encoder(CONFIG)
    with torch.no_grad():
        for conv in encoder.modules():
            if isinstance(conv, Conv):
                conv.weight.mul_(conv.groups**0.5)
                conv.bias.zero_()
    return encoder


def examples(seed: int = 0) -> list[Example]:
    rng = np.random.default_rng(seed)
    return [Example(i, rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for i in range(COUNT)]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(image_cache, "BATCH", 2)
    monkeypatch.setattr(image_cache, "FLUSH_EVERY", 4)


@pytest.fixture
def files(tmp_path) -> list[Example]:
    """Three images in files, the second of them broken."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, example in enumerate(examples()[:3]):
        Image.fromarray(example.pixels()).save(folder / f"{i}.png")
    (folder / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    return [Example(i, folder / f"{i}.png") for i in range(3)]


def test_both_views_equal_the_encoder_to_half_precision(encoder, tmp_path):
    cache = cache_features(encoder, CONFIG, examples(), tmp_path, mirror=True)
    assert (cache.grid.shape, cache.grid.dtype) == ((2, COUNT, 4, 128), np.float16)
    assert isinstance(cache.grid, np.memmap)
    assert cache.valid.all()
    assert len(cache) == COUNT
    pixels = np.stack([example.pixels() for example in examples()])
    rows = np.array([7, 0, 7, 3])
    mirrored = np.array([True, False, False, True])
    batch = cache.batch(rows, mirrored)
    shown = np.stack([pixels[r][:, ::-1] if m else pixels[r] for r, m in zip(rows, mirrored, strict=True)])
    with torch.inference_mode():
        expected = encoder.eval()(normalize(torch.from_numpy(shown), Normalization()))
    for found, wanted in ((batch.grid, expected.grid), (batch.pooled, expected.pooled)):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    assert not torch.equal(batch.grid[0], batch.grid[2])
    torch.testing.assert_close(cache.batch(rows).grid[0], batch.grid[2])


class Stop(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("after", [2, 4, 8, 10])
def test_a_stopped_extraction_goes_on_and_equals_one_pass(encoder, after, tmp_path):
    whole = cache_features(encoder, CONFIG, examples(), tmp_path / "whole", mirror=True)

    def stop(done: int, of: int) -> None:
        assert of == COUNT
        if done == after:
            raise Stop

    with pytest.raises(Stop):
        cache_features(encoder, CONFIG, examples(), tmp_path / "parts", mirror=True, progress=stop)
    seen: list[int] = []
    parts = cache_features(
        encoder,
        CONFIG,
        examples(),
        tmp_path / "parts",
        mirror=True,
        progress=lambda done, _: seen.append(done),
    )
    assert seen[0] == after // 4 * 4 + 2  # from the last resume point
    assert seen[-1] == COUNT
    for name in ("grid", "pooled", "valid"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_two_runs_that_begin_together_share_one_extraction(encoder, tmp_path, monkeypatch):
    fill, passes = image_cache._fill, []
    monkeypatch.setattr(image_cache, "_fill", lambda *args: (passes.append(1), fill(*args)))

    def open_cache(_: int) -> np.ndarray:
        return np.array(cache_features(encoder, CONFIG, examples(), tmp_path).grid)

    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(open_cache, range(3))
    assert passes == [1]
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_a_finished_cache_computes_nothing(encoder, tmp_path, monkeypatch):
    first = cache_features(encoder, CONFIG, examples(), tmp_path)
    monkeypatch.setattr(image_cache, "_fill", None)
    again = cache_features(encoder, CONFIG, examples(), tmp_path)
    np.testing.assert_array_equal(again.grid, first.grid)


def test_the_sign_of_a_zero_does_not_matter(encoder, files):
    """Packed files have none, so that a run which goes on from one finds the features of the run before it."""
    keys, encoder = set(), copy.deepcopy(encoder)
    with torch.no_grad():
        for zero in (0.0, -0.0):
            encoder.block3.pointwise.weight[0, 0, 0, 0] = zero
            keys.add(cache_key(encoder, CONFIG, files, False))
    assert len(keys) == 1


def test_key_changes_with_everything_that_matters(encoder, files):
    keys = [cache_key(encoder, CONFIG, files, False), cache_key(encoder, CONFIG, files, True)]
    for change in ({"size": 64}, {"stride": 32}, {"norm": True}, {"name": "mobilenet_v1"}):
        keys.append(cache_key(encoder, replace(CONFIG, **change), files, False))
    keys += [cache_key(encoder, CONFIG, some, False) for some in (files[:2], files[::-1])]
    with torch.no_grad():
        encoder.block3.pointwise.weight[0, 0, 0, 0] += 1e-6
        keys.append(cache_key(encoder, CONFIG, files, False))
        encoder.block3.pointwise.weight[0, 0, 0, 0] -= 1e-6
    path = files[0].image
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    keys.append(cache_key(encoder, CONFIG, files, False))
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    keys.append(cache_key(encoder, CONFIG, files, False))
    path.unlink()
    keys.append(cache_key(encoder, CONFIG, files, False))
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 16 for key in keys)


def test_regions_of_a_detector_are_kept_with_their_boxes(tmp_path):
    config = EncoderConfig("picodet_s_416", 64, regions=5)
    detector = build_encoder(config).eval()
    cache = cache_features(detector, config, examples()[:3], tmp_path, mirror=True)
    found = cache.batch(np.array([2, 0]), np.array([False, True]))
    pixels = torch.from_numpy(np.stack([resize(examples()[i].pixels(), 64) for i in (2, 0)]))
    images = normalize(pixels, normalization_of(config))
    with torch.inference_mode():
        expected = detector(torch.stack([images[0], images[1].flip(2)]))
    for part in ("grid", "pooled", "boxes"):
        torch.testing.assert_close(getattr(found, part), getattr(expected, part), rtol=2e-3, atol=1e-3)
    assert cache.boxes.dtype == np.float32
    keys = {cache_key(detector, replace(config, regions=n), examples()[:3], True) for n in (5, 6)}
    assert len(keys) == 2


def test_images_without_a_file_are_told_apart_by_what_they_show(encoder):
    """Generated scenes of every split, seed and size are numbered alike."""
    sets = [
        examples(),
        examples(seed=1),
        load("scenes", split="train", count=5),
        load("scenes", split="val", count=5),
        load("scenes", split="train", count=5, seed=1),
        load("scenes", split="train", count=5, size=64),
    ]
    keys = {cache_key(encoder, CONFIG, some, False) for some in sets}
    assert len(keys) == len(sets)
    assert cache_key(encoder, CONFIG, examples(), False) in keys


def test_broken_images_are_listed_and_marked(encoder, files, tmp_path):
    for _ in range(2):  # computed, then read back
        cache = cache_features(encoder, CONFIG, files, tmp_path / "cache")
        assert cache.valid.tolist() == [True, False, True]
        (skipped,) = cache.skipped
        assert skipped.name.endswith("1.png")
        assert "damaged" in skipped.reason
        assert not cache.grid[0, 1].any()
        assert cache.grid[0, 2].any()


def test_a_set_of_broken_images_only(encoder, files, tmp_path):
    cache = cache_features(encoder, CONFIG, files[1:2], tmp_path / "cache")
    assert not cache.valid.any()
    assert len(cache.skipped) == 1


@pytest.mark.parametrize("full", [0, 1])
def test_a_disk_that_is_too_small_is_found_so_before_anything_is_computed(encoder, tmp_path, monkeypatch, full):
    """Another training may take the room at any time: it is asked for, and not only looked at."""
    reserve, calls = os.posix_fallocate, []

    def fallocate(file: int, start: int, size: int) -> None:
        calls.append(size)
        if len(calls) > full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reserve(file, start, size)

    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    with pytest.raises(TrainingError, match=r"the cache needs 0\.0 GB \(No space left on device; .* free\); .*--cache"):
        cache_features(encoder, CONFIG, examples(), tmp_path)
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize("how", ["reserved", "no such call", "not on this file system"])
def test_the_room_of_a_cache_is_taken_before_it_is_filled(encoder, tmp_path, monkeypatch, how):
    if how == "no such call":
        monkeypatch.delattr(os, "posix_fallocate")
    elif how != "reserved":
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    many = [Example(i, np.full((32, 32, 3), i, np.uint8)) for i in range(64)]

    def stop(done: int, of: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        cache_pixels(many, 32, tmp_path, stop)
    (pixels,) = tmp_path.rglob("pixels.npy")
    assert pixels.stat().st_blocks * 512 >= 64 * 32 * 32 * 3
    assert cache_pixels(many, 32, tmp_path).pixels[:, 0, 0, 0].tolist() == list(range(64))


def refuse(*_: int) -> None:
    raise OSError(errno.EOPNOTSUPP, "not supported")


def test_a_complete_cache_is_used_without_being_written_to(encoder, tmp_path, monkeypatch):
    """That of another user, or on a disk that is read-only."""
    first = cache_features(encoder, CONFIG, examples(), tmp_path)

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(image_cache, "FileLock", denied)
    monkeypatch.setattr(Path, "mkdir", denied)
    again = cache_features(encoder, CONFIG, examples(), tmp_path)
    np.testing.assert_array_equal(again.grid, first.grid)
    with pytest.raises(TrainingError, match=r"cannot be written .*Permission denied"):
        cache_features(encoder, CONFIG, examples(seed=1), tmp_path)


def test_large_images_are_read_fewer_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(image_cache, "BATCH", 8)
    seen = []
    for size in (224, 448, 2048):
        some = [Example(i, np.full((2, 2, 3), i, np.uint8)) for i in range(9 if size < 2048 else 2)]
        cache_pixels(some, size, tmp_path, lambda done, of, size=size: seen.append((size, done)))
    assert [done for size, done in seen if size == 224] == [8, 9, 9]
    assert [done for size, done in seen if size == 448] == [2, 4, 6, 8, 9, 9]
    assert [done for size, done in seen if size == 2048] == [1, 2, 2]


def test_a_folder_that_cannot_be_written(encoder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="the cache cannot be written"):
        cache_features(encoder, CONFIG, examples(), tmp_path / "file")


@pytest.mark.parametrize("state", ["", "{", "[]", "{}", '{"done": "x", "skipped": []}', '{"done": 3, "skipped": [1]}'])
def test_a_damaged_state_is_named(encoder, state, tmp_path):
    cache_features(encoder, CONFIG, examples(), tmp_path)
    (path,) = tmp_path.rglob("state.json")
    path.write_text(state)
    with pytest.raises(TrainingError, match=r"damaged cache.*delete the folder"):
        cache_features(encoder, CONFIG, examples(), tmp_path)


@pytest.mark.parametrize("done", [4, COUNT])
@pytest.mark.parametrize("data", [b"", b"garbage", None])
def test_damaged_arrays_are_named(encoder, done, data, tmp_path):
    """A file cut short, too, which a writable memory map would fill up with zeros."""
    cache_features(encoder, CONFIG, examples(), tmp_path)
    (state,) = tmp_path.rglob("state.json")
    state.write_text(json.dumps({"done": done, "skipped": []}))
    array = state.with_name("grid.npy")
    array.write_bytes(array.read_bytes()[:-500] if data is None else data)
    with pytest.raises(TrainingError, match=r"damaged cache.*delete the folder"):
        cache_features(encoder, CONFIG, examples(), tmp_path)


def test_shapes_are_what_the_encoder_gives(tmp_path):
    """Sizes that no stride divides, too."""
    for size, stride in ((50, 16), (33, 32), (64, 16)):
        config = EncoderConfig("mobilenet_v1_025", size, stride)
        encoder = build_encoder(config)
        cache = cache_features(encoder, config, examples()[:2], tmp_path)
        assert cache.grid.shape[2] == (-(-size // stride)) ** 2
        assert cache.valid.all()


def test_region_source_gives_what_is_there_and_lists_what_is_not(tmp_path):
    rng = np.random.default_rng(0)
    made = {i: Regions(rng.standard_normal((i + 1, 6)).astype(np.float16)) for i in range(COUNT) if i != 3}
    write_regions(tmp_path / "x", made.items())
    source = RegionSource.of(examples(), open_regions(tmp_path / "x", 6))
    assert source.valid.tolist() == [i != 3 for i in range(COUNT)]
    assert [skipped.name for skipped in source.skipped] == ["3"]
    batch = source.batch(np.array([7, 0]))
    assert batch.grid.shape == (2, 8, 6)
    assert batch.valid.sum(1).tolist() == [8, 1]
    np.testing.assert_array_equal(batch.grid[1, 0], made[0].features[0].astype(np.float32))
    with pytest.raises(ConfigError, match=r"training\.mirror = false"):
        source.batch(np.array([7, 0]), np.array([True, False]))


def test_damaged_region_features_are_left_out_before_the_training(tmp_path):
    (tmp_path / "cocobu_att").mkdir()
    for i in range(COUNT):
        np.save(tmp_path / "cocobu_att" / f"{i}.npy", np.zeros((2, 5 if i == 4 else 6), np.float32))
    source = RegionSource.of(examples(), open_regions(tmp_path, 6))
    assert source.valid.tolist() == [i != 4 for i in range(COUNT)]
    assert [skipped.name for skipped in source.skipped] == ["4"]
    assert "4.npy: an array of shape (2, 5)" in source.skipped[0].reason


def test_keys_of_caches_that_exist_already_stay_as_they_are(encoder, monkeypatch):
    """A new option of encoders must not make every cache stale."""
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    monkeypatch.setattr(features, "weights_digest", lambda encoder: "weights")
    assert cache_key(encoder, CONFIG, examples()[:1], mirror=False) == "3f3d98804a6c8f11"


@pytest.mark.parametrize("on_disk", [False, True])
def test_pixels_are_read_resized_mirrored_and_listed_when_broken(on_disk, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    some = [Example(0, image), Example(1, tmp_path / "broken.jpg"), Example(2, np.full((20, 10, 3), 77, np.uint8))]
    for _ in range(2):  # computed, then read back
        cache = cache_pixels(some, 8, tmp_path / "cache") if on_disk else PixelCache.read(some, 8)
        assert isinstance(cache.pixels, np.memmap) == on_disk
        assert cache.valid.tolist() == [True, False, True]
        assert [skipped.name for skipped in cache.skipped] == [str(tmp_path / "broken.jpg")]
        rows = np.array([2, 0, 0])
        pixels = cache.batch(rows, np.array([False, True, False]))
        assert pixels.dtype == torch.uint8
        assert (pixels[0] == 77).all()
        np.testing.assert_array_equal(pixels[1].numpy(), image[:, ::-1])
        np.testing.assert_array_equal(pixels[2].numpy(), image)
        np.testing.assert_array_equal(cache.batch(rows)[1].numpy(), image)  # the cache is untouched


def test_reading_pixels_stops_goes_on_and_is_done_once(tmp_path, monkeypatch):
    whole = PixelCache.read(examples(), 16).pixels
    done: list[int] = []

    def stop(so_far: int, of: int) -> None:
        done.append(so_far)
        if done == [2, 4, 6]:
            raise Stop

    with pytest.raises(Stop):
        cache_pixels(examples(), 16, tmp_path, stop)
    np.testing.assert_array_equal(cache_pixels(examples(), 16, tmp_path, stop).pixels, whole)
    assert done == [2, 4, 6, 6, 8, 10, COUNT, COUNT]  # from the last resume point
    monkeypatch.setattr(image_cache, "_fill", None)
    np.testing.assert_array_equal(cache_pixels(examples(), 16, tmp_path).pixels, whole)


def test_pixels_of_another_size_or_of_other_images_are_another_cache(tmp_path):
    for some, size in ((examples(), 16), (examples(), 8), (examples(seed=1), 16)):
        np.testing.assert_array_equal(cache_pixels(some, size, tmp_path).pixels, PixelCache.read(some, size).pixels)


def test_an_image_skipped_for_want_of_memory_is_read_at_the_next_try(encoder, files, tmp_path, monkeypatch):
    Image.fromarray(examples()[1].pixels()).save(files[1].image)
    read = Example.pixels

    def without_memory(example, min_side=None):
        if example.id == 1:
            raise MemoryError
        return read(example, min_side)

    with monkeypatch.context() as patch:
        patch.setattr(Example, "pixels", without_memory)
        with pytest.raises(TrainingError, match=r"1\.png: too little memory is free.*run it again"):
            cache_features(encoder, CONFIG, files, tmp_path / "cache")
    cache = cache_features(encoder, CONFIG, files, tmp_path / "cache")
    assert cache.valid.all()
    assert not cache.skipped
