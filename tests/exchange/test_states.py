"""Checkpoints by others: what may stand around the weights, and what is refused before it takes memory."""

import argparse
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from laconic.errors import FormatError
from laconic.exchange.states import read_state

MOST = 2**20
STATE = {"a": torch.arange(6.0).view(2, 3)}


@pytest.mark.parametrize(
    "saved", [STATE, {"model": STATE, "args": argparse.Namespace(lr=1.0), "epoch": 3}, {"state_dict": STATE}]
)
def test_weights_alone_or_beside_what_training_keeps(saved, tmp_path):
    torch.save(saved, tmp_path / "x.pth")
    assert torch.equal(read_state(tmp_path / "x.pth", MOST)["a"], STATE["a"])


def test_safetensors(tmp_path):
    save_file(STATE, tmp_path / "x.safetensors")
    assert torch.equal(read_state(tmp_path / "x.safetensors", MOST)["a"], STATE["a"])
    with pytest.raises(FormatError, match="the limit is 10"):
        read_state(tmp_path / "x.safetensors", 10)


class Runs:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("saved", "says"),
    [({"model": Runs()}, "holds more than tensors"), ({"a": 1}, "other than named tensors"), ([1], "other than named")],
)
def test_anything_else_is_refused_and_not_run(saved, says, tmp_path, capsys):
    torch.save(saved, tmp_path / "x.pth")
    with pytest.raises(FormatError, match=says):
        read_state(tmp_path / "x.pth", MOST)
    assert capsys.readouterr().out == ""


def test_a_missing_file_and_a_plain_pickle(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        read_state(tmp_path / "x.pth", MOST)
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(FormatError, match="not a sound PyTorch checkpoint"):
        read_state(tmp_path / "x.pth", MOST)


def test_a_bomb_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "x", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"")
    data = bytearray((tmp_path / "x").read_bytes())
    place = data.index(b"PK\x01\x02") + 24  # uncompressed size in the central directory
    data[place : place + 4] = (2**32 - 2).to_bytes(4, "little")
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(FormatError, match="is compressed, and so takes more memory than it tells"):
        read_state(tmp_path / "x", MOST)
