"""Captions in the making: growing, merging and reading them; whole searches are in test_decode."""

import numpy as np

from laconic.decode.beams import Beams, Hypothesis

EOS = 3


def two() -> Beams:
    """One image, two slots of no word yet, the second empty."""
    beams = Beams.empty(1, 2, 3)
    beams.scores[0, 0] = 0.0
    return beams


def test_the_best_extensions_come_first_and_equal_ones_in_order() -> None:
    grown, rows = two().extended(np.array([[-2.0, -1.0, -1.0]], np.float32), np.array([[7, 8, 9]]), 0)
    assert grown.tokens[0, :, 0].tolist() == [8, 9]
    assert grown.scores.tolist() == [[-1.0, -1.0]]
    assert rows.tolist() == [[0, 0]]
    again, rows = grown.extended(np.array([[-3.0], [-0.5]], np.float32), np.array([[4], [EOS]]), 1)
    assert again.tokens[0, :, :2].tolist() == [[9, EOS], [8, 4]]
    assert rows.tolist() == [[1, 0]]


def test_of_equals_those_stored_first_stay() -> None:
    ours, theirs = two(), two()
    ours.scores[:], theirs.scores[:] = [[-1.0, -4.0]], [[-1.0, -2.0]]
    ours.lengths[:], theirs.lengths[:] = 1, 2
    merged = ours.merged(theirs)
    assert merged.scores.tolist() == [[-1.0, -1.0]]
    assert merged.lengths.tolist() == [[1, 2]]


def test_hypotheses_are_the_slots_that_are_not_empty() -> None:
    beams = two()
    beams.tokens[0, 0, :2], beams.log_probs[0, 0, :2] = [5, EOS], [-0.5, -0.25]
    beams.lengths[0, 0], beams.scores[0, 0] = 2, -0.75
    assert beams.hypotheses(EOS) == [[Hypothesis((5,), -0.75, (-0.5, -0.25), finished=True)]]
    assert beams.where(np.array([[False, True]])).hypotheses(EOS) == [[]]
