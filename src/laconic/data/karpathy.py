"""Captions in Karpathy's JSON format: the reader for Flickr8k, Flickr30k and COCO, and a writer.

The format: `{"dataset": name, "images": [{"filename", "split", "imgid", "sentences": [{"raw",
"tokens"}, ...]}, ...]}`; COCO adds `filepath` (the folder) and `cocoid`. The file is taken as
hostile: sizes, types and paths are checked before use. Reading opens no image.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from laconic.data.examples import Dataset, Example
from laconic.errors import DataError
from laconic.machine.files import atomically, write_text

Photos = Literal["all", "some", "none"]
MAX_JSON_BYTES = 2**29  # COCO's, the largest, has 144 MB
SPLITS = ("train", "val", "test")
IMAGE_FOLDERS = (
    ".",
    "images",
    "Flicker8k_Dataset",
    "flickr30k-images",
)  # the last two: as the archives unpack


def load_karpathy(
    root: Path,
    split: str,
    name: str,
    annotations: Path | None = None,
    restval: bool = True,
    photos: Photos = "all",
) -> tuple[Example, ...]:
    """Read one split of a Karpathy-format data set, in the order of its file.

    root         where the images are: here or in one of IMAGE_FOLDERS, below `filepath` for COCO
    name         the annotations are `root/dataset_<name>.json`, or else the file `annotations`
    restval      COCO's extra 30,504 images count as train, as is usual
    photos       which image files must be there: "all", "some" (those that are not will be found missing when they
                 are read), or "none", for captions or region features alone

    Ids are `cocoid` where present, else `imgid`. Raises DataError: no or unusable annotations (with
    the index of the bad entry), a split that is not there or empty, file names that lead out of
    `root`, missing image files.
    """
    source = annotations or root / f"dataset_{name}.json"
    entries = _read_entries(source)
    splits = [_split_of(entry, where, restval) for where, entry in entries]
    if split not in splits:
        present = ", ".join(f"{key} ({count})" for key, count in Counter(splits).items())
        raise DataError(f"{source}: no images in split {split!r}; it has {present or 'no images'}")
    chosen = [entry for entry, found in zip(entries, splits, strict=True) if found == split]
    names = [_file_name(entry, where) for where, entry in chosen]
    paths = _find_files(root, names)
    missing = [name for name in names if name not in paths]
    if photos == "all" or (photos == "some" and len(missing) == len(names)):
        _refuse_missing(root, missing, len(names))
    examples = tuple(
        Example(_id(entry, where), paths.get(name, root.joinpath(*name)), _captions(entry, where))
        for (where, entry), name in zip(chosen, names, strict=True)
    )
    id_, count = Counter(example.id for example in examples).most_common(1)[0]
    if count > 1:
        raise DataError(f"{source}: id {id_} belongs to {count} images; ids must be unique")
    return examples


def write_karpathy(folder: Path, name: str, splits: Mapping[str, Dataset]) -> Path:
    """Write data sets as PNG files in `folder/images` and one JSON file, whose path is returned.

    The JSON is `folder/dataset_<name>.json`, written last and atomically, so that it never names an
    image that is not there. Images are numbered through (`imgid`); the format has no boxes.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    sentid = 0
    for split, examples in splits.items():
        for index in range(len(examples)):
            example, imgid = examples[index], len(images)
            filename = f"{split}_{index:06d}.png"
            _write_png(folder / "images" / filename, example)
            sentences = []
            for raw in example.captions:
                tokens = re.sub(r"[^\w\s']", "", raw.lower()).split()
                sentences.append({"tokens": tokens, "raw": raw, "imgid": imgid, "sentid": sentid})
                sentid += 1
            entry = {"filename": filename, "imgid": imgid, "split": split, "sentences": sentences}
            images.append(entry | {"sentids": [sentence["sentid"] for sentence in sentences]})
    target = folder / f"dataset_{name}.json"
    write_text(target, json.dumps({"dataset": name, "images": images}))
    return target


def _write_png(target: Path, example: Example) -> None:
    with atomically(target) as file:
        Image.fromarray(example.pixels()).save(file, format="PNG")


def _read_entries(source: Path) -> list[tuple[str, dict[str, Any]]]:
    """All image entries, each with how to call it in a message."""
    try:
        size = source.stat().st_size
        if size > MAX_JSON_BYTES:
            raise DataError(f"{source}: {size:,} bytes; at most {MAX_JSON_BYTES:,} are read")
        document = json.loads(source.read_bytes())
    except OSError as error:
        raise DataError(f"{source}: {error.strerror}; put the annotations there, or correct the root") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: not readable as JSON: {error}") from error
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, list):
        raise DataError(f"{source}: no list 'images' at the top; not in Karpathy's format")
    entries = [(f"{source}: images[{index}]", entry) for index, entry in enumerate(images)]
    for where, entry in entries:
        if not isinstance(entry, dict):
            raise DataError(f"{where} must be an object, not {_kind(entry)}")
    return entries


def _split_of(entry: dict[str, Any], where: str, restval: bool) -> str:
    split = _string(entry, "split", where)
    return "train" if restval and split == "restval" else split


def _file_name(entry: dict[str, Any], where: str) -> tuple[str, str]:
    """The image's (folder, file) as stated, refused if it could lead out of the root."""
    folder = _string(entry, "filepath", where) if "filepath" in entry else ""
    file = _string(entry, "filename", where)
    path = f"{folder}/{file}"
    if folder.startswith("/") or ".." in path.split("/") or any(char in path for char in "\\:\0"):
        raise DataError(f"{where}: {path!r} leads out of the root; do not trust this file")
    if "/" in file or file in ("", "."):
        raise DataError(f"{where}.filename must be the name of a file, not {file!r}")
    return folder, file


def _find_files(root: Path, names: list[tuple[str, str]]) -> dict[tuple[str, str], Path]:
    """Where each image lies, if anywhere.

    One listing per folder: to ask for 120,000 files one by one takes minutes on a network drive.
    """
    listings = {
        folder: [(root / base / folder, _listing(root / base / folder)) for base in IMAGE_FOLDERS]
        for folder in {folder for folder, _ in names}
    }
    found = {}
    for folder, file in names:
        for place, files in listings[folder]:
            if file in files:
                found[folder, file] = place / file
                break
    return found


def _refuse_missing(root: Path, missing: list[tuple[str, str]], total: int) -> None:
    files = ["/".join(filter(None, name)) for name in missing]
    if missing:
        raise DataError(
            f"{root}: {len(missing)} of {total} images are missing ({', '.join(files[:3])}"
            f"{', ...' if len(missing) > 3 else ''}); looked here and in "
            f"{', '.join(IMAGE_FOLDERS[1:])}; correct the root"
        )


def _listing(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as files:
            return frozenset(file.name for file in files)
    except OSError:
        return frozenset()


def _id(entry: dict[str, Any], where: str) -> int:
    key = "cocoid" if "cocoid" in entry else "imgid"
    id_ = entry.get(key)
    if not isinstance(id_, int) or isinstance(id_, bool):
        raise DataError(f"{where}.{key} must be an integer, not {_kind(id_)}")
    return id_


def _captions(entry: dict[str, Any], where: str) -> tuple[str, ...]:
    """The sentences as written, or their tokens; white space evened out, blank ones dropped."""
    sentences = entry.get("sentences")
    if not isinstance(sentences, list):
        raise DataError(f"{where}.sentences must be a list, not {_kind(sentences)}")
    captions = []
    for index, sentence in enumerate(sentences):
        here = f"{where}.sentences[{index}]"
        if not isinstance(sentence, dict):
            raise DataError(f"{here} must be an object, not {_kind(sentence)}")
        if "raw" in sentence or "tokens" not in sentence:
            words = _string(sentence, "raw", here).split()
        else:
            words = sentence["tokens"]
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise DataError(f"{here}.tokens must be a list of strings")
        captions.append(" ".join(words))
    return tuple(caption for caption in captions if caption)


def _string(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise DataError(f"{where}.{key} must be a string, not {_kind(value)}")
    return value


def _kind(value: object) -> str:
    return "missing" if value is None else type(value).__name__
