"""Normalisation of pixels by a folder's image processor: what transformers does is what laconic does."""

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("transformers")

from transformers import BlipImageProcessorPil

from laconic.errors import FormatError
from laconic.hf.pixels import image_processor, read_normalization
from laconic.spec.pixels import Normalization

PHOTO = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    "options",
    [
        {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]},
        {"do_normalize": False},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
    ],
)
def test_as_the_image_processor_does(options, tmp_path):
    processor = BlipImageProcessorPil(do_resize=False, **options)
    processor.save_pretrained(tmp_path)
    theirs = processor(Image.fromarray(PHOTO), return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(read_normalization(tmp_path)(PHOTO), theirs, rtol=1e-5, atol=1e-5)


def test_what_is_written_is_read(tmp_path):
    pixels = Normalization((120.0, 110.0, 100.0), (60.0, 61.0, 62.0))
    image_processor(32, pixels).save_pretrained(tmp_path)
    found = read_normalization(tmp_path)
    np.testing.assert_allclose([found.mean, found.scale], [pixels.mean, pixels.scale])


def test_the_processor_of_a_newer_version_lies_inside(tmp_path):
    inner = {"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": inner}))
    np.testing.assert_allclose(read_normalization(tmp_path).scale, [255] * 3)


def test_a_folder_without_one(tmp_path):
    assert read_normalization(tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", '{"image_mean": 3, "image_std": [1, 1, 1]}', '{"image_mean": [0, 0, 0], "image_std": [0, 1, 1]}',
        '{"image_mean": [0, 0], "image_std": [1, 1]}', '{"image_mean": [0, 0, 1e999], "image_std": [1, 1, 1]}',
        '{"do_normalize": false, "rescale_factor": 0}', '{"image_mean": [0, 0, 0]}', "[" * 100_000, " " * (1 << 21),
    ],
)  # fmt: skip
def test_hostile_files_are_named(text, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(FormatError, match="preprocessor_config"):
        read_normalization(tmp_path)
