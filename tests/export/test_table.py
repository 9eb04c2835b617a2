"""Exports are whole or not there, never take anything away, and take no option that they would ignore."""

import json

import pytest

from laconic.errors import ConfigError, FormatError
from laconic.export.table import TARGETS, Options, export, is_export
from laconic.spec.model import EncoderConfig


@pytest.fixture(scope="module")
def file(random_captioner):
    return random_captioner("soft_attention", EncoderConfig("mobilenet_v1_025", 64, 16))


def test_an_export_says_what_it_is_and_takes_the_place_of_an_earlier_one(file, tmp_path):
    folder = tmp_path / "deep" / "app"
    lines = export(file, folder, "c")
    (folder / "old").write_text("of the user")
    assert export(file, folder, "c") == lines
    manifest = json.loads((folder / "export.json").read_text())
    assert manifest["laconic_export"] == "c"
    assert manifest["captioner"] == file.name
    assert manifest["bytes"] == {
        path.name: path.stat().st_size for path in folder.iterdir() if path.name != "export.json"
    }
    assert f"{sum(manifest['bytes'].values()):,} bytes" in lines[-1]


@pytest.mark.parametrize("content", ["notes.txt", "export.json"])
def test_a_folder_of_something_else_is_left_alone(content, file, tmp_path):
    (tmp_path / content).write_text("{}")
    assert not is_export(tmp_path)
    with pytest.raises(ConfigError, match="holds something else than an export; give a new or an empty folder"):
        export(file, tmp_path, "c")
    assert (tmp_path / content).read_text() == "{}"


def test_a_file_is_no_folder(file, tmp_path):
    (tmp_path / "app").write_text("")
    with pytest.raises(ConfigError, match="holds something else"):
        export(file, tmp_path / "app", "c")


def test_what_fails_leaves_nothing_and_takes_nothing(file, tmp_path):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(FormatError):
        export(damaged, tmp_path / "app", "c")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.safetensors"]


@pytest.mark.parametrize(
    ("to", "options", "named"),
    [
        ("c", Options(int8=True), "--int8 is not for --to c, which takes --width"),
        ("c", Options(beam=5), "--beam is not for --to c"),
        ("onnx", Options(width="bfloat16"), "--width is not for --to onnx, which takes --max-length, --int8"),
        ("web", Options(int8=True), "--int8 is not for --to web, which takes --width, --beam, --max-length"),
    ],
)
def test_options_that_a_target_would_ignore_are_refused(to, options, named, file, tmp_path):
    with pytest.raises(ConfigError, match=named):
        export(file, tmp_path / "app", to, options)
    assert not (tmp_path / "app").exists()


def test_every_target_has_a_module_that_writes():
    from importlib import import_module

    for target in TARGETS.values():
        assert callable(import_module(target.module).write)
