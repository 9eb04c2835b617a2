"""Visual concepts (Fang et al. 2015, arXiv 1411.4952): an encoder learns which words are said of an image.

Each cell of the grid says how far it shows each word, and an image shows a word where one of its cells does (multiple
instance learning). That is how an encoder without ImageNet weights learns to see from captions: far sooner than through
a captioner, whose attention has to learn where to look at the same time. `learn_concepts` leaves a file of weights that
a recipe takes as `imagenet`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.config import digest, to_mapping
from laconic.errors import TrainingError
from laconic.machine.files import write_text
from laconic.models.encoders import build_encoder, normalize, save_encoder
from laconic.models.layers import fold_batch_norm
from laconic.spec.encoders import channels_of, normalization_of
from laconic.spec.model import EncoderConfig
from laconic.text import SPECIALS, Vocabulary
from laconic.training.batches import Batch, Source, make_batches
from laconic.training.given import Loss, Show
from laconic.training.loop import Run
from laconic.training.settings import Training

ENCODER = "encoder.npz"  # what is left in the folder
ORIGIN = "encoder.json"  # what it was learned from
LONGEST = 50  # words of a caption that are looked for
ABSENT = 4.0  # a word that is there counts as much as so many that are not: of a vocabulary, few words are said


class WordDetector(nn.Module):
    """An encoder, and a linear classifier of its cells. `vocabulary` counts special words, too."""

    def __init__(self, config: EncoderConfig, vocabulary: int) -> None:
        super().__init__()
        self.normalization = normalization_of(config)
        self.encoder = build_encoder(config)
        self.words = nn.Linear(channels_of(config).grid, vocabulary - len(SPECIALS))

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (N, size, size, 3) -> logits (N, words); of the cells' logits the log of the mean exponential, a soft
        maximum (Pinheiro, Collobert 2015, arXiv 1411.6228, eq. 6)."""
        cells: Tensor = self.words(self.encoder(normalize(pixels, self.normalization)).grid)
        return cells.logsumexp(1) - math.log(cells.shape[1])

    def parts(self) -> Mapping[str, nn.Module]:
        """What learns at which rate, see laconic.training.loop.make_optimizer."""
        return {"encoder": self.encoder, "decoder": self.words}


class WordDetection:
    """The objective: binary cross-entropy of every word, whether or not one of the image's captions has it."""

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        logits = model(batch.inputs)
        ids = batch.tokens.flatten(1)
        said = logits.new_zeros(len(ids), len(SPECIALS) + logits.shape[1]).scatter_(1, ids, 1.0)[:, len(SPECIALS) :]
        loss = F.binary_cross_entropy_with_logits(logits, said, pos_weight=logits.new_tensor(ABSENT))
        return Loss(loss, len(ids))


def learn_concepts(
    config: EncoderConfig,
    source: Source,
    captions: Sequence[Sequence[str]],
    settings: Training,
    folder: Path,
    *,
    show: Show | None = None,
) -> Path:
    """Trains an encoder from scratch, or goes on where it was stopped; the file of its weights, batch norms folded.

    Args:
        source: pixels of the images by row, see laconic.training.features.cache_pixels.
        captions: of each image.
        folder: of the training; where it holds the weights already, nothing is done.

    Raises:
        TrainingError: where the folder holds a training with other settings or captions.
    """
    path = folder / ENCODER
    vocabulary = Vocabulary.build((caption for some in captions for caption in some), 1, max_length=LONGEST)
    origin = {
        "vocabulary": digest(vocabulary.words),
        "training captions": digest(list(captions)),
        "settings": digest(to_mapping(config), to_mapping(settings)),
    }
    if path.exists():
        _check_learned_so(folder, origin)
        return path
    torch.manual_seed(settings.seed)
    detector = WordDetector(config, len(vocabulary))
    batches = make_batches(
        source,
        captions,
        vocabulary,
        max_length=LONGEST,
        size=settings.batch,
        seed=settings.seed,
        mirror=settings.mirror,
    )
    run = Run(detector, batches, settings, folder, objective=WordDetection(), show=show, origin=origin)
    run.resume()
    run.fit()
    fold_batch_norm(detector.encoder)
    write_text(folder / ORIGIN, json.dumps(origin, indent=1))
    save_encoder(detector.encoder, path)
    run.last.unlink()
    return path


def _check_learned_so(folder: Path, origin: Mapping[str, str]) -> None:
    """TrainingError where the folder's encoder has learned from something else."""
    try:
        learned = json.loads((folder / ORIGIN).read_bytes())
    except (OSError, ValueError) as error:
        raise TrainingError(f"{folder / ORIGIN}: cannot be read ({error}); delete {folder} and train again") from None
    changed = [key for key, value in origin.items() if not isinstance(learned, dict) or learned.get(key) != value]
    if changed:
        raise TrainingError(
            f"{folder}: its encoder was trained with other {' and '.join(changed)}; delete it, or give another folder"
        )
