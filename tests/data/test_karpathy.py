"""The Karpathy reader: real files, the writer's files, and files made to break it."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laconic.data import Example, Scenes, karpathy, load, photos, write_karpathy
from laconic.data.karpathy import load_karpathy
from laconic.errors import ConfigError, DataError
from laconic.metrics import evaluate
from laconic.text import Vocabulary


def entry(imgid: int, **fields: Any) -> dict[str, Any]:
    sentences = [{"raw": f"Caption {imgid} . "}]
    filled = {"filename": f"{imgid}.jpg", "imgid": imgid, "split": "train", "sentences": sentences}
    return filled | fields


def write(root: Path, entries: list[Any], place: str = ".") -> None:
    (root / "dataset_x.json").write_text(json.dumps({"dataset": "x", "images": entries}))
    for item in entries:
        file = root / place / item.get("filepath", "") / item["filename"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_flickr8k(shared: Path) -> None:
    root = shared / "data/flickr8k"
    train, val = (load_karpathy(root, split, "flickr8k") for split in ("train", "val"))
    assert (len(train), len(val)) == (6000, 1000)
    assert {len(example.captions) for example in train + val} == {5}
    assert not {example.id for example in train} & {example.id for example in val}
    assert train[0].captions[1] == "A girl going into a wooden building ."
    assert val[999].pixels().shape == (224, 224, 3)
    with pytest.raises(DataError, match=r"'test'; it has train \(6000\), val \(1000\), unused"):
        load_karpathy(root, "test", "flickr8k")


def test_coco(shared: Path) -> None:
    root = shared / "data/coco_sample"
    file = root / "dataset_coco_testing.json"
    train = load_karpathy(root, "train", "coco", annotations=file)
    assert sorted(example.id for example in train) == [57870, 384029, 522418]  # one is restval
    assert train[0].pixels().shape == (480, 640, 3)
    assert len(load_karpathy(root, "train", "coco", annotations=file, restval=False)) == 2
    assert len(load_karpathy(root, "restval", "coco", annotations=file, restval=False)) == 1


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    splits = {"train": Scenes(4), "val": Scenes(2, split="val")}
    path = write_karpathy(tmp_path, "flickr8k", splits)
    assert path == tmp_path / "dataset_flickr8k.json"
    ids = []
    for split, scenes in splits.items():
        examples = load_karpathy(tmp_path, split, "flickr8k")
        assert len(examples) == len(scenes)
        for index, example in enumerate(examples):
            assert example.captions == scenes[index].captions
            np.testing.assert_array_equal(example.pixels(), scenes[index].pixels())
            ids.append(example.id)
    assert ids == list(range(6))
    sentence = json.loads(path.read_text())["images"][1]["sentences"][2]
    assert sentence["tokens"] == sentence["raw"].split()
    assert (sentence["imgid"], sentence["sentid"]) == (1, 7)
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("place", photos.IMAGE_FOLDERS)
@pytest.mark.parametrize("filepath", [None, "val2014"])
def test_where_images_may_lie(tmp_path: Path, place: str, filepath: str | None) -> None:
    write(tmp_path, [entry(7) | ({"filepath": filepath} if filepath else {})], place)
    image = load_karpathy(tmp_path, "train", "x")[0].image
    assert isinstance(image, Path)
    assert image.is_file()


def test_field_variants(tmp_path: Path) -> None:
    sentences = [
        {"tokens": ["two", "dogs"]},
        {"raw": "  A\tcat \n", "tokens": ["no"]},
        {"raw": " "},
    ]
    write(tmp_path, [entry(3, cocoid=42, sentences=sentences), entry(4)])
    first, second = load_karpathy(tmp_path, "train", "x")
    assert (first.id, second.id) == (42, 4)
    assert first.captions == ("two dogs", "A cat")


CHINESE = {"raw": "一只狗在草地上奔跑，很高兴。", "tokens": ["一只", "狗", "在", "草地", "上", "奔跑", "很", "高兴"]}
SPACED = "一只 狗 在 草地 上 奔跑 很 高兴"


def test_tokens_are_used_where_sentences_have_no_spaces(tmp_path: Path) -> None:
    write(tmp_path, [entry(0, sentences=[CHINESE] * 2), entry(1, split="val", sentences=[CHINESE, {"raw": "狗"}])])
    assert load_karpathy(tmp_path, "train", "x")[0].captions == (SPACED, SPACED)
    assert load_karpathy(tmp_path, "val", "x")[0].captions == (SPACED, "狗")
    assert load_karpathy(tmp_path, "train", "x", tokens="never")[0].captions[0] == CHINESE["raw"]
    vocabulary = Vocabulary.build(load_karpathy(tmp_path, "train", "x")[0].captions, min_count=1)
    assert set(vocabulary.words[4:]) == set(CHINESE["tokens"])
    assert vocabulary.decode(vocabulary.encode(SPACED, 20)) == SPACED
    scores = evaluate({0: [SPACED], 1: ["一只 猫"]}, {0: SPACED, 1: "一只 狗"})
    assert scores["Bleu_1"] == pytest.approx(0.9)


def test_tokens_are_used_on_request_alone_where_there_are_spaces(tmp_path: Path) -> None:
    sentences = [{"raw": "A dog, running.", "tokens": ["a", "dog", "running"]}, {"raw": "No tokens"}]
    write(tmp_path, [entry(0, sentences=sentences)])
    assert load_karpathy(tmp_path, "train", "x")[0].captions == ("A dog, running.", "No tokens")
    assert load_karpathy(tmp_path, "train", "x", tokens="always")[0].captions == ("a dog running", "No tokens")
    with pytest.raises(ConfigError, match="tokens = 'yes'; give one of auto, always, never"):
        load_karpathy(tmp_path, "train", "x", tokens="yes")


def test_names_that_are_no_utf8_are_found(tmp_path: Path) -> None:
    (tmp_path / "dataset_x.json").write_text(json.dumps({"images": [entry(0, filename="caf\udce9.jpg")]}))
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb"):
        (example,) = load_karpathy(tmp_path, "train", "x")
    assert example.image.is_file()
    assert example.name == f"{tmp_path}/caf\\xe9.jpg"


def test_missing_images(tmp_path: Path) -> None:
    write(tmp_path, [entry(i) for i in range(9)])
    for i in range(5):
        (tmp_path / f"{i}.jpg").unlink()
    with pytest.raises(DataError, match=r"5 of 9 images .*\(0\.jpg, 1\.jpg, 2\.jpg, \.\.\.\)"):
        load_karpathy(tmp_path, "train", "x")
    examples = load_karpathy(tmp_path, "train", "x", photos="some")
    assert [example.id for example in examples] == list(range(9))
    assert [example.image.exists() for example in examples] == [False] * 5 + [True] * 4
    for i in range(5, 9):
        (tmp_path / f"{i}.jpg").unlink()
    with pytest.raises(DataError, match="9 of 9 images"):
        load_karpathy(tmp_path, "train", "x", photos="some")
    assert [example.captions for example in load_karpathy(tmp_path, "train", "x", photos="none")] == [
        example.captions for example in examples
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": 3}, r"images\[1\]\.split must be a string, not int"),
        ({"filename": None}, r"images\[1\]\.filename must be a string, not missing"),
        ({"filename": ""}, r"images\[1\]\.filename must be the name of a file"),
        ({"filename": "sub/5.jpg"}, r"images\[1\]\.filename must be the name of a file"),
        ({"filename": "../5.jpg"}, r"images\[1\]: .* leads out of the root"),
        ({"filename": ".."}, r"images\[1\]: .* leads out of the root"),
        ({"filename": "/etc/passwd"}, r"images\[1\]\.filename must be the name of a file"),
        ({"filename": "a\\..\\5.jpg"}, "leads out of the root"),
        ({"filename": "C:5.jpg"}, "leads out of the root"),
        ({"filename": "a\0.jpg"}, "leads out of the root"),
        ({"filepath": "a\0b"}, "leads out of the root"),
        ({"filename": "\ud800.jpg"}, r"images\[1\]: '/\\ud800\.jpg' is not the name of a file"),
        ({"filepath": "\ud800"}, r"images\[1\]: '\\ud800/1\.jpg' is not the name of a file"),
        ({"filepath": "a/../../b"}, "leads out of the root"),
        ({"filepath": "/etc"}, "leads out of the root"),
        ({"filepath": ["a"]}, r"filepath must be a string, not list"),
        ({"imgid": "1"}, r"images\[1\]\.imgid must be an integer, not str"),
        ({"cocoid": True}, r"images\[1\]\.cocoid must be an integer, not bool"),
        ({"imgid": 0}, "id 0 belongs to 2 images"),
        ({"sentences": "a dog"}, r"images\[1\]\.sentences must be a list, not str"),
        ({"sentences": ["a dog"]}, r"images\[1\]\.sentences\[0\] must be an object, not str"),
        ({"sentences": [{}]}, r"images\[1\]\.sentences\[0\]\.raw must be a string, not missing"),
        ({"sentences": [{"tokens": [1]}]}, r"sentences\[0\]\.tokens must be a list of strings"),
    ],
)
def test_bad_entries_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write(tmp_path, [entry(0), entry(1)])
    document = {"images": [entry(0), entry(1) | change]}
    (tmp_path / "dataset_x.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=message):
        load_karpathy(tmp_path, "train", "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "no list 'images'"),
        (b'{"images": {}}', "no list 'images'"),
        (b'{"images": []}', "it has no images"),
        (b'{"images": [4]}', r"images\[0\] must be an object, not int"),
    ],
)
def test_bad_documents(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "dataset_x.json").write_bytes(text)
    with pytest.raises(DataError, match=message):
        load_karpathy(tmp_path, "train", "x")


def test_no_document_and_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"dataset_x\.json: No such file.*correct the root"):
        load_karpathy(tmp_path, "train", "x")
    write(tmp_path, [entry(0)])
    monkeypatch.setattr(karpathy, "MAX_JSON_BYTES", 50)
    with pytest.raises(DataError, match="at most 50 are read"):
        load_karpathy(tmp_path, "train", "x")
    with pytest.raises(DataError, match=r"x\\x00y/dataset_x\.json: embedded null byte"):
        load_karpathy(tmp_path / "x\0y", "train", "x")


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
keys = st.sampled_from(["filename", "filepath", "split", "imgid", "cocoid", "sentences", "raw"])
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=4))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(keys, anything, max_size=4))
def test_any_entry_is_read_or_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "0.jpg").touch()
    (tmp_path / "dataset_x.json").write_text(json.dumps({"images": [entry(0) | change]}))
    try:
        (example,) = load_karpathy(tmp_path, "train", "x")
    except DataError:
        return
    assert isinstance(example, Example)
    assert isinstance(example.image, Path)
    assert example.image.resolve().is_relative_to(tmp_path.resolve())


def test_tokens_that_are_not_there_cannot_be_asked_for(tmp_path: Path) -> None:
    write(tmp_path, [entry(0, sentences=[{"raw": "A dog"}])])
    with pytest.raises(DataError, match=r"dataset_x\.json: no sentence has tokens; leave tokens = always out"):
        load_karpathy(tmp_path, "train", "x", tokens="always")
    (tmp_path / "captions.txt").write_text("image,caption\n0.jpg,A dog\n")
    with pytest.raises(ConfigError, match=r"captions\.txt: holds sentences without tokens"):
        load("flickr8k", tmp_path, photos="none", tokens="always")
