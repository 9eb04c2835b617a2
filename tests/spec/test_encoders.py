"""The table of encoders: facts agree with the modules, and what is not possible is refused."""

from dataclasses import replace

import pytest
import torch

from laconic.errors import ConfigError
from laconic.models import encoders as models
from laconic.spec.encoders import ENCODERS, cells_of, channels_of, check_encoder, detects
from laconic.spec.model import REGIONS, EncoderConfig


def test_every_row_has_a_module():
    assert set(ENCODERS) == set(models.ENCODERS)


@pytest.mark.parametrize(("name", "stride"), [(name, stride) for name, row in ENCODERS.items() for stride in row.grid])
def test_channels_and_cells_are_those_of_the_module(name, stride):
    size = 96 if ENCODERS[name].detects else 72
    config = EncoderConfig(name, size=size, stride=stride)
    with torch.device("meta"):
        features = models.build_encoder(config)(torch.empty(1, 3, size, size))
    assert features.grid.shape == (1, cells_of(config), channels_of(config).grid)
    assert features.pooled.shape == (1, channels_of(config).pooled)
    assert (features.boxes is not None) == detects(config)


def test_regions_are_as_wide_as_they_are_said_to_be():
    assert channels_of(EncoderConfig(REGIONS, channels=6)) == (6, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "resnet"}, "resnet.*mobilenet_v2.*regions"),
        ({"stride": 8}, "stride 8.*16 or 32"),
        ({"size": 31}, "size 31"),
        ({"size": 1025}, "size 1025"),
        ({"name": "picodet_s_416", "size": 400}, "multiple of 32 pixels, not of 400"),
        ({"name": "picodet_s_416", "norm": True}, "no batch norm"),
        ({"name": "nanodet_plus_m", "regions": 1}, "regions 1 .* give 2 to 784"),
        ({"name": "nanodet_plus_m", "size": 64, "regions": 65}, "regions 65 .* give 2 to 64"),
        ({"name": "nanodet_plus_m", "size": 1024, "regions": 1025}, "give 2 to 1024"),
        ({"name": REGIONS, "channels": 0}, "channels 0"),
        ({"name": REGIONS, "channels": 65537}, "channels 65537"),
    ],
)
def test_what_is_not_possible_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        check_encoder(replace(EncoderConfig(), **change))
