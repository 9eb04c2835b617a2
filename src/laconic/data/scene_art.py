"""Painting of generated scenes: outlines of shapes, their exact boxes, backgrounds.

Everything is laid out relative to the image's side and painted antialiased at any size. Knows
nothing of captions and relations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from laconic.data.images import Pixels

VERSION = 1
"""Raise it when equal scenes come out with other pixels: those kept on disk are then drawn anew."""

Floats = NDArray[np.float32]
Box = tuple[float, float, float, float]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 40, 44),
    "orange": (255, 138, 20),
    "yellow": (255, 217, 36),
    "green": (46, 160, 67),
    "blue": (38, 108, 232),
    "purple": (128, 56, 178),
    "pink": (255, 130, 190),
    "white": (252, 252, 252),
}

_PEN = 0.12  # half the width of the pen that rounds the corners, relative to a thing's radius
_RING_PEN = 0.2
_BORDER = 0.075  # width of the dark border, likewise
_OVERSAMPLE = 4


@dataclass(frozen=True)
class Thing:
    """One object: centre `x`, `y` and `radius` relative to the image's side, `turn` in radians.

    `shape` is one of SHAPES, `colour` of COLOURS; `size` is the word for the radius.
    """

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    turn: float

    def path(self) -> NDArray[np.float64]:
        """The closed line that the pen follows, (points, 2), relative to the image."""
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        turned = _PATHS[self.shape] @ np.array([[cos, sin], [-sin, cos]])
        return np.asarray(turned * self.radius + (self.x, self.y))

    @property
    def pen(self) -> float:
        """Half the pen's width, relative to the image."""
        return self.radius * (_RING_PEN if self.shape == "ring" else _PEN)

    @property
    def box(self) -> Box:
        """x1, y1, x2, y2 relative to the image, tight around the object, border included."""
        low, high = self.path().min(axis=0) - self.pen, self.path().max(axis=0) + self.pen
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def paint(ground: str, things: Sequence[Thing], size: int, texture: int) -> Pixels:
    """Paint the things in order on a background; uint8 RGB of shape (size, size, 3).

    `texture` seeds what varies within a kind of background: colours, widths, where the grains lie.
    """
    rng = np.random.Generator(np.random.PCG64(texture))
    canvas = np.asarray(GROUNDS[ground](size, rng), dtype=np.float32)
    for thing in things:
        _paint_thing(canvas, thing)
    return np.rint(canvas).clip(0, 255).astype(np.uint8)


def _paint_thing(canvas: Floats, thing: Thing) -> None:
    """Blend a thing into the canvas: soft shadow, dark border, fill lit from the upper left."""
    size = canvas.shape[0]
    margin = 0.3 * thing.radius  # for the shadow
    x1, y1, x2, y2 = thing.box
    left, top = (max(int((low - margin) * size), 0) for low in (x1, y1))
    right, bottom = (min(int((high + margin) * size) + 1, size) for high in (x2, y2))
    window = (left, top, right - left, bottom - top)
    whole = _mask(thing, thing.pen, window, size)
    core = _mask(thing, thing.pen - _BORDER * thing.radius, window, size)
    shadow = whole.filter(ImageFilter.GaussianBlur(0.07 * thing.radius * size))
    drop = max(round(0.09 * thing.radius * size), 1)
    shade = np.zeros((window[3], window[2], 1), dtype=np.float32)
    shade[drop:, drop:] = _alpha(shadow)[:-drop, :-drop]

    colour = np.array(COLOURS[thing.colour], dtype=np.float32)
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    light = -((x / size - thing.x) + (y / size - thing.y)) / (2 * thing.radius)  # -1..1 about
    light = light[..., None]
    fill = colour + np.where(light > 0, (255 - colour) * 0.28, colour * 0.2) * light
    part = canvas[top:bottom, left:right]
    part *= 1 - 0.25 * shade
    for mask, ink in ((whole, colour * 0.42), (core, fill)):
        alpha = _alpha(mask)
        part += alpha * (ink - part)


def _mask(thing: Thing, pen: float, window: tuple[int, int, int, int], size: int) -> Image.Image:
    """Coverage (mode L) of what a round pen of half-width `pen` paints along the thing's path."""
    left, top, width, height = window
    scale = size * _OVERSAMPLE
    image = Image.new("L", (width * _OVERSAMPLE, height * _OVERSAMPLE))
    draw = ImageDraw.Draw(image)
    offset = (left * _OVERSAMPLE + 0.5, top * _OVERSAMPLE + 0.5)  # Pillow counts from pixel centres
    points = [(float(x), float(y)) for x, y in thing.path() * scale - offset]
    if thing.shape != "ring":
        draw.polygon(points, fill=255)
    reach = pen * scale - 0.5  # from the centre of a pixel to the centre of the last one painted
    for start, end in zip(points, points[1:] + points[:1], strict=True):
        draw.line((start, end), fill=255, width=round(2 * reach) + 1)
        (x, y), r = start, reach
        draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
    return image.reduce(_OVERSAMPLE)


def _alpha(mask: Image.Image) -> Floats:
    return np.asarray(mask, dtype=np.float32)[..., None] / np.float32(255)


def _arc(radius: float, start: float, end: float, points: int) -> NDArray[np.float64]:
    """Points on a circle, angles in turns, clockwise from the right (y points down)."""
    angle = 2 * np.pi * np.linspace(start, end, points)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _star() -> NDArray[np.float64]:
    spokes = _arc(1 - _PEN, -0.25, 0.65, 10)
    spokes[1::2] *= 0.46
    return spokes


def _heart() -> NDArray[np.float64]:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    t = t[(np.abs(t - np.pi) > 0.7) | (t == np.pi)]  # straight lines to the tip, which is a cusp
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y + 2.5], axis=1) / 17 * (1 - _PEN)


def _cross() -> NDArray[np.float64]:
    a, b = 0.2, 0.84
    corners = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
    return np.array(corners + [(-x, -y) for x, y in corners])


def _moon() -> NDArray[np.float64]:
    """A crescent: most of a circle, and back along a second circle that bites into it."""
    outer = _arc(0.9, 0.11, 0.89, 28)
    tip = outer[-1]
    centre = 0.42
    radius = float(np.hypot(tip[0] - centre, tip[1]))
    bite = float(np.arctan2(-tip[1], tip[0] - centre)) / (2 * np.pi)
    inner = _arc(radius, 1 - bite, bite, 18)[1:-1] + np.array([centre, 0.0])
    crescent = np.concatenate([outer, inner]) * (1 - _PEN) / 0.9
    return np.asarray(crescent + np.array([0.12, 0.0]))


_PATHS = {
    "circle": _arc(1 - _PEN, 0, 1, 49)[:-1],
    "square": _arc(0.97, 0.125, 0.875, 4),
    "triangle": _arc(1.0, -0.25, 0.4167, 3) * 0.95 + (0, 0.12),
    "star": _star(),
    "ring": _arc(1 - _RING_PEN, 0, 1, 49)[:-1],
    "cross": _cross(),
    "heart": _heart(),
    "moon": _moon(),
}
SHAPES = tuple(_PATHS)


_PASTELS = ((200, 205, 210), (205, 218, 230), (214, 226, 205), (236, 222, 204), (222, 210, 228))


def _pastel(rng: np.random.Generator) -> Floats:
    tone = _PASTELS[int(rng.integers(len(_PASTELS)))]
    return np.array(tone, dtype=np.float32) * np.float32(rng.uniform(0.86, 1.04))


def _grid(size: int) -> tuple[Floats, Floats]:
    """x and y of the pixel centres, relative to the image, each (size, size)."""
    axis: Floats = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    x, y = np.meshgrid(axis, axis)
    return np.asarray(x), np.asarray(y)


def _mix(amount: Floats, one: Floats, two: Floats) -> Floats:
    return np.asarray(one + amount.clip(0, 1)[..., None] * (two - one), dtype=np.float32)


def _edge(distance: Floats, size: int) -> Floats:
    """Antialiased step: 0 where the relative distance is negative, 1 where positive."""
    return (distance * size + 0.5).clip(0, 1)


def _waves(phase: Floats) -> Floats:
    """Triangle wave of period 1 and values -0.25..0.25: the signed distance to a stripe's edge."""
    return np.asarray(np.float32(0.25) - np.abs((phase % 1) - np.float32(0.5)))


def _rows(*colours: tuple[int, int, int]) -> Floats:
    return np.array(colours, dtype=np.float32)


def _plain(size: int, rng: np.random.Generator) -> Floats:
    x, y = _grid(size)
    tone = _pastel(rng)
    return _mix((x - 0.5) ** 2 + (y - 0.5) ** 2, tone, tone * np.float32(0.8))


def _sunset(size: int, rng: np.random.Generator) -> Floats:
    _, y = _grid(size)
    stops = _rows((92, 84, 140), (196, 120, 142), (244, 176, 124), (252, 222, 168))
    y = (y + np.float32(rng.uniform(-0.1, 0.1))).clip(0, 1) * 3
    weight = (1 - np.abs(y[..., None] - np.arange(4, dtype=np.float32))).clip(0, 1)
    return np.asarray(weight @ stops, dtype=np.float32)


def _stripes(size: int, rng: np.random.Generator) -> Floats:
    x, y = _grid(size)
    angle, count = rng.uniform(0, np.pi), rng.uniform(4, 6)
    phase = np.float32(count) * (x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)))
    tone = _pastel(rng)
    return _mix(_edge(_waves(phase) / np.float32(count), size), tone, tone * np.float32(0.76))


def _checks(size: int, rng: np.random.Generator) -> Floats:
    x, y = _grid(size)
    count = np.float32(rng.uniform(3, 4.5))
    columns, rows = (_edge(_waves(axis * count) / count, size) for axis in (x, y))
    tone = _pastel(rng)
    return _mix(columns + rows - 2 * columns * rows, _rows((238, 236, 230))[0], tone * np.float32(0.8))


def _sand(size: int, rng: np.random.Generator) -> Floats:
    x, y = _grid(size)
    grains = rng.random((size, size), dtype=np.float32) - np.float32(0.5)
    bend = np.float32(rng.uniform(0, 6))
    ripples = np.sin(34 * y + 3 * np.sin(5 * x + bend) + bend)
    shade = np.asarray(34 * grains + 7 * ripples, dtype=np.float32)
    return np.asarray(_rows((218, 192, 146))[0] + shade[..., None])


def _night(size: int, rng: np.random.Generator) -> Floats:
    _, y = _grid(size)
    sky = _mix(y, _rows((14, 18, 48))[0], _rows((52, 58, 104))[0])
    for star_x, star_y, glow in rng.random((36, 3)):
        column, row = int(star_x * size), int(star_y * size)
        sky[row, column] += np.float32(70 + 170 * glow**3)
    return sky


def _dots(size: int, rng: np.random.Generator) -> Floats:
    x, y = _grid(size)
    count = np.float32(rng.uniform(5, 7))
    row = np.floor(y * count)
    across = (x * count + 0.5 * (row % 2)) % 1 - np.float32(0.5)
    down = (y * count) % 1 - np.float32(0.5)
    distance = np.float32(0.24) - np.hypot(across, down)
    tone = _pastel(rng)
    return _mix(_edge(distance / count, size), tone, _rows((250, 248, 244))[0] * np.float32(0.98))


def _sea(size: int, rng: np.random.Generator) -> Floats:
    x, y = _grid(size)
    shift = np.float32(rng.uniform(0, 6))
    water = _mix(y, _rows((140, 196, 208))[0], _rows((46, 112, 142))[0])
    crest = 7 * y + np.float32(0.16) * np.sin(20 * x + shift + 2 * np.floor(7 * y))
    foam = (np.float32(0.13) - np.abs(crest % 1 - np.float32(0.5))) / 7
    return _mix(np.float32(0.4) * _edge(foam, size), water, _rows((235, 246, 248))[0])


GROUNDS: dict[str, Callable[[int, np.random.Generator], Floats]] = {
    "plain": _plain,
    "sunset": _sunset,
    "stripes": _stripes,
    "checks": _checks,
    "sand": _sand,
    "night": _night,
    "dots": _dots,
    "sea": _sea,
}
"""Painters of backgrounds: (size, rng) -> float32 RGB of shape (size, size, 3), 0..255."""
