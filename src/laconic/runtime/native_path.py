"""Runs a plan in the native library: one call captions a group of images."""

import ctypes
import threading
from ctypes import byref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.decode.beams import Beams, Hypothesis
from laconic.decode.search import Decoding, tokens_at_most
from laconic.errors import ConfigError, FormatError, TrainingError
from laconic.native.library import CaptionsStruct, DecodingStruct, ImagesStruct, library
from laconic.runtime.inputs import Inputs
from laconic.runtime.plan import Plan, aligned

NOT_A_PLAN, OTHER_VERSION, DAMAGED, BAD_INPUT, NO_ROOM, DIVERGED, STUCK = range(1, 8)  # enum laconic_error


class NativePath:
    """A checked plan that the native library runs. Any number of threads may search at once."""

    def __init__(self, plan: Plan, name: str = "plan") -> None:
        """Raises FormatError, naming `name`, where the plan is damaged, ConfigError where there is no library."""
        found = library()
        if found is None:
            raise ConfigError("the native library is not there; install laconic where a C compiler is, or use numpy")
        self._library, self.plan = found, plan
        self._held = threading.local()  # each thread's workspace, which the next call finds paged in
        error = found.laconic_check(_address(plan.data), plan.data.size)
        if error:
            raise FormatError(f"{name}: {self._message(error)}")

    def search(self, images: Inputs, decoding: Decoding) -> list[list[Hypothesis]]:
        """Hypotheses for each image, best first; all images in one call."""
        if not len(images):
            return []
        options = _options(decoding)
        slots, digits = (len(images), decoding.beam), int(self._library.laconic_digits(_address(self.plan.data)))
        tokens = np.zeros((*slots, tokens_at_most(decoding.max_length, digits)), np.int32)
        log_probs, scores = np.zeros(tokens.shape, np.float32), np.zeros(slots, np.float64)
        lengths = np.zeros(slots, np.uint32)
        found = CaptionsStruct(*map(_address, (tokens, log_probs, scores, lengths)))
        given, held = self._given(images)
        most = int(images.positions.max()) if images.positions is not None else 0
        workspace = self._workspace(decoding, len(images), most)
        failed = ctypes.c_uint32()
        error = self._library.laconic_caption(
            _address(self.plan.data), byref(options), byref(given), _address(workspace), workspace.size, byref(found),
            byref(failed),
        )  # fmt: skip
        del held
        if error in (DIVERGED, STUCK):
            raise TrainingError(f"the captioner {self._message(error)} (image {failed.value} of the batch)")
        if error:
            raise ConfigError(f"the images cannot be captioned: {self._message(error)}")
        scores[lengths == 0] = -np.inf
        beams = Beams(scores, lengths.astype(np.int64), tokens.astype(np.int64), log_probs)
        return beams.hypotheses(int(self.plan.header["eos"]))

    def features(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Grid (positions, channels) and pooled (channels,) of one image (side, side, 3); None where none is read."""
        h = self.plan.header
        grid = np.zeros((int(h["positions"]), int(h["channels"])), np.float32)
        pooled = np.zeros(int(h["pooled_channels"]), np.float32) if self.plan.reads_pooled else None
        pixels = np.ascontiguousarray(pixels, np.uint8)
        workspace = self._workspace(Decoding(beam=1, max_length=1), 1, 0)
        error = self._library.laconic_features(
            _address(self.plan.data), _address(pixels), _address(workspace), workspace.size, _address(grid),
            None if pooled is None else _address(pooled),
        )  # fmt: skip
        if error:
            raise ConfigError(f"the image cannot be encoded: {self._message(error)}")
        return grid, pooled

    def workspace_bytes(self, images: int, positions: int, decoding: Decoding) -> int:
        """Memory that so many images of at most so many regions take at once; 0 where that is not possible."""
        options = _options(decoding)
        return int(self._library.laconic_workspace(_address(self.plan.data), byref(options), images, positions))

    def _workspace(self, decoding: Decoding, images: int, positions: int) -> NDArray[np.uint8]:
        size = self.workspace_bytes(images, positions, decoding)
        if not size:
            raise ConfigError(f"{images} images with {positions} regions are more than this plan takes at once")
        held: NDArray[np.uint8] | None = getattr(self._held, "workspace", None)
        if held is None or held.size < size:
            self._held.workspace = held = aligned(size)
        return held

    def _given(self, images: Inputs) -> tuple[ImagesStruct, list[NDArray[Any]]]:
        """The struct, and the arrays that it points to, which must live as long."""
        kinds: list[Any] = [np.uint8, np.float32, np.float32, np.uint32]
        arrays = (images.pixels, images.features, images.boxes, images.positions)
        held = [
            None if array is None else np.ascontiguousarray(array, kind)
            for array, kind in zip(arrays, kinds, strict=True)
        ]
        pointers = [None if array is None else _address(array) for array in held]
        return ImagesStruct(len(images), *pointers), [array for array in held if array is not None]

    def _message(self, error: int) -> str:
        return str(self._library.laconic_message(error).decode())


def _options(decoding: Decoding) -> DecodingStruct:
    unknown = int(decoding.allow_unknown)
    return DecodingStruct(decoding.beam, decoding.max_length, unknown, 0, decoding.length_penalty)


def _address(array: Any) -> int:
    return int(array.ctypes.data)
