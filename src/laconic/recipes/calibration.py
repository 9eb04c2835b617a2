"""A captioner made ready for "fine" or "compact" values on a few images, from pixels where the encoder is part of it.

    batches = training_batches(captioner, run_folder, images=64)
    steps = calibrate(captioner, "compact", batches)
    save(captioner, path, "compact", steps=steps)

With images that nobody has described it takes `own_batches`, the captions of the captioner itself, and those can be
made to stay: `hold_captions`.

Says what to run and how far to round; how it is rounded is the business of `compress.quantize`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from laconic import data
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.inputs import Image
from laconic.captioner.packing import fold
from laconic.compress.quantized.after_training import quantize
from laconic.config import expand
from laconic.data.regions import open_regions, region_readers
from laconic.decode.search import Decoding
from laconic.errors import ConfigError, DataError
from laconic.models.evaluated import evaluated
from laconic.models.layers import Features
from laconic.recipes.folders import DAMAGED, read_recipe
from laconic.recipes.recipe import Recipe
from laconic.recipes.splits import splits
from laconic.spec.model import REGIONS
from laconic.spec.pixels import images_at_once
from laconic.spec.tokens import PAD, SPECIAL
from laconic.store.values import VALUES
from laconic.text import pad_groups
from laconic.training.features import RegionSource
from laconic.training.scst import as_tokens

BATCH = 8  # images of the usual size that go through the encoder, with gradients, at once
MAX_LENGTH = 20  # words of a caption
LEAD = 1e-3  # nats by which a word that is to stay leads, so that no rounding of another machine overtakes it
PASSES = 50

Batch = tuple[Tensor | Features, Tensor]  # as ImageCaptioner.forward takes them


def calibrate(captioner: ImageCaptioner, values: str, batches: Sequence[Batch]) -> dict[str, float]:
    """Folds and quantises a captioner in place; the steps that `save` is to be given.

    `values` is a row of VALUES that has an error: that of the logits, on images that nothing is fitted to where there
    are enough.
    """
    row = VALUES[values]
    reads_pixels = captioner.config.encoder.name != REGIONS
    error = row.pixel_error if reads_pixels and row.pixel_error is not None else row.error
    fold(captioner)
    return quantize(captioner, lambda batch: captioner(*batch), batches, error=error)


@torch.no_grad()
def hold_captions(captioner: ImageCaptioner, batches: Sequence[Batch], steps: Mapping[str, float]) -> bool:
    """Makes a quantised captioner say of `own_batches` again what they say, where a few words decide; or leaves it.

    Where rounding has put another word before the one said, the output bias of the one rises by one step and that of
    the other falls, until all words said are the likeliest, each given those before it. Says nothing of captions of
    other images. Returns whether all captions are as they were; they cannot be held, and False is returned, where the
    captioner has no output bias, that bias lies on no step, or words are spelled, of whose digits not all are possible.
    """
    name = captioner.decoder.output_bias
    step = steps.get(f"decoder.{name}")
    if name is None or step is None or captioner.vocabulary.radix:
        return False
    view, bias = evaluated(captioner), captioner.decoder.get_parameter(name)
    before, codes = bias.clone(), torch.round(bias / step)
    for _ in range(PASSES):
        pushes, changed = torch.zeros_like(codes), 0
        for inputs, tokens in batches:
            logits, said = view(inputs, tokens), tokens[:, :, 1:]
            said = said[said != PAD]
            logits[:, list(SPECIAL.forbidden(allow_unknown=False))] = -torch.inf
            lead = logits.gather(1, said[:, None]) - LEAD
            rival = logits.scatter(1, said[:, None], -torch.inf).max(1)
            lost = lead[:, 0] < rival.values
            changed += int(lost.sum())
            pushes.index_add_(0, said[lost], torch.ones_like(rival.values[lost]))
            pushes.index_add_(0, rival.indices[lost], -torch.ones_like(rival.values[lost]))
        if not changed:
            return True
        codes += pushes.sign()
        bias.copy_(codes * step + 0.0)
    bias.copy_(before)
    return False


def own_batches(captioner: ImageCaptioner, images: Iterable[Image]) -> list[Batch]:
    """Images with what the captioner itself says of them (greedy), where nobody else has said anything."""
    decoding = Decoding(1, MAX_LENGTH)
    batches = []
    for some in _groups(images, captioner):
        inputs = captioner.batch(some)
        batches.append((inputs, as_tokens(captioner.search(inputs, decoding))))
    return batches


def named_batches(captioner: ImageCaptioner, paths: Sequence[Path]) -> list[Batch]:
    """`own_batches` of photos and folders of them or, for a captioner of those, region features as `region_readers`.

    Raises DataError for what cannot be read.
    """
    config = captioner.config.encoder
    if config.name == REGIONS:
        found = (read() for path in paths for _, read in region_readers(path, config.channels))
        return own_batches(captioner, found)
    files = [file for path in paths for file in (_photos(path) if path.is_dir() else [path])]
    return own_batches(captioner, files)


def _photos(folder: Path) -> list[Path]:
    found, _ = data.list_images(folder)
    return [example.image for example in found if isinstance(example.image, Path)]


def training_batches(captioner: ImageCaptioner, run: Path, images: int) -> list[Batch]:
    """Training images of a run, evenly spread, with their reference captions.

    Raises ConfigError and DataError where the run's recipe is no longer there, or the images it names.
    """
    examples = list(_training_examples(captioner, run, images))
    batches = []
    for some in _groups(examples, captioner):
        said = [[captioner.vocabulary.encode(text, MAX_LENGTH) for text in captions] for _, captions in some]
        batches.append((captioner.batch([image for image, _ in some]), torch.from_numpy(pad_groups(said))))
    if not batches:
        raise DataError(f"{run}: none of its training images is readable and has captions")
    return batches


def _training_examples(captioner: ImageCaptioner, run: Path, count: int) -> Iterator[tuple[Image, Sequence[str]]]:
    try:
        recipe = read_recipe(run)
    except DAMAGED as error:
        raise ConfigError(f"{run}: its recipe cannot be read ({error})") from None
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"{run}: is no run that trained a captioner; give one that did")
    named, encoder = recipe.data, captioner.config.encoder
    train, _ = splits(named)
    used = [i for i in range(len(train)) if train[i].captions]
    chosen = [train[used[i]] for i in np.linspace(0, len(used), min(count, len(used)), endpoint=False).astype(int)]
    if encoder.name == REGIONS:
        regions = open_regions(expand(named.regions), encoder.channels, captioner.needs_boxes)
        valid = RegionSource.of(chosen, regions).valid  # what the training has left out is left out here
        yield from ((regions[example.id], example.captions) for example in compress(chosen, valid))
    else:
        yield from ((pixels, chosen[row].captions) for row, pixels in data.readable(chosen, encoder.size, []))


def _groups(items: Iterable[Any], captioner: ImageCaptioner) -> Iterator[list[Any]]:
    remaining, count = iter(items), images_at_once(captioner.config.encoder.size, BATCH)
    while some := list(islice(remaining, count)):
        yield some
