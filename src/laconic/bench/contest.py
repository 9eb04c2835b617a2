"""All ways to caption the same images with the same weights, timed in turns, and what comes of it.

    subject = Subject(path, inputs)
    result = contest(subject, Decoding(5), rounds=7)
    result.rows[0].seconds, result.verdict()

A row of CONTESTANTS is all that a further way needs. One that is not installed, or fails, is left out with its reason.
"""

import importlib.util
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laconic import store
from laconic.bench.processor import has_avx512, level, processor, versions
from laconic.bench.timing import bounded, interleaved
from laconic.captioner.engine import Engine
from laconic.decode.beams import Hypothesis
from laconic.decode.search import Decoding
from laconic.errors import ConfigError
from laconic.runtime.inputs import Inputs
from laconic.runtime.native_path import NativePath
from laconic.runtime.numpy_path import NumpyPath
from laconic.runtime.plan import Plan
from laconic.runtime.planning import make_plan
from laconic.spec.packed import CaptionerSpec, read_spec

if TYPE_CHECKING:
    from laconic.captioner.image_captioner import ImageCaptioner

ENGINE, EAGER = "engine", "torch float32"
COMPILE_SECONDS = 300.0
Search = Callable[[Decoding], list[list[Hypothesis]]]


@dataclass(frozen=True, eq=False)
class Subject:
    """A packed captioner and the images that it captions."""

    path: Path
    inputs: Inputs

    @cached_property
    def packed(self) -> store.Packed:
        return store.load(self.path)

    @cached_property
    def spec(self) -> CaptionerSpec:
        return read_spec(self.packed)

    @cached_property
    def plan(self) -> Plan:
        return make_plan(self.packed)

    @cached_property
    def captioner(self) -> "ImageCaptioner":
        from laconic.captioner.packing import load

        return load(self.path)


def _engine(subject: Subject) -> Search:
    """On one thread, as many images at once as pay."""
    path = NativePath(subject.plan, str(subject.path))
    return partial(Engine(subject.spec, path, threads=1).search, subject.inputs)


def _numpy(subject: Subject) -> Search:
    return partial(NumpyPath(subject.plan, str(subject.path)).search, subject.inputs)


def _module(subject: Subject, room: str, name: str) -> Search:
    """A way that begins with the PyTorch module: the function of that name in `rivals` or `exported`."""
    import torch

    torch.set_num_threads(1)
    from laconic.bench.rivals import batch_of

    make = getattr(importlib.import_module(f"laconic.bench.{room}"), name)
    found: Search = make(subject.captioner, batch_of(subject.inputs))
    return found


@dataclass(frozen=True)
class Contestant:
    """A way to run a captioner.

    Attributes:
        make: what captions a subject's images.
        needs: packages that have to be installed.
        dense: it computes with float32 weights as if none were 0.
        seconds: after which it is given up before it has captioned once; 0: never.
    """

    make: Callable[[Subject], Search]
    needs: tuple[str, ...] = ()
    dense: bool = False
    seconds: float = 0.0


_ONNX = ("torch", "onnx", "onnxruntime")
CONTESTANTS: dict[str, Contestant] = {
    ENGINE: Contestant(_engine),
    "numpy": Contestant(_numpy),
    EAGER: Contestant(partial(_module, room="rivals", name="eager"), ("torch",), dense=True),
    "torch compiled": Contestant(
        partial(_module, room="rivals", name="compiled"), ("torch",), dense=True, seconds=COMPILE_SECONDS
    ),
    "torch bfloat16": Contestant(partial(_module, room="rivals", name="bfloat16"), ("torch",)),
    "torch int8": Contestant(partial(_module, room="rivals", name="int8"), ("torch",)),
    "ONNX Runtime float32": Contestant(partial(_module, room="exported", name="onnx_runtime"), _ONNX, dense=True),
    "ONNX Runtime int8": Contestant(partial(_module, room="exported", name="onnx_runtime_int8"), _ONNX),
    "OpenVINO float32": Contestant(
        partial(_module, room="exported", name="openvino"), ("torch", "onnx", "openvino"), dense=True
    ),
    "OpenVINO int8": Contestant(partial(_module, room="exported", name="openvino_int8"), (*_ONNX, "openvino")),
}


@dataclass(frozen=True)
class Row:
    """One way: CPU seconds per image, and how many captions are those of the first row."""

    name: str
    seconds: float
    equal: int
    dense: bool


@dataclass(frozen=True)
class Result:
    """What a contest came to. `rows` in the order of CONTESTANTS; `left_out`: name -> reason."""

    file: str
    images: int
    beam: int
    max_length: int
    rounds: int
    rows: tuple[Row, ...]
    left_out: Mapping[str, str]
    processor: str = field(default_factory=processor)
    avx512: bool = field(default_factory=has_avx512)
    level: str = field(default_factory=level)
    versions: Mapping[str, str] = field(default_factory=versions)

    def seconds(self, name: str) -> float | None:
        """CPU seconds per image; None for one that was left out."""
        return next((row.seconds for row in self.rows if row.name == name), None)

    @property
    def best_dense(self) -> Row | None:
        """The fastest of those that run dense float32 weights."""
        return min((row for row in self.rows if row.dense), key=lambda row: row.seconds, default=None)

    def over_engine(self, row: Row) -> float | None:
        """How many times the engine's time a row takes; None without the engine."""
        engine = self.seconds(ENGINE)
        return None if engine is None else row.seconds / engine

    def verdict(self) -> list[str]:
        """A sentence for each way that is faster than the engine; one where none is."""
        engine = self.seconds(ENGINE)
        if engine is None:
            return [f"the engine did not run: {self.left_out.get(ENGINE, 'it was not asked for')}"]
        faster = [row for row in self.rows if row.seconds < engine]
        if not faster:
            return ["nothing here is faster than the engine"]
        return [f"{row.name} is {engine / row.seconds:.2f} times as fast as the engine here" for row in faster]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [asdict(row) | {"over_engine": self.over_engine(row)} for row in self.rows]
        return asdict(self) | {"threads": 1, "rows": rows, "verdict": self.verdict()}


def contest(
    subject: Subject,
    decoding: Decoding,
    rounds: int = 7,
    show: Callable[[str], None] = lambda name: None,
    contestants: Mapping[str, Contestant] | None = None,
) -> Result:
    """Times every contestant that runs here, on one thread; `show` is told of each that gets ready.

    `contestants`: CONTESTANTS where not given. Raises ConfigError where none runs.
    """
    subject.packed.verify()
    ways: dict[str, Callable[[], Any]] = {}
    captions: dict[str, list[tuple[int, ...]]] = {}
    left_out: dict[str, str] = {}
    contestants = CONTESTANTS if contestants is None else contestants
    for name, contestant in contestants.items():
        show(name)
        try:
            ways[name], captions[name] = ready(subject, decoding, contestant)
        except Exception as error:  # whatever other packages raise: a benchmark of the others still has its use
            left_out[name] = reason(error)
    if not ways:
        raise ConfigError(f"{subject.path}: nothing here runs it: {'; '.join(dict.fromkeys(left_out.values()))}")
    seconds = interleaved(ways, rounds)
    images, first = len(subject.inputs), next(iter(captions.values()))
    rows = [
        Row(name, seconds[name] / images, sum(map(tuple.__eq__, captions[name], first)), contestants[name].dense)
        for name in ways
    ]
    options = decoding.beam, decoding.max_length
    return Result(str(subject.path), images, *options, rounds, tuple(rows), left_out)


def reason(error: Exception) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def ready(
    subject: Subject, decoding: Decoding, contestant: Contestant
) -> tuple[Callable[[], Any], list[tuple[int, ...]]]:
    """The contestant, warm, and its captions. Raises whatever it raises."""
    for package in contestant.needs:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{package} is not installed")
    with bounded(contestant.seconds) if contestant.seconds else nullcontext():
        search = contestant.make(subject)
        found = search(decoding)
    return partial(search, decoding), [best[0].tokens for best in found]
