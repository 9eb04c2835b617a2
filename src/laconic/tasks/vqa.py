"""Visual question answering: a question about an image, answered in words.

Data: "vqav2", the published files, or "scenes", questions about generated scenes. The model is transformers'
BlipForQuestionAnswering, whose padding is honoured. It learns by the likelihood of each answer, weighted by the share
of people who gave it, and answers by ranking all answers of the training ("rank" of BLIP, Li et al. 2022). Both take
answers as laconic.metrics.vqa normalises them: one that is ranked must be spelled as it was learned.

A batch is images with all their questions: an image is encoded once for its questions, a question once for its answers.
Images are never mirrored, whatever training.mirror says, since questions ask about left and right.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from laconic import hf
from laconic.config import expand
from laconic.data import Skipped
from laconic.data.questions import Question, Questions, load_vqav2
from laconic.data.scene_facts import load_scene_questions
from laconic.errors import ConfigError, DataError
from laconic.metrics.vqa import accuracy, normalise
from laconic.tasks.answering import SCENES, Words, open_net, square
from laconic.tasks.blip import blip_config
from laconic.tasks.images import Images, Shape
from laconic.tasks.nets import check_recipe, save_folder
from laconic.tasks.settings import ModelRecipe, SlimRecipe
from laconic.tasks.supply import Shuffled, moved
from laconic.tasks.table import Show
from laconic.tasks.task import Learner

DATA = ("vqav2", SCENES)
MOST_ANSWERS = 3128  # that are ranked, the most frequent of the training; the number of BLIP
VALIDATED = 32  # images at once
RANKED = 1024  # answers at once


@dataclass(frozen=True)
class QuestionBatch:
    """What one step learns from.

    Attributes:
        pixels: float32 (images, channels, side, side).
        words, mask: int64 (n, longest), of the questions.
        image_of: int64 (n,), the image of each question.
        answers: int64 (m, longest answer), each from the token that begins to the one that ends, padded.
        asked: int64 (m,), the question of each answer.
        weights: float32 (m,), share of the people who gave it.
    """

    pixels: Tensor
    words: Tensor
    mask: Tensor
    image_of: Tensor
    answers: Tensor
    asked: Tensor
    weights: Tensor

    @property
    def count(self) -> int:
        """Images, which are what a batch has so many of."""
        return len(self.pixels)

    def to(self, device: torch.device) -> "QuestionBatch":
        """The same on a device."""
        return moved(self, device)


@dataclass(frozen=True, eq=False)
class Split:
    """Questions of one split, with their images."""

    questions: Questions
    images: Images
    words: Words

    @cached_property
    def about(self) -> Mapping[int, Sequence[Question]]:
        """Questions that have an answer, by image, of all images that can be read."""
        found: dict[int, list[Question]] = defaultdict(list)
        for item in self.questions.items:
            if self.images.source.valid[item.image] and spelled(item):
                found[item.image].append(item)
        return dict(sorted(found.items()))

    @property
    def rows(self) -> np.ndarray:
        """int64, images of `about`."""
        return np.array(list(self.about), np.int64)

    @property
    def items(self) -> list[Question]:
        """All their questions, in the order of `rows`."""
        return [item for row in self.about for item in self.about[row]]

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None = None) -> QuestionBatch:
        """Some images with all their questions and answers; nothing in it is random."""
        items = [item for row in rows for item in self.about[int(row)]]
        pixels = self.images.batch(rows)
        words, mask = self.words.encode([item.text for item in items])
        given = [(at, text, count) for at, item in enumerate(items) for text, count in spelled(item).items()]
        people = [sum(item.answers.values()) for item in items]
        return QuestionBatch(
            pixels,
            words,
            mask,
            torch.from_numpy(np.repeat(np.arange(len(rows)), [len(self.about[int(row)]) for row in rows])),
            answer_tokens(self.words, [text for _, text, _ in given]),
            torch.tensor([at for at, _, _ in given]),
            torch.tensor([count / people[at] for at, _, count in given]),
        )


def spelled(question: Question) -> Mapping[str, int]:
    """How many people gave each answer, normalised; those of which nothing is left are left out."""
    counts: Counter[str] = Counter()
    for text, count in question.answers.items():
        counts[normalise(text)] += count
    del counts[""]
    return counts


def answer_tokens(words: Words, answers: list[str]) -> Tensor:
    """Tokens of answers (answers, longest): what begins, the words, what ends, padding."""
    tokens, _ = words.encode(answers)
    tokens = tokens.clone()
    tokens[:, 0] = words.tokenizer.bos_token_id
    return tokens


class QuestionAnswering:
    """The task over two splits."""

    selection = "accuracy"

    def __init__(self, net: nn.Module, train: Split, val: Split, recipe: SlimRecipe) -> None:
        self.net, self.train, self.val = net, train, val
        self.batches = Shuffled(train.batch, train.rows, recipe.training.batch, recipe.training.seed)
        self._smoothing, self._candidates = recipe.training.label_smoothing, recipe.options.candidates
        self._pad = train.words.tokenizer.pad_token_id

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Images that cannot be read."""
        return (*self.train.images.skipped, *self.val.images.skipped)

    def outputs(self, net: nn.Module, batch: QuestionBatch) -> Tensor:
        """Logits (said, vocabulary) of all words of the answers that are no padding."""
        heard = _ask(net, batch)
        logits = self._say(net, heard, batch.mask, batch.asked, batch.answers[:, :-1])
        return logits[batch.answers[:, 1:] != self._pad]

    def loss(self, outputs: Tensor, batch: QuestionBatch) -> Tensor:
        """Sum over a question's answers of weight x negative log-likelihood, averaged over questions."""
        said = batch.answers[:, 1:] != self._pad
        each = F.cross_entropy(
            outputs.float(), batch.answers[:, 1:][said], label_smoothing=self._smoothing, reduction="none"
        )
        return (each * batch.weights[:, None].expand_as(said)[said]).sum() / len(batch.words)

    def learner(self, net: nn.Module, teacher: nn.Module | None, weight: float, temperature: float) -> nn.Module:
        """The usual one."""
        return Learner(net, self, teacher, weight, temperature)

    def validate(self, net: nn.Module) -> dict[str, float]:
        """VQA accuracy in percent."""
        device, rows, total = next(net.parameters()).device, self.val.rows, 0.0
        answers = self._listed.to(device)
        for start in range(0, len(rows), VALIDATED):
            some = rows[start : start + VALIDATED]
            best = self._rank(net, self.val.batch(some).to(device), answers)
            asked = [item for row in some for item in self.val.about[int(row)]]
            for item, place in zip(asked, best.tolist(), strict=True):
                total += accuracy(self._answers[place], item.answers)
        return {"accuracy": 100 * total / len(self.val.items)}

    def baselines(self) -> dict[str, float]:
        """The most frequent answer of the training, to all questions and to each question as it is worded."""
        usual = self._answers[0]
        worded: dict[str, Counter[str]] = defaultdict(Counter)
        for item in self.train.questions.items:
            worded[item.text].update(spelled(item))
        items = self.val.items
        best = {text: counts.most_common(1)[0][0] for text, counts in worded.items() if counts}
        seen = sum(accuracy(best.get(item.text, usual), item.answers) for item in items)
        return {
            "one answer": 100 * sum(accuracy(usual, item.answers) for item in items) / len(items),
            "no image": 100 * seen / len(items),
        }

    def example(self) -> dict[str, Tensor]:
        """One question and its first answer."""
        batch = self.val.batch(self.val.rows[:1])
        length = int(batch.mask[0].sum())
        said = batch.answers[0]
        return {
            "input_ids": batch.words[:1, :length],
            "attention_mask": batch.mask[:1, :length],
            "pixel_values": batch.pixels,
            "labels": said[said != self._pad][None],
        }

    def save(self, net: nn.Module, folder: Path) -> None:
        """Model, tokenizer, and image processor where it reads pixels."""
        save_folder(net, folder, self.train.images, self.train.words.tokenizer)

    # Ranking

    @cached_property
    def _answers(self) -> list[str]:
        """Answers of the training, the most frequent first."""
        counts: Counter[str] = Counter()
        for item in self.train.questions.items:
            counts.update(spelled(item))
        ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
        return [text for text, _ in ranked][:MOST_ANSWERS]

    @cached_property
    def _listed(self) -> Tensor:
        return answer_tokens(self.train.words, self._answers)

    def _rank(self, net: nn.Module, batch: QuestionBatch, answers: Tensor) -> Tensor:
        """(n,) the answer of the highest likelihood, among those whose first word is likeliest."""
        heard = _ask(net, batch)
        each = torch.arange(len(batch.words), device=answers.device)
        begun = answers[:1, :1].expand(len(each), 1)
        first = self._say(net, heard, batch.mask, each, begun)[:, 0].float().log_softmax(-1)
        count = min(self._candidates, len(answers))
        chosen = first[:, answers[:, 1]].topk(count).indices  # (n, count)
        pairs = zip(each.repeat_interleave(count).split(RANKED), chosen.flatten().split(RANKED), strict=True)
        likelihood = [self._likelihood(net, heard, batch.mask, asked, answers[some]) for asked, some in pairs]
        best = torch.cat(likelihood).view(-1, count).argmax(-1)
        return chosen[each, best]

    def _likelihood(self, net: nn.Module, heard: Tensor, mask: Tensor, asked: Tensor, said: Tensor) -> Tensor:
        """(m,) log-likelihood of whole answers said (m, length) to the questions asked (m,)."""
        following = said[:, 1:]
        logits = self._say(net, heard, mask, asked, said[:, :-1]).float().log_softmax(-1)
        each = logits.gather(-1, following[..., None])[..., 0]
        likelihood: Tensor = (each * (following != self._pad)).sum(-1)
        return likelihood

    def _say(self, net: Any, heard: Tensor, mask: Tensor, asked: Tensor, answers: Tensor) -> Tensor:
        """Logits (m, length, vocabulary) of what follows each word of answers (m, length)."""
        logits: Tensor = net.text_decoder(
            input_ids=answers,
            attention_mask=(answers != self._pad).long(),
            encoder_hidden_states=heard[asked],
            encoder_attention_mask=mask[asked],
            use_cache=False,
        ).logits
        return logits


def _ask(net: Any, batch: QuestionBatch) -> Tensor:
    """The questions as the decoder sees them, (n, longest, width)."""
    images = net.vision_model(batch.pixels).last_hidden_state[batch.image_of]
    heard: Tensor = net.text_encoder(
        batch.words, attention_mask=batch.mask, encoder_hidden_states=images
    ).last_hidden_state
    return heard


def open_task(recipe: SlimRecipe, cache: Path, show: Show) -> QuestionAnswering:
    """The task as a recipe asks for it; raises as laconic.tasks.table.open_task."""
    check_recipe(recipe, kinds=("blip",), options=("candidates",))
    if recipe.options.candidates < 1:
        raise ConfigError(f"options.candidates = {recipe.options.candidates}; give at least 1")
    questions = {split: _questions(recipe, split) for split in ("train", "val")}

    def fresh(model: ModelRecipe, shape: Shape, tokenizer: Any) -> nn.Module:
        from transformers import BlipForQuestionAnswering

        config = blip_config(model, shape, tokenizer, preserve=True)
        return hf.honour_padding(hf.fit_channels(BlipForQuestionAnswering(config)))

    items = questions["train"].items
    if not any(spelled(item) for item in items):
        raise DataError("no training question has an answer of more than articles and punctuation; give others")
    texts = [text for item in items for text in (item.text, *spelled(item))]
    net, words, images = open_net(recipe, texts, fresh, {"BlipForQuestionAnswering": None})
    opened = {split: Split(held, images(held.images, split, cache, show), words) for split, held in questions.items()}
    return QuestionAnswering(net, opened["train"], opened["val"], recipe)


def _questions(recipe: SlimRecipe, split: str) -> Questions:
    data = recipe.data
    if data.name not in DATA:
        raise ConfigError(f"data.name = {data.name!r} is not for vqa; choose one of {', '.join(DATA)}")
    count: int = getattr(data, split)
    if data.name == SCENES:
        return load_scene_questions(split, count or None, size=square(recipe))
    if not data.root:
        raise ConfigError(f"data.name = {data.name!r} lies on disk: give its folder as data.root")
    questions = load_vqav2(expand(data.root), split)
    return questions.first(count) if count else questions
