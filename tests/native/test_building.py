"""The native library is compiled whole or not at all, and a machine without a compiler is told so in one line."""

import ctypes
import os
from dataclasses import replace

import pytest

from laconic.native import building
from laconic.native.building import FAILURES, build, is_current, main, this_machine

COMPILERS = ["no-such-compiler", "false", " ", "'", "cc -DX='"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where temporary files go; empty at the end."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    yield tmp_path
    assert not list(temporary.iterdir())


def one_source():
    """Of the library's, which compiles in a moment; skips where no compiler is."""
    target = replace(this_machine(), levels=False, per_level=("gating.c",), sources=())
    try:
        building._run([*target.compiler, "--version"])
    except FAILURES:
        pytest.skip("no C compiler here")
    return target


def test_what_is_built_can_be_loaded(folder):
    made = build(one_source(), folder / "library")
    ctypes.CDLL(str(made))
    assert sorted(path.name for path in folder.iterdir()) == ["library", "temporary"]


@pytest.mark.parametrize("compiler", COMPILERS)
def test_without_a_compiler_one_line_says_so(compiler, folder, monkeypatch, capsys):
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setattr(building, "is_current", lambda library: False)
    monkeypatch.setattr(building, "build", lambda target, output: build(target, folder / "library"))
    main([])
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith("note: the native library is not compiled, numpy takes its place (")
    assert said.err.count("\n") == 1
    assert not (folder / "library").exists()


def test_a_failure_leaves_the_library_that_was_there(folder):
    library = folder / "library"
    library.write_bytes(b"old")
    target = replace(one_source(), per_level=("gating.c", "no_such.c"))
    with pytest.raises(FAILURES, match=r"no_such\.c"):
        build(target, library)
    assert library.read_bytes() == b"old"


def test_a_compiler_that_hangs_is_given_up(folder, monkeypatch):
    monkeypatch.setattr(building, "SECONDS", 0.2)
    slow = folder / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf8")
    slow.chmod(0o755)
    with pytest.raises(FAILURES):
        build(replace(this_machine(), compiler=(str(slow),)), folder / "library")


def test_every_level_is_compiled_for_its_processors(tmp_path):
    commands = list(building._compilations(replace(building.TARGETS["linux-x86_64"], compiler=("cc",)), tmp_path))
    marches = [[word for word in command if word.startswith("-march=")] for command in commands]
    assert marches == [[f"-march=x86_64_{level}"] for level in ("v2", "v3", "v4")] * 2 + [[], []]
    assert len({command[-1] for command in commands}) == len(commands)


def test_a_library_is_current_until_a_source_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "HERE", tmp_path)
    library, source = tmp_path / "library", tmp_path / "engine.c"
    source.touch()
    assert not is_current(library)
    library.touch()
    os.utime(library, (2**33, 2**33))
    assert is_current(library)
    os.utime(source, (2**33 + 1, 2**33 + 1))
    assert not is_current(library)
