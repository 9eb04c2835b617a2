"""Self-critical sequence training (Rennie et al. 2017, arXiv 1612.00563): the score itself as what is learned.

A captioner samples captions of each image; those that score above a baseline become likelier, the others less likely.
Sampling is a search like any other and makes no gradient; one teacher-forced pass over the samples does. Knows nothing
of the training loop, into which it enters as an Objective.

The published reward strips the end of the sentence, so a caption that breaks off scores like one that ends, and 29 to
36 % of the published captions end in "a", "with" or "of". Here the end token is a word of the reward like any other.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.captioner.image_captioner import ImageCaptioner
from laconic.decode.beams import Hypothesis
from laconic.decode.search import Captioner, Decoding, Sampling, beam_search, greedy, sample
from laconic.machine.distributed import unwrapped
from laconic.metrics.cider import Floats
from laconic.metrics.rewards import Rewards, mean_of_others
from laconic.models.evaluated import evaluated
from laconic.models.layers import Features
from laconic.spec.tokens import BOS, EOS, PAD, special_ids
from laconic.text import Vocabulary, pad_groups
from laconic.training.batches import Batch
from laconic.training.given import Loss
from laconic.training.settings import Scst


def self_critical_loss(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """-mean(log p * (r - b)) over all tokens of all samples, padding apart; both (tokens,)."""
    return -(log_probs * advantages).mean()


class SelfCritical:
    """The objective of self-critical training, for a Run over an ImageCaptioner or a captioner alone.

    `captions[row]` are the references of the image in that row of the data set; an image without any is never drawn.
    Document frequencies are those of all references, in the words of the vocabulary. Samples hold no <unk>.
    """

    def __init__(self, options: Scst, captions: Sequence[Sequence[str]], vocabulary: Vocabulary) -> None:
        self.options = options
        self._vocabulary, self._special = vocabulary, special_ids(vocabulary)
        self._end = (EOS,) if options.eos_in_reward else ()
        captioned = [bool(some) for some in captions]
        self._image = np.cumsum(captioned) - 1  # row of the data set -> image of the rewards
        self._rewards = Rewards(
            [[(*vocabulary.numbers(caption), *self._end) for caption in some] for some in captions if some],
            cider=options.cider,
            bleu=options.bleu,
        )

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Samples captions, scores them, and reads them again with gradients."""
        samples, baselines = self._search(unwrapped(model), batch.inputs)
        rewards, baseline = self.compare(samples, baselines, batch.rows)
        tokens = as_tokens(samples).to(batch.tokens.device)
        logits = model(batch.inputs, tokens).float() / self.options.temperature
        following = tokens[:, :, 1:]
        log_probs = -F.cross_entropy(logits, following[following != PAD], reduction="none")
        lengths = [len(hypothesis.log_probs) for some in samples for hypothesis in some]
        advantages = torch.from_numpy(np.repeat(rewards - baseline, lengths)).to(log_probs)
        facts = {"reward": float(rewards.mean()), "baseline": float(baseline.mean())}
        return Loss(self_critical_loss(log_probs, advantages), len(logits), facts)

    def compare(
        self, samples: list[list[Hypothesis]], baselines: list[list[Hypothesis]], rows: np.ndarray
    ) -> tuple[Floats, Floats]:
        """Reward and baseline of each sample, image after image, (samples,).

        `samples[i]` are those of the image in row `rows[i]`; `baselines[i]` its greedy caption, or nothing is asked
        for but the other samples.
        """
        counts = [len(some) for some in samples]
        image = np.repeat(np.arange(len(rows)), counts)
        flat = [h for some in (*samples, *baselines) for h in some]
        candidates = [(*self._vocabulary.read(h.tokens), *(self._end if h.finished else ())) for h in flat]
        which = np.concatenate([image, np.arange(len(baselines))])
        scored = self._rewards(candidates, self._image[rows][which])
        rewards = scored[: len(image)]
        return rewards, scored[len(image) :][image] if baselines else mean_of_others(rewards, image)

    @torch.no_grad()
    def _search(
        self, model: nn.Module, inputs: Tensor | Features
    ) -> tuple[list[list[Hypothesis]], list[list[Hypothesis]]]:
        """Samples of each image, and its greedy caption where that is the baseline."""
        options = self.options
        view = evaluated(model, as_drawn=True)  # no dropout, but this step's supermasks, as the second pass sees them
        features = view.features(inputs) if isinstance(view, ImageCaptioner) else cast(Features, inputs)
        captioner = cast(Captioner[Any], view.decoder if isinstance(view, ImageCaptioner) else view)
        decoding = Decoding(options.samples, options.max_length)
        if options.sampling == "beam":
            samples = beam_search(captioner, features, decoding, self._special)
        else:
            sampling = Sampling(options.samples, options.temperature, max_length=options.max_length)
            rng = np.random.default_rng(int(torch.randint(2**62, ())))  # follows torch.manual_seed
            samples = sample(captioner, features, sampling, rng, self._special)
        baselines = greedy(captioner, features, decoding, self._special) if options.baseline == "greedy" else []
        # Up to torch 2.10 autocast would use the weights it has cast here, without gradients, in the second pass too.
        torch.clear_autocast_cache()
        return samples, baselines


def as_tokens(samples: list[list[Hypothesis]]) -> Tensor:
    """Samples as a teacher-forced batch, int64 (images, samples, longest); <eos> only where a sample has ended."""
    return torch.from_numpy(
        pad_groups([[[BOS, *h.tokens, *((EOS,) if h.finished else ())] for h in some] for some in samples])
    )
