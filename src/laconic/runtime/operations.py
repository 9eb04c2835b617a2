"""What the programs of a plan can say: every operation, and the names of its arguments in the order of the plan.

The same table is `enum code` of native/plan.h; each operation's meaning stands where it is carried out, in the native
sources and in laconic.runtime.numpy_path. An argument is a 32-bit word: a buffer, a row of it, a matrix, a place in the
arena, a number, or NONE. `x` and `x_row` (and so on) are given together as a Place.
"""

from typing import NamedTuple

NONE = 0xFFFFFFFF
MOST_ARGUMENTS = 15

OPERATIONS: dict[str, tuple[str, ...]] = {
    # the encoder, on the pixels of one image
    "READ_PIXELS": ("y",),
    "CONVOLVE": (
        "x",
        "x_row",
        "y",
        "y_row",
        "matrix",
        "height",
        "width",
        "kernel",
        "stride",
        "start",
        "activation",
        "scratch",
        "columns",
    ),
    "DEPTHWISE": ("x", "y", "weights", "bias", "height", "width", "kernel", "stride", "activation", "scratch"),
    "MAX_POOL": ("x", "y", "height", "width", "kernel", "stride", "scratch"),
    "ADD": ("x", "x_row", "y", "y_row", "rows"),
    "MEAN": ("x", "y"),
    # anywhere
    "LINEAR": ("x", "x_row", "y", "y_row", "matrix", "activation", "start", "image"),
    # recurrent captioners
    "INITIAL": ("x", "x_row", "y", "y_row"),
    "EMBED": ("y", "y_row", "matrix", "activation", "scale", "positions"),
    "LSTM": ("gates", "cell", "hidden", "hidden_row"),
    "GRU_RESET": ("gates", "hidden", "hidden_row", "y", "y_row"),
    "GRU_UPDATE": ("gates", "candidate", "hidden", "hidden_row"),
    "FACTOR": ("x", "y"),
    "ATTEND_ADDITIVE": ("query", "keys", "factors", "values", "score", "weights", "y", "y_row"),
    # transformers
    "LAYER_NORM": ("x", "y", "weight", "bias"),
    "RELATE": ("y", "boxes", "plus_one"),
    "ATTEND_RELATED": (
        "query",
        "query_row",
        "seen",
        "seen_row",
        "y",
        "y_row",
        "width",
        "heads",
        "relation",
        "relation_row",
        "constant",
    ),
    "ATTEND_WORDS": ("query", "query_row", "words", "words_row", "y", "y_row", "width", "heads", "kept"),
    "ATTEND_POSITIONS": ("query", "query_row", "seen", "seen_row", "y", "y_row", "width", "heads"),
    "GLU": ("x", "y", "y_row"),  # behind the others, so that plans made before keep their meaning
}

SPACES = ("PIXELS", "POSITIONS", "PAIRS", "IMAGES", "ROWS", "WORDS")
FORMS = ("DENSE", "SPARSE", "TABLE", "SPARSE_TABLE")
WIDTHS = ("FLOAT32", "BFLOAT16", "INT8")
ACTIVATIONS = ("LINEARLY", "RELU", "RELU6", "LOG_RELATION")
STARTS = ("FROM_BIAS", "FROM_SELF", "FROM_IMAGE")
PROGRAMS = ("encode", "image", "images", "step")


class Place(NamedTuple):
    """Rows of a buffer, from `row` on."""

    buffer: int
    row: int = 0

    def below(self, rows: int) -> "Place":
        """The rows that come after the first `rows` of these."""
        return Place(self.buffer, self.row + rows)


def encode_arguments(operation: str, arguments: dict[str, int | Place]) -> list[int]:
    """The words of an operation. ValueError where arguments are missing or none of its own."""
    names, words = OPERATIONS[operation], dict[str, int]()
    for name, value in arguments.items():
        if isinstance(value, Place):
            words[name] = value.buffer
            if f"{name}_row" in names:
                words[f"{name}_row"] = value.row
            elif value.row:
                raise ValueError(f"{operation}: {name} begins at row {value.row}; only whole buffers are possible")
        else:
            words[name] = value
    if sorted(words) != sorted(names):
        raise ValueError(f"{operation} takes {', '.join(names)}; given are {', '.join(words)}")
    return [words[name] for name in names]
