"""Memory that a process has freed is still its own, and its threads are no more than its cores."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from laconic.cli.arguments import open_captioner
from laconic.errors import FormatError
from laconic.machine import process

PROGRAM = """
import resource, torch
from laconic.machine.process import settle_in
def step():
    for _ in range(5):
        x = torch.ones(2**23)  # 32 MiB, more than any heap keeps by default
def faults():
    for _ in range(6):  # until the heap has its size
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
torch.set_num_threads(1)
print(faults())
settle_in(1)
assert torch.get_num_threads() == 1
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library can be told")
def test_freed_memory_is_used_again():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < 200
    assert before > 10 * after


def test_never_more_threads_than_cores(monkeypatch):
    set_to = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setattr(process, "keep_memory", lambda: None)
    monkeypatch.setattr(process, "cores", lambda: 4)
    for asked in (0, 3, 1, 4, 1500):
        process.settle_in(asked)
    assert set_to == [1, 4, 4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3000)  # OMP_NUM_THREADS says so
    process.settle_in()
    assert set_to[3:] == [4]


def test_files_processes_and_threads_need_no_torch():
    program = """
import sys
from laconic.machine import files, memory, noise, process, threads
memory.keep_memory()
assert process.cores() > 0
assert noise.words_for((3, 3)) == 3
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_captioning_starts_no_more_threads_than_there_are_cores(monkeypatch):
    set_to = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1500)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    with pytest.raises(FormatError):
        open_captioner(Path("nowhere"), "torch")
    assert set_to == [process.cores()]
