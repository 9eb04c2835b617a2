"""Places of tables: none covers another that is needed at the same time, and memory is shared."""

import itertools
import random

import pytest

from laconic.runtime.allocation import UNIT, Life, allocate, table_size


def test_a_table_ends_with_room_for_a_vector():
    assert table_size(3, 16) == 3 * 16 + 16
    assert table_size(3, 17) == 3 * 32 + 16


def test_nothing_to_place():
    assert allocate([]) == ([], 0)


def test_a_chain_takes_the_largest_neighbours():
    chain = [Life(size, i, i + 1) for i, size in enumerate((16, 160, 320, 32, 64))]
    assert allocate(chain)[1] == 480


def test_a_gap_between_two_tables_is_used():
    places, total = allocate([Life(320, 0, 9), Life(160, 0, 2), Life(160, 3, 9)])
    assert places[1] == places[2] == 320
    assert total == 480


@pytest.mark.parametrize("seed", range(20))
def test_tables_that_live_together_lie_apart(seed):
    rng = random.Random(seed)
    lives = []
    for _ in range(30):
        first = rng.randrange(40)
        lives.append(Life(UNIT * rng.randint(1, 50), first, first + rng.randrange(8)))
    places, total = allocate(lives)
    assert all(place % UNIT == 0 for place in places)
    assert total == max(place + life.size for place, life in zip(places, lives, strict=True))
    for (a, at_a), (b, at_b) in itertools.combinations(zip(lives, places, strict=True), 2):
        together = a.first <= b.last and b.first <= a.last
        assert not together or at_a + a.size <= at_b or at_b + b.size <= at_a
