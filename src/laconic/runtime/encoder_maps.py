"""The layers of encoders as operations: what the rules of rules_encoders are written in.

`Maps` adds to the program `encode`; a `Map` is the output of a layer. Channels and kernels are those of the weights.
"""

from dataclasses import dataclass, field

from laconic.errors import FormatError
from laconic.runtime.allocation import UNIT
from laconic.runtime.matrices import Weights
from laconic.runtime.operations import NONE, Place
from laconic.runtime.program import Builder
from laconic.spec.encoders import channels_of
from laconic.spec.model import EncoderConfig
from laconic.store import Packed
from laconic.store.index import Entry

STRIP_FLOATS = 1 << 15  # of input and output of a strip of a convolution: half of a small second-level cache
BAND_FLOATS = 1 << 12  # of a band of a map that is filtered: half of a first-level cache
DENSE_ENOUGH = 0.7  # share of non-zeros from which a tensor is decoded as dense: compressed rows would take as long


@dataclass(frozen=True)
class Map:
    """A table of `channels` maps of side x side pixels."""

    place: Place
    channels: int
    side: int

    def below(self, channels: int) -> "Map":
        """The channels after the first `channels`."""
        return Map(self.place.below(channels), self.channels - channels, self.side)


@dataclass
class Maps:
    """Layers of an encoder in the making. `grid` is where the layer that is marked as the grid writes to."""

    builder: Builder
    packed: Packed
    config: EncoderConfig
    grid: Place
    has_grid: bool = field(default=False, init=False)

    @property
    def stride(self) -> int:
        """Of the grid."""
        return self.config.stride

    def pixels(self) -> Map:
        """The image."""
        y = self.empty(3, self.config.size)
        self.builder.add("encode", "READ_PIXELS", y=y.place)
        return y

    def empty(self, channels: int, side: int, grid: bool = False) -> Map:
        """Room for maps, or the grid."""
        if grid:
            self.has_grid = True
            self.check_width("the grid", channels, channels_of(self.config).grid)
            return Map(self.grid, channels, side)
        return Map(Place(self.builder.buffer(channels, "PIXELS", columns=side * side)), channels, side)

    def convolve(
        self, x: Map, name: str, stride: int = 1, activation: str = "RELU6", *, onto: Map | None = None,
        into: Map | None = None, grid: bool = False,
    ) -> Map:  # fmt: skip
        """A convolution of all channels, added to the map `onto`, which then holds the sum, or written into `into`."""
        outputs, _, kernel, _ = self._weight(name, x.channels).shape
        side = -(-x.side // stride)
        y = onto or into or self.empty(outputs, side, grid)
        taps = x.channels * kernel**2
        columns = _strip(taps + outputs, side * side)
        scratch = NONE if kernel == stride == 1 else self.builder.buffer(taps, "PIXELS", columns=columns)
        self.builder.add(
            "encode", "CONVOLVE", x=x.place, y=y.place, matrix=self._matrix(name), height=x.side, width=x.side,
            kernel=kernel, stride=stride, start="FROM_SELF" if onto else "FROM_BIAS", activation=activation,
            scratch=scratch, columns=columns,
        )  # fmt: skip
        return Map(y.place, outputs, side)

    def depthwise(self, x: Map, name: str, stride: int = 1, activation: str = "RELU6") -> Map:
        """A convolution of each channel by itself."""
        outputs, _, kernel, _ = self._weight(name, 1).shape
        self.check_width(name, outputs, x.channels)
        y = self.empty(x.channels, -(-x.side // stride))
        self.builder.add(
            "encode", "DEPTHWISE", x=x.place, y=y.place,
            weights=self.builder.constant(self.packed[f"encoder.{name}.weight"]),
            bias=self.builder.constant(self.packed[f"encoder.{name}.bias"]), height=x.side, width=x.side,
            kernel=kernel, stride=stride, activation=activation, scratch=self._band(y.side, kernel, stride),
        )  # fmt: skip
        return y

    def max_pool(self, x: Map, kernel: int, stride: int, grid: bool = False) -> Map:
        """The largest of each window."""
        y = self.empty(x.channels, -(-x.side // stride), grid)
        self.builder.add(
            "encode", "MAX_POOL", x=x.place, y=y.place, height=x.side, width=x.side, kernel=kernel, stride=stride,
            scratch=self._band(y.side, kernel, stride),
        )  # fmt: skip
        return y

    def check_width(self, where: str, channels: int, expected: int) -> None:
        """FormatError unless there are as many channels as expected."""
        if channels != expected:
            name = self.config.name
            raise FormatError(f"{self.packed.path}: {where} has {channels} channels, {name} has {expected} there")

    def _weight(self, name: str, channels: int) -> Entry:
        """The kernels (outputs, channels, k, k) of a layer. FormatError where they are not, or their bias is not."""
        weight, bias = (self.packed.entries.get(f"encoder.{name}.{part}") for part in ("weight", "bias"))
        if weight is None or bias is None:
            missing = f"encoder.{name}.{'bias' if weight else 'weight'}"
            raise FormatError(f"{self.packed.path}: holds no {missing}, which {self.config.name} needs; pack it again")
        shape = weight.shape
        if len(shape) != 4 or shape[1] != channels or shape[2] != shape[3] or bias.shape != shape[:1]:
            expected = f"(n, {channels}, k, k) and (n,)"
            raise FormatError(
                f"{self.packed.path}: encoder.{name} has weights {shape} and bias {bias.shape}, expected {expected}"
            )
        return weight

    def _matrix(self, name: str) -> int:
        entry = self.packed.entries[f"encoder.{name}.weight"]
        few = entry.non_zeros < DENSE_ENOUGH * entry.size
        weights: Weights = self.packed.csr(entry.name) if few else self.packed[entry.name]
        return self.builder.matrix(weights, self.packed[f"encoder.{name}.bias"], step=self.packed.step(entry.name))

    def _band(self, side: int, kernel: int, stride: int) -> int:
        """Scratch for a band of a map: its rows in phases, as native/window.h lays them."""
        row = stride * (-(-side // UNIT) * UNIT + UNIT)
        rows = (side - 1) * stride + kernel
        return self.builder.buffer(1, "PIXELS", columns=row * min(rows, max(kernel + 3 * stride, BAND_FLOATS // row)))


def _strip(rows: int, columns: int) -> int:
    """Columns of a strip in which input and output of a product, of so many rows together, stay in the cache."""
    fitting = max(STRIP_FLOATS // rows // 64, 1) * 64
    return min(fitting, -(-columns // UNIT) * UNIT)
