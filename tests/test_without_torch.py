"""An installation without the extra `train`: all that needs PyTorch says so in one line, all else works."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from laconic import store
from laconic.spec.model import EncoderConfig

LINE = "laconic: training needs PyTorch: pip install 'laconic[train]'\n"
WITHOUT = """
import importlib.abc, sys
class Without(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in {missing}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Without())
"""
COMMAND = "from laconic.cli import main; sys.exit(main(sys.argv[1:]))"
NAMES = """
import laconic
from laconic import Decoding, LaconicError, Vocabulary, data, metrics, store
for name in ("Pruner", "Supermask", "ImageCaptioner"):
    try:
        getattr(laconic, name)
    except LaconicError as error:
        print(error)
"""


def run(code: str, *words: str, missing: tuple[str, ...] = ("torch", "filelock")) -> tuple[int, str, str]:
    """Exit code, output and errors of code in an installation that lacks packages."""
    code = WITHOUT.format(missing=missing) + code
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def packed(tmp_path):
    path = tmp_path / "model.safetensors"
    store.save({"w": np.eye(8, dtype=np.float32)}, path, config={"a": 1}, vocabulary=["x", "y"])
    return path


@pytest.mark.parametrize("verb", ["demo", "train", "study", "pack"])
def test_what_trains_says_what_is_missing(verb, packed, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.touch()
    out = str(tmp_path / "out")
    words = {
        "demo": ["demo", "--out", out],
        "train": ["train", str(recipe), "--out", out],
        "study": ["study", str(recipe), "--out", out],
        "pack": ["pack", str(packed), "-o", out, "--values", "compact"],
    }
    assert run(COMMAND, *words[verb]) == (2, "", LINE)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["caption", "--help"], ["pack", "--help"]])
def test_help_is_there(words):
    code, said, errors = run(COMMAND, *words)
    assert (code, errors) == (0, "")
    assert "laconic" in said


def test_packed_files_are_looked_at_and_repacked(packed, tmp_path):
    code, said, errors = run(COMMAND, "inspect", str(packed))
    assert (code, errors) == (0, "")
    assert "w" in said
    out = tmp_path / "again.safetensors"
    assert run(COMMAND, "pack", str(packed), "-o", str(out), "--values", "exact")[0] == 0
    np.testing.assert_array_equal(store.load(out)["w"], np.eye(8))


@pytest.mark.parametrize("native", ["1", "0"])
def test_photos_and_folders_are_captioned(native, random_captioner, tmp_path, monkeypatch):
    """By the native library, and by numpy."""
    file = random_captioner("soft_attention", EncoderConfig("vgg_small", 64, 16))
    (tmp_path / "photos").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    monkeypatch.setenv("LACONIC_NATIVE", native)
    code, said, errors = run(
        COMMAND, "caption", str(file), str(tmp_path / "photos"), "--json", str(tmp_path / "a.json")
    )
    assert (code, errors) == (0, "")
    rows = json.loads((tmp_path / "a.json").read_text())
    assert said.splitlines() == [f"{row['image']}: {row['caption']}" for row in rows]
    words = ["caption", str(file), "--folder", str(tmp_path / "photos"), "--out", str(tmp_path / "b.jsonl")]
    assert run(COMMAND, *words)[0] == 0
    folder = [json.loads(line)["caption"] for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert folder == [row["caption"] for row in rows]
    assert run(COMMAND, "plan", str(file), "-o", str(tmp_path / "a.plan"))[0] == 0
    assert run(COMMAND, "caption", str(file), "x.jpg", "--backend", "torch") == (2, "", LINE)


def test_names_that_train_are_errors_of_one_line():
    assert run(NAMES) == (0, LINE.removeprefix("laconic: ") * 3, "")


def test_what_else_is_missing_is_a_bug():
    code, _, errors = run(COMMAND, "inspect", "x", missing=("rich.console",))
    assert code == 1
    assert "ModuleNotFoundError" in errors
