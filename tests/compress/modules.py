"""Modules of every kind that have matrices, and a training of theirs."""

import torch
from torch import Tensor, nn


class Tied(nn.Module):
    """A language model whose output layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.body = nn.Linear(8, 8)
        self.output = nn.Linear(8, 20)
        self.output.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.output(torch.tanh(self.body(self.embedding(ids))))


class Unrolled(nn.Module):
    """A cell called at each of six time steps."""

    def __init__(self, cell: type[nn.RNNCellBase]) -> None:
        super().__init__()
        self.cell = cell(5, 6)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for one in x:
            state = self.cell(one, state)
        return state[0] if isinstance(state, tuple) else state


class First(nn.Module):
    """The first output of a module that has several."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *x: Tensor) -> Tensor:
        return self.inner(*x)[0]


def attention(**options: object) -> nn.Module:
    return First(nn.MultiheadAttention(8, 2, batch_first=True, **options))


def floats(*shape: int):
    return lambda: torch.randn(*shape)


# name -> module, one input, names of its matrices
MODULES = {
    "linear": (lambda: nn.Linear(5, 7), floats(4, 5), ["weight"]),
    "embedding": (lambda: nn.Embedding(9, 4), lambda: torch.arange(9), ["weight"]),
    "conv": (lambda: nn.Conv2d(3, 6, 3, groups=3), floats(2, 3, 6, 6), ["weight"]),
    "lstm": (
        lambda: First(nn.LSTM(5, 6, num_layers=2, bidirectional=True)),
        floats(7, 4, 5),
        [f"inner.weight_{side}h_l{layer}{way}" for layer in (0, 1) for way in ("", "_reverse") for side in "ih"],
    ),
    "gru": (
        lambda: First(nn.GRU(5, 6)),
        floats(7, 4, 5),
        ["inner.weight_ih_l0", "inner.weight_hh_l0"],
    ),
    "lstm cell": (
        lambda: Unrolled(nn.LSTMCell),
        floats(6, 4, 5),
        ["cell.weight_ih", "cell.weight_hh"],
    ),
    "gru cell": (
        lambda: Unrolled(nn.GRUCell),
        floats(6, 4, 5),
        ["cell.weight_ih", "cell.weight_hh"],
    ),
    "attention": (
        lambda: attention(),
        lambda: [torch.randn(3, 5, 8)] * 3,
        ["inner.in_proj_weight", "inner.out_proj.weight"],
    ),
    "attention of other sizes": (
        lambda: attention(kdim=6, vdim=4, add_bias_kv=True),
        lambda: [torch.randn(3, 5, 8), torch.randn(3, 7, 6), torch.randn(3, 7, 4)],
        [f"inner.{n}" for n in ("q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight")],
    ),
    "transformer": (
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 2, enable_nested_tensor=False
        ),
        floats(3, 5, 8),
        [
            f"layers.{i}.{n}.weight" if "proj_" not in n else f"layers.{i}.{n}"
            for i in (0, 1)
            for n in ("self_attn.in_proj_weight", "self_attn.out_proj", "linear1", "linear2")
        ],
    ),
    "tied": (Tied, lambda: torch.arange(12).view(3, 4), ["embedding.weight", "body.weight"]),
    "norms": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.LayerNorm([4, 6, 6])),
        floats(2, 3, 6, 6),
        ["0.weight"],
    ),
}


def run(model: nn.Module, x: Tensor | list[Tensor]) -> Tensor:
    return model(*x) if isinstance(x, list) else model(x)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, x, steps: int = 3) -> None:
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        run(model, x).square().mean().backward()
        optimizer.step()


def mean_square(model: nn.Module, x) -> Tensor:
    return run(model, x).square().mean()
