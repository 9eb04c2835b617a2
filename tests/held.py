"""Captioners as plans without files, which take seconds to write: load with `runpy.run_path`."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import folded
from laconic.runtime.plan import Plan
from laconic.runtime.planning import make_plan
from laconic.store import Csr
from laconic.store.index import Entry


class Held(dict[str, np.ndarray]):
    """Weights by name, seen as those of a packed file with exact values."""

    path = Path("captioner.safetensors")
    steps: dict[str, float] = {}  # noqa: RUF012 - of a packed file that is not quantised

    def step(self, name: str) -> float:
        return 0.0

    @cached_property
    def entries(self) -> dict[str, Entry]:
        return {
            name: Entry(name, weight.shape, "F32", "dense", "exact", int(np.count_nonzero(weight)), 0)
            for name, weight in self.items()
        }

    def csr(self, name: str) -> Csr:
        matrix = self[name].reshape(len(self[name]), -1)
        rows, columns = np.nonzero(matrix)
        indptr = np.searchsorted(rows, np.arange(len(matrix) + 1)).astype(np.int32)
        return Csr(self[name].shape, indptr, columns.astype(np.int32), matrix[rows, columns])


def held(module: Any, prefix: str = "") -> Any:
    """The weights of a module of torch."""
    return Held({prefix + name: weight.numpy() for name, weight in module.state_dict().items()})


def plan_of(captioner: ImageCaptioner, **options: Any) -> Plan:
    """What a packed file of the captioner, with exact values, is planned as."""
    return make_plan(held(folded(captioner, exact=True)), spec=captioner.spec, **options)
