"""C kernels: made where a compiler is, done without where it is not."""

import ctypes

import pytest
import torch

from laconic.machine import compiler as native
from laconic.machine.compiler import compiled, in_threads, run

SOURCE = """
#include <stddef.h>
#include <stdint.h>
int64_t smallest(size_t n, const int64_t *x)
{
    int64_t least = INT64_MAX;
    for (size_t i = 0; i < n; i++)
        least = x[i] < least ? x[i] : least;
    return least;
}
void scale(size_t n, const float *x, double *out, float factor)
{
    for (size_t i = 0; i < n; i++)
        out[i] = x[i] * factor;
}
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "scale.c"
    path.write_text(SOURCE, encoding="utf8")
    return path


@pytest.fixture
def library(source) -> ctypes.CDLL:
    made = compiled(source)
    if made is None:
        pytest.skip("no C compiler here")
    return made


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("size", [0, 1, 1000, 1001])
def test_threads_share_all_elements(library, threads, size, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(native, "GRAIN", 100)
    x, out = torch.randn(size), torch.full((size,), torch.nan, dtype=torch.float64)
    run(library, "scale", (x, out), (ctypes.c_float(0.5),))
    assert torch.equal(out, x.double() / 2)


def test_every_thread_tells_its_result(library, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(native, "GRAIN", 100)
    assert run(library, "smallest", (torch.arange(-(2**40), 303 - 2**40),), restype=ctypes.c_int64) == [
        -(2**40),
        101 - 2**40,
        202 - 2**40,
    ]


def test_a_task_within_a_task_does_not_wait_for_its_own_thread(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def task(index: int) -> list[int]:
        return in_threads(lambda inner: 10 * index + inner, 5)

    assert in_threads(task, 3) == [[10 * index + inner for inner in range(5)] for index in range(3)]


def test_what_a_task_raises_comes_out(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda index: 1 // index, 3)


def test_a_source_is_compiled_once(library, source):
    assert compiled(source) is library


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false", " ", "'", "cc -DX='"])
def test_no_compiler_no_library(source, compiler, monkeypatch):
    monkeypatch.setenv("CC", compiler)
    assert compiled(source) is None


def test_a_compiler_without_the_processors_own_flags_will_do(source, tmp_path, monkeypatch):
    """One that refuses -march, as some do."""
    picky = tmp_path / "picky"
    picky.write_text('#!/bin/sh\ncase "$*" in *-march*) exit 1;; esac\nexec cc "$@"\n', encoding="utf8")
    picky.chmod(0o755)
    monkeypatch.delenv("CC", raising=False)
    compiled.cache_clear()
    possible = compiled(source) is not None
    compiled.cache_clear()
    monkeypatch.setenv("CC", str(picky))
    assert (compiled(source) is not None) == possible


def test_what_cannot_be_loaded_is_no_library(source, tmp_path, monkeypatch):
    """A compiler for another system."""
    foreign = tmp_path / "foreign"
    foreign.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho foreign > "$2"\n', encoding="utf8")
    foreign.chmod(0o755)
    monkeypatch.setenv("CC", str(foreign))
    assert compiled(source) is None


def test_a_compiler_that_hangs_is_given_up(source, tmp_path, monkeypatch):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf8")
    slow.chmod(0o755)
    monkeypatch.setenv("CC", str(slow))
    monkeypatch.setattr(native, "SECONDS", 0.2)
    assert compiled(source) is None


def test_no_folder_no_library(source, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    assert compiled(source) is None


def test_a_source_that_does_not_compile_gives_no_library(tmp_path):
    broken = tmp_path / "broken.c"
    broken.write_text("void scale(", encoding="utf8")
    assert compiled(broken) is None


def test_nothing_is_left_behind(source, tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    compiled(source)
    assert not list(folder.iterdir())
