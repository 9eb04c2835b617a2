"""Checkpoints survive kills and full disks, and are never executed."""

import errno
import io
import os
import pickle
import random
import resource
import zipfile

import pytest
import torch

from laconic.errors import FormatError, TrainingError
from laconic.training import checkpoint
from laconic.training.checkpoint import load_checkpoint, save_checkpoint

STATE = {
    "step": 3,
    "seconds": 1.5,
    "best": {"CIDEr": 0.5},
    "model": {"a.weight": torch.arange(6.0).view(2, 3)},
    "nested": {"groups": [{"lr": 0.1, "betas": (0.9, 0.99), "fused": True, "foreach": None}]},
}


def test_round_trip(tmp_path):
    save_checkpoint(STATE, tmp_path / "last.pt")
    found = load_checkpoint(tmp_path / "last.pt")
    assert torch.equal(found["model"]["a.weight"], STATE["model"]["a.weight"])
    assert {k: v for k, v in found.items() if k not in ("model", "format")} == {
        k: v for k, v in STATE.items() if k != "model"
    }
    assert os.listdir(tmp_path) == ["last.pt"]


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def half_written(state: object, file: io.BufferedWriter) -> None:
    """What torch.save does on a full disk: some bytes, then a RuntimeError."""
    file.write(b"PK\x03\x04 half of a checkpoint")
    raise RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0")


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(
    ("where", "what", "failure"),
    [
        (torch, "save", half_written),
        (checkpoint._Told, "write", full_disk),
        (torch, "save", full_disk),
        (os, "fsync", full_disk),
        (os, "replace", full_disk),
    ],
)
def test_a_full_disk_keeps_the_previous_checkpoint(where, what, failure, kept, tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    if kept:
        save_checkpoint({"step": 1}, path)
    with monkeypatch.context() as broken:
        broken.setattr(where, what, failure)
        with pytest.raises(TrainingError, match=r"last\.pt: checkpoint cannot be written") as raised:
            save_checkpoint(STATE, path)
    assert what == "save" or "No space left on device" in str(raised.value)
    said = "the previous checkpoint is intact" if kept else "nothing was kept"
    assert said in str(raised.value)
    assert "--resume" in str(raised.value)
    assert os.listdir(tmp_path) == (["last.pt"] if kept else [])
    if kept:
        assert load_checkpoint(path)["step"] == 1
    save_checkpoint(STATE, path)  # and later there is room again
    assert load_checkpoint(path)["step"] == 3


def test_the_system_refuses_bytes_half_way(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint({"step": 1}, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(TrainingError, match="previous checkpoint is intact"):
            save_checkpoint({"weights": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_checkpoint(path)["step"] == 1
    assert os.listdir(tmp_path) == ["last.pt"]


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(TrainingError, match="nothing was kept"):
        save_checkpoint(STATE, tmp_path / "absent" / "last.pt")


def test_an_absent_checkpoint(tmp_path):
    with pytest.raises(FormatError, match=r"last\.pt: no such checkpoint"):
        load_checkpoint(tmp_path / "last.pt")
    with pytest.raises(FormatError, match="damaged checkpoint"):
        load_checkpoint(tmp_path)


def test_damage_anywhere_is_one_clear_error(tmp_path):
    """Cut anywhere, or overwritten in places: FormatError, or a state where slack bytes were hit."""
    path = tmp_path / "last.pt"
    save_checkpoint(STATE, path)
    whole = path.read_bytes()
    rng = random.Random(0)
    cuts = [whole[: rng.randrange(len(whole))] for _ in range(60)]
    garbage = [b"", b"\0" * 50, b"not a checkpoint", b"\x80\x02}q\x00.", rng.randbytes(3000), b"\x80\x05"]
    for data in cuts + garbage:
        path.write_bytes(data)
        with pytest.raises(FormatError, match=r"last\.pt: "):
            load_checkpoint(path)
        assert path.read_bytes() == data  # left for the user to look at
    for _ in range(200):
        flipped = bytearray(whole)
        for _ in range(rng.choice([1, 1, 30])):
            flipped[rng.randrange(len(whole))] = rng.randrange(256)
        path.write_bytes(flipped)
        try:
            load_checkpoint(path)
        except FormatError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_every_flipped_bit_of_a_tensor_is_found(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(STATE, path)
    whole = path.read_bytes()
    place = whole.index(STATE["model"]["a.weight"].numpy().tobytes())
    for bit in range(24 * 8):
        flipped = bytearray(whole)
        flipped[place + bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(FormatError, match=r"last\.pt: damaged checkpoint \((the checksum of|Bad CRC-32)"):
            load_checkpoint(path)


@pytest.mark.parametrize("size", [10**6, 2 * 10**9])
def test_what_unpacks_to_more_than_the_file_is_not_unpacked(size, tmp_path):
    """Compressed, or with entries that claim the same bytes."""
    save_checkpoint(STATE, tmp_path / "last.pt")
    with (
        zipfile.ZipFile(tmp_path / "last.pt") as sound,
        zipfile.ZipFile(
            tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED if size < 10**9 else zipfile.ZIP_STORED
        ) as bomb,
    ):
        for entry in sound.infolist():
            bomb.writestr(entry.filename, sound.read(entry))
        bomb.writestr("archive/data/9", bytes(10**6))
    data = bytearray((tmp_path / "bomb.pt").read_bytes())
    if size > 10**6:
        place = data.rindex(b"PK\x01\x02") + 20  # compressed and uncompressed size in the central directory
        data[place : place + 8] = size.to_bytes(4, "little") * 2
        (tmp_path / "bomb.pt").write_bytes(data)
    with pytest.raises(FormatError, match=r"is compressed|bytes, the limit is"):
        load_checkpoint(tmp_path / "bomb.pt")


class Bomb:
    """Pickles to a call that leaves a file behind when it is executed."""

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.trace,)


@pytest.mark.parametrize("kind", ["torch", "legacy", "pickle", "zip"])
def test_code_in_a_checkpoint_is_never_executed(kind, tmp_path):
    path, trace = tmp_path / "last.pt", tmp_path / "executed"
    hostile = {"format": 1, "step": Bomb(str(trace))}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(hostile))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", pickle.dumps(hostile, 2))
            file.writestr("archive/version", "3\n")
    else:
        torch.save(hostile, path, _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(FormatError, match="damaged checkpoint"):
        load_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize("state", [{"step": 3}, {"format": 2}, [1, 2], torch.zeros(3)])
def test_other_peoples_files_are_refused(state, tmp_path):
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(FormatError, match="not a checkpoint of this version"):
        load_checkpoint(tmp_path / "other.pt")
