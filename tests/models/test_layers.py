"""SAME padding against a loop over windows, and folding of batch norms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from laconic.models.inception_v1 import max_pool
from laconic.models.layers import Conv, Features, cell_boxes, fold_batch_norm, same_padding


def windows(x: Tensor, kernel: int, stride: int) -> list[list[tuple[slice, slice, slice, slice]]]:
    """TensorFlow's rule, window by window: slices of the image and of the kernel that meet."""
    sizes = x.shape[-2:]
    starts = []
    for size in sizes:
        outputs = (size + stride - 1) // stride
        total = max((outputs - 1) * stride + kernel - size, 0)
        starts.append([i * stride - total // 2 for i in range(outputs)])

    def meet(start: int, size: int) -> tuple[slice, slice]:
        low, high = max(start, 0), min(start + kernel, size)
        return slice(low, high), slice(low - start, high - start)

    return [[(*meet(y, sizes[0]), *meet(x_, sizes[1])) for x_ in starts[1]] for y in starts[0]]


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
@pytest.mark.parametrize("size", [(7, 7), (8, 8), (9, 9), (6, 9), (9, 6)])
def test_convolution_is_a_sum_over_tensorflow_windows(kernel, stride, size):
    torch.manual_seed(0)
    conv = Conv(2, 4, kernel, stride, groups=2, activation="none").double()
    nn.init.normal_(conv.bias)
    x = torch.randn(3, 2, *size, dtype=torch.float64)
    rows = []
    for line in windows(x, kernel, stride):
        for rows_in, rows_k, columns_in, columns_k in line:
            patch = x[:, :, rows_in, columns_in].repeat_interleave(2, 1)
            rows.append((patch * conv.weight[:, 0, rows_k, columns_k]).sum((2, 3)) + conv.bias)
    expected = torch.stack(rows, -1)
    torch.testing.assert_close(conv(x).flatten(2), expected)


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (2, 2)])
def test_padding_never_wins_a_max_pooling(kernel, stride, size):
    x = -1 - torch.rand(2, 3, size, size)
    expected = [
        x[:, :, rows, columns].amax((2, 3)) for line in windows(x, kernel, stride) for rows, _, columns, _ in line
    ]
    torch.testing.assert_close(max_pool(x, kernel, stride).flatten(2), torch.stack(expected, -1))


@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 4))
def test_padding_puts_the_odd_one_behind_and_covers_every_position(length, kernel, stride):
    before, after = same_padding(length, kernel, stride)
    assert 0 <= after - before <= 1
    outputs = -(-length // stride)
    assert (before + length + after - kernel) // stride + 1 == outputs


def test_folding_keeps_evaluation_results():
    torch.manual_seed(0)
    net = nn.Sequential(Conv(3, 8, 3, 2, norm=True), Conv(8, 8, 3, groups=8, norm=True))
    for _ in range(3):
        net(2 + 3 * torch.randn(4, 3, 12, 12))  # running statistics away from 0 and 1
    for conv in net:
        nn.init.uniform_(conv.norm.weight, -1, 2)
        nn.init.normal_(conv.norm.bias)
    net.eval()
    x = torch.randn(4, 3, 12, 12)
    expected = net(x)
    fold_batch_norm(net)
    assert sorted(net.state_dict()) == ["0.bias", "0.weight", "1.bias", "1.weight"]
    torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-5)
    fold_batch_norm(net)  # nothing left to do
    torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-5)


def test_features_index_both_parts():
    features = Features(torch.arange(12.0).view(3, 2, 2), torch.arange(3.0).view(3, 1))
    assert len(features) == 3
    some = features[torch.tensor([2, 0])]
    assert some.pooled.tolist() == [[2.0], [0.0]]
    assert some.grid[0].tolist() == [[8.0, 9.0], [10.0, 11.0]]


def test_features_move_and_select_boxes_and_validity_with_the_rest() -> None:
    features = Features(
        torch.zeros(3, 4, 2), torch.zeros(3, 2), torch.rand(3, 4, 4), torch.ones(3, 4, dtype=torch.bool)
    )
    some = features[torch.tensor([2, 0])]
    assert len(some) == 2
    assert torch.equal(some.boxes[0], features.boxes[2])
    assert some.valid.shape == (2, 4)
    assert features[:1].to(torch.device("cpu")).grid.shape == (1, 4, 2)


def test_cell_boxes_tile_the_image_row_by_row() -> None:
    boxes = cell_boxes(4)
    assert boxes.tolist() == [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]
    with pytest.raises(ValueError, match="no square map"):
        cell_boxes(5)


def test_a_batch_norm_that_belongs_to_no_convolution_is_named():
    with pytest.raises(TypeError, match=r"batch norm '1' belongs to no Conv"):
        fold_batch_norm(nn.Sequential(Conv(3, 4, norm=True), nn.BatchNorm2d(4)))
