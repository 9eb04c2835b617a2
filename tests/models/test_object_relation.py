"""Object Relation Transformer against the published code's values, itself without shortcuts, and its search."""

import json
import runpy
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from laconic.compress.sites import prunable
from laconic.decode.search import Decoding, decode
from laconic.errors import ConfigError
from laconic.models.layers import Features, cell_boxes
from laconic.models.object_relation import ObjectRelation
from laconic.spec.captioners import ObjectRelationConfig
from laconic.spec.tokens import SPECIAL

SMALL = ObjectRelationConfig(17, 6, 5, layers=2, width=16, feed_forward=24, heads=2, input_dropout=0.0, dropout=0.0)
GOLDEN = ObjectRelationConfig(23, 12, 1, layers=2, width=16, feed_forward=32, heads=2)
EOS = 3


published_name = runpy.run_path(str(Path(__file__).with_name("relation_names.py")))["published_name"]


@pytest.fixture
def published(golden) -> tuple[ObjectRelation, Features, dict[str, Tensor]]:
    with np.load(golden / "smp/c_ort_box.npz") as file:
        held = {key.removeprefix("ort_"): torch.from_numpy(file[key]) for key in file if key.startswith("ort_")}
    model = ObjectRelation(GOLDEN).eval()
    weights = {}
    for name in model.state_dict():
        theirs = "w__" + published_name(name)
        weights[name] = torch.cat([held.pop(theirs.format(head=head)) for head in range(2 if "{" in theirs else 1)])
    model.load_state_dict(weights)
    assert not [key for key in held if key.startswith("w__")]
    return model, Features(held["feats"], torch.zeros(2, 1), held["boxes"], held["feat_mask"] > 0), held


def test_published_memory_and_log_probabilities(published):
    model, features, held = published
    memory = []
    model.encoder_norm.register_forward_hook(lambda _, __, output: memory.append(output))
    found = model(features, held["seqs"].unsqueeze(1)).log_softmax(-1)
    torch.testing.assert_close(memory[0], held["memory"][features.valid], rtol=0, atol=2e-5)
    torch.testing.assert_close(found, held["logprobs"][held["seqs"][:, 1:] != 0], rtol=0, atol=5e-5)


def test_published_search(published):
    model, features, held = published
    for beam in (1, 3):
        found = decode(model, features, Decoding(beam=beam, max_length=10, allow_unknown=True), SPECIAL)
        expected = [
            [[i for i in ids if i not in (0, EOS)] for ids in some] for some in held[f"beam{beam}_ids"].tolist()
        ]
        assert [[list(h.tokens) for h in some] for some in found] == expected
    scores = torch.tensor([[h.score for h in some] for some in found], dtype=torch.float64)
    torch.testing.assert_close(scores, held["beam3_scores"], rtol=0, atol=1e-4)


def test_parameters_are_those_of_the_paper(golden):
    table = json.loads((golden / "smp/b_full_size_param_tables.json").read_text())
    with torch.device("meta"):
        model = ObjectRelation(ObjectRelationConfig(10001, 2048, 2048))
    expected = {name: tuple(shape) for name, shape in table["relation_transformer"]["params"].items()}
    found = {}
    for name, parameter in model.state_dict().items():
        theirs = published_name(name)
        shape = tuple(parameter.shape)
        heads = 8 if "{" in theirs else 1
        found |= {theirs.format(head=head): (shape[0] // heads, *shape[1:]) for head in range(heads)}
    assert found == expected
    assert sum(p.numel() for p in model.parameters()) == table["relation_transformer"]["total_excl_masks"] == 55_443_777
    masked = prunable(model)
    assert (
        sum(getattr(*sites[0]).numel() for sites in masked.values())
        == table["relation_transformer_prune"]["mask_params"]
        == 55_332_864
    )


def make(**changes) -> ObjectRelation:
    """A small captioner in float64, every parameter drawn, biases too."""
    torch.manual_seed(0)
    model = ObjectRelation(replace(SMALL, **changes)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4)
    return model


def make_features(images: int = 3) -> Features:
    torch.manual_seed(1)
    return Features(torch.randn(images, 9, 6, dtype=torch.float64), torch.randn(images, 5, dtype=torch.float64))


def make_regions(counts: tuple[int, ...] = (4, 1, 3)) -> list[Features]:
    """Regions with boxes of single images, as many as they have."""
    torch.manual_seed(2)
    corners = [torch.rand(1, n, 2, 2, dtype=torch.float64).sort(2).values.flatten(2) for n in counts]
    return [Features(torch.randn(1, box.shape[1], 6).double(), torch.zeros(1, 5), box) for box in corners]


def joined(parts: list[Features]) -> Features:
    """One batch, the missing regions filled with what must not be seen."""
    most = max(part.grid.shape[1] for part in parts)
    grid, boxes = torch.full((len(parts), most, 6), 7.0).double(), torch.full((len(parts), most, 4), 0.3).double()
    valid = torch.zeros(len(parts), most, dtype=torch.bool)
    for i, part in enumerate(parts):
        n = part.grid.shape[1]
        grid[i, :n], boxes[i, :n], valid[i, :n] = part.grid[0], part.boxes[0], True
    return Features(grid, torch.zeros(len(parts), 5), boxes, valid)


CAPTIONS = [
    [[2, 5, 6, 7, 3], [2, 8, 3], [2, 9, 9, 9, 9, 9, 3]],
    [[2, 3], [2, 10, 11, 12, 13, 3], []],
    [[2, 14, 15, 3], [2, 16, 1, 3], [2, 4, 3]],
]


def make_tokens(captions: list[list[list[int]]] = CAPTIONS, width: int = 8) -> Tensor:
    """(images, captions, width); one caption is padding only."""
    tokens = torch.zeros(len(captions), len(captions[0]), width, dtype=torch.int64)
    for i, some in enumerate(captions):
        for j, ids in enumerate(some):
            tokens[i, j, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
    return tokens


def one_by_one(model: ObjectRelation, images: list[Features]) -> Tensor:
    """Logits of each caption of each image alone, without a padded entry anywhere."""
    alone = [model(images[i], torch.tensor([[ids]])) for i, some in enumerate(CAPTIONS) for ids in some if ids]
    return torch.cat(alone)


@pytest.mark.parametrize("dropout", [0.0, 1e-9])  # the latter drops nothing, but takes the way of training
def test_a_batch_equals_each_caption_alone(dropout):
    model, features, regions = make(dropout=dropout).train(), make_features(), make_regions()
    for together, alone in ((features, [features[i : i + 1] for i in range(3)]), (joined(regions), regions)):
        found, expected = model(together, make_tokens()), one_by_one(model, alone)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        weights = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
        grads = [torch.autograd.grad((y * weights).sum(), list(model.parameters())) for y in (found, expected)]
        assert all(bool(g.any()) for g in grads[1])
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


def test_padding_counts_for_nothing():
    model, features = make(), make_features()
    wider = torch.zeros(3, 5, 12, dtype=torch.int64)
    wider[:, 1:4, :8] = make_tokens()  # empty captions before and behind, columns behind
    torch.testing.assert_close(model(features, wider), model(features, make_tokens()), rtol=1e-10, atol=1e-10)


def test_a_grid_without_boxes_is_its_cells_and_boxes_matter():
    model, features, tokens = make(), make_features(), make_tokens()
    expected = model(features, tokens)
    boxes = cell_boxes(9).expand(3, 9, 4)
    torch.testing.assert_close(model(replace(features, boxes=boxes), tokens), expected)
    assert not torch.allclose(model(replace(features, boxes=boxes.flip(1) ** 2), tokens), expected)
    assert not torch.allclose(make(plus_one=False)(features, tokens), expected)


def test_an_image_without_regions_harms_no_other():
    model, features = make(), joined(make_regions())
    valid = features.valid.clone()
    valid[1] = False
    found, expected = model(replace(features, valid=valid), make_tokens()), model(features, make_tokens())
    others = torch.tensor([True] * 12 + [False] * 6 + [True] * 8)
    assert found.isfinite().all()
    torch.testing.assert_close(found[others], expected[others], rtol=1e-9, atol=1e-9)


def test_search_steps_equal_the_whole_forward():
    """Rows repeated, reordered, dropped, several to an image, one image left out."""
    model, features = make().eval(), joined(make_regions())
    state = model.start(features)
    image = np.arange(3)
    written = [[] for _ in image]
    rng = np.random.default_rng(0)
    for rows in (None, [2, 0, 0, 2, 2], [1, 1, 0, 4, 3], [4, 2, 3], [1, 1]):
        if rows is not None:
            state, image = model.select(state, np.array(rows)), image[rows]
            written = [list(written[row]) for row in rows]
        tokens = rng.integers(4, 17, len(image))
        before = state
        values, ids, state = model.step(state, tokens, k=1000)
        again, _, _ = model.step(before, tokens, k=1000)
        assert np.array_equal(values, again)
        for words, token in zip(written, tokens, strict=True):
            words.append(int(token))
        for row, words in enumerate(written):
            only = features[slice(image[row], image[row] + 1)]
            expected = model(only, torch.tensor([[[*words, EOS]]]))[-1].log_softmax(-1).detach().numpy()
            np.testing.assert_allclose(values[row], expected[ids[row]], atol=1e-5)
            assert (np.diff(values[row]) <= 0).all()


def test_every_matrix_is_read_once_a_call():
    reads: Counter[str] = Counter()

    class Counting(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, weight: Tensor) -> Tensor:
            reads[self.name] += 1
            return weight

    model = make()
    matrices = {name: p for name, p in model.named_parameters() if p.ndim > 1}
    for name in matrices:
        module, _, attribute = name.rpartition(".")
        parametrize.register_parametrization(model.get_submodule(module), attribute, Counting(name), unsafe=True)
    reads.clear()
    model(joined(make_regions()), make_tokens())
    assert reads == dict.fromkeys(matrices, 1)


def test_dropouts_reach_training_only():
    features, tokens = make_features(), make_tokens()
    expected = make()(features, tokens)
    for option in ("dropout", "input_dropout"):
        model = make(**{option: 0.5}).train()
        assert not torch.allclose(model(features, tokens), expected)
        torch.testing.assert_close(model.eval()(features, tokens), expected)


def test_initial_weights_are_xavier_uniform_but_for_the_input():
    torch.manual_seed(0)
    model = ObjectRelation(replace(SMALL, width=64, vocabulary=500, grid_channels=100))
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            outputs, inputs = (1, 64) if name.startswith("relation") else parameter.shape
            bound = 1 / 10 if name.startswith("region") else (6 / (inputs + outputs)) ** 0.5
            assert parameter.abs().max().item() == pytest.approx(bound, rel=0.05), name
            assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.15), name


def test_bfloat16_stays_close_to_float32():
    torch.manual_seed(0)
    model = ObjectRelation(ObjectRelationConfig(200, 32, 16, 2, 64, 128, 4, 0.0, dropout=1e-9))
    features = Features(torch.randn(4, 9, 32), torch.randn(4, 16))
    tokens = torch.randint(4, 200, (4, 5, 12))
    grads = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = model(features, tokens)
        loss = F.cross_entropy(logits.float(), tokens[:, :, 1:].flatten())
        grads.append((loss, torch.autograd.grad(loss, list(model.parameters()))))
    (expected, exact), (found, rough) = grads
    assert found.item() == pytest.approx(expected.item(), rel=2e-3)
    for (name, parameter), a, b in zip(model.named_parameters(), exact, rough, strict=True):
        assert b.dtype == parameter.dtype
        if not name.endswith("key.bias"):  # softmax is blind to it: its gradient is rounding only
            assert F.cosine_similarity(a.flatten(), b.flatten(), 0) > 0.95, name


def test_nothing_but_parameters_is_stored_and_meta_building_loses_nothing():
    model, features, tokens = make(), make_features(), make_tokens()
    with torch.device("meta"):
        built = ObjectRelation(SMALL).double()
    assert built.state_dict().keys() == dict(built.named_parameters()).keys()
    built = built.to_empty(device="cpu")
    built.load_state_dict(model.state_dict())
    assert torch.equal(built(features, tokens), model(features, tokens))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("layers", 0),
        ("layers", 10**9),
        ("width", 18),
        ("heads", 3),
        ("feed_forward", -1),
        ("dropout", 1.0),
        ("input_dropout", -0.1),
    ],
)
def test_impossible_options_are_named(option, value):
    with pytest.raises(ConfigError, match=f"{option} = {value}"):
        replace(SMALL, **{option: value})
