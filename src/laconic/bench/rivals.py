"""PyTorch's ways to run a captioner, dense: eager, compiled, in bfloat16, in int8."""

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from laconic.captioner.image_captioner import ImageCaptioner, stack_regions
from laconic.captioner.steps import Start, Step, Tensors, modules_of, parts_of
from laconic.data.regions import Regions
from laconic.decode.beams import Hypothesis
from laconic.decode.search import Decoding, decode
from laconic.errors import ConfigError
from laconic.machine.process import slow_in_bfloat16
from laconic.models.layers import Features
from laconic.models.torch_captioner import best_words
from laconic.runtime.inputs import Inputs
from laconic.spec.tokens import special_ids

Search = Callable[[Decoding], list[list[Hypothesis]]]


def batch_of(inputs: Inputs) -> Features | Tensor:
    """Inputs as torch has them."""
    if inputs.pixels is not None:
        return torch.from_numpy(inputs.pixels)
    images = [inputs.part(image, image + 1) for image in range(len(inputs))]
    return stack_regions([Regions(image.features, image.boxes) for image in images if image.features is not None])


@dataclass(frozen=True)
class State:
    """Tensors of the images, `image` (rows,) of each caption in the making, tensors of these, words said."""

    memory: Tensors
    image: Tensor
    rows: Tensors
    word: int = 0


@dataclass(frozen=True)
class Stepper:
    """A Captioner of laconic.decode over both modules, or what they were made into."""

    first: Callable[..., Tensors]
    next: Callable[..., Tensors]
    module: Step  # what `next` was made of

    @torch.inference_mode()
    def start(self, images: Features | Tensor) -> State:
        tensors = (*self.first(*parts_of(images)), *self.module.empty(len(images)))
        memory = self.module.memory
        return State(tensors[:memory], torch.arange(len(images)), tensors[memory:])

    @torch.inference_mode()
    def step(self, state: State, tokens: np.ndarray, k: int | None) -> tuple[np.ndarray, np.ndarray, State]:
        word = torch.tensor([state.word])
        logits, *rows = self.next(torch.as_tensor(tokens), state.image, word, *state.memory, *state.rows)
        return *best_words(logits, k), State(state.memory, state.image, tuple(rows), state.word + 1)

    @torch.inference_mode()
    def select(self, state: State, rows: np.ndarray) -> State:
        chosen = torch.as_tensor(rows)
        kept = tuple(tensor.index_select(0, chosen) for tensor in state.rows)
        return State(state.memory, state.image.index_select(0, chosen), kept, state.word)


def eager(captioner: ImageCaptioner, given: Features | Tensor) -> Search:
    """As laconic runs it with PyTorch: vectorised beam search, float32."""
    return lambda decoding: captioner.search(given, decoding)


def compiled(captioner: ImageCaptioner, given: Features | Tensor) -> Search:
    """torch.compile of both modules: dynamic shapes, since captions end."""
    start, step = modules_of(captioner, given)
    return _search(torch.compile(start), torch.compile(step, dynamic=True), step, captioner, given)


def bfloat16(captioner: ImageCaptioner, given: Features | Tensor) -> Search:
    """Matrix products in bfloat16, by autocast over weights that are bfloat16 already. ConfigError where it is slow."""
    if slow_in_bfloat16():
        raise ConfigError("this processor has no instructions for bfloat16")
    start, step = _copies(captioner, given)
    with _kept_plain(start, step):
        for module in [*start.modules(), *step.modules()]:
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(torch.bfloat16)

    def under_autocast(module: nn.Module) -> Callable[..., Any]:
        def run(*tensors: Tensor) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                return module(*tensors)

        return run

    return _search(under_autocast(start), under_autocast(step), step, captioner, given)


def int8(captioner: ImageCaptioner, given: Features | Tensor) -> Search:
    """Dynamic quantisation of linear layers: int8 weights, activations quantised as they come; the rest is float32."""
    start, step = _copies(captioner, given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and without a successor in PyTorch itself
        quantize: Any = torch.ao.quantization.quantize_dynamic
        with _kept_plain(start, step):
            quantize(start.captioner.decoder, {nn.Linear}, torch.qint8, inplace=True)
        quantize(step, {nn.Linear}, torch.qint8, inplace=True)
    return _search(start, step, step, captioner, given)


def _copies(captioner: ImageCaptioner, given: Features | Tensor) -> tuple[Start, Step]:
    """Modules of weights of their own."""
    start, step = modules_of(captioner, given)
    return copy.deepcopy(start), copy.deepcopy(step)


@contextlib.contextmanager
def _kept_plain(start: Start, step: Step) -> Iterator[None]:
    """Takes the layers out of the start's captioner that must stay as they are, and puts them back in the end."""
    decoder = start.captioner.decoder
    kept = {name: getattr(decoder, name) for name in step.plain}
    for name in kept:
        setattr(decoder, name, nn.Identity())
    try:
        yield
    finally:
        for name, layer in kept.items():
            setattr(decoder, name, layer)


def _search(
    first: Callable[..., Tensors],
    then: Callable[..., Tensors],
    step: Step,
    captioner: ImageCaptioner,
    given: Features | Tensor,
) -> Search:
    stepper, special = Stepper(first, then, step), special_ids(captioner.vocabulary)
    return lambda decoding: decode(stepper, given, decoding, special)
