"""How many bits each weight of a model gets: a number for all, or a table by the beginning of names.

What breaks first keeps more (docs/METHODS.md): kernels that see few channels, which are the first convolution of an
encoder and all depthwise ones, and matrices of few weights, such as the first depthwise kernel, whose taps all but
cancel. Knows names and shapes only, and no torch.
"""

from collections.abc import Mapping
from math import prod

from laconic.errors import PruningError

FEWEST_BITS, MOST_BITS = 2, 8
FLOAT = 0  # bits of what stays as it is
FEW_CHANNELS = 4  # that each output of a convolution sees: those of a picture, or its own
CAREFUL = 8  # bits of such kernels
FEW_WEIGHTS = 1024  # of a matrix that is left alone: it costs a file next to nothing

Bits = int | Mapping[str, int]
Shape = tuple[int, ...]


def check_bits(bits: Bits) -> None:
    """PruningError where a number of bits is neither FLOAT nor from 2 to 8."""
    for name, value in bits.items() if isinstance(bits, Mapping) else [("", bits)]:
        if type(value) is not int or value not in (FLOAT, *range(FEWEST_BITS, MOST_BITS + 1)):
            of = f" for {name}" if name else ""
            raise PruningError(
                f"bits = {value!r}{of}: give {FEWEST_BITS} to {MOST_BITS}, or {FLOAT} to leave weights as they are"
            )


def allot_bits(
    shapes: Mapping[str, Shape], bits: Bits, *, careful: int = CAREFUL, few: int = FEW_WEIGHTS
) -> dict[str, int]:
    """Name -> bits; what stays float is left out.

    Args:
        shapes: name of each weight -> its shape, of two or more dimensions.
        bits: for all, or the beginning of a name ("encoder", "decoder.output"; "" for all others) -> bits. The longest
            beginning counts, and what no beginning fits stays float. One that names a layer or a weight is taken as it
            is; of others the rules of this module may make more, or FLOAT.
        careful: least bits of convolutions whose outputs see few channels each.
        few: tensors of up to so many weights stay float.

    Raises:
        PruningError: for bits that are not possible, and a beginning that fits no name.
    """
    check_bits(bits)
    check_bits(careful)
    table = dict(bits) if isinstance(bits, Mapping) else {"": bits}
    unread = [key for key in table if not any(_begins(name, key) for name in shapes)]
    if unread:
        raise PruningError(f"bits: no weight's name begins with {unread[0]!r}; there are {', '.join(list(shapes)[:8])}")
    found = {name: _bits(name, shape, table, careful, few) for name, shape in shapes.items()}
    return {name: given for name, given in found.items() if given != FLOAT}


def _bits(name: str, shape: Shape, table: Mapping[str, int], careful: int, few: int) -> int:
    fitting = [key for key in table if _begins(name, key)]
    if not fitting or not prod(shape):
        return FLOAT
    key = max(fitting, key=len)
    asked = table[key]
    if asked == FLOAT or (key and key in (name, name.rpartition(".")[0])):
        return asked
    if prod(shape) <= few:
        return FLOAT
    sees_few = len(shape) > 2 and shape[1] <= FEW_CHANNELS
    return max(asked, careful) if sees_few else asked


def _begins(name: str, key: str) -> bool:
    return not key or name == key or name.startswith(f"{key}.")
