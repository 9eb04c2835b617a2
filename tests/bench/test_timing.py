import subprocess
import sys
import time

import pytest

from laconic.bench.timing import interleaved


def test_ways_take_turns() -> None:
    calls: list[str] = []
    interleaved({name: lambda name=name: calls.append(name) for name in "ABC"}, rounds=2)
    assert "".join(calls) == "ABCABC"


def test_time_is_the_processors() -> None:
    def busy() -> None:
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass

    seconds = interleaved({"asleep": lambda: time.sleep(0.05), "busy": busy}, rounds=1)
    assert seconds["asleep"] < 0.015 < seconds["busy"]


def test_median_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 5.0, 10.0, 11.0, 20.0, 22.0])
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    assert interleaved({"A": lambda: None}, rounds=3) == {"A": 2.0}


def test_what_takes_too_long_is_ended() -> None:
    program = """
import time
from laconic.bench.timing import bounded
try:
    with bounded(0.01):
        time.sleep(5)
except TimeoutError as error:
    print(error)
with bounded(0.05):
    pass
time.sleep(0.1)
print("no alarm is left")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "not done after 0 s\nno alarm is left\n"
