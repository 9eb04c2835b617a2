"""Engine: a packed captioner that captions, without torch.

    captioner = laconic.load("tiny.safetensors")
    captioner.caption(["photo.jpg"])     # ["a dog runs through the grass"]

A file becomes a plan (laconic.runtime) when it is opened, and the native library runs it, or numpy where there is
none. Images are captioned a group at a time, and groups in threads.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laconic import store
from laconic.captioner.inputs import (
    Image,
    groups_of,
    needs_boxes,
    reads_regions,
    region_channels,
    regions_of,
    stack_pixels,
)
from laconic.data.regions import Regions
from laconic.decode.beams import Hypothesis
from laconic.decode.search import Decoding
from laconic.errors import ConfigError
from laconic.machine.cores import cores
from laconic.native.library import library
from laconic.runtime.inputs import Inputs
from laconic.runtime.native_path import NativePath
from laconic.runtime.numpy_path import NumpyPath
from laconic.runtime.plan import Plan
from laconic.runtime.planning import make_plan
from laconic.runtime.values import Width
from laconic.spec.captioners import CaptionerConfig
from laconic.spec.model import ModelConfig
from laconic.spec.packed import CaptionerSpec, read_spec
from laconic.text import Vocabulary

COLUMNS = 64  # captions in the making that are computed side by side: more do not make it faster
MEMORY = 2**28  # bytes of workspace for one group; fewer images at once where they would take more


@dataclass(frozen=True, eq=False)
class Engine:
    """A captioner as a plan, and what runs it; any number of threads may use one at once.

    Attributes:
        spec: what the captioner is.
        path: what runs its plan.
        threads: in which a batch is captioned; 0: as many as there are processor cores. Captions do not depend on it.
    """

    spec: CaptionerSpec
    path: NativePath | NumpyPath
    threads: int = 0

    @classmethod
    def load(cls, file: str | Path, *, threads: int = 0, width: Width = "exact") -> "Engine":
        """Opens a packed captioner; FormatError where it is damaged or holds something else.

        width: how weights lie in memory, see laconic.runtime.planning.make_plan.
        """
        packed = store.load(file)
        spec = read_spec(packed)
        packed.verify()
        plan = make_plan(packed, spec=spec, width=width)
        return cls(spec, open_path(plan, str(file)), threads)

    @property
    def config(self) -> ModelConfig:
        return self.spec.model

    @property
    def vocabulary(self) -> Vocabulary:
        return self.spec.vocabulary

    @property
    def captioner(self) -> CaptionerConfig:
        return self.spec.captioner

    @property
    def side(self) -> int:
        """Rows and columns of the square that photos are resized to."""
        return self.config.encoder.size

    @property
    def region_channels(self) -> int:
        """Of the region features that it reads; 0 where it reads photos."""
        return region_channels(self.spec)

    @property
    def needs_boxes(self) -> bool:
        """Whether it has to be told where regions lie."""
        return needs_boxes(self.spec)

    @property
    def plan(self) -> Plan:
        return self.path.plan

    @property
    def name(self) -> str:
        """What runs it, such as "native, x86-64-v3"."""
        found = library() if isinstance(self.path, NativePath) else None
        return "numpy" if found is None else f"native, {found.laconic_level().decode()}"

    def caption(self, images: Iterable[Image], decoding: Decoding | None = None, batch: int = 0) -> list[str]:
        """One caption for each image: a photo's path, or uint8 (H, W, 3) RGB of any size.

        For the encoder "regions" the path of their `.npy` file, or Regions. Paths are read as in training, JPEGs at
        half their size or less where that is enough. `batch` images are read at once; 0: as many as keep all threads
        busy. Raises DataError for a file that cannot be read.
        """
        decoding = decoding or Decoding()
        captions: list[str] = []
        for some in groups_of(self.spec, images, batch or self._batch(decoding)):
            found = self.search(self.batch(some), decoding)
            captions += [self.vocabulary.decode(best[0].tokens) for best in found]
        return captions

    def batch(self, images: Sequence[Image]) -> Inputs:
        """Images as `search` takes them; see `caption`."""
        if reads_regions(self.spec):
            return regions_inputs([regions_of(self.spec, image) for image in images])
        return Inputs(pixels=stack_pixels(self.spec, images))

    def search(self, images: Inputs | NDArray[np.uint8], decoding: Decoding) -> list[list[Hypothesis]]:
        """Hypotheses for each image, best first. Pixels are uint8 (images, size, size, 3)."""
        inputs = Inputs(pixels=images) if isinstance(images, np.ndarray) else images
        groups = list(self._groups(inputs, decoding))
        threads = min(len(groups), self._threads)
        if threads <= 1:
            return [best for group in groups for best in self.path.search(group, decoding)]
        found = self._workers.map(lambda group: self.path.search(group, decoding), groups)
        return [best for group in found for best in group]

    def _groups(self, inputs: Inputs, decoding: Decoding) -> Iterator[Inputs]:
        """Parts of a batch for one call each: as many captions at once as pay, and all threads busy."""
        share = -(-len(inputs) // self._threads)
        count = max(1, min(COLUMNS // decoding.beam, share))
        if isinstance(self.path, NativePath):
            most = 0 if inputs.positions is None else int(inputs.positions.max(initial=1))
            while count > 1 and self.path.workspace_bytes(count, most, decoding) > MEMORY:
                count //= 2
        for start in range(0, len(inputs), count):
            yield inputs.part(start, start + count)

    def _batch(self, decoding: Decoding) -> int:
        return max(1, COLUMNS // decoding.beam) * self._threads

    @cached_property
    def _threads(self) -> int:
        return self.threads or cores()

    @cached_property
    def _workers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, "laconic-engine")


def open_path(plan: Plan, name: str) -> NativePath | NumpyPath:
    """What runs a plan here. FormatError, naming it, where the plan is damaged."""
    return NumpyPath(plan, name) if library() is None else NativePath(plan, name)


def regions_inputs(regions: Sequence[Regions]) -> Inputs:
    """Regions of several images, one behind the other. ConfigError where only some have boxes."""
    counts = np.array([len(image.features) for image in regions], np.uint32)
    features = np.concatenate([np.asarray(image.features, np.float32) for image in regions])
    boxes = [image.boxes for image in regions if image.boxes is not None]
    if len(boxes) not in (0, len(regions)):
        raise ConfigError(f"{len(boxes)} of {len(regions)} images have boxes; give them for all images, or for none")
    return Inputs(None, features, counts, np.concatenate(boxes).astype(np.float32) if boxes else None)
