"""What Python writes is what C reads: the tables of laconic.runtime and native/plan.h say the same."""

import re
from pathlib import Path

import numpy as np
import pytest

from laconic import native
from laconic.decode.search import MOST_BEAMS, MOST_TOKENS
from laconic.runtime import sparse_layout
from laconic.runtime.dense_layout import TILE
from laconic.runtime.operations import (
    ACTIVATIONS,
    FORMS,
    MOST_ARGUMENTS,
    NONE,
    OPERATIONS,
    SPACES,
    STARTS,
    WIDTHS,
)
from laconic.runtime.plan import ALIGNMENT, BUFFER, HEADER, MAGIC, MATRIX, OPERATION, VERSION
from laconic.runtime.rules_recurrent import CAPTIONS_AT_ONCE
from laconic.runtime.rules_transformer import MOST_HEAD

TYPES = {"uint8_t": "u1", "uint32_t": "<u4", "float": "<f4"}


def source(name: str) -> str:
    """A header without its comments."""
    text = (Path(native.__file__).parent / name).read_text(encoding="utf8")
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def names_of(enumeration: str) -> list[str]:
    """Names of an enum, without the last one, which counts them; their numbers are 0, 1, 2, ..."""
    found = re.search(rf"enum {enumeration} {{(.*?)}}", source("plan.h"), re.DOTALL)
    assert found
    entries = [entry.split("=") for entry in found[1].replace("\n", " ").split(",") if entry.strip()]
    assert all(int(entry[1]) == number for number, entry in enumerate(entries) if len(entry) == 2)
    return [entry[0].strip() for entry in entries][:-1]


def struct(name: str) -> np.dtype:
    """A struct of plan.h, which has no padding, as numpy lays it out."""
    found = re.search(rf"typedef struct {{([^}}]*)}} {name};", source("plan.h"))
    assert found
    fields = []
    for kind, variables in re.findall(r"(\w+) ([^;]+);", found[1]):
        for variable in variables.split(","):
            word, count = re.fullmatch(r"\s*(\w+)(?:\[(\d+)\])?", variable).groups()
            fields.append((word, TYPES[kind], int(count)) if count else (word, TYPES[kind]))
    return np.dtype(fields)


def constant(name: str, header: str) -> int:
    found = re.search(rf"#define {name} (\S+)", source(header))
    assert found
    return int(found[1].rstrip("u"), 0)


@pytest.mark.parametrize(
    ("enumeration", "table"),
    [
        ("code", OPERATIONS), ("space", SPACES), ("form", FORMS), ("width", WIDTHS), ("activation", ACTIVATIONS),
        ("start", STARTS),
    ],
)  # fmt: skip
def test_numbers_mean_the_same(enumeration, table):
    assert names_of(enumeration) == list(table)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("plan_header", HEADER), ("plan_buffer", BUFFER), ("plan_matrix", MATRIX), ("plan_operation", OPERATION)],
)
def test_structs_are_laid_out_alike(name, dtype):
    found = struct(name)
    assert found.names == dtype.names
    assert found.itemsize == dtype.itemsize
    for field in dtype.names:
        ours, theirs = dtype.fields[field], found.fields[field]
        assert ours[1] == theirs[1], field
        assert ours[0] == theirs[0] or (field == "magic" and ours[0].itemsize == theirs[0].itemsize), field


def test_constants_are_equal():
    assert f'"{MAGIC.decode()}"' in source("plan.h")
    pairs = {
        ("PLAN_VERSION", "plan.h"): VERSION, ("PLAN_ALIGNMENT", "plan.h"): ALIGNMENT, ("NONE", "plan.h"): NONE,
        ("MOST_BEAMS", "run.h"): MOST_BEAMS, ("MOST_TOKENS", "run.h"): MOST_TOKENS, ("TILE", "dense.h"): TILE,
        ("GROUP", "sparse.h"): sparse_layout.GROUP, ("SLICE", "sparse.h"): sparse_layout.SLICE,
        ("MOST_BLOCK", "sparse.h"): sparse_layout.MOST_BLOCK, ("MOST_HEAD", "word_attention.h"): MOST_HEAD,
        ("CAPTIONS_AT_ONCE", "attention.h"): CAPTIONS_AT_ONCE,
    }  # fmt: skip
    assert {pair: constant(*pair) for pair in pairs} == pairs


def test_arguments_fit():
    assert OPERATION["arguments"].shape == (MOST_ARGUMENTS,)
    assert all(len(names) <= MOST_ARGUMENTS for names in OPERATIONS.values())
