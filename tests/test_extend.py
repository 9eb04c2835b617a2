"""docs/EXTEND.md is true: a toy of every row of its table is added as the row says, and used where no name is known.

A toy goes into the very tables that its row names, and nowhere else.
"""

import importlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import laconic
from laconic import data, metrics, store
from laconic.captioner.accounting import caption_operations, non_zeros
from laconic.captioner.packing import load
from laconic.cli import VERBS, main
from laconic.cli.arguments import parse
from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.ranking import Scores
from laconic.compress.masked.schedule import Cubic
from laconic.compress.masked.scored import Scored
from laconic.compress.structured.adapters import find_groups
from laconic.compress.structured.groups import Adapter
from laconic.compress.structured.shrink import shrink
from laconic.data import Example
from laconic.errors import PruningError
from laconic.metrics import Metric
from laconic.models.layers import Features
from laconic.models.torch_captioner import TorchCaptioner
from laconic.recipes.study import read_study
from laconic.report.runs import read_runs
from laconic.report.tables import Row, csv_row
from laconic.runtime.encoder_maps import Map, Maps
from laconic.runtime.operations import NONE, Place
from laconic.runtime.program import Builder
from laconic.runtime.tables import pack_table
from laconic.spec.encoders import EncoderFacts
from laconic.spec.packed import CaptionerSpec
from laconic.spec.pixels import Normalization
from laconic.store import integers
from laconic.store.bits import Reader
from laconic.store.masks import MaskCodec, Positions
from laconic.store.values import Precision

ROOT = Path(__file__).parents[1]
LINES = re.findall(r"^\| (an? [^|]+?) \| (.+?) \| (.+) \|$", (ROOT / "docs/EXTEND.md").read_text("utf8"), re.MULTILINE)
TABLES = {kind: re.findall(r"`([A-Z]+)`, `([\w/]+)\.py`", row) for kind, _, row in LINES}

Add = Callable[..., None]


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Add:
    """Adds a row of the kind to each table that the page names for it, in the order of the page."""

    def put(kind: str, name: str, *rows: Any) -> None:
        for (table, path), row in zip(TABLES[kind], rows, strict=True):
            module = importlib.import_module(f"laconic.{path.replace('/', '.').removesuffix('.__init__')}")
            assert name not in getattr(module, table)
            monkeypatch.setitem(getattr(module, table), name, row)

    return put


# A pruning method and a schedule


@dataclass(frozen=True)
class Once:
    """All at once, at one step."""

    at: int = 3

    def over(self, steps: int) -> tuple[int, int, int]:
        return self.at, self.at, 1

    def sparsity(self, target: float, step: int, steps: int) -> float | None:
        return target if step == self.at else None


@dataclass(frozen=True)
class Columns(Scored):
    """Weights of early columns go."""

    needs_steps: ClassVar[bool] = True
    moves_masks: ClassVar[bool] = True

    sparsity: float
    schedule: Cubic = field(default_factory=Cubic)

    def scores(self, weights: Scores, gradients: Scores, moments: Scores) -> dict[str, Tensor]:
        return {name: torch.arange(w.shape[1]).expand_as(w).float() for name, w in weights.items()}


@dataclass(frozen=True)
class ColumnsAtOnce(Columns):
    """With another schedule."""

    schedule: Once = field(default_factory=Once)


# A captioner and an encoder


@dataclass(frozen=True)
class BagConfig:
    reads_boxes: ClassVar[bool] = False
    reads_pooled: ClassVar[bool] = True
    most_positions: ClassVar[int | None] = None

    vocabulary: int
    grid_channels: int
    pooled_channels: int
    width: int = 8


class State(NamedTuple):
    image: Tensor
    seen: Tensor


class Bag(TorchCaptioner[State]):
    """Next word from the image and the word before."""

    config: BagConfig
    output_bias = "output.bias"

    def __init__(self, config: BagConfig) -> None:
        super().__init__()
        self.config = config
        self.seen = nn.Linear(config.pooled_channels, config.width)
        self.word = nn.Embedding(config.vocabulary, config.width)
        self.output = nn.Linear(config.width, config.vocabulary)

    def fold(self) -> None:
        pass

    def forward(self, features: Features, tokens: Tensor) -> Tensor:
        logits = self.output(F.relu(self.word(tokens[..., :-1]) + self.seen(features.pooled)[:, None, None]))
        return logits[tokens[..., 1:] != 0]

    def initial_state(self, features: Features) -> State:
        return State(torch.arange(len(features)), self.seen(features.pooled))

    def next_logits(self, state: State, ids: Tensor) -> tuple[Tensor, State]:
        return self.output(F.relu(self.word(ids) + state.seen[state.image])), state

    def select_rows(self, state: State, rows: Tensor) -> State:
        return state._replace(image=state.image[rows])


class Patches(nn.Module):
    """One convolution of the size of its stride."""

    def __init__(self, stride: int, norm: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, stride, stride)

    def forward(self, images: Tensor) -> Features:
        grid = self.patches(images).flatten(2).transpose(1, 2)
        return Features(grid, grid.mean(1))


def plan_bag(builder: Builder, packed: store.Packed, spec: CaptionerSpec, grid: int, pooled: int) -> dict[str, int]:
    width, rows = packed["decoder.seen.bias"].size, len(spec.vocabulary)
    seen = Place(builder.buffer(width, "IMAGES"))
    word, both, logits = (Place(builder.buffer(size, "ROWS")) for size in (width, width, rows))
    weights = builder.matrix(packed["decoder.seen.weight"], packed["decoder.seen.bias"])
    builder.linear("images", Place(pooled), seen, weights)
    table = builder.add_matrix(pack_table(packed["decoder.word.weight"], builder.width))
    scale = int(np.float32(1).view(np.uint32))
    builder.add("step", "EMBED", y=word, matrix=table, activation="LINEARLY", scale=scale, positions=NONE)
    same = builder.matrix(np.eye(width, dtype=np.float32))
    builder.linear("step", word, both, same, "RELU", "FROM_IMAGE", image=seen.buffer)
    weights = builder.matrix(packed["decoder.output.weight"], packed["decoder.output.bias"])
    builder.linear("step", both, logits, weights)
    return {"logits": logits.buffer}


def patches(maps: Maps) -> Iterator[Map]:
    yield maps.convolve(maps.pixels(), "patches", stride=maps.stride, activation="LINEARLY", grid=True)


# A data set and a metric


def load_squares(root: Path | None, split: str, *, count: int = 6) -> tuple[Example, ...]:
    """Grey squares, darker ones and lighter ones."""
    shades = np.random.default_rng(len(split)).integers(0, 256, count)
    words = [("dark" if shade < 128 else "light") for shade in shades]
    return tuple(
        Example(index, np.full((40, 40, 3), shade, np.uint8), (f"a {word} square", f"this is {word}"))
        for index, (shade, word) in enumerate(zip(shades, words, strict=True))
    )


def shortness(references: list[list[str]], captions: list[str]) -> tuple[float]:
    return (float(np.mean([1 / (1 + len(caption.split())) for caption in captions])),)


RECIPE = """
[data]
name = "squares"
min_count = 1
[encoder]
name = "patches"
size = 32
stride = 8
[decoder]
name = "bag"
options.width = 6
[pruning]
method = "columns"
options.sparsity = 0.5
[training]
epochs = 2
batch = 3
precision = "float32"
"""


@pytest.fixture
def world(add: Add) -> None:
    """A recipe's tables with a toy in each."""
    add("a pruning method", "columns", f"{__name__}:Columns")
    add("a captioner", "bag", BagConfig, Bag)
    how = Normalization((127.0,) * 3, (128.0,) * 3)
    add("an encoder", "patches", EncoderFacts({8: 6}, 6, how), Patches)
    add("a captioner in the engine", "bag", plan_bag)
    add("an encoder in the engine", "patches", patches)
    add("a data set", "squares", load_squares)
    add("a metric", "Shortness", Metric(("Shortness",), shortness))


@pytest.mark.usefixtures("world")
def test_an_experiment_with_toys_is_trained_packed_and_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pruning method, a captioner, an encoder, both in the engine, a data set, a metric and an experiment."""
    monkeypatch.chdir(tmp_path)
    Path("toy.toml").write_text(RECIPE)
    assert main(["train", "toy.toml"]) == 0
    found = load(Path("runs/toy/model.safetensors"))
    kept = [(layer.weight != 0).any(0) for layer in (found.decoder.seen, found.decoder.output)]
    assert all(columns.tolist() == sorted(columns.tolist()) and not columns[0] for columns in kept)
    assert non_zeros(found)["decoder"] < non_zeros(found)["decoder_weights"]
    assert caption_operations(found).encoder == 2 * 16 * 6 * 3 * 8 * 8
    words = ["evaluate", "runs/toy", "--data", "squares", "--metrics", "Shortness", "--json", "scores.json"]
    assert main(words) == 0
    score = json.loads(Path("scores.json").read_text())["scores"]["Shortness"]
    assert 0 < score <= 1
    assert "Shortness" in capsys.readouterr().out
    squares = [load_squares(None, "val")[i].pixels() for i in range(6)]
    assert laconic.load("runs/toy/model.safetensors").caption(squares) == found.caption(squares)
    (run,), _ = read_runs([Path("runs/toy")])
    cells = csv_row(Row(run, None, None, ""))
    assert (cells["method"], cells["data"], cells["Shortness"]) == ("columns", "squares", "")


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("kind", "line", "name"),
    [
        ("a pruning method", "train --pruning.method columns x.toml --pruning.options.sparsity 0.5", "columns"),
        ("a captioner", "train x.toml --decoder.name bag", "bag"),
        ("an encoder", "train x.toml --encoder.name patches", "patches"),
        ("a data set", "train x.toml --data.name squares", "squares"),
        ("a data set", "evaluate x --data squares", "squares"),
        ("a metric", "evaluate x --metrics Shortness", "Shortness"),
        ("a metric", "score --references x --results x --metrics Shortness", "Shortness"),
    ],
)
def test_rows_are_options_that_help_lists(
    kind: str, line: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.toml").touch()
    verb, *words = line.split()
    parse(verb, VERBS[verb], words)
    assert main([verb, "--help"]) == 0
    shown = re.sub(r"[│\s]", "", capsys.readouterr().out)  # lists of choices are broken into lines
    assert re.search(rf"[{{,]{name}[,}}]", shown)


@pytest.mark.usefixtures("world")
def test_rows_are_known_to_the_library() -> None:
    assert len(data.load("squares", None, "val", count=4)) == 4
    scores = metrics.evaluate({1: ["a dog"]}, {1: "a big dog"}, metrics=["Shortness"])
    assert scores == {"Shortness": pytest.approx(1 / 4)}


def test_a_sparsity_schedule_is_the_type_of_a_field() -> None:
    layer = nn.Linear(8, 5)
    pruner = Pruner(layer, ColumnsAtOnce(0.5), steps=4)
    seen = []
    for _ in range(4):
        pruner.step()
        seen.append(pruner.sparsity)
    assert seen == [0, 0, 0.5, 0.5]
    assert (pruner.finalize().weight != 0).all(0).tolist() == [False] * 4 + [True] * 4


def _encode_tail(positions: Positions, matrix: tuple[int, int]) -> tuple[bytes, None]:
    at_end = len(positions) == matrix[0] * matrix[1] - positions[0]
    return (b"\x01" if at_end else b"\x00" + integers.encode(positions.astype(np.uint32))), None


def _decode_tail(source: Reader, count: int, matrix: tuple[int, int]) -> Positions:
    size = matrix[0] * matrix[1]
    if source.take(1)[0]:
        return np.arange(size - count, size, dtype=np.int32)
    return integers.decode(source, count).astype(np.int32)


def test_a_way_to_store_positions_is_taken_where_it_is_smallest(add: Add, tmp_path: Path) -> None:
    add("a way to store positions", "tail", MaskCodec(_encode_tail, _decode_tail))
    layer = nn.Linear(16, 16, bias=False)
    with torch.no_grad():
        layer.weight.view(-1)[:200] = 0
    store.save(layer, tmp_path / "toy.safetensors", values="exact")
    assert [tensor.codec for tensor in store.inspect(tmp_path / "toy.safetensors").tensors] == ["tail f32"]
    assert np.array_equal(store.load(tmp_path / "toy.safetensors")["weight"], layer.weight.detach().numpy())


def test_a_precision_of_weights_is_a_row(add: Add, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add("a precision of weights", "rough", Precision("step", 1.0, 0.5, error=0.2))
    layer = nn.Linear(16, 16)
    store.save(layer, tmp_path / "toy.safetensors", values="rough")
    packed = store.load(tmp_path / "toy.safetensors")
    assert packed.precision == "rough"
    assert len(np.unique(packed["weight"])) <= 5
    for verb, words in {"pack": ["x", "-o", "y"], "convert": ["x", "-o", "y"]}.items():
        assert parse(verb, VERBS[verb], [*words, "--values", "rough"]).values == "rough"
    assert main(["pack", str(tmp_path / "toy.safetensors"), "-o", str(tmp_path / "b"), "--values", "exact"]) == 0


class ToyAttention(nn.Module):
    """Two heads, whose dimension may change."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 2, 4
        self.query, self.key, self.value, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        seen = (query @ key.transpose(2, 3) / self.head_dim**0.5).softmax(-1) @ value
        return self.out(seen.transpose(1, 2).flatten(2))


def test_an_attention_class_to_slim_is_a_row(add: Add) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(ToyAttention()), torch.randn(2, 3, 8)
    with pytest.raises(PruningError, match="no adapter knows attention of class ToyAttention"):
        find_groups(model)
    adapter = Adapter(
        "attention", ("query", "key", "value"), ("out",), heads="num_heads", head_size="head_dim", scale="width"
    )
    add("an attention class to slim", "ToyAttention", adapter)
    groups = find_groups(model)
    kept = torch.tensor([True, False, True, False])
    handles = [
        getattr(model[0], name).register_forward_hook(lambda _, __, out: out * kept.repeat(2))
        for name in ("query", "key", "value")
    ]
    masked = model(x)
    for handle in handles:
        handle.remove()
    shrink(groups, {groups[0].name: kept})
    assert model[0].query.weight.shape == (4, 8)
    torch.testing.assert_close(model(x), masked, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("world")
def test_an_experiment_is_a_grid_of_recipes(tmp_path: Path) -> None:
    (tmp_path / "toy.toml").write_text(RECIPE)
    grid = 'base = "toy.toml"\n[[grid]]\nname = "columns_{sparsity}"\nvary.pruning.options.sparsity = [0.5, 0.9]\n'
    (tmp_path / "study.toml").write_text(grid)
    runs = read_study(tmp_path / "study.toml", tmp_path / "runs")
    assert [run.name for run in runs] == ["columns_0.5", "columns_0.9"]
    assert runs[1].recipe.pruning.options == {"sparsity": 0.9}


TOYS = {
    "a pruning method": test_an_experiment_with_toys_is_trained_packed_and_scored,
    "a sparsity schedule": test_a_sparsity_schedule_is_the_type_of_a_field,
    "a captioner": test_an_experiment_with_toys_is_trained_packed_and_scored,
    "an encoder": test_an_experiment_with_toys_is_trained_packed_and_scored,
    "a captioner in the engine": test_an_experiment_with_toys_is_trained_packed_and_scored,
    "an encoder in the engine": test_an_experiment_with_toys_is_trained_packed_and_scored,
    "a metric": test_rows_are_known_to_the_library,
    "a data set": test_rows_are_known_to_the_library,
    "a way to store positions": test_a_way_to_store_positions_is_taken_where_it_is_smallest,
    "a precision of weights": test_a_precision_of_weights_is_a_row,
    "an attention class to slim": test_an_attention_class_to_slim_is_a_row,
    "an experiment": test_an_experiment_is_a_grid_of_recipes,
}


def test_every_row_of_the_page_has_a_toy() -> None:
    assert [kind for kind, *_ in LINES] == list(TOYS)
    assert [kind for kind, tables in TABLES.items() if not tables] == ["a sparsity schedule", "an experiment"]
