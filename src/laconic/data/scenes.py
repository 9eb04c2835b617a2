"""A built-in generated data set: coloured shapes in simple relations on varied backgrounds.

Every scene follows from (seed, split, index) alone, so nothing is stored and nothing downloaded.
This file says what is in a scene; scene_words.py says it in English, scene_art.py paints it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from laconic.data.examples import Example
from laconic.data.images import Pixels
from laconic.data.scene_art import COLOURS, GROUNDS, SHAPES, VERSION, Thing, paint
from laconic.data.scene_words import describe
from laconic.errors import ConfigError

COUNTS = {"train": 4000, "val": 400, "test": 400}
"""How many scenes each split has unless told; the order gives each its own random stream."""

SIZES = {"small": (0.09, 0.115), "medium": (0.135, 0.155), "large": (0.195, 0.225)}
"""Radii relative to the image's side. "medium" is what nobody mentions."""

HOLDERS = ("circle", "square", "ring", "heart")  # the shapes with room for another inside


@dataclass(frozen=True)
class Scene:
    """A picture as a value: draw() paints it, and equal scenes give equal pixels.

    `relation` is a key of RELATIONS and speaks of the things in order: the first is left of, above,
    inside, in front of ... the others. The first is painted last.
    """

    things: tuple[Thing, ...]
    relation: str
    ground: str
    size: int
    texture: int

    def draw(self) -> Pixels:
        """The picture as uint8 RGB of shape (size, size, 3)."""
        return paint(self.ground, self.things[::-1], self.size, self.texture)

    @property
    def identity(self) -> str:
        """All that draw() follows from, and the version of the painting."""
        return f"{VERSION} {self!r}"


@dataclass(frozen=True)
class Scenes:
    """`count` generated examples; each has a Scene as its image, five captions and a box per thing.

    Splits and seeds draw from separate random streams. Raises ConfigError for a bad argument.
    """

    count: int
    split: str = "train"
    seed: int = 0
    size: int = 96

    def __post_init__(self) -> None:
        if self.split not in COUNTS:
            raise ConfigError(f"scenes: no split {self.split!r}; it has {', '.join(COUNTS)}")
        for field, low, high in (("count", 1, 10**9), ("seed", 0, 2**63), ("size", 16, 1024)):
            value = getattr(self, field)
            if not low <= value <= high:
                raise ConfigError(f"scenes: {field} must be {low} to {high}, not {value}")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        look, words = self._streams(index)
        scene = compose(look, self.size)
        boxes = np.array([thing.box for thing in scene.things], dtype=np.float32)
        captions = describe(scene.things, scene.relation, scene.ground, words)
        return Example(index % self.count, scene, captions, boxes)

    def scene(self, index: int) -> Scene:
        """What is to be seen in an example: its image, without the captions."""
        return compose(self._streams(index)[0], self.size)

    def _streams(self, index: int) -> tuple[np.random.Generator, np.random.Generator]:
        """Of looks and of words: a change of wording never changes a picture."""
        if not -self.count <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        key = (list(COUNTS).index(self.split), index % self.count)
        look, words = np.random.SeedSequence(self.seed, spawn_key=key).spawn(2)
        return np.random.Generator(np.random.PCG64(look)), np.random.Generator(np.random.PCG64(words))


def load_scenes(root: Path | None, split: str, count: int | None = None, seed: int = 0, size: int = 96) -> Scenes:
    """The split's usual number of scenes (COUNTS), or `count`. Nothing is read from `root`."""
    return Scenes(COUNTS.get(split, 1) if count is None else count, split, seed, size)


def compose(rng: np.random.Generator, size: int) -> Scene:
    """Draw one scene at random: a relation, things that differ in shape or colour, a background."""
    relation = _pick(rng, tuple(RELATIONS))
    things = RELATIONS[relation](rng)
    while len({(thing.shape, thing.colour) for thing in things}) < len(things):
        things = RELATIONS[relation](rng)
    return Scene(things, relation, _pick(rng, tuple(GROUNDS)), size, int(rng.integers(2**31)))


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _thing(
    rng: np.random.Generator,
    x: float,
    y: float,
    sizes: tuple[str, ...] = tuple(SIZES),
    shapes: tuple[str, ...] = SHAPES,
    spread: tuple[float, float] = (0.015, 0.015),
) -> Thing:
    """A random thing around (x, y): at most `spread` away, and wholly inside the picture."""
    size = _pick(rng, sizes)
    radius = float(rng.uniform(*SIZES[size]))
    shape, colour = _pick(rng, shapes), _pick(rng, tuple(COLOURS))
    turn = float(rng.uniform(-0.26, 0.26))
    edge = radius + 0.01
    x = float(np.clip(x + rng.uniform(-1, 1) * spread[0], edge, 1 - edge))
    y = float(np.clip(y + rng.uniform(-1, 1) * spread[1], edge, 1 - edge))
    return Thing(shape, colour, size, x, y, radius, turn)


def _alone(at: float) -> Callable[[np.random.Generator], tuple[Thing, ...]]:
    return lambda rng: (_thing(rng, at, 0.5, spread=(0.05, 0.15)),)


def _beside(rng: np.random.Generator) -> tuple[Thing, ...]:
    middle = float(rng.uniform(0.35, 0.65))
    return tuple(_thing(rng, x, middle, spread=(0.015, 0.04)) for x in (0.25, 0.75))


def _above(rng: np.random.Generator) -> tuple[Thing, ...]:
    middle = float(rng.uniform(0.35, 0.65))
    return tuple(_thing(rng, middle, y, spread=(0.04, 0.015)) for y in (0.25, 0.75))


def _inside(rng: np.random.Generator) -> tuple[Thing, ...]:
    x, y = (float(value) for value in rng.uniform(0.42, 0.58, 2))
    outer = _thing(rng, x, y, ("large",), HOLDERS)
    # Only here is something larger than large: the other thing must fit in.
    outer = replace(outer, x=x, y=y, radius=1.6 * outer.radius)
    inner = _thing(rng, x, y, ("small",), spread=(0.01, 0.01))
    while inner.colour == outer.colour:
        inner = _thing(rng, x, y, ("small",), spread=(0.01, 0.01))
    return inner, outer


def _front(rng: np.random.Generator) -> tuple[Thing, ...]:
    angle = float(rng.uniform(0, 2 * np.pi))
    dx, dy = 0.105 * np.cos(angle), 0.105 * np.sin(angle)
    front = _thing(rng, 0.5 + dx, 0.5 + dy, ("medium", "large"))
    behind = _thing(rng, 0.5 - dx, 0.5 - dy, ("large",))
    while front.colour == behind.colour:
        behind = _thing(rng, 0.5 - dx, 0.5 - dy, ("large",))
    return front, behind


def _between(rng: np.random.Generator) -> tuple[Thing, ...]:
    y = float(rng.uniform(0.3, 0.7))
    return tuple(_thing(rng, x, y, ("small", "medium"), spread=(0.005, 0.05)) for x in (0.5, 0.18, 0.82))


def _over(rng: np.random.Generator) -> tuple[Thing, ...]:
    top = _thing(rng, 0.5, 0.26)
    feet = (_thing(rng, x, 0.74, ("small", "medium"), spread=(0.03, 0.03)) for x in (0.26, 0.74))
    return top, *feet


RELATIONS: dict[str, Callable[[np.random.Generator], tuple[Thing, ...]]] = {
    "left": _alone(0.27),
    "middle": _alone(0.5),
    "right": _alone(0.73),
    "beside": _beside,
    "above": _above,
    "inside": _inside,
    "front": _front,
    "between": _between,
    "over": _over,
}
"""Each draws the things of a scene, in the order in which captions speak of them."""
