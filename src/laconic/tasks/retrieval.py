"""Retrieval between images and texts with CLIP or BLIP: contrastive, and with BLIP matching too; scored by recall.

BLIP reads tokens as its tokenizer gives them, [CLS] first, as transformers does. Its temperature, which transformers
does not keep, is learned anew in each training.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from laconic import hf
from laconic.data import Skipped
from laconic.errors import ConfigError
from laconic.machine.distributed import gather, world
from laconic.metrics.retrieval import KS, chance_recall, recall_at
from laconic.tasks.blip import blip_config, check_tower, shape_of_tower
from laconic.tasks.captioned import LONGEST, Captioned, CaptionedBatch
from laconic.tasks.contrast import Momentum, in_batch, positives
from laconic.tasks.images import Shape
from laconic.tasks.matching import matching_loss, reranked
from laconic.tasks.nets import Tokenizer, check_recipe, save_folder
from laconic.tasks.opening import open_all
from laconic.tasks.settings import ModelRecipe, SlimRecipe
from laconic.tasks.supply import Shuffled
from laconic.tasks.table import Show
from laconic.tasks.task import Learner, divergence

CLIP, BLIP = "CLIPModel", "BlipForImageTextRetrieval"
CONTRASTIVE = ("queue", "momentum", "soft", "matching", "rerank")
TEMPERATURE = 0.07  # at first (CLIP, section 2.4)
SHARPEST = 100.0  # that logits may be scaled by
AT_ONCE = 100  # images, with their texts, that are read together


def open_task(recipe: SlimRecipe, cache: Path, show: Show) -> "Retrieval":
    """Opens retrieval as a recipe describes it; errors as laconic.tasks.opening.open_all."""
    check_recipe(recipe, kinds=("clip", "blip"), options=CONTRASTIVE)
    if recipe.training.batch < 2:
        raise ConfigError(
            f"training.batch = {recipe.training.batch}; an image needs others to be told from: at least 2"
        )
    if recipe.options.matching and recipe.options.rerank < max(KS):
        raise ConfigError(f"options.rerank = {recipe.options.rerank}; recall at {max(KS)} needs at least so many")
    opened = open_all(recipe, cache, show, _fresh_blip if recipe.model.kind == "blip" else _fresh_clip, (CLIP, BLIP))
    matches = type(opened.net).__name__ == BLIP
    if recipe.options.matching != matches:
        raise ConfigError(
            "options.matching = false leaves BLIP's cross-attention untrained: set it to true"
            if matches
            else 'options.matching = true is for BLIP: CLIP has no matching head; set model.kind = "blip"'
        )
    return Retrieval(recipe, opened.net, opened.tokenizer, opened.train, opened.val)


def _fresh_clip(model: ModelRecipe, shape: Shape, tokenizer: Tokenizer) -> nn.Module:
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    for name, tower in (("vision", model.vision), ("text", model.text)):
        check_tower(name, tower)
    vision = CLIPVisionConfig(
        **shape_of_tower(model.vision),
        attention_dropout=model.vision.dropout,
        num_channels=shape.channels,
        image_size=shape.side,
        patch_size=shape.patch,
    )
    text = CLIPTextConfig(
        **shape_of_tower(model.text),
        attention_dropout=model.text.dropout,
        vocab_size=len(tokenizer),
        max_position_embeddings=LONGEST,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=model.text.width))


def _fresh_blip(model: ModelRecipe, shape: Shape, tokenizer: Tokenizer) -> nn.Module:
    from transformers import BlipForImageTextRetrieval

    return hf.fit_channels(BlipForImageTextRetrieval(blip_config(model, shape, tokenizer)))


# Embeddings of either model


def see(net: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """What the vision tower says of images, (n, patches, width), and their unit embeddings (n, shared width)."""
    found = net.vision_model(pixel_values=pixels)
    if hasattr(net, "visual_projection"):
        return found.last_hidden_state, F.normalize(net.visual_projection(found.pooler_output), dim=-1)
    return found.last_hidden_state, F.normalize(net.vision_proj(found.last_hidden_state[:, 0]), dim=-1)


def read(net: Any, tokens: Tensor, mask: Tensor) -> Tensor:
    """Unit embeddings of texts (m, shared width)."""
    if hasattr(net, "text_projection"):
        words = net.text_model(input_ids=tokens, attention_mask=mask).pooler_output
        return F.normalize(net.text_projection(words), dim=-1)
    words = net.text_encoder(tokens, attention_mask=mask).last_hidden_state
    return F.normalize(net.text_proj(words[:, 0]), dim=-1)


@dataclass(eq=False)
class Retrieval:
    """The task of retrieval; laconic.tasks.task.Task says what its methods are."""

    recipe: SlimRecipe
    net: nn.Module
    tokenizer: Tokenizer
    train: Captioned
    val: Captioned
    selection: str = "mean recall"

    @property
    def batches(self) -> Shuffled[CaptionedBatch]:
        return self.train.supply(self.recipe)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        return (*self.train.images.skipped, *self.val.images.skipped)

    # Learning

    def outputs(self, net: nn.Module, batch: CaptionedBatch) -> Tensor:
        """Logits (images, texts) of the batch, at the model's own temperature, or the first one where it has none."""
        learned = getattr(net, "logit_scale", None)
        scale = learned.exp() if isinstance(learned, Tensor) else 1 / TEMPERATURE
        logits: Tensor = scale * see(net, batch.pixels)[1] @ read(net, batch.tokens, batch.mask).t()
        return logits

    def loss(self, outputs: Tensor, batch: CaptionedBatch) -> Tensor:
        """The contrastive loss in the batch, both ways."""
        right = positives(batch.rows, batch.rows[batch.image_of])
        return in_batch(outputs, right, self.recipe.training.label_smoothing)

    def learner(self, net: nn.Module, teacher: nn.Module | None, weight: float, temperature: float) -> nn.Module:
        return RetrievalLearner(net, self, teacher, weight, temperature)

    # Scoring

    def validate(self, net: nn.Module) -> dict[str, float]:
        """Recall at 1, 5 and 10 both ways and their mean, in percent."""
        device = next(net.parameters()).device
        rows = self.val.rows
        read_so_far = [
            self._embedded(net, self.val.batch(rows[start : start + AT_ONCE]).to(device))
            for start in range(0, len(rows), AT_ONCE)
        ]
        images, texts, seen = (torch.cat(parts) for parts in list(zip(*read_so_far, strict=True)))
        similarity = (images @ texts.t()).float().cpu().numpy()
        of_images = None
        if self.recipe.options.matching:
            batch = self._texts().to(device)
            count = self.recipe.options.rerank
            similarity, of_images = reranked(net, seen, batch.tokens, batch.mask, similarity, count)
        recalls = recall_at(similarity, self._image_of_text(), of_images=of_images)
        return {name: 100 * value for name, value in recalls.items()}

    def _embedded(self, net: nn.Module, batch: CaptionedBatch) -> tuple[Tensor, Tensor, Tensor]:
        seen, images = see(net, batch.pixels)
        kept = seen if self.recipe.options.matching else seen[:, :0]  # matching alone reads patches again
        return images, read(net, batch.tokens, batch.mask), kept

    def _texts(self) -> CaptionedBatch:
        return self.val.texts(self.val.rows)

    def _image_of_text(self) -> np.ndarray:
        return self._texts().image_of.numpy()

    def baselines(self) -> Mapping[str, float]:
        chance = chance_recall(len(self.val.rows), self._image_of_text())
        return {"chance": 100 * chance[self.selection]}

    # Keeping

    def example(self) -> dict[str, Tensor]:
        """One image and its first caption."""
        batch = self.val.batch(self.val.rows[:1], np.random.default_rng(0), captions=1)
        return {"pixel_values": batch.pixels, "input_ids": batch.tokens, "attention_mask": batch.mask}

    def save(self, net: nn.Module, folder: Path) -> None:
        save_folder(net, folder, self.val.images, self.tokenizer)


class RetrievalLearner(Learner):
    """A model with the losses of retrieval. Under torchrun each image is told from the texts of all processes.

    Args:
        net, task, teacher, weight, temperature: as laconic.tasks.task.Learner takes them.

    Raises:
        ConfigError: where processes would have unequal shares of a batch.
    """

    def __init__(
        self, net: nn.Module, task: Retrieval, teacher: nn.Module | None, weight: float, temperature: float
    ) -> None:
        super().__init__(net, task, teacher, weight, temperature)
        recipe = task.recipe
        if recipe.training.batch % world():
            raise ConfigError(
                f"training.batch = {recipe.training.batch} is not a multiple of {world()} processes, which retrieval "
                "needs: images are told from those of all of them"
            )
        self._recipe = recipe
        if not isinstance(getattr(net, "logit_scale", None), Tensor):
            self.logit_scale = nn.Parameter(torch.tensor(-math.log(TEMPERATURE)))
        self.slow: Momentum | None = None
        options = recipe.options
        if options.queue:
            projection: Any = getattr(net, "text_projection", None) or net.text_proj
            self.slow = Momentum(
                net,
                size=options.queue,
                width=projection.out_features,
                momentum=options.momentum,
                soft=options.soft,
                ramp=len(task.batches),
            )

    def forward(self, batch: CaptionedBatch) -> Tensor:
        """Scalar loss of a batch."""
        net, smoothing = self.net, self._recipe.training.label_smoothing
        if self.slow is not None and self.training:
            self.slow.follow(net)
        seen, images = see(net, batch.pixels)
        texts = read(net, batch.tokens, batch.mask)
        rows = batch.rows, batch.rows[batch.image_of]
        if self.slow is None:
            everyone = self._scale() * gather(images) @ gather(texts).t()
            loss = in_batch(everyone, positives(*(gather(each) for each in rows)), smoothing)
        else:
            loss = self.slow.loss(
                lambda other: _embeddings(other, batch), (images, texts), rows, self._scale(), smoothing
            )
        logits = self._scale() * images @ texts.t()
        if self._recipe.options.matching:
            right = positives(*rows)
            loss = loss + matching_loss(net, seen, batch.tokens, batch.mask, batch.image_of, logits, right)
        taught = self.taught(batch)
        if taught is None:
            return loss
        ways = divergence(logits, taught, self._temperature) + divergence(logits.t(), taught.t(), self._temperature)
        return self.shared(loss, ways / 2)

    def _scale(self) -> Tensor:
        """What similarities are multiplied by: the inverse temperature."""
        learned: Any = self.logit_scale if hasattr(self, "logit_scale") else self.net.logit_scale
        scale: Tensor = learned.clamp(max=math.log(SHARPEST)).exp()
        return scale


def _embeddings(net: nn.Module, batch: CaptionedBatch) -> tuple[Tensor, Tensor]:
    return see(net, batch.pixels)[1], read(net, batch.tokens, batch.mask)
