"""`evaluate`: published scores, a contract over every metric, and what it says about bad input."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from laconic.errors import ConfigError, DataError, LaconicWarning
from laconic.metrics import METRICS, Scores, evaluate, load_references, load_results

REFERENCES = {
    1: ["A man rides a brown horse.", "A rider on a horse in a field"],
    2: ["Two dogs run along the sandy beach", "dogs running by the sea"],
    "3": ["A red car parked on the street"],
}
PERFECT = {
    1: "a man rides a brown horse",
    2: "Two dogs run along the sandy beach.",
    "3": "A red car parked on the street!",
}
WITHOUT_JAVA = [name for name in METRICS if name not in ("METEOR", "SPICE")]


def published(shared: Path) -> tuple[Path, Path, dict[str, float]]:
    folder = shared / "data" / "coco_karpathy"
    results = folder / "results" / "updown_tiny3_test_beam2"
    scores = json.loads(results.with_suffix(".scores.json").read_text())
    return folder / "coco_karpathy_test_gt.json", results.with_suffix(".json"), scores


def test_published_coco_scores(shared: Path) -> None:
    references, results, expected = published(shared)
    scores = evaluate(load_references(references), load_results(results))
    assert set(scores) == {"Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"}
    for name, score in scores.items():
        assert score == pytest.approx(expected[name], abs=1e-9), name


@pytest.mark.slow
def test_published_meteor(shared: Path) -> None:
    references, results, expected = published(shared)
    scores = evaluate(load_references(references), load_results(results), metrics=["METEOR"])
    if scores.unavailable:
        pytest.skip(scores.unavailable["METEOR"])
    assert scores["METEOR"] == pytest.approx(expected["METEOR"], abs=1e-6)


def available(name: str, references: object, results: object) -> Scores:
    scores = evaluate(references, results, metrics=[name])
    if scores.unavailable:
        pytest.skip(str(scores.unavailable))
    return scores


@pytest.mark.parametrize(
    "name", [*WITHOUT_JAVA, *(pytest.param(n, marks=pytest.mark.slow) for n in ("METEOR", "SPICE"))]
)
def test_contract_of_every_metric(name: str) -> None:
    metric = METRICS[name]
    single = {image: captions[:1] for image, captions in REFERENCES.items()}
    perfect = available(name, single, PERFECT)
    assert tuple(perfect) == metric.names
    assert list(perfect.values()) == pytest.approx([metric.best] * len(perfect), abs=1e-6)

    empty = evaluate(REFERENCES, dict.fromkeys(REFERENCES, ""), metrics=[name])
    assert list(empty.values()) == pytest.approx([0.0] * len(empty), abs=1e-12)

    mixed = {1: "a man on a horse", 2: "", "3": "zebra"}
    forward = evaluate(REFERENCES, mixed, metrics=[name])
    turned = dict(reversed(mixed.items()))
    backward = evaluate(dict(reversed(REFERENCES.items())), turned, metrics=[name])
    assert dict(backward) == pytest.approx(dict(forward), abs=1e-12)
    assert all(math.isfinite(score) and 0 <= score <= metric.best for score in forward.values())


def test_coco_format_equals_mappings() -> None:
    references = {
        "images": [],
        "annotations": [
            {"image_id": image, "id": i, "caption": caption}
            for image, captions in REFERENCES.items()
            for i, caption in enumerate(captions)
        ],
    }
    results = [{"image_id": image, "caption": caption} for image, caption in PERFECT.items()]
    scores = evaluate(references, results)
    assert json.loads(json.dumps(scores)) == evaluate(REFERENCES, PERFECT) == scores
    assert scores.unavailable == {}


def test_a_subset_is_asked_for_and_takes_its_own_document_frequencies() -> None:
    part = {1: "a man on a horse", 2: "a dog"}
    with pytest.raises(DataError, match="1 images have references but no result, the first is '3'"):
        evaluate(REFERENCES, part)
    alone = evaluate({image: REFERENCES[image] for image in part}, part)
    assert evaluate(REFERENCES, part, subset=True) == alone


def test_numpy_integers_are_ids() -> None:
    ids = np.arange(3)
    references = {image: ["a dog runs", f"cat {image}"] for image in ids}
    scores = evaluate(references, dict.fromkeys(ids, "a dog runs"))
    assert scores == evaluate({i: ["a dog runs", f"cat {i}"] for i in range(3)}, dict.fromkeys(range(3), "a dog runs"))
    rows = [{"image_id": np.uint8(i), "caption": "a dog runs"} for i in range(3)]
    assert evaluate({"annotations": rows}, rows) == evaluate({"annotations": rows}, dict.fromkeys(ids, "a dog runs"))
    with pytest.raises(DataError, match="must be an integer or a string"):
        evaluate({np.float64(1): ["a"]}, {1: "a"})


def test_cider_of_a_single_image_says_why_it_is_zero() -> None:
    with pytest.warns(LaconicWarning, match="CIDEr of a single image is 0 whatever its caption"):
        assert evaluate({1: ["a dog"]}, {1: "a dog"})["CIDEr"] == 0
    assert evaluate({1: ["a dog"]}, {1: "a dog"}, metrics=["Bleu"])["Bleu_1"] == pytest.approx(1)


def test_missing_programs_leave_the_other_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    scores = evaluate(REFERENCES, PERFECT, metrics=["METEOR", "CIDEr", "SPICE"])
    assert set(scores) == {"CIDEr"}
    assert set(scores.unavailable) == {"METEOR", "SPICE"}
    assert all("install" in reason for reason in scores.unavailable.values())


BAD = [
    ({1: ["a"]}, {2: "a"}, "no references, the first for image 2"),
    ({1: ["a"]}, {"1": "a"}, "first for image '1' (an image with references is 1)"),
    ({1: ["a"], 2: []}, {1: "a"}, "image 2 has no reference captions"),
    ({}, {1: "a"}, "no reference captions"),
    ({1: ["a"]}, {}, "no results"),
    ({1: ["a"]}, [], "no results"),
    ({1: "a dog"}, {1: "a"}, "references of image 1 must be a list of captions, not str"),
    ({1: ["a", None]}, {1: "a"}, "caption of image 1 must be a string, not NoneType"),
    ({1: ["a"]}, {1: 5}, "caption of image 1 must be a string, not int"),
    ({1: ["a"]}, {1: ["a"]}, "caption of image 1 must be a string, not list"),
    ({1: ["a"]}, {1: "x" * 10_001}, "caption of image 1 has 10001 characters"),
    ({1: ["a"]}, [{"image_id": 1, "caption": "a"}] * 2, "image 1 has two results"),
    ({1: ["a"]}, [{"image": 1}], 'results[0] must be an object with "image_id"'),
    ({1: ["a"]}, [{"image_id": 1.5, "caption": "a"}], "image id 1.5 must be an integer"),
    ({1: ["a"]}, "a dog", "results must map image id to a caption"),
    (["a"], {1: "a"}, "references must map image id"),
    ({"images": [{"imgid": 1, "sentences": []}]}, {1: "a"}, "Karpathy's format; laconic.data.load_references reads it"),
    ({"annotations": [7]}, {1: "a"}, "annotations[0] must be an object"),
    ({"annotations": []}, {1: "a"}, "no reference captions"),
]


@pytest.mark.parametrize(("references", "results", "message"), BAD)
def test_bad_captions_are_named(references: object, results: object, message: str) -> None:
    with pytest.raises(DataError) as caught:
        evaluate(references, results)
    assert message in str(caught.value)


def test_an_unknown_metric_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown metric 'BLEU'; there are CIDEr, Bleu"):
        evaluate(REFERENCES, PERFECT, metrics=["BLEU"])
