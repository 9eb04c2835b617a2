"""Image captioning with BLIP: cross-entropy over the words of a caption, scored by CIDEr of captions found by beams."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from laconic import hf, metrics
from laconic.data import Skipped
from laconic.errors import ConfigError
from laconic.hf.blip import write_captions
from laconic.tasks.blip import blip_config
from laconic.tasks.captioned import LONGEST, Captioned, CaptionedBatch
from laconic.tasks.images import Shape
from laconic.tasks.nets import Tokenizer, check_recipe, save_folder
from laconic.tasks.opening import open_all
from laconic.tasks.settings import ModelRecipe, SlimRecipe, TaskOptions
from laconic.tasks.supply import Shuffled
from laconic.tasks.table import Show
from laconic.tasks.task import Learner

OPTIONS = ("prompt", "beam", "max_length", "min_length")
CLASS = "BlipForConditionalGeneration"
AT_ONCE = 100  # images whose captions are searched together
CONSTANTS = 200  # training captions of which the best is the baseline that sees no image


def open_task(recipe: SlimRecipe, cache: Path, show: Show) -> "Captioning":
    """Opens captioning as a recipe describes it; errors as laconic.tasks.opening.open_all."""
    check_recipe(recipe, kinds=("blip",), options=OPTIONS)
    opened = open_all(recipe, cache, show, _fresh, (CLASS,))
    return Captioning(recipe, opened.net, opened.tokenizer, opened.train, opened.val)


def _fresh(model: ModelRecipe, shape: Shape, tokenizer: Tokenizer) -> nn.Module:
    from transformers import BlipForConditionalGeneration

    return hf.fit_channels(BlipForConditionalGeneration(blip_config(model, shape, tokenizer)))


@dataclass(eq=False)
class Captioning:
    """The task of captioning; laconic.tasks.task.Task says what its methods are."""

    recipe: SlimRecipe
    net: nn.Module
    tokenizer: Tokenizer
    train: Captioned
    val: Captioned
    selection: str = "CIDEr"

    def __post_init__(self) -> None:
        options, prompt = self.recipe.options, self._prompt_length
        if not prompt + 1 < options.max_length <= LONGEST or not 0 <= options.min_length <= options.max_length:
            raise ConfigError(
                f"options: min_length = {options.min_length}, max_length = {options.max_length}; both count the first "
                f"token and the {prompt} of the prompt, and max_length is at most {LONGEST}"
            )
        if options.beam < 1:
            raise ConfigError(f"options.beam = {options.beam}; give at least 1")

    @property
    def batches(self) -> Shuffled[CaptionedBatch]:
        return self.train.supply(self.recipe)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        return (*self.train.images.skipped, *self.val.images.skipped)

    # Learning

    def outputs(self, net: nn.Module, batch: CaptionedBatch) -> Tensor:
        """Logits (words, vocabulary) of the words of all captions, their ends included, prompts and padding not.

        Each image is encoded once, however many captions it has.
        """
        blip: Any = net
        images = blip.vision_model(pixel_values=batch.pixels).last_hidden_state
        hidden = blip.text_decoder.bert(
            self._begun(blip, batch.tokens)[:, :-1],
            attention_mask=batch.mask[:, :-1],
            encoder_hidden_states=images[batch.image_of],
            is_decoder=True,
            use_cache=False,
        ).last_hidden_state
        logits: Tensor = blip.text_decoder.cls(hidden[self._learned(batch)])
        return logits

    def loss(self, outputs: Tensor, batch: CaptionedBatch) -> Tensor:
        """Mean cross-entropy of the words with label smoothing."""
        words = batch.tokens[:, 1:][self._learned(batch)]
        return F.cross_entropy(outputs.float(), words, label_smoothing=self.recipe.training.label_smoothing)

    def learner(self, net: nn.Module, teacher: nn.Module | None, weight: float, temperature: float) -> nn.Module:
        return Learner(net, self, teacher, weight, temperature)

    def _learned(self, batch: CaptionedBatch) -> Tensor:
        """Which of `batch.tokens[:, 1:]` the loss is taken over, bool."""
        learned = batch.mask[:, 1:].bool()
        learned[:, : self._prompt_length] = False
        return learned

    @cached_property
    def _prompt(self) -> list[int]:
        ids: list[int] = self.tokenizer(self.recipe.options.prompt, add_special_tokens=False)["input_ids"]
        return ids

    @property
    def _prompt_length(self) -> int:
        return len(self._prompt)

    @staticmethod
    def _begun(blip: Any, tokens: Tensor) -> Tensor:
        """Tokens with the one first that tells BLIP to write."""
        tokens = tokens.clone()
        tokens[:, 0] = blip.config.text_config.bos_token_id
        return tokens

    # Scoring

    def validate(self, net: nn.Module) -> dict[str, float]:
        """CIDEr, BLEU 1 to 4 and ROUGE-L, all times 100."""
        return self._scores(self.captions(net, self.val, self.val.rows))

    def captions(self, net: nn.Module, split: Captioned, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The best caption of each of these examples, without the prompt, as Hugging Face's `generate` finds it.

        The net is in evaluation mode.
        """
        options: TaskOptions = self.recipe.options
        found: list[str] = []
        for start in range(0, len(rows), AT_ONCE):
            found += write_captions(
                net,
                self.tokenizer,
                split.images.batch(np.asarray(rows[start : start + AT_ONCE])),
                self._prompt,
                num_beams=options.beam,
                max_length=options.max_length,
                min_length=options.min_length,
            )
        return found

    def baselines(self) -> Mapping[str, float]:
        """CIDEr of the best single caption, among a few of the training set, said of every image."""
        rng = np.random.default_rng(self.recipe.training.seed)
        rows = rng.choice(self.train.rows, min(CONSTANTS, len(self.train.rows)), replace=False)
        constants = metrics.tokenize([self.train.captions_of(row)[0] for row in rows])
        images = np.arange(len(self.val.rows))
        best = max(float(self._cider.score([said] * len(images)).mean()) for said in set(constants))
        return {"no image": 100 * best}

    def _scores(self, captions: list[str]) -> dict[str, float]:
        said = metrics.tokenize(captions)
        bleu = self._bleu.corpus(said)
        scores = {"CIDEr": float(self._cider.score(said).mean())}
        scores |= {f"Bleu_{order}": float(value) for order, value in enumerate(bleu, 1)}
        scores["ROUGE_L"] = float(metrics.rouge_l(self._references, said).mean())
        return {name: 100 * value for name, value in scores.items()}

    @cached_property
    def _references(self) -> list[list[str]]:
        return [metrics.tokenize(list(self.val.captions_of(row))) for row in self.val.rows]

    @cached_property
    def _cider(self) -> metrics.CiderD:
        return metrics.CiderD(self._references)

    @cached_property
    def _bleu(self) -> metrics.Bleu:
        return metrics.Bleu(self._references)

    # Keeping

    def example(self) -> dict[str, Tensor]:
        """One image with its first caption."""
        batch = self.val.batch(self.val.rows[:1], np.random.default_rng(0), captions=1)
        return {
            "pixel_values": batch.pixels,
            "input_ids": self._begun(self.net, batch.tokens),
            "attention_mask": batch.mask,
        }

    def save(self, net: nn.Module, folder: Path) -> None:
        save_folder(net, folder, self.val.images, self.tokenizer)
