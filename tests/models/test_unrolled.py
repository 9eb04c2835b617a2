"""Gathered gradients against plain autograd."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from laconic.models import unrolled as module
from laconic.models.unrolled import Order, UnrolledAttention, UnrolledLinear, UnrolledMix, compute_dtype

ROWS = (5, 5, 3, 1)  # live rows at each step


def tensors(*shapes: tuple[int, ...]) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def chain(linear, attention, mix, query: Tensor) -> Tensor:
    """A little recurrence in which each step feeds the next through all parts."""
    total = query.new_zeros(())
    for t, rows in enumerate(ROWS):
        query = torch.tanh(linear(query[:rows]))
        weights = torch.softmax(attention(query), -1)
        query = query + mix(weights)
        total = total + (t + 1) * query.square().sum()
    return total


def plain(weight, keys, score, query, values) -> Tensor:
    return chain(
        lambda x: F.linear(x, weight),
        lambda q: (torch.tanh(keys[: len(q)] + q.unsqueeze(1)) @ score.t()).squeeze(-1),
        lambda w: torch.bmm(w.unsqueeze(1), values[: len(w)]).squeeze(1),
        query,
    )


def unrolled(weight, keys, score, query, values) -> Tensor:
    return chain(UnrolledLinear(weight), UnrolledAttention(keys, score), UnrolledMix(values), query)


@pytest.fixture
def inputs() -> list[Tensor]:
    return tensors((4, 4), (5, 6, 4), (1, 4), (5, 4), (5, 6, 4))


def test_values_and_gradients_equal_plain_autograd(inputs):
    expected, found = plain(*inputs), unrolled(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_finite_differences_agree(inputs):
    assert torch.autograd.gradcheck(unrolled, inputs)


def test_two_unrollings_do_not_mix(inputs):
    """Two forwards, then two backwards in the other order; a forward that is never used; then again."""
    first, second = unrolled(*inputs), unrolled(*inputs) * 3
    once = torch.autograd.grad(plain(*inputs), inputs)
    unrolled(*inputs)
    for loss, factor in ((second, 3), (first, 1), (unrolled(*inputs), 1)):
        for a, b in zip(torch.autograd.grad(loss, inputs), once, strict=True):
            torch.testing.assert_close(a, factor * b, rtol=1e-10, atol=1e-12)


def test_backward_twice_through_one_unrolling_adds_the_gradient_twice(inputs):
    loss = unrolled(*inputs)
    loss.backward(retain_graph=True)
    loss.backward()
    once = torch.autograd.grad(plain(*inputs), inputs)
    for tensor, grad in zip(inputs, once, strict=True):
        torch.testing.assert_close(tensor.grad, 2 * grad, rtol=1e-10, atol=1e-12)


def test_a_loss_on_some_of_the_steps(inputs):
    """Steps whose outputs nothing uses leave nothing behind."""
    weight, *_, x, _ = inputs
    linear = UnrolledLinear(weight)
    used, _, also = linear(x), linear(2 * x), linear(3 * x)
    (grad,) = torch.autograd.grad((used + also).sum(), weight)
    torch.testing.assert_close(grad, 4 * x.detach().sum(0).expand(4, 4))


@pytest.mark.parametrize("frozen", range(5))
def test_any_input_may_be_frozen(inputs, frozen):
    inputs[frozen].requires_grad_(False)
    live = [tensor for tensor in inputs if tensor.requires_grad]
    expected = torch.autograd.grad(plain(*inputs), live)
    found = torch.autograd.grad(unrolled(*inputs), live)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_under_autocast_products_are_bfloat16_and_gradients_float32():
    weight = torch.randn(8, 8, requires_grad=True)
    keys, score = torch.randn(5, 6, 8, requires_grad=True), torch.randn(1, 8, requires_grad=True)
    x = torch.randn(5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert compute_dtype(weight) == torch.bfloat16
        y = UnrolledAttention(keys, score)(UnrolledLinear(weight)(x))
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert {p.grad.dtype for p in (weight, keys, score)} == {torch.float32}
    expected = torch.autograd.grad(
        (torch.tanh(keys + F.linear(x, weight).unsqueeze(1)) @ score.t()).square().sum(),
        (weight, keys, score),
    )
    for parameter, grad in zip((weight, keys, score), expected, strict=True):
        assert F.cosine_similarity(parameter.grad.flatten(), grad.flatten(), 0) > 0.999
    assert compute_dtype(weight) == torch.float32


def test_a_mix_that_never_uses_some_rows_leaves_them_zero():
    values, weights = tensors((5, 6, 4), (2, 6))
    (grad,) = torch.autograd.grad(UnrolledMix(values)(weights).sum(), values)
    expected = torch.zeros(5, 6, 4, dtype=torch.float64)
    expected[:2] = weights.detach().unsqueeze(-1)
    torch.testing.assert_close(grad, expected)


def test_order_of_rows(monkeypatch):
    monkeypatch.setattr(module, "ROUND", 1)
    tokens = torch.tensor([[[2, 5, 3, 0, 0], [0, 0, 0, 0, 0]], [[2, 6, 7, 3, 0], [2, 3, 0, 0, 0]]])
    order = Order(tokens)
    assert order.live == [3, 2, 1]
    assert order.image.tolist() == [1, 0, 1, 0]
    assert order.inputs.tolist() == [2, 2, 2, 6, 5, 7]
    assert order.row.tolist() == [0, 1, 2, 0, 1, 0]
    following = torch.tensor([6, 5, 3, 7, 3, 3])  # of the inputs
    assert following[order.row_major].tolist() == [5, 3, 6, 7, 3, 3]


def test_steps_compute_multiples_of_rows_and_what_they_add_is_not_read(monkeypatch):
    monkeypatch.setattr(module, "ROUND", 4)
    lengths = torch.tensor([[9, 2, 5, 5, 3], [1, 7, 9, 4, 2]])
    tokens = torch.arange(100).reshape(2, 5, 10) + 1
    tokens[torch.arange(10) > lengths[..., None]] = 0
    order = Order(tokens)
    assert [int((lengths > t).sum()) for t in range(9)] == [10, 9, 7, 6, 5, 3, 3, 2, 2]
    assert order.live == [10, 10, 8, 8, 8, 4, 4, 4, 4]  # 10 rows there are, so not 12
    assert len(order.row) == len(order.inputs) == sum(order.live)
    wanted = tokens[..., 1:] != 0
    assert order.inputs[order.row_major].tolist() == tokens[..., :-1][wanted].tolist()
    assert order.image[order.row][order.row_major].tolist() == wanted.nonzero()[:, 0].tolist()
