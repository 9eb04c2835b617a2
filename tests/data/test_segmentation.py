"""Layouts of masks, and masks that are refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from laconic.data.segmentation import load_segmentation, read_mask
from laconic.errors import ConfigError, DataError
from laconic.metrics.segmentation import VOID

MASK = np.array([[0, 1, 2], [3, 10, 11]], np.uint8)


def put(root: Path, images: str, masks: str, mask: np.ndarray, name: str = "a", mode: str | None = None) -> Path:
    for folder in (images, masks):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 2)).save(root / images / f"{name}.jpg")
    path = root / masks / f"{name}.png"
    image = Image.fromarray(mask)
    (image.convert(mode) if mode else image).save(path)
    return path


@pytest.mark.parametrize("places", [("val/images", "val/masks"), ("val", "valannot")])
def test_camvid(tmp_path: Path, places: tuple[str, str]) -> None:
    put(tmp_path, *places, MASK)
    found = load_segmentation("camvid", tmp_path, "val")
    assert len(found.images) == 1
    assert found.labels(0).tolist() == [[0, 1, 2], [3, 10, VOID]]
    assert found.layout.classes[3] == "road"


def test_ade20k_counts_from_one_and_zero_is_no_class(tmp_path: Path) -> None:
    put(tmp_path, "images/training", "annotations/training", np.array([[0, 1, 2], [150, 0, 7]], np.uint8))
    found = load_segmentation("ade20k", tmp_path, "train")
    assert found.labels(0).tolist() == [[VOID, 0, 1], [149, VOID, 6]]
    assert len(found.layout.classes) == 150


def test_a_palette_is_read_by_its_indices(tmp_path: Path) -> None:
    image = Image.fromarray(MASK).convert("P")
    image.putpalette([9] * 768)
    image.save(tmp_path / "p.png")
    assert read_mask(tmp_path / "p.png").tolist() == MASK.tolist()


def test_a_value_that_is_no_class_is_named_with_its_file(tmp_path: Path) -> None:
    put(tmp_path, "val/images", "val/masks", np.full((2, 3), 12, np.uint8))
    with pytest.raises(DataError, match=r"a\.png: holds the value 12; classes are 0 to 10, and 11 is none"):
        load_segmentation("camvid", tmp_path, "val").labels(0)


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "val/images", "val/masks", MASK.T.copy())
    with pytest.raises(DataError, match="2 x 3 pixels, but its image has 3 x 2"):
        load_segmentation("camvid", tmp_path, "val").labels(0)


def test_colours_are_no_classes(tmp_path: Path) -> None:
    path = put(tmp_path, "val/images", "val/masks", MASK, mode="RGB")
    with pytest.raises(DataError, match=r"a\.png: no PNG of one channel of 8 bits \(mode RGB\)"):
        read_mask(path)


def test_damaged_files_are_refused_with_their_name(tmp_path: Path) -> None:
    path = put(tmp_path, "val/images", "val/masks", np.random.default_rng(0).integers(0, 9, (99, 99)).astype(np.uint8))
    whole = path.read_bytes()
    for cut in (0, 10, 40, len(whole) // 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"a\.png"):
            read_mask(path)


def test_an_image_without_a_mask_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "val/images", "val/masks", MASK)
    put(tmp_path, "val/images", "val/masks", MASK, name="b").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images have no mask there, the first is to be b\.png"):
        load_segmentation("camvid", tmp_path, "val")


def test_folders_and_names_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no val/images/ and val/masks/ or val/ and valannot/"):
        load_segmentation("camvid", tmp_path, "val")
    with pytest.raises(ConfigError, match="no layout 'voc'"):
        load_segmentation("voc", tmp_path, "val")
    with pytest.raises(ConfigError, match="no split 'test'; it has train, val"):
        load_segmentation("ade20k", tmp_path, "test")
