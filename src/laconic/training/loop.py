"""The only training loop, with validation, checkpoints and resume, in one process or in several.

What is learned enters as an Objective (cross-entropy under teacher forcing by default), pruning through the Pruner's
hooks, data through Batches, scores through `validate`; the loop itself knows nothing of them. Stop it at any instant
and start it again: it goes on from the last checkpoint and ends with the same weights as an unbroken run. Under
torchrun each process takes its share of the same batches; dropout, random samples and the statistics of batch norms
are its own, all else is that of one process up to rounding.
"""

import json
import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.errors import TrainingError
from laconic.machine.distributed import barrier, broadcast, is_writer, parallel, rank, total, world
from laconic.spec import manifest
from laconic.training.averaging import Averaged, averaged_of
from laconic.training.batches import Batch
from laconic.training.checkpoint import load_checkpoint, save_checkpoint
from laconic.training.given import Loss, Masking, Objective, Progress, Show, Supply, Validate
from laconic.training.resuming import check_moments, check_origin, counts_of, cut_log
from laconic.training.settings import SCHEDULES, Training

LOG_EVERY = 20  # steps
SHOW_EVERY = 10.0  # seconds, where steps are slow


def best_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cross_entropy(logits: Tensor, tokens: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean negative log-likelihood of the words after <bos>; logits (M, vocabulary) as the captioner gives them."""
    following = tokens[:, :, 1:]
    return F.cross_entropy(logits.float(), following[following != 0], label_smoothing=smoothing)


@dataclass(frozen=True)
class CrossEntropy:
    """The objective of teacher forcing."""

    smoothing: float = 0.0

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        logits = model(batch.inputs, batch.tokens)
        return Loss(cross_entropy(logits, batch.tokens, self.smoothing), len(logits))


def make_optimizer(model: nn.Module, settings: Training) -> torch.optim.AdamW:
    """AdamW over decoder and, unless frozen, encoder, each with its own learning rate.

    A model says by `parts()`, as ImageCaptioner does, which of its modules is which; one that does not is a decoder
    throughout.
    """
    named = getattr(model, "parts", None)
    parts: Mapping[str, nn.Module] = {"decoder": model} if named is None else named()
    rates = {"decoder": settings.learning_rate, "encoder": settings.encoder_learning_rate}
    chosen = [
        {"params": params, "lr": rate, "peak": rate}
        for name, rate in rates.items()
        if rate > 0 and name in parts and (params := list(parts[name].parameters()))
    ]
    return torch.optim.AdamW(chosen, weight_decay=settings.weight_decay, fused=True)


class Run:
    """One training run in a folder: `log.jsonl`, `last.pt` to go on from, `best-<step>.pt` to ship.

    Args:
        model: an ImageCaptioner, or any module `model(inputs, tokens) -> logits`.
        batches: what it learns from.
        settings: how.
        folder: where log and checkpoints go.
        objective: what it learns to do; cross-entropy by default.
        pruner: already on the model, not yet attached.
        quantizer: likewise.
        validate: gives scores, `selection` among them, after each epoch.
        show: told about progress.
        origin: digests of what a checkpoint belongs to, such as the vocabulary, by name; one of another origin is not
            gone on from.
        selection: the score that picks the best checkpoint; higher is better.
        percent: what that score is multiplied by where it is shown; 1 for one that is times 100 already.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Supply,
        settings: Training,
        folder: Path,
        *,
        objective: Objective | None = None,
        pruner: Masking | None = None,
        quantizer: Masking | None = None,
        validate: Validate | None = None,
        show: Show | None = None,
        origin: Mapping[str, str] | None = None,
        selection: str = "CIDEr",
        percent: float = 100.0,
    ) -> None:
        self.model, self.settings, self.folder = model, settings, folder
        self.batches = batches if world() == 1 else batches.shared(rank(), world())
        self.objective = objective or CrossEntropy(settings.label_smoothing)
        self.pruner, self.quantizer, self.validate, self.show = pruner, quantizer, validate, show
        given = {"pruner": pruner, "quantizer": quantizer}
        self.compressing = {name: one for name, one in given.items() if one is not None}
        self.origin = dict(origin or {})
        self.selection, self.percent = selection, percent
        self.device = best_device()
        model.to(self.device)
        self.optimizer = make_optimizer(model, settings)
        for one in self.compressing.values():
            one.attach(self.optimizer)
        self.averaged: Averaged | None = None
        if settings.average:
            self.averaged = Averaged(averaged_of(model, self.optimizer), settings.average)
        self.steps = settings.epochs * len(batches)
        self.step = 0
        self.seconds = 0.0  # of training, over all sittings
        self.best: dict[str, float] = {}
        self.scores: dict[str, float] = {}
        self._saved_at = time.monotonic()
        self._shown_at = -math.inf
        self._parallel: nn.Module | None = None

    @property
    def last(self) -> Path:
        return self.folder / manifest.LAST

    @property
    def best_path(self) -> Path:
        """The checkpoint to ship, if any. It has its step in its name: a new one lies beside the old one until
        `last.pt` knows of it, so that a stop in between leaves the one that `last.pt` goes on from."""
        return self.folder / manifest.best(int(self.best.get("step", 0)))

    @property
    def log(self) -> Path:
        return self.folder / manifest.LOG

    # The loop

    def fit(self) -> dict[str, float]:
        """Trains to the end, leaves the best checkpoint's weights in the model, and returns its scores."""
        self.folder.mkdir(parents=True, exist_ok=True)
        per_epoch = len(self.batches)
        while self.step < self.steps:
            epoch, position = divmod(self.step, per_epoch)
            started = time.perf_counter()
            loss, facts = self._train_step(epoch, position)
            self.seconds += time.perf_counter() - started
            self.step += 1
            if self.averaged is not None:
                self.averaged.update(self.step)
            self._note(epoch, loss, facts)
            if self.step % per_epoch == 0:
                self._end_of_epoch(epoch)
            elif time.monotonic() - self._saved_at > 60 * self.settings.checkpoint_minutes:
                self.save()
        self._parallel = None
        if self.best:
            self.model.load_state_dict(load_checkpoint(self.best_path)["model"])
        elif self.averaged is not None:
            self.averaged.settle()
        barrier()  # the writer may delete its checkpoints now
        return self.best or self.scores

    def _train_step(self, epoch: int, position: int) -> tuple[float, dict[str, float]]:
        """One step; its loss and facts, over all processes."""
        settings = self.settings
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * SCHEDULES[settings.schedule](self.step, self.steps, settings.warmup)
        # Dropout and sampling follow from (seed, step, rank) alone, so resuming needs no state of random generators.
        torch.manual_seed(int(np.random.SeedSequence((settings.seed, self.step, rank())).generate_state(1)[0]))
        batch = self.batches(epoch, position).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            loss = self.objective(self._wrapped(), batch)
        values = (1.0, loss.mean.item(), *loss.facts.values())
        tokens, *sums = total([loss.tokens * value for value in values], self.device)
        mean, *means = (value / tokens for value in sums)
        if not math.isfinite(mean):
            raise TrainingError(f"loss is {mean} at step {self.step}: {self._remedy()}")
        (loss.mean * (loss.tokens * world() / tokens)).backward()
        weights = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(weights, settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return mean, dict(zip(loss.facts, means, strict=True))

    def _remedy(self) -> str:
        """What can be done about a loss that is not finite."""
        if self.step == 0:
            return (
                "nothing has been learned yet, so initial weights, teacher or features hold numbers that are not finite"
            )
        decay = " or training.weight_decay" if self.settings.weight_decay else ""
        return f"lower training.learning_rate{decay} and start again"

    def _wrapped(self) -> nn.Module:
        """The model whose gradients are averaged over all processes."""
        if self._parallel is None:
            # what follows an encoder's grid is for the pooled feature alone
            unread = not getattr(self.model, "reads_pooled", True)
            self._parallel = parallel(self.model, unread=unread)
        return self._parallel

    def _end_of_epoch(self, epoch: int) -> None:
        if self.validate is not None:
            if is_writer():
                self._score(self.validate)
            self.scores, self.best = broadcast((self.scores, self.best))
            self._write({"epoch": epoch + 1, "step": self.step, **self.scores})
        self.save()

    def _score(self, validate: Validate) -> None:
        every = self.compressing.values()
        eligible = all(one.near_target for one in every)
        with ExitStack() as stack:  # what is scored is what would be shipped
            if self.averaged is not None:
                stack.enter_context(self.averaged.in_place())
            for one in every if eligible else ():
                stack.enter_context(one.trimmed())
            self.scores = validate(self.model)
            self._keep_if_best(eligible)

    def _keep_if_best(self, eligible: bool) -> None:
        if eligible and self.scores[self.selection] > self.best.get(self.selection, -math.inf):
            self.best = {**self.scores, "step": self.step}
            save_checkpoint({"model": self.model.state_dict(), "scores": self.best}, self.best_path)

    def _drop_other_bests(self) -> None:
        for path in self.folder.glob(manifest.BESTS):
            if path != self.best_path:
                path.unlink(missing_ok=True)

    # Log and progress

    def _note(self, epoch: int, loss: float, facts: dict[str, float]) -> None:
        """Logs and shows every so many steps; slow ones are shown in between, which leaves the log as it is."""
        logged = self.step % LOG_EVERY == 0 or self.step == self.steps
        now = time.monotonic()
        show = self.show if is_writer() and (logged or now - self._shown_at >= SHOW_EVERY) else None
        if not logged and show is None:
            return
        facts = {"lr": self.optimizer.param_groups[0]["lr"], **facts}
        for one in self.compressing.values():
            facts |= one.statistics()
        if logged:
            self._write({"step": self.step, "loss": loss, **facts, "seconds": round(self.seconds, 2)})
        if show is not None:
            self._shown_at = now
            score = self.scores.get(self.selection)
            shown = None if score is None else (self.selection, self.percent * score)
            show(Progress(self.step, self.steps, epoch + 1, loss, {**facts, **self.scores}, shown))

    def _write(self, row: dict[str, Any]) -> None:
        if not is_writer():
            return
        try:
            with self.log.open("a", encoding="utf8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise TrainingError(
                f"{self.log}: cannot be written ({error}); free the disk and continue with --resume"
            ) from error

    # Checkpoints

    def _further(self) -> dict[str, Masking | Averaged]:
        """What has a state of its own, by its name in a checkpoint."""
        return {**self.compressing, **({} if self.averaged is None else {"averaged": self.averaged})}

    def save(self) -> None:
        """Writes everything needed to go on from here."""
        self._saved_at = time.monotonic()
        if not is_writer():
            return
        state: dict[str, Any] = {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "scores": self.scores,
            "origin": self.origin,
        }
        state |= {name: one.state_dict() for name, one in self._further().items()}
        save_checkpoint(state, self.last)
        self._drop_other_bests()

    def resume(self) -> None:
        """Goes back to the last checkpoint, or to the start where there is none, and cuts the log there.

        Raises:
            FormatError: where the checkpoint is damaged.
            TrainingError: where it is that of another model, vocabulary or data, or what it goes on from is gone.
        """
        if not self.last.exists():
            if is_writer():
                cut_log(self.log, self.step)
            return
        state = load_checkpoint(self.last)
        check_origin(self.last, state.get("origin", {}), self.origin)
        try:
            counts = counts_of(state, self.steps)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            check_moments(self.optimizer)
            for name, one in self._further().items():
                one.load_state_dict(state[name])
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise TrainingError(
                f"{self.last}: checkpoint of another model or other settings, or damaged "
                f"({type(error).__name__}: {' '.join(str(error).split())}); give --out another folder"
            ) from error
        self.step, self.seconds, self.best, self.scores = counts
        if self.best and not self.best_path.exists():
            raise TrainingError(
                f"{self.best_path}: is gone, and {self.last.name} goes on from it; put it back, or give --out another "
                "folder"
            )
        if is_writer():
            cut_log(self.log, self.step)
