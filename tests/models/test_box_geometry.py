"""Box geometry against golden values of the published code, and what it does not depend on."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.models.box_geometry import EMBEDDING, embed_geometry, relative_geometry


@pytest.mark.parametrize("boxes", ["toy", "coco384029_first6", "pixel"])
def test_published_values(golden, boxes):
    with np.load(golden / "smp/c_ort_box.npz") as held:
        given, four, embedded = (torch.from_numpy(held[f"{boxes}_{part}"]) for part in ("boxes", "embed4", "embed64"))
    geometry = relative_geometry(given)
    torch.testing.assert_close(geometry, four, rtol=0, atol=1e-5)
    torch.testing.assert_close(embed_geometry(geometry), embedded, rtol=0, atol=2e-3)


corner = st.floats(0, 0.4)
side = st.floats(0.05, 0.6)


@given(st.lists(st.tuples(corner, corner, side, side), min_size=2, max_size=4), st.floats(0.2, 5), st.floats(-1, 1))
def test_without_plus_one_geometry_is_relative(boxes, zoom, shift):
    x, y, w, h = torch.tensor(boxes, dtype=torch.float64).unbind(-1)
    boxes = torch.stack([x, y, x + w, y + h], -1)
    expected = relative_geometry(boxes, plus_one=False)
    moved = relative_geometry(zoom * (boxes + shift), plus_one=False)
    torch.testing.assert_close(moved.exp(), expected.exp(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("plus_one", [True, False])
def test_empty_and_inverted_boxes_stay_finite(plus_one):
    boxes = torch.tensor([[0.0, 0, 0, 0], [1, 1, 0, 0], [0.5, 0.2, 0.5, 0.9]])
    embedded = embed_geometry(relative_geometry(boxes, plus_one))
    assert embedded.shape == (3, 3, EMBEDDING)
    assert embedded.isfinite().all()
