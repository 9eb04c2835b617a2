"""Every error laconic raises on purpose.

    LaconicError
    ├── ConfigError      a recipe, option or argument that cannot be right
    ├── DataError        a data set, annotation file or image that cannot be used
    ├── FormatError      a model file or checkpoint that is damaged, unknown or hostile
    ├── PruningError     a pruning request that cannot be met on this model
    ├── TrainingError    a run that cannot start, resume or go on
    └── MissingError     an optional package or program that is not installed

A message says what is wrong, where, and what to do. The command line prints it as one line and exits with 2;
anything that is not a LaconicError is a bug in laconic and keeps its traceback. What is done all the same, but should
be known, is a LaconicWarning. Names that come from outside go into either through `printable`.
"""

import re

_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029"  # controls of both sets, separators of lines and paragraphs
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of writing
    "\ud800-\udfff]"  # bytes that are not UTF-8, as Python holds them
)


class LaconicError(Exception):
    """Base of all errors that the user can do something about."""


class ConfigError(LaconicError):
    """A recipe, option or argument that cannot be right."""


class DataError(LaconicError):
    """A data set, annotation file or image that cannot be used."""


class FormatError(LaconicError):
    """A model file or checkpoint that is damaged, unknown or hostile."""


class PruningError(LaconicError):
    """A pruning request that cannot be met on this model."""


class TrainingError(LaconicError):
    """A run that cannot start, resume or go on."""


class MissingError(LaconicError):
    """An optional package or program that is not installed."""


class LaconicWarning(UserWarning):
    """Something was done, but not as well as the user may think."""


_EXTRAS = {  # what an extra brings -> what is said where that is not installed
    "torch": "training needs PyTorch: pip install 'laconic[train]'",
    "filelock": "training needs PyTorch: pip install 'laconic[train]'",
    "transformers": "this needs Hugging Face transformers: pip install 'laconic[hf]'",
    "tokenizers": "this needs Hugging Face transformers: pip install 'laconic[hf]'",
    **dict.fromkeys(
        ("onnx", "onnxscript", "onnxruntime"),
        "ONNX files need a few packages more: pip install 'laconic[onnx]'",
    ),
    **dict.fromkeys(
        ("starlette", "uvicorn", "python_multipart", "prometheus_client"),
        "serving needs a few packages more: pip install 'laconic[serve]'",
    ),
    "ziglang": "the page's WebAssembly module is not there, or older than its sources; in a clone run `make wasm`, "
    "else install Zig's compiler: pip install 'laconic[web]'",
}


def not_installed(error: ModuleNotFoundError) -> MissingError | None:
    """What to say of a package that an extra would have brought; None of any other."""
    message = _EXTRAS.get((error.name or "").partition(".")[0])
    return None if message is None else MissingError(message)


def printable(name: object) -> str:
    r"""A name from outside, such as a path, as one line that any terminal and any encoder of UTF-8 takes.

    Control characters and lone surrogates are escaped; a byte that is no UTF-8 (a surrogate to Python) is shown as
    that byte. Other text stays as it is.

    >>> printable("a\nb\udce9.jpg")
    'a\\nb\\xe9.jpg'
    """
    return _UNPRINTABLE.sub(_escaped, str(name))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else ascii(match[0])[1:-1]
