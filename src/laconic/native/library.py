"""Finds and loads the native library that was compiled when laconic was installed.

Where there was no compiler there is none, and whoever would use it also knows how to do without. LACONIC_NATIVE=0 in
the environment does without everywhere; LACONIC_LEVEL=x86-64-v2 (v3, v4) asks for an instruction set.
"""

import ctypes
import functools
import os
from ctypes import (
    POINTER,
    c_char_p,
    c_double,
    c_float,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from itertools import repeat
from pathlib import Path
from typing import Any

from laconic.errors import ConfigError

NAMES = ("liblaconic.so", "liblaconic.dylib", "laconic.dll")


class DecodingStruct(ctypes.Structure):
    """laconic_decoding"""

    _fields_ = [
        ("beam", c_uint32), ("max_length", c_uint32), ("allow_unknown", c_uint32), ("reserved", c_uint32),
        ("length_penalty", c_double),
    ]  # fmt: skip


class ImagesStruct(ctypes.Structure):
    """laconic_images"""

    _fields_ = [
        ("count", c_uint32), ("pixels", c_void_p), ("features", c_void_p), ("boxes", c_void_p), ("positions", c_void_p),
    ]  # fmt: skip


class CaptionsStruct(ctypes.Structure):
    """laconic_captions"""

    _fields_ = [("tokens", c_void_p), ("log_probs", c_void_p), ("scores", c_void_p), ("lengths", c_void_p)]


@functools.cache
def library() -> ctypes.CDLL | None:
    """The library, its functions typed; None where there is none. ConfigError for a level that is not possible."""
    if os.environ.get("LACONIC_NATIVE") == "0":
        return None
    for path in (Path(__file__).parent / name for name in NAMES):
        if path.exists():
            try:
                found = _typed(ctypes.CDLL(str(path)))
            except (OSError, AttributeError):  # for another system, or of another version
                return None
            level = os.environ.get("LACONIC_LEVEL")
            if level and not found.laconic_use(level.encode()):
                raise ConfigError(f"LACONIC_LEVEL={level}: not an instruction set of this processor; leave it out")
            return found
    return None


def _typed(found: ctypes.CDLL) -> ctypes.CDLL:
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "laconic_check": (c_int, [c_void_p, c_size_t]),
        "laconic_workspace": (c_size_t, [c_void_p, POINTER(DecodingStruct), c_uint32, c_uint32]),
        "laconic_caption": (
            c_int,
            [
                c_void_p,
                POINTER(DecodingStruct),
                POINTER(ImagesStruct),
                c_void_p,
                c_size_t,
                POINTER(CaptionsStruct),
                POINTER(c_uint32),
            ],
        ),
        "laconic_features": (c_int, [c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_void_p]),
        "laconic_digits": (c_uint32, [c_void_p]),
        "laconic_word": (c_void_p, [c_void_p, c_int32, POINTER(c_size_t)]),
        "laconic_message": (c_char_p, [c_int]),
        "laconic_level": (c_char_p, []),
        "laconic_use": (c_int, [c_char_p]),
    }
    gating: dict[str, tuple[Any, int, list[Any]]] = {  # arrays and scalars behind the number of elements; see gating.h
        "mix": (None, 2, [c_uint64]),
        "draw": (None, 3, []),
        "multiply_float": (None, 3, []),
        "multiply_to_bfloat16": (None, 3, []),
        "multiply_bfloat16": (None, 3, []),
        "gradients_float": (None, 6, []),
        "gradients_bfloat16": (None, 6, []),
        "add_slope": (c_int64, 2, [c_float]),
        "count_open": (c_int64, 1, []),
    }
    for name, (result, arrays, scalars) in gating.items():
        signatures[f"gating_{name}"] = result, [c_size_t, *repeat(c_void_p, arrays), *scalars]
    for name, (result, arguments) in signatures.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found
