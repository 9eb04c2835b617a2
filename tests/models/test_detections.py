"""Boxes from distributions, the best of them, and means within boxes, against plain forms of the same."""

import numpy as np
import pytest
import torch
from torch import Tensor

from laconic.models.detections import LEAST_SIDE, best_boxes, decode, mean_within, overlaps, take
from laconic.spec.detectors import BINS, CLASSES, LEVELS


def random_boxes(images: int, count: int, seed: int = 0) -> Tensor:
    """Some around each of four, so that many overlap."""
    random = torch.Generator().manual_seed(seed)
    corners = torch.rand(images, 4, 2, 2, generator=random).sort(2).values.flatten(2)
    near = corners[:, torch.arange(count) % 4] + 0.1 * torch.rand(images, count, 4, generator=random)
    first = near[..., :2].clamp(max=0.98)
    return torch.cat([first, torch.maximum(near[..., 2:].clamp(max=1), first + 0.01)], -1)


@pytest.mark.parametrize("centre", [0.0, 0.5])
def test_a_box_is_as_far_from_its_point_as_the_distributions_say(centre):
    """One cell of stride 16 is sure of four distances, in strides; all others know nothing."""
    levels = [torch.zeros(1, CLASSES + 4 * BINS, -(-64 // s), -(-128 // s)) for s in LEVELS]
    row, column, distances = 2, 5, (1, 2, 0, 1)
    for side, distance in enumerate(distances):
        levels[1][0, CLASSES + BINS * side + distance, row, column] = 100.0
    levels[1][0, 7, row, column] = 100.0
    boxes, scores = decode(levels, centre, 64, 128)
    assert boxes.shape == (1, 128 + 32 + 8 + 2, 4)
    at = 128 + row * 8 + column
    assert scores[0, at].argmax() == 7
    assert scores[0, at, 7] == 1
    x, y = (column + centre) * 16, (row + centre) * 16
    wanted = [(x - 16) / 128, (y - 32) / 64, x / 128, (y + 16) / 64]
    wanted[0], wanted[1], wanted[2] = max(wanted[0], 0), max(wanted[1], 0), max(wanted[2], wanted[0] + LEAST_SIDE)
    assert boxes[0, at].tolist() == pytest.approx([min(v, 1) for v in wanted], abs=1e-6)
    mean = (BINS - 1) / 2 * 8  # of a distribution that knows nothing
    left, top = ((8 + centre) * 8 - mean) / 128, ((7 + centre) * 8 - mean) / 64
    assert boxes[0, 7 * 16 + 8, :2].tolist() == pytest.approx([left, top])


def test_boxes_lie_in_the_image_and_have_sides():
    levels = [20 * torch.randn(3, CLASSES + 4 * BINS, 64 // s, 64 // s) for s in LEVELS]
    boxes, scores = decode(levels, 0.5, 64, 64)
    assert (boxes >= 0).all()
    assert (boxes <= 1).all()
    assert (boxes[..., 2:] - boxes[..., :2] >= LEAST_SIDE * 0.99).all()
    assert ((scores >= 0) & (scores <= 1)).all()


def test_overlaps_are_shares_of_the_union():
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.75, 0.5], [0.5, 0.5, 1.0, 1.0]]])
    torch.testing.assert_close(overlaps(boxes)[0], torch.tensor([[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1.0]]))


def plain_suppression(boxes: Tensor, scores: Tensor) -> list[int]:
    """The boxes of one image that stay, best first: the method as it is always told."""
    best, classes = scores.max(-1)
    shares, kept = overlaps(boxes[None])[0], list[int]()
    for at in best.argsort(descending=True).tolist():
        if all(shares[at, other] <= 0.6 or classes[at] != classes[other] for other in kept):
            kept.append(at)
    return kept


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_the_best_boxes_are_those_of_plain_suppression_and_then_duplicates(classes):
    boxes, scores = random_boxes(3, 60), torch.rand(3, 60, classes, generator=torch.Generator().manual_seed(1))
    place, fresh = best_boxes(boxes, scores, 60)
    for image in range(3):
        kept = plain_suppression(boxes[image], scores[image])
        assert 4 < len(kept) < 60
        assert place[image, : len(kept)].tolist() == kept
        assert fresh[image].tolist() == [i < len(kept) for i in range(60)]
        rest = scores[image, place[image, len(kept) :]].amax(-1)
        assert (rest.diff() <= 0).all()
        assert sorted(place[image].tolist()) == list(range(60))
    few, _ = best_boxes(boxes, scores, 7)
    assert torch.equal(few, place[:, :7])


def test_boxes_of_an_image_do_not_depend_on_its_company():
    boxes, scores = random_boxes(4, 400), torch.rand(4, 400, 3, generator=torch.Generator().manual_seed(2))
    together, _ = best_boxes(boxes, scores, 20)
    for image in range(4):
        alone, _ = best_boxes(boxes[image : image + 1], scores[image : image + 1], 20)
        assert torch.equal(alone[0], together[image])


def test_the_mean_within_a_box_counts_pixels_by_what_of_them_is_inside():
    maps, boxes = torch.randn(2, 3, 4, 6), random_boxes(2, 5)
    found = mean_within(maps, boxes)
    fine = maps.repeat_interleave(200, 2).repeat_interleave(200, 3).numpy()  # integrals as sums of small pixels
    for image in range(2):
        for n in range(5):
            x1, y1, x2, y2 = (boxes[image, n] * torch.tensor([1200, 800, 1200, 800])).round().int().tolist()
            wanted = fine[image, :, y1:y2, x1:x2].mean((1, 2), dtype=np.float64)
            np.testing.assert_allclose(found[image, n].numpy(), wanted, atol=0.03)
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(2, 1, 4)
    torch.testing.assert_close(mean_within(maps, whole)[:, 0], maps.mean((2, 3)))


def test_features_have_gradients_by_maps_and_boxes():
    maps = torch.randn(1, 2, 3, 5, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[[0.11, 0.23, 0.57, 0.91], [0.3, 0.1, 0.41, 0.2]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda some: mean_within(maps.detach(), some), (boxes,))
    assert torch.autograd.gradcheck(lambda some: mean_within(some, boxes.detach()), (maps,))


def test_take_picks_rows_of_each_image():
    values, place = torch.arange(12.0).view(2, 3, 2), torch.tensor([[2, 0], [1, 1]])
    assert take(values, place).tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]
