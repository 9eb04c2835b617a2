"""The contrastive loss between images and texts, with a momentum queue and soft targets where asked for.

In a batch: CLIP (Radford et al. 2021, arXiv 2103.00020). Momentum encoders, queue and soft targets: ALBEF (Li et al.
2021, arXiv 2107.07651, equations 1 and 5), which BLIP's retrieval uses as well.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from laconic.errors import ConfigError
from laconic.machine.distributed import gather


def positives(image_rows: Tensor, text_rows: Tensor) -> Tensor:
    """bool (images, texts): do they belong together? All captions of an image do, wherever they came from.

    Args:
        image_rows: (images,), row of each in the data set.
        text_rows: (texts,), row of the image that each belongs to.
    """
    return image_rows[:, None] == text_rows


def targets_of(right: Tensor, *, taught: Tensor | None = None, share: float = 0.0, smoothing: float = 0.0) -> Tensor:
    """What each query should find, (queries, candidates), each row of sum 1.

    Args:
        right: bool, at least one in a row.
        taught: logits of the momentum encoders, which have `share` of the targets.
        smoothing: share that is spread over all candidates.
    """
    hard = right / right.sum(-1, keepdim=True)
    hard = (1 - smoothing) * hard + smoothing / right.shape[-1]
    return hard if taught is None else (1 - share) * hard + share * taught.softmax(-1)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the queries of the cross-entropy with targets that are distributions."""
    return -(F.log_softmax(logits.float(), -1) * targets).sum(-1).mean()


def in_batch(logits: Tensor, right: Tensor, smoothing: float = 0.0) -> Tensor:
    """Loss of (images, texts) logits both ways."""
    of_images = soft_cross_entropy(logits, targets_of(right, smoothing=smoothing))
    of_texts = soft_cross_entropy(logits.t(), targets_of(right.t(), smoothing=smoothing))
    return (of_images + of_texts) / 2


class Queue(nn.Module):
    """The latest embeddings of the momentum encoder, each with the row of its image; -1 where there is none yet."""

    vectors: Tensor
    rows: Tensor
    at: Tensor
    filled: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(size, width))
        self.register_buffer("rows", torch.full((size,), -1))
        self.register_buffer("at", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def held(self) -> tuple[Tensor, Tensor]:
        """(vectors, rows) of what is in it."""
        return self.vectors[: int(self.filled)], self.rows[: int(self.filled)]

    def put(self, vectors: Tensor, rows: Tensor) -> None:
        """Puts these in the place of the oldest."""
        size = len(self.rows)
        vectors, rows = vectors[-size:], rows[-size:]
        places = (self.at + torch.arange(len(rows), device=rows.device)) % size
        self.vectors[places], self.rows[places] = vectors, rows
        self.at.copy_((self.at + len(rows)) % size)
        self.filled.copy_((self.filled + len(rows)).clamp(max=size))


Embed = Callable[[nn.Module], tuple[Tensor, Tensor]]  # net -> unit vectors of images (n, width) and texts (m, width)


class Momentum(nn.Module):
    """Momentum encoders with their queues. All of it is in the state, so a resumed training goes on with it.

    Args:
        net: the online model, which is copied; after a shrink the copy is made anew, from the slim weights.
        size: of each queue.
        width: of an embedding.
        momentum: share of the copy that an update keeps.
        soft: share of the soft targets, reached linearly over `ramp` steps.
    """

    steps: Tensor

    def __init__(self, net: nn.Module, *, size: int, width: int, momentum: float, soft: float, ramp: int) -> None:
        super().__init__()
        if not 0 <= momentum < 1 or not 0 <= soft <= 1:
            raise ConfigError(
                f"options: momentum = {momentum}, soft = {soft}; give 0 <= momentum < 1 and 0 <= soft <= 1"
            )
        self.net = copy.deepcopy(net).requires_grad_(False)
        self.images, self.texts = Queue(size, width), Queue(size, width)
        self.momentum, self.soft, self.ramp = momentum, soft, max(1, ramp)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def train(self, mode: bool = True) -> "Momentum":
        """The copy stays in evaluation mode: what it teaches is not drawn at random."""
        super().train(mode)
        self.net.eval()
        return self

    @torch.no_grad()
    def follow(self, net: nn.Module) -> None:
        """Moves the copy towards the online weights."""
        for slow, fast in zip(self.net.parameters(), net.parameters(), strict=True):
            slow.lerp_(fast.to(slow.dtype), 1 - self.momentum)

    def loss(
        self, embed: Embed, own: tuple[Tensor, Tensor], rows: tuple[Tensor, Tensor], scale: Tensor, smoothing: float
    ) -> Tensor:
        """Loss of this process's images and texts against all of the batch and of the queues.

        Args:
            embed: of a net, the batch's embeddings.
            own: those of the online net, with gradients.
            rows: of images and of texts, in the data set.
        """
        with torch.no_grad():
            taught = embed(self.net)
            images, texts = (gather(each) for each in taught)
            image_rows, text_rows = (gather(each) for each in rows)
            share = self.soft * min(1.0, int(self.steps) / self.ramp)
            candidates = [
                (torch.cat([now, queue.held()[0]]), torch.cat([now_rows, queue.held()[1]]))
                for now, now_rows, queue in ((texts, text_rows, self.texts), (images, image_rows, self.images))
            ]
        losses = []
        for queries, teaching, of, (vectors, others) in zip(own, taught, rows, candidates, strict=True):
            targets = targets_of(
                positives(of, others), taught=scale.detach() * teaching @ vectors.t(), share=share, smoothing=smoothing
            )
            losses.append(soft_cross_entropy(scale * queries @ vectors.t(), targets))
        if self.training:
            self.images.put(images, image_rows)
            self.texts.put(texts, text_rows)
            self.steps += 1
        return (losses[0] + losses[1]) / 2
