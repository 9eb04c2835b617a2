"""The demo in miniature: everything it promises to leave behind, and that a second call repeats nothing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from laconic import store
from laconic.captioner.packing import load
from laconic.cli.demo import DECODING, Demo, kept_by_layer, read_curves, recipes, run_demo
from laconic.config import differences, to_mapping
from laconic.data import read_image
from laconic.errors import ConfigError, TrainingError

TINY = Demo(encoder_epochs=1, epochs=4, train=160, val=8, pictures=3, threads=1)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    demo = replace(TINY, out=tmp_path_factory.mktemp("demo"))
    run_demo(demo)
    return demo


def test_both_models_learn_the_same_but_for_pruning_and_teacher() -> None:
    both = recipes(TINY)
    changed = differences(to_mapping(both["dense"]), to_mapping(both["pruned"]))
    assert {line.split(".")[0] for line in changed} == {"pruning", "distillation"}
    assert both["pruned"].distillation.teacher == str(TINY.out / "dense/model.safetensors")


def test_demo_leaves_what_it_promises(shown: Demo) -> None:
    numbers = json.loads((shown.out / "demo.json").read_text(encoding="utf8"))
    dense, pruned = numbers["models"]["dense"], numbers["models"]["pruned"]
    assert pruned["file_bytes"] == (shown.out / "pruned.safetensors").stat().st_size
    assert dense["file_bytes"] == (shown.out / "dense.safetensors").stat().st_size
    assert dense["weights"] == pruned["weights"]
    assert 0 <= pruned["named_right"] <= 1
    assert pruned["file_bytes"] * 10 < dense["file_bytes"]
    page = (shown.out / "index.html").read_text(encoding="utf8")
    assert page.count("<figure>") == shown.pictures


def test_matrices_of_encoder_and_decoder_have_the_asked_sparsity(shown: Demo) -> None:
    layers = kept_by_layer(shown.out / "pruned.safetensors")
    assert {layer.name.split(".")[0] for layer in layers} == {"encoder", "decoder"}
    trained = kept_by_layer(shown.out / "pruned" / "model.safetensors")
    total = sum(layer.weights for layer in trained)
    assert sum(layer.non_zeros for layer in trained) == total - int(shown.sparsity * total)
    # rounding to compact values turns the very smallest weights into further zeros
    assert all(small.non_zeros <= exact.non_zeros for small, exact in zip(layers, trained, strict=True))
    assert store.inspect(shown.out / "dense.safetensors").sparsity < 0.02


def test_packed_file_captions_the_pictures_left_behind(shown: Demo) -> None:
    files = sorted((shown.out / "pictures").glob("*.png"))
    assert len(files) == shown.pictures
    captions = load(shown.out / "pruned.safetensors").caption([read_image(file) for file in files], DECODING)
    page = (shown.out / "index.html").read_text(encoding="utf8")
    assert all(caption in page for caption in captions)


def untimed(path: Path) -> Any:
    """What a demo measured, but for the time of a caption, which is taken anew each time."""
    measured = json.loads(path.read_text(encoding="utf8"))
    assert all(model.pop("milliseconds") > 0 for model in measured["models"].values())
    return measured


def test_second_call_trains_nothing_and_prints_the_table(shown: Demo, capsys: pytest.CaptureFixture[str]) -> None:
    models = {name: (shown.out / name / "model.safetensors").stat().st_mtime_ns for name in ("dense", "pruned")}
    before = untimed(shown.out / "demo.json")
    run_demo(shown)
    for name, when in models.items():
        assert (shown.out / name / "model.safetensors").stat().st_mtime_ns == when
    assert untimed(shown.out / "demo.json") == before
    printed = capsys.readouterr().out
    for word in (
        "CIDEr",
        "of dense",
        "named right",
        "non-zeros",
        "file bytes",
        "ratio",
        "laconic caption",
        "laconic inspect",
        "index.html",
        "packing pruned: 1 of 1",
        "scoring pruned: 8 of 8",
        "captioning pictures: 6 of 6",
    ):
        assert word in printed


def test_other_settings_need_another_folder(shown: Demo) -> None:
    with pytest.raises(TrainingError, match="--out"):
        run_demo(replace(shown, epochs=3))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("train", 4001),
        ("val", 401),
        ("pictures", 0),
        ("sparsity", 1.5),
        ("sparsity", 0),
        ("threads", -2),
    ],
)
def test_values_that_are_not_possible_are_refused(name: str, value: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=name):
        run_demo(replace(TINY, out=tmp_path / "demo", **{name: value}))
    assert not (tmp_path / "demo").exists()


def test_curves_pass_over_a_line_cut_short(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 20, "loss": 1.5, "sparsity": 0.1}\n{"step": 40, "CIDEr": 2.0}\n{"step": 60, "lo')
    assert read_curves(log) == {"loss": [(20, 1.5)], "sparsity": [(20, 0.1)], "CIDEr": [(40, 2.0)]}
