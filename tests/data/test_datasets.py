"""Every row of DATASETS keeps the same contract."""

from pathlib import Path

import numpy as np
import pytest

from laconic import data
from laconic.data import DATASETS, Dataset, Scenes, load, write_karpathy
from laconic.errors import ConfigError, DataError

SPLITS = ("train", "val")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small data sets of every format in one folder."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("flickr8k", "flickr30k", "coco"):
        write_karpathy(folder, name, {"train": Scenes(3), "val": Scenes(3, split="val")})
    lines = [f"{split}_{i:06d}.png#{n}\tcaption {n}" for split in SPLITS for i in range(3) for n in range(5)]
    (folder / "captions.txt").write_text("\n".join(lines))
    for split in SPLITS:
        (folder / f"{split}.txt").write_text("\n".join(f"{split}_{i:06d}.png" for i in range(3)))
    return folder


@pytest.mark.parametrize("name", DATASETS)
def test_contract(name: str, root: Path) -> None:
    examples: Dataset = load(name, root, "train", **({"count": 3} if name == "scenes" else {}))
    assert len(examples) >= 3
    listed = [examples[index] for index in range(len(examples))]
    assert len({example.id for example in listed}) == len(listed)
    for example in listed:
        pixels = example.pixels()
        assert pixels.dtype == np.uint8
        assert pixels.shape == (96, 96, 3)
        assert isinstance(example.captions, tuple)
        assert len(example.captions) == (0 if name == "folder" else 5)
        if example.boxes is not None:
            assert example.boxes.shape[1] == 4
            assert (example.boxes >= 0).all()
            assert (example.boxes <= 1).all()
    with pytest.raises(IndexError):
        examples[len(examples)]


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "folder"])
def test_unknown_split(name: str, root: Path) -> None:
    with pytest.raises((ConfigError, DataError), match=r"'dev'.* train.* val"):
        load(name, root, "dev")


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "scenes"])
def test_root_is_needed(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.*root"):
        load(name)


def test_unknown_names_and_options(root: Path) -> None:
    with pytest.raises(ConfigError, match="no data set 'flickr'; there are scenes, flickr8k"):
        load("flickr")
    with pytest.raises(ConfigError, match="photos = 'few'; give one of all, some, none"):
        load("flickr8k", root, photos="few")
    with pytest.raises(ConfigError, match=r"no option 'seeds'; it has count, seed, size$"):
        load("scenes", seeds=3)
    with pytest.raises(ConfigError, match=r"it has annotations, restval, tokens$"):
        load("coco", root, name="flickr8k")
    with pytest.raises(ConfigError, match=r"it has none$"):
        load("folder", root, recursive=True)


def test_exported_names() -> None:
    assert all(hasattr(data, name) for name in data.__all__)
