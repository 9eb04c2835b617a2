"""Latency of a slim model beside its dense one."""

import pytest
import torch
from torch import nn

from laconic.bench import latency as timed
from laconic.bench.latency import Latency, latency, repeated
from laconic.errors import ConfigError


class Watched(nn.Module):
    """Notes what it is given, and on how many threads it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def forward(self, x, scale=1):
        self.seen.append((tuple(x.shape), scale, torch.get_num_threads(), self.training, torch.is_grad_enabled()))


def test_both_models_run_in_turns_on_one_thread_on_equal_batches():
    dense, slim, threads = Watched(), Watched(), torch.get_num_threads()
    latency(dense, slim, {"x": torch.zeros(1, 5), "scale": 3}, batch=8, rounds=4)
    assert dense.seen == slim.seen == [((8, 5), 3, 1, False, False)] * (timed.WARMING + 4)
    assert torch.get_num_threads() == threads
    assert dense.training
    assert slim.training


def test_the_ratio_says_how_many_times_faster_the_slim_model_is(monkeypatch):
    monkeypatch.setattr(timed, "interleaved", lambda ways, rounds: {"dense": 0.3, "slim": 0.2})
    assert latency(Watched(), Watched(), {"x": torch.zeros(1)}) == Latency(0.3, 0.2)
    assert Latency(0.3, 0.2).ratio == pytest.approx(1.5)


def test_a_model_of_a_quarter_of_the_work_is_faster():
    found = latency(nn.Linear(1024, 4096), nn.Linear(1024, 256), {"input": torch.zeros(16, 1024)}, rounds=5)
    assert found.ratio > 2


def test_examples_are_repeated_along_their_first_dimension():
    found = repeated({"pixels": torch.arange(2).reshape(1, 2), "words": torch.arange(3), "flag": True}, 2)
    assert found["pixels"].tolist() == [[0, 1], [0, 1]]
    assert found["words"].tolist() == [0, 1, 2, 0, 1, 2]
    assert found["flag"] is True


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"rounds": 0}])
def test_nothing_to_time_is_refused(wrong):
    with pytest.raises(ConfigError, match="at least 1"):
        latency(Watched(), Watched(), {}, **wrong)
