"""ImageCaptioner: encoder, captioner and vocabulary as one object, from pixels to words.

    captioner = laconic.load("tiny.safetensors", backend="torch")
    captioner.caption(["photo.jpg"])     # ["a dog runs through the grass"]

With the encoder "regions" it begins where a detector ended: `captioner.caption(["cocobu_att/1.npy"])`.

Knows nothing of files of its own, training, data sets or metrics.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from laconic.captioner.inputs import (
    Image,
    groups_of,
    needs_boxes,
    reads_regions,
    region_channels,
    regions_of,
    stack_pixels,
)
from laconic.data.regions import NO_BOXES, Regions
from laconic.decode.beams import Hypothesis
from laconic.decode.search import Decoding, decode
from laconic.errors import DataError
from laconic.models.captioners import build_captioner
from laconic.models.encoders import build_encoder, normalize
from laconic.models.evaluated import evaluated
from laconic.models.layers import Features
from laconic.spec.model import PARTS, ModelConfig
from laconic.spec.packed import CaptionerSpec
from laconic.spec.pixels import images_at_once
from laconic.spec.tokens import special_ids
from laconic.text import Vocabulary

ENCODED = 64  # images of the usual size in one pass: MobileNet's first layers take 10 MB of each
PAIRS = 2**22  # of positions of an image, over a batch: what attention among them takes 0.5 GB for
LOCATED_PAIRS = 2**20  # with boxes of their own, whose relations take 0.7 GB


def stack_regions(regions: Sequence[Regions]) -> Features:
    """Regions of several images as one batch, float32, the shorter ones padded with zeros and marked in `valid`.

    `pooled` is the mean of an image's regions. DataError where some images have boxes and others do not: what is said
    of an image must not depend on the others of its batch.
    """
    counts = torch.tensor([len(image.features) for image in regions])
    grid = pad_sequence([torch.tensor(image.features, dtype=torch.float32) for image in regions], True)
    pooled = grid.sum(1) / counts.unsqueeze(1)
    given = [torch.tensor(image.boxes) for image in regions if image.boxes is not None]
    if len(given) not in (0, len(regions)):
        raise DataError(f"{len(given)} of {len(regions)} images have boxes; give them for all images, or for none")
    boxes = pad_sequence(given, True) if given else None
    valid = torch.arange(grid.shape[1]) < counts.unsqueeze(1)
    return Features(grid, pooled, boxes, None if valid.all() else valid)


class ImageCaptioner(nn.Module):
    """Encoder and decoder with one vocabulary. Parameters are named `encoder.*` and `decoder.*`."""

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.spec = CaptionerSpec(config, vocabulary)
        self.config = config
        self.vocabulary = vocabulary
        self.encoder = build_encoder(config.encoder)
        self.decoder = build_captioner(config.decoder.name, self.spec.captioner)

    def forward(self, images: Tensor | Features, tokens: Tensor) -> Tensor:
        """Logits under teacher forcing; images are uint8 (N, H, W, 3) or already Features. See the decoder."""
        return self.decoder(self.features(images), tokens)  # type: ignore[no-any-return]

    def parts(self) -> dict[str, nn.Module]:
        """Encoder and decoder by the names that their weights begin with."""
        return {name: self.get_submodule(name) for name in PARTS}

    @property
    def reads_pooled(self) -> bool:
        """Whether the pooled feature is read; what an encoder has for it alone does not learn otherwise."""
        return self.spec.captioner.reads_pooled

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
        """Whether it has to be told where regions lie; the cells of a photo's grid lie where they lie."""
        return needs_boxes(self.spec)

    def features(self, images: Tensor | Features) -> Features:
        """What the decoder reads: of pixels, or as given. DataError where it needs boxes and there are none."""
        if not isinstance(images, Features):
            return self.encode(images)
        if images.boxes is None and self.needs_boxes:
            raise DataError(f"{self.config.decoder.name} reads where regions lie: {NO_BOXES}")
        return images

    def encode(self, pixels: Tensor) -> Features:
        """uint8 (N, size, size, 3) -> Features."""
        return self.encoder(normalize(pixels, self.spec.normalization))  # type: ignore[no-any-return]

    def search(self, images: Tensor | Features, decoding: Decoding) -> list[list[Hypothesis]]:
        """Hypotheses for each image, best first.

        Dropout and masks are those of evaluation, whatever mode the captioner is in, which stays as it is: any number
        of threads may search at once. Large images and many regions are seen a few at a time.
        """
        with torch.inference_mode():
            view = evaluated(self)
            return [
                best
                for some in a_few_at_a_time(images, self.config.encoder.size)
                for best in decode(view.decoder, view.features(some), decoding, special_ids(self.vocabulary))
            ]

    def caption(self, images: Iterable[Image], decoding: Decoding | None = None, batch: int = 32) -> list[str]:
        """One caption for each image: a photo's path, or uint8 (H, W, 3) RGB of any size.

        For the encoder "regions" the path of their `.npy` file, or Regions. Paths are read as in training, JPEGs at
        half their size or less where that is enough. Raises DataError for a file that cannot be read.
        """
        decoding = decoding or Decoding()
        device = next(self.parameters()).device
        captions: list[str] = []
        for some in groups_of(self.spec, images, batch):
            found = self.search(self.batch(some).to(device), decoding)
            captions += [self.vocabulary.decode(best[0].tokens) for best in found]
        return captions

    def batch(self, images: Sequence[Image]) -> Tensor | Features:
        """Images as `forward` and `search` take them; see `caption`."""
        if reads_regions(self.spec):
            return stack_regions([regions_of(self.spec, image) for image in images])
        return torch.from_numpy(stack_pixels(self.spec, images))


def a_few_at_a_time(images: Tensor | Features, size: int) -> Iterator[Tensor | Features]:
    """A batch in parts of bounded memory: pixels of `size` x `size`, or features."""
    if isinstance(images, Features):
        pairs = PAIRS if images.boxes is None else LOCATED_PAIRS
        count = max(1, pairs // max(1, images.grid.shape[1]) ** 2)
    else:
        count = images_at_once(size, ENCODED)
    for start in range(0, len(images), count):
        yield images[start : start + count]
