"""The reader of VQAv2: samples in the published layout, and files made to break it."""

import json
from pathlib import Path
from typing import Any

import pytest

from laconic.data.questions import load_vqav2
from laconic.errors import ConfigError, DataError

ASKED = "v2_OpenEnded_mscoco_train2014_questions.json"
ANSWERED = "v2_mscoco_train2014_annotations.json"


def question(number: int, image: int, text: Any = "What is it?") -> dict[str, Any]:
    return {"question_id": number, "image_id": image, "question": text}


def annotation(number: int, *answers: str) -> dict[str, Any]:
    given = [{"answer": text, "answer_confidence": "yes", "answer_id": at} for at, text in enumerate(answers, 1)]
    return {"question_id": number, "answers": given, "multiple_choice_answer": "", "question_type": "what"}


def write(root: Path, questions: list[Any], annotations: list[Any]) -> None:
    (root / ASKED).write_text(json.dumps({"info": {}, "questions": questions}))
    (root / ANSWERED).write_text(json.dumps({"info": {}, "annotations": annotations}))
    (root / "train2014").mkdir(exist_ok=True)
    for image in (9, 581929):
        (root / f"train2014/COCO_train2014_{image:012d}.jpg").touch()


def test_questions_share_their_image_and_answers_are_counted(tmp_path: Path) -> None:
    asked = [question(1, 581929), question(2, 9, "How many?"), question(3, 581929, "Why?")]
    write(tmp_path, asked, [annotation(3, "so"), annotation(2, *["2"] * 7, *["two"] * 3), annotation(1, "dog", "cat")])
    found = load_vqav2(tmp_path, "train")
    assert [example.id for example in found.images] == [581929, 9]
    assert found.images[1].image == tmp_path / "train2014/COCO_train2014_000000000009.jpg"
    assert [(item.id, item.image, item.text) for item in found.items] == [
        (1, 0, "What is it?"),
        (2, 1, "How many?"),
        (3, 0, "Why?"),
    ]
    assert found.items[1].answers == {"2": 7, "two": 3}


def test_the_first_images_keep_all_their_questions_and_no_other_image(tmp_path: Path) -> None:
    asked = [question(1, 9), question(2, 581929), question(3, 9)]
    write(tmp_path, asked, [annotation(number, "a dog") for number in (1, 2, 3)])
    found = load_vqav2(tmp_path, "train").first(1)
    assert [example.id for example in found.images] == [9]
    assert [item.id for item in found.items] == [1, 3]
    assert load_vqav2(tmp_path, "train").first(5).items == load_vqav2(tmp_path, "train").items


@pytest.mark.parametrize(
    ("questions", "annotations", "says"),
    [
        ([], [annotation(1, "x")], "no list 'questions'"),
        ([7], [annotation(1, "x")], r"questions\[0\] is no table"),
        ([question(1, -9)], [annotation(1, "x")], r"questions\[0\].image_id must be a whole number, not -9"),
        ([question(1, 10**12)], [annotation(1, "x")], "image_id"),
        ([question(1, True)], [annotation(1, "x")], "image_id must be a whole number, not True"),
        ([question(1, 9, " ")], [annotation(1, "x")], "question is no text"),
        ([question(1, 9, ["?"])], [annotation(1, "x")], "question is no text"),
        ([question(1, 9, "wh\ud800")], [annotation(1, "x")], r"half a character: wh\\ud800"),
        ([question(1, 9)], [annotation(2, "x")], "has no answers to question 1"),
        ([question(1, 9)], [annotation(1, "x"), annotation(1, "y")], "answers a question twice"),
        ([question(1, 9)], [annotation(1)], "1 to 10 answers"),
        ([question(1, 9)], [annotation(1, *"abcdefghijk")], "1 to 10 answers"),
        ([question(1, 9)], [{"question_id": 1, "answers": [{"answer": 3}]}], "without a text"),
        ([question(1, 9)], [{"question_id": 1, "answers": ["yes"]}], "without a text"),
        ([question(1, 9)], [annotation(1, "\udfff")], "half a character"),
        ([question(1, 5)], [annotation(1, "x")], "1 of 1 images are missing"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(
    tmp_path: Path, questions: list[Any], annotations: list[Any], says: str
) -> None:
    write(tmp_path, questions, annotations)
    with pytest.raises(DataError, match=says):
        load_vqav2(tmp_path, "train")


def test_files_that_are_not_there_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{ASKED}: No such file"):
        load_vqav2(tmp_path, "train")
    write(tmp_path, [question(1, 9)], [annotation(1, "x")])
    (tmp_path / ANSWERED).write_text("[" * 100_000)
    with pytest.raises(DataError, match=f"{ANSWERED}: is not JSON"):
        load_vqav2(tmp_path, "train")
    with pytest.raises(ConfigError, match="no split 'test'"):
        load_vqav2(tmp_path, "test")
