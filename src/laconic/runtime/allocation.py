"""Where the tables of an encoder lie: those that are not needed at the same time share memory.

The rule is that of TensorFlow Lite ("greedy by size", Pisarchyk and Lee 2020, arXiv 2001.03288): the largest first,
each at the lowest place that no table it lives together with covers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

UNIT = 16  # floats that places are multiples of; as many lie behind each table, which vectors may reach into


@dataclass(frozen=True)
class Life:
    """A table of `size` floats that is needed from operation `first` to operation `last`, both included."""

    size: int
    first: int
    last: int


def table_size(rows: int, columns: int) -> int:
    """Floats of a table of pixels, the ones behind it included."""
    return rows * -(-columns // UNIT) * UNIT + UNIT


def allocate(lives: Sequence[Life]) -> tuple[list[int], int]:
    """Place of each table, in floats, and how many floats there are in all. Sizes are multiples of UNIT."""
    places, placed, total = [0] * len(lives), list[int](), 0
    for index in sorted(range(len(lives)), key=lambda i: (-lives[i].size, lives[i].first)):
        life = lives[index]
        taken = sorted(
            (places[other], places[other] + lives[other].size)
            for other in placed
            if lives[other].first <= life.last and life.first <= lives[other].last
        )
        place = 0
        for start, end in taken:
            if place + life.size <= start:
                break
            place = max(place, end)
        places[index] = place
        placed.append(index)
        total = max(total, place + life.size)
    return places, total
