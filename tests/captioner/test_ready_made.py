"""The captioner that comes with laconic: it is there, small, and says of photos what PyTorch says of them."""

import os
from pathlib import Path

import pytest

import laconic
from laconic import store
from laconic.captioner.ready_made import FOLDER, READY_MADE, packed_file
from laconic.errors import ConfigError

SHARED = Path(os.environ.get("LACONIC_SHARED", Path(__file__).parents[2] / "../shared"))
LARGEST = {"flickr8k_tiny": 1.0e6, "flickr8k_small": 2.1e6}  # bytes
PHOTOS = sorted((SHARED / "data/coco_sample").glob("*2014/*.jpg"))


@pytest.mark.parametrize("name", READY_MADE)
def test_the_file_is_whole_small_and_sparse(name: str) -> None:
    packed = store.load(packed_file(name))
    packed.verify()
    found = store.inspect(packed_file(name))
    assert packed_file(name).stat().st_size <= LARGEST[name]
    assert found.sparsity > 0.8
    assert packed.precision == "trained"


@pytest.mark.skipif(len(PHOTOS) < 5, reason="needs LACONIC_SHARED/data/coco_sample")
@pytest.mark.parametrize("name", READY_MADE)
def test_it_says_something_of_each_photo_and_pytorch_says_the_same(name: str) -> None:
    said = laconic.load(name).caption(PHOTOS)
    assert said == laconic.load(name, backend="torch").caption(PHOTOS)
    assert len(set(said)) >= 4
    assert all(5 <= len(caption.split()) <= 20 for caption in said)


def test_a_file_of_that_name_goes_first_and_others_stand_for_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert packed_file("flickr8k_tiny") == FOLDER / "flickr8k_tiny.safetensors"
    assert packed_file("other") == Path("other")
    (tmp_path / "flickr8k_tiny").touch()
    assert packed_file("flickr8k_tiny") == Path("flickr8k_tiny")
    (tmp_path / "flickr8k_tiny").unlink()
    monkeypatch.setattr("laconic.captioner.ready_made.FOLDER", tmp_path)
    with pytest.raises(ConfigError, match="lacks it"):
        packed_file("flickr8k_tiny")
