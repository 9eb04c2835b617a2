"""Memory that a process has freed is still its own."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from laconic.machine.process import keep_memory, settle_in
settle_in(1) if {keep} else torch.set_num_threads(1)
assert torch.get_num_threads() == 1
def step():
    for _ in range(5):
        x = torch.ones(2**23)  # 32 MiB, more than any heap keeps by default
for _ in range(6):  # until the heap has its size
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library can be told")
def test_freed_memory_is_used_again():
    faults = {}
    for keep in (True, False):
        program = PROGRAM.format(keep=keep)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        faults[keep] = int(done.stdout)
    assert faults[True] < 200
    assert faults[False] > 10 * faults[True]
