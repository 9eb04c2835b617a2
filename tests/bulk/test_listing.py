"""What a folder or a tar file holds: every name, one order, bounded memory, hostile contents."""

import io
import os
import random
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stub import Stub, draw, request

from laconic.bulk import listing
from laconic.bulk.listing import Record, holds_files, records
from laconic.bulk.shards import write_shards
from laconic.bulk.worker import caption_folder
from laconic.decode.search import Decoding
from laconic.errors import DataError

HOSTILE = [b"a\nb.jpg", b"caf\xe9.jpg", "日本.jpg".encode(), b'quo"te,.jpg', b"back\\slash.jpg", b" .jpg", b"-rf.jpg"]


def names(root: Path, scratch: Path) -> list[str]:
    return [record.name for record in records(root, scratch)]


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_order_is_that_of_the_names_level_by_level(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for name in ("b.jpg", "a/2.jpg", "a/1.jpg", "a/deep/0.jpg", "a-b.jpg", "c/x.png", ".hidden.jpg", ".git/y.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    found = names(root, tmp_path)
    assert found == ["a/1.jpg", "a/2.jpg", "a/deep/0.jpg", "a-b.jpg", "b.jpg", "c/x.png"]
    assert found == [path.relative_to(root).as_posix() for path in sorted(map(root.joinpath, found))]


def test_hostile_names_are_kept(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    for name in HOSTILE:
        Path(os.fsdecode(os.path.join(os.fsencode(root), name))).touch()
    shards = write_shards(records(root, tmp_path), tmp_path / "listing", 2)
    assert [len(shards[shard]) for shard in range(len(shards))] == [2, 2, 2, 1]
    found = [record for shard in range(len(shards)) for record in shards[shard]]
    assert [os.fsencode(record.name) for record in found] == sorted(HOSTILE)


def test_linked_folders_come_last_and_each_once(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    (root / "z").mkdir(parents=True)
    (root / "z" / "1.jpg").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.jpg").touch()
    (root / "a").symlink_to(tmp_path / "elsewhere")
    (root / "b").symlink_to(root / "z")
    (root / "z" / "loop").symlink_to(root)
    (root / "broken.jpg").symlink_to(tmp_path / "nowhere")
    found = list(records(root, tmp_path))
    assert [record.name for record in found if not record.problem] == ["broken.jpg", "z/1.jpg", "a/2.jpg"]
    assert {record.name for record in found if "under another name" in record.problem} == {"b", "z/loop"}


def test_a_folder_too_large_for_memory_is_sorted_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, scratch = tmp_path / "photos", tmp_path / "scratch"
    for folder in (root, scratch, root / "500" / "below"):
        folder.mkdir(parents=True)
    for number in random.Random(0).sample(range(1000), 300):
        (root / f"{number}.jpg").touch()
    (root / "500" / "below" / "0.jpg").touch()
    expected = names(root, scratch)
    monkeypatch.setattr(listing, "RUN", 7)
    assert names(root, scratch) == expected
    assert len(expected) == 301
    assert not os.listdir(scratch)


def test_memory_does_not_grow_with_the_listing(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        shards = write_shards((Record(f"{n:09}.jpg") for n in range(count)), tmp_path / str(count))
        assert shards[len(shards) - 1][-1] == Record(f"{count - 1:09}.jpg")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(5_000) < peak(1_000) + 50_000


def test_ten_million_are_20_000_shards_at_most(tmp_path: Path) -> None:
    shards = write_shards((Record("1.jpg"),), tmp_path / "listing")
    large = type(shards)(shards.path, 10_000_000, 32, 512, "")
    assert (shards.size, len(shards)) == (32, 1)
    assert len(large) == 19_532
    assert large.length(19_531) == 128


@pytest.mark.parametrize("damage", [b"", b"[", b'["a.jpg"]\n["b.jpg"]\n["c.jpg"]\n'])
def test_a_damaged_listing(tmp_path: Path, damage: bytes) -> None:
    shards = write_shards((Record("a.jpg"), Record("b.jpg")), tmp_path / "listing", 2)
    shards.path.write_bytes(damage)
    if len(damage) > 1:
        (tmp_path / "listing.index").write_bytes((0).to_bytes(8, "little") + len(damage).to_bytes(8, "little"))
    with pytest.raises(DataError, match="damaged"):
        shards[0]


def test_images_of_tar_files(tmp_path: Path) -> None:
    """The captions are those of the same images as files."""
    root, plain = tmp_path / "tars", tmp_path / "plain"
    members = {f"{number:03}.png": png(number) for number in range(12)}
    for folder in (root, plain / "b.tar"):
        folder.mkdir(parents=True)
    write_tar(root / "b.tar", {**members, "000.txt": b"a text", "._1.png": b"", "../up.png": members["001.png"]})
    for name, data in members.items():
        (plain / "b.tar" / name).write_bytes(data)
    (root / "a.png").write_bytes(members["003.png"])
    outputs = {}
    for folder in (root, plain, root / "b.tar"):
        out = tmp_path / f"{folder.name}.jsonl"
        caption_folder(request(folder, out), Decoding(), Stub)
        outputs[folder] = out.read_text().splitlines()
    expected = outputs[plain]
    assert outputs[root][1:-1] == expected
    assert outputs[root][0].startswith('{"image": "a.png"')
    assert '"b.tar/../up.png"' in outputs[root][-1]
    assert outputs[root / "b.tar"][:-1] == [line.replace("b.tar/", "") for line in expected]


@pytest.mark.parametrize(
    ("change", "images", "reason"),
    [
        (lambda data: b"no tar file at all" * 100, 0, "not a plain tar file"),
        (lambda data: b"", 0, "not a plain tar file"),
        (lambda data: data[:1200], 1, "damaged at byte 1,024"),
        (lambda data: data[:1540], 2, "not a plain tar file, or damaged (unexpected end of data)"),
        (lambda data: data[:1024] + b"?" * 512 + data[1536:], 1, "damaged at byte 1,024"),
        (lambda data: b"\x1f\x8b" + data, 0, "not a plain tar file"),
    ],
)
def test_damaged_tar_files(tmp_path: Path, change: object, images: int, reason: str) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, {"1.png": b"1" * 10, "2.png": b"2" * 10})
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    found = list(records(tmp_path, tmp_path))
    assert [record.name for record in found if not record.problem] == [f"a.tar/{n + 1}.png" for n in range(images)]
    assert found[-1].name == "a.tar"
    assert reason in found[-1].problem


def test_what_a_tar_file_promises_and_does_not_hold(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    write_tar(root / "a.tar", {"1.png": png(1)})
    data = bytearray((root / "a.tar").read_bytes())
    header = tarfile.TarInfo("1.png")
    header.size = 2**40
    data[:512] = header.tobuf()
    (root / "a.tar").write_bytes(data)
    assert caption_folder(request(root, tmp_path / "out.csv"), Decoding(), Stub)["captions"] == 0
    assert "at most 536,870,912 are read" in (tmp_path / "out.csv.skipped.csv").read_text()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may open every folder")
def test_a_closed_folder_is_listed_with_the_reason(tmp_path: Path) -> None:
    draw(tmp_path / "photos", 2)
    (tmp_path / "photos" / "0").chmod(0)
    assert Record("0", problem="cannot be opened: Permission denied") in records(tmp_path / "photos", tmp_path)


def test_whether_there_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / ".c").touch()
    assert not holds_files(tmp_path)
    assert not holds_files(tmp_path / "nowhere")
    (tmp_path / "a" / "b" / "1.jpg").touch()
    assert holds_files(tmp_path)
    assert holds_files(tmp_path / "a" / "b" / "1.jpg")
