"""The contrastive loss: against its formula, positives by caption group, the queue, and several processes."""

from pathlib import Path

import pytest
import torch
from torch import multiprocessing, nn
from torch.nn import functional as F

from laconic.machine import distributed
from laconic.tasks.contrast import Momentum, Queue, in_batch, positives, targets_of


def test_with_one_text_an_image_it_is_cross_entropy_on_the_diagonal() -> None:
    logits = torch.randn(5, 5)
    right = torch.arange(5)
    expected = (F.cross_entropy(logits, right) + F.cross_entropy(logits.t(), right)) / 2
    torch.testing.assert_close(in_batch(logits, torch.eye(5, dtype=torch.bool)), expected)


def test_all_captions_of_an_image_are_right() -> None:
    right = positives(torch.tensor([7, 3]), torch.tensor([7, 7, 3]))
    assert right.tolist() == [[True, True, False], [False, False, True]]
    assert targets_of(right).tolist() == [[0.5, 0.5, 0], [0, 0, 1]]


def test_targets_sum_to_one_whatever_shares_them() -> None:
    right = positives(torch.tensor([7, 3]), torch.tensor([7, 7, 3]))
    mixed = targets_of(right, taught=torch.randn(2, 3), share=0.4, smoothing=0.1)
    torch.testing.assert_close(mixed.sum(-1), torch.ones(2))
    assert not torch.allclose(mixed, targets_of(right))


def test_a_queue_keeps_the_latest() -> None:
    queue = Queue(3, 1)
    assert len(queue.held()[0]) == 0
    queue.put(torch.tensor([[1.0], [2.0]]), torch.tensor([1, 2]))
    queue.put(torch.tensor([[3.0], [4.0]]), torch.tensor([3, 4]))
    vectors, rows = queue.held()
    assert sorted(rows.tolist()) == [2, 3, 4]
    assert vectors[:, 0].tolist() == rows.tolist()
    queue.put(torch.arange(5.0)[:, None], torch.arange(5))
    assert sorted(queue.held()[1].tolist()) == [2, 3, 4]


class Toy(nn.Module):
    """One linear layer embeds images, another texts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.images, self.texts = nn.Linear(3, 4), nn.Linear(3, 4)

    def embed(self, images: torch.Tensor, texts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return F.normalize(self.images(images), dim=-1), F.normalize(self.texts(texts), dim=-1)


def momentum(net: Toy, *, soft: float = 0.4, ramp: int = 2) -> Momentum:
    return Momentum(net, size=8, width=4, momentum=0.5, soft=soft, ramp=ramp)


def step(slow: Momentum, net: Toy, at: int) -> torch.Tensor:
    """One step on images and texts that follow from its number."""
    images, texts = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(at))
    slow.follow(net)
    rows = torch.arange(4) + 4 * at
    own = net.embed(images, texts)
    return slow.loss(lambda other: other.embed(images, texts), own, (rows, rows), torch.tensor(5.0), 0.0)


def test_without_queue_and_soft_targets_a_momentum_copy_like_the_net_gives_the_loss_in_the_batch() -> None:
    net = Toy()
    images, texts = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    one, other = net.embed(images, texts)
    expected = in_batch(5 * one @ other.t(), torch.eye(4, dtype=torch.bool))
    torch.testing.assert_close(step(momentum(net, soft=0.0), net, 0), expected)


def test_the_copy_follows_and_stays_without_gradients() -> None:
    net = Toy()
    slow = momentum(net)
    before = slow.net.images.weight.clone()
    with torch.no_grad():
        net.images.weight += 1
    slow.follow(net)
    torch.testing.assert_close(slow.net.images.weight, before + 0.5)
    step(slow, net, 0).backward()
    assert net.images.weight.grad is not None
    assert slow.net.images.weight.grad is None
    slow.train()
    assert not slow.net.training


def test_its_state_goes_on_where_it_was() -> None:
    net = Toy()
    slow = momentum(net)
    for at in range(3):
        step(slow, net, at)
    other = momentum(net)
    other.load_state_dict(slow.state_dict())
    assert torch.equal(step(slow, net, 3), step(other, net, 3))
    assert not torch.equal(step(momentum(net), net, 3), step(other, net, 3))


def _process(rank: int, world: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    net = Toy()
    torch.manual_seed(1)
    images, texts, of = torch.randn(5, 3), torch.randn(7, 3), torch.tensor([0, 1, 2, 2, 3, 4, 4])
    mine = torch.arange(5) % world == rank
    wrapped = net if world == 1 else nn.parallel.DistributedDataParallel(_Whole(net))
    whole = _Whole(net) if world == 1 else wrapped
    loss = whole(images[mine], texts[mine[of]], torch.arange(5)[mine], of[mine[of]])
    loss.backward()
    torch.save((loss.detach(), [p.grad for p in net.parameters()]), f"{folder}/{world}-{rank}.pt")
    torch.distributed.destroy_process_group()


class _Whole(nn.Module):
    def __init__(self, net: Toy) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor, texts: torch.Tensor, rows: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
        one, other = (distributed.gather(each) for each in self.net.embed(images, texts))
        return in_batch(5 * one @ other.t(), positives(distributed.gather(rows), distributed.gather(of)))


@pytest.mark.slow
def test_two_processes_with_unequal_shares_have_the_loss_and_gradients_of_one(tmp_path: Path) -> None:
    for world in (1, 2):
        multiprocessing.spawn(_process, (world, str(tmp_path)), world)
        (tmp_path / "meet").unlink(missing_ok=True)
    alone, *both = (torch.load(tmp_path / name) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    for loss, gradients in both:
        torch.testing.assert_close(loss, alone[0])
        for mine, expected in zip(gradients, alone[1], strict=True):
            torch.testing.assert_close(mine, expected)
