"""Detectors: what they give of photos, against outputs that were computed elsewhere from the same weights."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from laconic.data import read_image, resize
from laconic.models.detections import best_boxes, decode
from laconic.models.detector import Detector
from laconic.models.encoders import build_encoder, load_imagenet, normalize
from laconic.spec.detectors import CLASSES, DETECTORS
from laconic.spec.encoders import channels_of, normalization_of
from laconic.spec.model import EncoderConfig

SIZE, SCORE = 416, 0.4
MOST_GIVEN = 12  # detections of a photo among the golden values


@cache
def random_detector(name: str, stride: int = 32, regions: int = 9) -> Detector:
    torch.manual_seed(3)
    return build_encoder(EncoderConfig(name, 64, stride, regions=regions)).eval()


def photos(files: list[str], shared: Path, name: str) -> Tensor:
    folder = shared / "data/coco_sample"
    pixels = [resize(read_image(folder / file.split("_")[1] / file), SIZE) for file in files]
    return normalize(torch.from_numpy(np.stack(pixels)), normalization_of(EncoderConfig(name, SIZE)))


def check_summary(found: Tensor, wanted: dict[str, object]) -> None:
    assert list(found.shape) == wanted["shape"]
    flat = found.flatten()
    values = {"mean_abs": flat.abs().mean(), "max": flat.max(), "first": flat[0], "last": flat[-1]}
    for key, value in values.items():
        assert float(value) == pytest.approx(wanted[key], rel=1e-3, abs=1e-3), key


def outputs(name: str, levels: list[Tensor]) -> list[Tensor]:
    """As the published networks give them: NanoDet's logits; PicoDet's probabilities, then distributions."""
    if name == "nanodet_plus_m":
        return levels
    rows = [level.flatten(2).transpose(1, 2) for level in levels]
    return [*(row[..., :CLASSES].sigmoid() for row in rows), *(row[..., CLASSES:] for row in rows)]


def detections(boxes: Tensor, scores: Tensor) -> list[tuple[float, int, list[float]]]:
    """Boxes of one image with a score above SCORE, the best first."""
    found = []
    for number in range(CLASSES):
        likely = scores[:, number] > SCORE
        if not likely.any():
            continue
        some, values = boxes[None, likely], scores[None, likely, number : number + 1]
        place, fresh = best_boxes(some, values, int(likely.sum()))
        found += [(float(values[0, at, 0]), number, some[0, at].tolist()) for at in place[0, fresh[0]]]
    return sorted(found, reverse=True)


@pytest.mark.parametrize("name", DETECTORS)
def test_it_finds_what_the_published_network_finds(name, golden, shared):
    expected = json.loads((golden / "encoders/detectors.json").read_text())[name]
    detector = build_encoder(EncoderConfig(name, SIZE)).eval()
    load_imagenet(detector, shared / f"data/encoders/{name}.npz")
    with torch.inference_mode():
        images = photos(list(expected), shared, name)
        seen = detector.see(images)
        boxes, scores = decode(seen.levels, detector.facts.centre, SIZE, SIZE)
    for i, wanted in enumerate(expected.values()):
        for found, output in zip(outputs(name, [x[i : i + 1] for x in seen.levels]), wanted["outputs"], strict=True):
            check_summary(found, output)
        taps = {"C4": 16, "C5": 32, "C5_prehead": 32}
        for tap in taps.keys() & wanted["taps"]:
            check_summary(seen.maps[taps[tap]][i : i + 1], wanted["taps"][tap])
        best = wanted["detections_score_class_box"]
        found = detections(boxes[i], scores[i])[:MOST_GIVEN]
        assert [number for _, number, _ in found] == [number for _, number, _ in best]
        for (score, _, box), (golden_score, _, golden_box) in zip(found, best, strict=True):
            assert score == pytest.approx(golden_score, abs=2e-3)
            assert box == pytest.approx(np.clip(golden_box, 0, 1), abs=2e-3)


@pytest.mark.parametrize("name", DETECTORS)
def test_every_array_of_the_weights_is_used(name, shared):
    with np.load(shared / f"data/encoders/{name}.npz") as arrays:
        assert set(arrays.files) == set(random_detector(name).state_dict())


@pytest.mark.parametrize("stride", [16, 32])
@pytest.mark.parametrize("name", DETECTORS)
def test_regions_are_boxes_and_what_is_seen_in_them(name, stride):
    detector, images = random_detector(name, stride), torch.randn(3, 3, 64, 96)
    with torch.inference_mode():
        features = detector(images)
        alone = detector(images[1:2])
    channels = channels_of(EncoderConfig(name, 64, stride))
    assert features.grid.shape == (3, 9, channels.grid)
    assert features.pooled.shape == (3, channels.pooled)
    assert features.boxes.shape == (3, 9, 4)
    assert features.valid is None
    torch.testing.assert_close(alone.grid[0], features.grid[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(alone.boxes[0], features.boxes[1], rtol=1e-3, atol=1e-4)
    assert features.boxes[:, 0].tolist() == [[0, 0, 1, 1]] * 3
    last = features.grid[:, 0, -CLASSES - channels.pooled : -CLASSES]
    torch.testing.assert_close(last, features.pooled, rtol=1e-3, atol=1e-4)  # of the whole image
    best = features.grid[:, 1:, -CLASSES:].amax(-1)
    assert (features.grid[:, :1, -CLASSES:].amax(-1) >= best - 1e-6).all()
    assert len({tuple(box) for box in features.boxes[0].tolist()}) > 4


@pytest.mark.parametrize("name", DETECTORS)
def test_every_weight_matters_to_what_a_captioner_reads(name):
    """Calibration and fine-tuning go by gradients: there is one for each layer, those that find boxes included."""
    torch.manual_seed(0)
    detector = build_encoder(EncoderConfig(name, 64, 16, regions=64))  # of 85 cells: some of each level
    features = detector(torch.randn(4, 3, 64, 64))
    (features.grid.square().sum() + features.boxes.sum() + features.pooled.square().sum()).backward()
    gradients = {n: p.grad for n, p in detector.named_parameters()}
    assert [n for n, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()] == []
    assert [n for n, gradient in gradients.items() if not gradient.any()] == []


def test_a_batch_norm_is_refused():
    with pytest.raises(ValueError, match="norm=False"):
        Detector(DETECTORS["picodet_s_416"], norm=True)
