"""Normalisation as data: the usual one to the last bit, others per channel, torch and numpy alike."""

import numpy as np
import pytest
import torch

from laconic.errors import ConfigError
from laconic.models.encoders import normalize
from laconic.spec.pixels import Normalization, images_at_once

BYTES = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16)] * 3, -1)[None]  # every byte in every channel


def test_the_usual_one_is_a_byte_divided_by_127_5_less_one_to_the_last_bit():
    expected = BYTES.astype(np.float32).transpose(0, 3, 1, 2) / np.float32(127.5) - np.float32(1)
    np.testing.assert_array_equal(Normalization()(BYTES), expected)
    np.testing.assert_array_equal(normalize(torch.from_numpy(BYTES), Normalization()).numpy(), expected)
    assert (expected.min(), expected.max()) == (-1, 1)


@pytest.mark.parametrize(
    "how",
    [
        Normalization((127.0,) * 3, (128.0,) * 3),  # EfficientNet-Lite
        Normalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),  # of ImageNet, as PyTorch's models have it
    ],
)
def test_others_are_a_mean_and_a_scale_for_each_channel(how):
    found = how(BYTES)
    expected = (BYTES.astype(np.float64) - np.array(how.mean)) / np.array(how.scale)
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), rtol=1e-6, atol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(normalize(torch.from_numpy(BYTES), how).numpy(), found)
    np.testing.assert_array_equal(how(BYTES[0]), found[0])


@pytest.mark.parametrize(
    ("mean", "scale"),
    [
        ((1.0, 2.0), (1.0,) * 3),
        ((1.0,) * 3, (1.0, 0.0, 1.0)),
        ((float("nan"),) * 3, (1.0,) * 3),
        ((0.0,) * 3, (-1.0,) * 3),
    ],
)
def test_what_is_no_normalisation_is_refused(mean, scale):
    with pytest.raises(ConfigError, match=r"pixels: (mean|scale)"):
        Normalization(mean, scale)


def test_larger_images_are_encoded_fewer_at_once():
    assert [images_at_once(size, 32) for size in (32, 224, 448, 1024, 4096)] == [32, 32, 8, 1, 1]
