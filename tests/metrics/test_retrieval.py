"""Recall of retrieval: by hand, against chance, and what is refused."""

import numpy as np
import pytest

from laconic.errors import DataError
from laconic.metrics.retrieval import chance_recall, recall_at


def test_ranks_by_hand() -> None:
    similarity = np.array([[0.9, 0.1, 0.8], [0.2, 0.3, 0.7]])  # texts 0 and 1 are of image 0, text 2 of image 1
    found = recall_at(similarity, np.array([0, 0, 1]), ks=(1, 2))
    assert found["TR@1"] == 1.0  # the best text of each image is its own
    assert found["IR@1"] == pytest.approx(1 / 3)  # texts 1 and 2 find the other image first
    assert found["TR@2"] == found["IR@2"] == 1.0
    assert found["mean recall"] == pytest.approx((1 + 1 / 3 + 1 + 1) / 4)


def test_a_model_that_tells_nothing_apart_gets_nothing() -> None:
    assert recall_at(np.zeros((20, 20)), np.arange(20))["mean recall"] == 0


def test_images_may_be_ranked_by_other_numbers() -> None:
    found = recall_at(np.eye(3), np.arange(3), ks=(1,), of_images=np.zeros((3, 3)))
    assert (found["TR@1"], found["IR@1"]) == (1.0, 0.0)


def test_chance_is_the_mean_over_random_ranks() -> None:
    rng = np.random.default_rng(0)
    owners = np.repeat(np.arange(30), 3)
    drawn = [recall_at(rng.random((30, 90)), owners)["mean recall"] for _ in range(200)]
    assert chance_recall(30, owners)["mean recall"] == pytest.approx(np.mean(drawn), abs=0.01)


@pytest.mark.parametrize(
    ("similarity", "owners", "says"),
    [
        (np.zeros((2, 3)), np.array([0, 1]), "give"),
        (np.array([[np.nan]]), np.array([0]), "not finite"),
        (np.zeros((2, 2)), np.array([0, 0]), "each image needs a text"),
    ],
)
def test_what_says_nothing_is_refused(similarity: np.ndarray, owners: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        recall_at(similarity, owners)
