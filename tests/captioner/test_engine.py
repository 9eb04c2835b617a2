"""The engine beside the PyTorch captioner: the same captions, whatever the threads and the company of an image."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import laconic
from laconic.captioner.engine import Engine, open_path, regions_inputs
from laconic.data.regions import Regions
from laconic.decode.search import Decoding
from laconic.errors import ConfigError, DataError, FormatError
from laconic.runtime.native_path import NativePath
from laconic.runtime.numpy_path import NumpyPath
from laconic.spec.model import EncoderConfig

CAPTIONERS = ("soft_attention", "up_down", "object_relation", "aoanet")


@pytest.fixture(scope="module", params=CAPTIONERS)
def of_photos(request: pytest.FixtureRequest, random_captioner: Callable[..., Path]) -> Path:
    return random_captioner(request.param, EncoderConfig("vgg_small", 64, 16))


@pytest.fixture(scope="module")
def pixels() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (21, 8, 8, 3), np.uint8)
    return [np.asarray(Image.fromarray(some).resize((64, 64))) for some in coarse]


@pytest.mark.parametrize("beam", [1, 3])
def test_it_says_what_the_module_says(of_photos: Path, pixels: list[np.ndarray], beam: int) -> None:
    engine, module = laconic.load(of_photos), laconic.load(of_photos, backend="torch")
    decoding = Decoding(beam=beam, max_length=8)
    said = engine.caption(pixels, decoding)
    assert said == module.caption(pixels, decoding)
    assert len(set(said)) > 3  # else the test could not fail


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_and_company_change_nothing(of_photos: Path, pixels: list[np.ndarray], threads: int) -> None:
    decoding = Decoding(beam=5, max_length=8)  # more captions in the making than one panel holds
    alone = laconic.load(of_photos, threads=1)
    together = laconic.load(of_photos, threads=threads)
    assert isinstance(together.path, NativePath)
    expected = [alone.search(image[None], decoding)[0] for image in pixels]
    assert together.search(np.stack(pixels), decoding) == expected


def test_without_the_library_numpy_says_the_same(of_photos: Path, pixels: list[np.ndarray]) -> None:
    native = laconic.load(of_photos)
    slow = Engine(native.spec, NumpyPath(native.plan))
    decoding = Decoding(beam=2, max_length=6)
    assert slow.caption(pixels[:5], decoding) == native.caption(pixels[:5], decoding)
    assert (slow.name, native.name.split(",")[0]) == ("numpy", "native")


def test_photos_of_any_size_and_files(of_photos: Path, pixels: list[np.ndarray], tmp_path: Path) -> None:
    engine = laconic.load(of_photos)
    large = np.asarray(Image.fromarray(pixels[0]).resize((150, 90)))
    Image.fromarray(large).save(tmp_path / "photo.png")
    assert engine.caption([tmp_path / "photo.png"]) == engine.caption([large])
    with pytest.raises(DataError, match=r"nothing\.jpg"):
        engine.caption([tmp_path / "nothing.jpg"])
    with pytest.raises(ConfigError, match="list"):
        engine.caption(str(tmp_path / "photo.png"))  # type: ignore[arg-type]
    assert engine.caption([]) == []


@pytest.mark.parametrize("captioner", CAPTIONERS)
def test_regions_and_their_boxes(captioner: str, random_captioner: Callable[..., Path]) -> None:
    path = random_captioner(captioner, EncoderConfig("regions", channels=12))
    rng = np.random.default_rng(0)
    images = []
    for count in (1, 7, 3):
        corners = rng.random((count, 2, 2), np.float32)
        boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
        images.append(Regions(rng.standard_normal((count, 12), np.float32), boxes))
    engine, module = laconic.load(path), laconic.load(path, backend="torch")
    assert engine.caption(images) == module.caption(images)
    if engine.needs_boxes:
        with pytest.raises(DataError, match="where regions lie"):
            engine.caption([Regions(images[0].features)])
    with pytest.raises(ConfigError, match="region features"):
        engine.caption([np.zeros((4, 4, 3), np.uint8)])


def test_boxes_of_some_images_only() -> None:
    features = np.zeros((2, 4), np.float32)
    some = [Regions(features, np.zeros((2, 4), np.float32)), Regions(features)]
    with pytest.raises(ConfigError, match="1 of 2"):
        regions_inputs(some)


def test_a_damaged_plan_is_named(of_photos: Path) -> None:
    plan = laconic.load(of_photos).plan
    plan.operations["code"][0] = 999
    with pytest.raises(FormatError, match=r"my\.plan: .*damaged"):
        open_path(plan, "my.plan")


def test_an_unknown_backend(of_photos: Path) -> None:
    with pytest.raises(ConfigError, match="engine or torch"):
        laconic.load(of_photos, backend="tpu")  # type: ignore[call-overload]


def test_no_torch_is_imported(of_photos: Path) -> None:
    code = (
        "import sys, numpy as np, laconic\n"
        f"captioner = laconic.load({str(of_photos)!r})\n"
        "print(len(captioner.caption([np.zeros((64, 64, 3), np.uint8)])))\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
