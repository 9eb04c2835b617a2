"""Captions in Karpathy's JSON format: the reader for Flickr8k, Flickr30k and COCO, and a writer.

The format: `{"dataset": name, "images": [{"filename", "split", "imgid", "sentences": [{"raw",
"tokens"}, ...]}, ...]}`; COCO adds `filepath` (the folder) and `cocoid`. The file is taken as
hostile: sizes, types and paths are checked before use. Reading opens no image.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from laconic.data.examples import Dataset, Example
from laconic.data.photos import Photos, find_photos, photo_name
from laconic.errors import ConfigError, DataError, printable
from laconic.machine.files import atomically, write_text
from laconic.machine.reading import MAX_JSON_BYTES, read_json
from laconic.text import unspaced

Tokens = Literal["auto", "always", "never"]
SPLITS = ("train", "val", "test")
Entry = tuple[str, dict[str, Any]]  # how to call it in a message, and what it holds
SAMPLE = 1000  # sentences that tell whether words are separated


def load_karpathy(
    root: Path,
    split: str,
    name: str,
    annotations: Path | None = None,
    restval: bool = True,
    photos: Photos = "all",
    tokens: Tokens = "auto",
) -> tuple[Example, ...]:
    """Read one split of a Karpathy-format data set, in the order of its file.

    root         where the images are: here or in one of IMAGE_FOLDERS, below `filepath` for COCO
    name         the annotations are `root/dataset_<name>.json`, or else the file `annotations`
    restval      COCO's extra 30,504 images count as train, as is usual
    photos       which image files must be there: "all", "some" (those that are not will be found missing when they
                 are read), or "none", for captions or region features alone
    tokens       whether captions are made of the data set's own tokens, separated by spaces, instead of the sentences
                 as written: "always", "never", or "auto", where those put no spaces between words (Chinese, Thai ...)

    Ids are `cocoid` where present, else `imgid`. Raises DataError: no or unusable annotations (with
    the index of the bad entry), a split that is not there or empty, file names that lead out of
    `root`, missing image files.
    """
    source = annotations or root / f"dataset_{name}.json"
    entries = _entries(_read(source), printable(source))
    chosen = _of_split(entries, printable(source), split, restval)
    names = [_name(entry, where) for where, entry in chosen]
    paths = find_photos(root, names, photos)
    tokenized = _by_tokens(entries, tokens)
    examples = tuple(
        Example(_id(entry, where), path, _captions(entry, where, tokenized))
        for (where, entry), path in zip(chosen, paths, strict=True)
    )
    _check_ids([example.id for example in examples], printable(source))
    return examples


def is_karpathy(document: Any) -> bool:
    """Whether a JSON document is in Karpathy's format, as far as a look tells; COCO's has annotations apart."""
    return isinstance(document, dict) and isinstance(document.get("images"), list) and "annotations" not in document


def references_of(document: Any, source: Path, split: str = "", tokens: Tokens = "auto") -> dict[int | str, list[str]]:
    """Captions by id of one split, or of all, without images that have none; the rest as load_karpathy."""
    name = printable(source)
    entries = _entries(document, name)
    chosen = _of_split(entries, name, split, restval=True) if split else entries
    tokenized = _by_tokens(entries, tokens)
    ids: list[int | str] = [_id(entry, where) for where, entry in chosen]
    _check_ids(ids, name)
    captions = [list(_captions(entry, where, tokenized)) for where, entry in chosen]
    return {image: some for image, some in zip(ids, captions, strict=True) if some}


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


def _read(source: Path) -> Any:
    try:
        return read_json(source, MAX_JSON_BYTES)
    except OSError as error:
        raise DataError(
            f"{printable(source)}: {error.strerror}; put the annotations there, or captions.txt, or correct the root"
        ) from error
    except ValueError as error:
        raise DataError(f"{printable(source)}: {error}") from error


def _entries(document: Any, name: str) -> list[Entry]:
    """All image entries, each with how to call it in a message."""
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, list):
        raise DataError(f"{name}: no list 'images' at the top; not in Karpathy's format")
    entries = [(f"{name}: images[{index}]", entry) for index, entry in enumerate(images)]
    for where, entry in entries:
        if not isinstance(entry, dict):
            raise DataError(f"{where} must be an object, not {_kind(entry)}")
    return entries


def _of_split(entries: list[Entry], name: str, split: str, restval: bool) -> list[Entry]:
    splits = [_split_of(entry, where, restval) for where, entry in entries]
    if split not in splits:
        present = ", ".join(f"{printable(key)} ({count})" for key, count in Counter(splits).items())
        raise DataError(f"{name}: no images in split {split!r}; it has {present or 'no images'}")
    return [entry for entry, found in zip(entries, splits, strict=True) if found == split]


def _split_of(entry: dict[str, Any], where: str, restval: bool) -> str:
    split = _string(entry, "split", where)
    return "train" if restval and split == "restval" else split


def _name(entry: dict[str, Any], where: str) -> tuple[str, str]:
    folder = _string(entry, "filepath", where) if "filepath" in entry else ""
    return photo_name(folder, _string(entry, "filename", where), where)


def _check_ids(ids: Sequence[int | str], name: str) -> None:
    for id_, count in Counter(ids).most_common(1):
        if count > 1:
            raise DataError(f"{name}: id {id_} belongs to {count} images; ids must be unique")


def _by_tokens(entries: list[Entry], tokens: Tokens) -> bool:
    """Whether captions are made of tokens. The whole file decides, so that its splits are read alike. Raises DataError
    where "always" finds none at all."""
    if tokens not in get_args(Tokens):
        raise ConfigError(f"tokens = {tokens!r}; give one of {', '.join(get_args(Tokens))}")
    if tokens == "always" and not _any_tokens(entries):
        raise DataError(f"{entries[0][0].rpartition(':')[0]}: no sentence has tokens; leave tokens = always out")
    if tokens != "auto":
        return tokens == "always"
    step = max(1, len(entries) // SAMPLE)
    sentences = [
        sentence["raw"]
        for _, entry in entries[::step]
        if isinstance(some := entry.get("sentences"), list)
        for sentence in some[:1]
        if isinstance(sentence, dict) and isinstance(sentence.get("raw"), str) and sentence.get("tokens")
    ]
    return unspaced(sentences)


def _any_tokens(entries: list[Entry]) -> bool:
    """Whether there are tokens, or no sentences at all."""
    groups = [some for _, entry in entries if isinstance(some := entry.get("sentences"), list)]
    sentences = [sentence for some in groups for sentence in some if isinstance(sentence, dict)]
    return not sentences or any("tokens" in sentence for sentence in sentences)


def _id(entry: dict[str, Any], where: str) -> int:
    key = "cocoid" if "cocoid" in entry else "imgid"
    id_ = entry.get(key)
    if not isinstance(id_, int) or isinstance(id_, bool):
        raise DataError(f"{where}.{key} must be an integer, not {_kind(id_)}")
    return id_


def _captions(entry: dict[str, Any], where: str, tokenized: bool) -> tuple[str, ...]:
    """The sentences as written, or their tokens; white space evened out, blank ones dropped."""
    sentences = entry.get("sentences")
    if not isinstance(sentences, list):
        raise DataError(f"{where}.sentences must be a list, not {_kind(sentences)}")
    captions = []
    for index, sentence in enumerate(sentences):
        here = f"{where}.sentences[{index}]"
        if not isinstance(sentence, dict):
            raise DataError(f"{here} must be an object, not {_kind(sentence)}")
        if "tokens" in sentence and (tokenized or "raw" not in sentence):
            words = sentence["tokens"]
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise DataError(f"{here}.tokens must be a list of strings")
            words = " ".join(words).split()
        else:
            words = _string(sentence, "raw", here).split()
        captions.append(" ".join(words))
    return tuple(caption for caption in captions if caption)


def _string(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise DataError(f"{where}.{key} must be a string, not {_kind(value)}")
    return value


def _kind(value: object) -> str:
    return "missing" if value is None else type(value).__name__
