"""VQA accuracy: normalisation by the rules of the challenge, and agreement over all choices of nine people."""

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.metrics.vqa import accuracy, normalise


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("The  Dog", "dog"),
        ("two\n", "2"),
        ("none", "0"),
        ("dont", "don't"),
        ("wheres it", "where's it"),
        ("it is 2.5.", "it is 2.5"),
        ("1,000", "1000"),
        ("yes,no", "yes no"),  # a mark between words keeps them apart ...
        ("yes, no", "yes no"),  # ... and one beside a space goes
        ("red/white", "red white"),
        ("red/white, blue", "red white blue"),
        ("5-10, or 1,000", "510 or 1000"),  # a number with a comma lets every mark go, as the challenge has it
        ("t-shirt", "t shirt"),
        ("a", ""),
        ("?!", ""),
    ],
)
def test_normalisation(said: str, meant: str) -> None:
    assert normalise(said) == meant


@given(st.text(max_size=30))
def test_what_is_normalised_has_no_articles_and_no_doubled_space(text: str) -> None:
    words = normalise(text).split(" ")
    assert words == [""] or all(words)
    assert not {"a", "an", "the"} & set(words)


@given(st.lists(st.sampled_from(["cat", "dog", "bird", "2"]), min_size=4, max_size=10))
def test_accuracy_is_the_mean_over_all_choices_of_all_people_but_one(answers: list[str]) -> None:
    chosen = list(combinations(answers, len(answers) - 1))
    for said in ("cat", "two"):
        meant = normalise(said)
        expected = sum(min(1.0, some.count(meant) / 3) for some in chosen) / len(chosen)
        assert accuracy(said, Counter(answers)) == pytest.approx(expected)


@pytest.mark.parametrize(("agree", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_the_published_values_of_ten_people(agree: int, expected: float) -> None:
    assert accuracy("yes", {"yes": agree, "no": 10 - agree}) == pytest.approx(expected)


def test_answers_that_differ_in_writing_count_together() -> None:
    assert accuracy("2 dogs", {"Two dogs.": 2, "2 dogs": 2, "cat": 6}) == 1.0


def test_one_answer_is_right_or_wrong_and_no_answer_is_wrong() -> None:
    assert [accuracy("red", {"red": 1}), accuracy("blue", {"red": 1}), accuracy("red", {})] == [1.0, 0.0, 0.0]
