"""Questions about images: what a question is, and the reader of VQAv2's files.

    questions = load_vqav2(root, "train")       # root holds the published JSON files and the folders of COCO's photos
    questions.items[0].text, questions.items[0].answers

The files are taken as hostile: sizes and types are checked before use. Reading opens no image.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laconic.data.examples import Dataset, Example
from laconic.data.photos import Photos, find_photos
from laconic.errors import ConfigError, DataError, printable
from laconic.machine.reading import read_json

ANNOTATORS = 10  # of each question in VQAv2
MOST_COCO_ID = 10**12 - 1  # that a file name has digits for


@dataclass(frozen=True)
class Question:
    """A question about one image.

    Attributes:
        image: row of it among the images.
        text: as asked.
        answers: how many people gave each answer.
    """

    id: int | str
    image: int
    text: str
    answers: Mapping[str, int]


@dataclass(frozen=True)
class Questions:
    """Images, and questions about them."""

    images: Dataset
    items: Sequence[Question]

    def first(self, count: int) -> "Questions":
        """The first images with all their questions; all of them where there are fewer."""
        kept = tuple(self.images[row] for row in range(min(count, len(self.images))))
        return Questions(kept, tuple(item for item in self.items if item.image < count))


def load_vqav2(root: Path, split: str, photos: Photos = "some") -> Questions:
    """One split of VQAv2, "train" or "val": questions in the order of their file.

    `root` holds `v2_OpenEnded_mscoco_<split>2014_questions.json`, `v2_mscoco_<split>2014_annotations.json` and the
    folder `<split>2014` of photos. Raises ConfigError for another split, DataError for files that cannot be used.
    """
    if split not in ("train", "val"):
        raise ConfigError(f"vqav2: no split {split!r} with answers; it has train, val")
    asked_in = root / f"v2_OpenEnded_mscoco_{split}2014_questions.json"
    answered_in = root / f"v2_mscoco_{split}2014_annotations.json"
    asked = _rows(asked_in, "questions")
    answered = _rows(answered_in, "annotations")
    answers = {_whole(row, "question_id", where): (row, where) for where, row in answered}
    if len(answers) < len(answered):
        raise DataError(f"{printable(answered_in)}: answers a question twice; give VQAv2's own file")
    images: dict[int, int] = {}
    items = []
    for where, row in asked:
        number, image, text = _whole(row, "question_id", where), _whole(row, "image_id", where), row.get("question")
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}.question is no text; correct the file")
        check_text(text, f"{where}.question")
        if number not in answers:
            raise DataError(f"{printable(answered_in)}: has no answers to question {number} of {printable(asked_in)}")
        place = images.setdefault(image, len(images))
        items.append(Question(number, place, text, _answers(*answers[number])))
    names = [(f"{split}2014", f"COCO_{split}2014_{image:012d}.jpg") for image in images]
    paths = find_photos(root, names, photos)
    examples = tuple(Example(image, path) for image, path in zip(images, paths, strict=True))
    return Questions(examples, tuple(items))


def check_text(text: str, where: str) -> None:
    """DataError for what no tokenizer reads: half of a character of UTF-16, which JSON lets through."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError(f"{where} holds half a character: {printable(text)[:80]}; correct the file")


def _rows(path: Path, key: str) -> list[tuple[str, dict[str, Any]]]:
    """The tables of a list in a JSON file, each with how to call it in a message."""
    try:
        document = read_json(path)
    except OSError as error:
        raise DataError(f"{printable(path)}: {error.strerror}; put VQAv2's file there, or correct the root") from error
    except ValueError as error:
        raise DataError(f"{printable(path)}: {error}") from error
    rows = document.get(key) if isinstance(document, dict) else None
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{printable(path)}: holds no list {key!r}; give VQAv2's own file")
    found = []
    for number, row in enumerate(rows):
        where = f"{printable(path)}: {key}[{number}]"
        if not isinstance(row, dict):
            raise DataError(f"{where} is no table; correct the file")
        found.append((where, row))
    return found


def _whole(row: Mapping[str, Any], key: str, where: str) -> int:
    value = row.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_COCO_ID:
        raise DataError(f"{where}.{key} must be a whole number, not {value!r:.80}")
    return value


def _answers(row: Mapping[str, Any], where: str) -> dict[str, int]:
    given = row.get("answers")
    if not isinstance(given, list) or not 1 <= len(given) <= ANNOTATORS:
        raise DataError(f"{where}.answers must be a list of 1 to {ANNOTATORS} answers")
    texts = [one.get("answer") if isinstance(one, dict) else None for one in given]
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"{where}.answers holds something without a text; correct the file")
        check_text(text, f"{where}.answers")
    return dict(Counter(str(text) for text in texts))
