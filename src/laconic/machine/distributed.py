"""One training by several processes, as `torchrun --nproc-per-node N` starts them.

Short names over torch.distributed: who is who, who writes, what all agree on. In a process alone each does the
obvious. Knows nothing of models or training.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from laconic.errors import ConfigError

T = TypeVar("T")

TIMEOUT = timedelta(hours=12)  # the others wait while one process extracts the features of a large data set


@contextmanager
def process_group() -> Iterator[None]:
    """Joins the processes torchrun has started, on NCCL where there are GPUs, and leaves them at the end.

    Raises:
        ConfigError: where a machine has fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    cuda = torch.cuda.is_available()
    if cuda:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}; "
                "start as many processes, or set CUDA_VISIBLE_DEVICES= to train on the CPU"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_writer() -> bool:
    """Whether this process writes files and shows progress; exactly one does."""
    return rank() == 0


def broadcast(value: T) -> T:
    """The writer's value, in every process."""
    if world() == 1:
        return value
    held: list[Any] = [value]
    dist.broadcast_object_list(held)
    return held[0]  # type: ignore[no-any-return]


def total(values: Sequence[float], device: torch.device) -> list[float]:
    """Sum of each value over all processes."""
    if world() == 1:
        return list(values)
    summed = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(summed)
    return summed.tolist()  # type: ignore[no-any-return]


def average(values: Tensor) -> Tensor:
    """Mean of each number over all processes, where the numbers were."""
    if world() == 1:
        return values
    summed = values.clone() if dist.get_backend() != "nccl" else values.to("cuda", copy=True)
    dist.all_reduce(summed)
    return (summed / world()).to(values.device)


def gather(own: Tensor) -> Tensor:
    """Rows of all processes, those of the first one first; a process may have more of them than another.

    Gradients reach the own rows only, times the number of processes. Where each process computes the same loss of all
    rows, their gradients averaged are then those of that loss.
    """
    if world() == 1:
        return own
    counts = [int(count) for count in _all_gather(torch.tensor([len(own)], device=own.device))]
    padding = own.new_zeros((max(counts) - len(own), *own.shape[1:]))
    parts = _all_gather(torch.cat([own.detach(), padding]))
    rows = [part[:count] for part, count in zip(parts, counts, strict=True)]
    rows[rank()] = own.detach() + world() * (own - own.detach()) if own.requires_grad else own
    return torch.cat(rows)


def _all_gather(own: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(own) for _ in range(world())]
    dist.all_gather(parts, own.contiguous())
    return parts


def barrier() -> None:
    """Waits until every process has come here."""
    if world() > 1:
        dist.barrier(device_ids=[torch.cuda.current_device()] if dist.get_backend() == "nccl" else None)


@contextmanager
def writer_first() -> Iterator[None]:
    """The block runs in the writer, then in the others, which find on disk what it left there."""
    if not is_writer():
        barrier()
    yield
    if is_writer():
        barrier()


def parallel(model: nn.Module, *, unread: bool = False) -> nn.Module:
    """The model with gradients averaged over all processes; itself in a process alone.

    Weights and buffers start as the writer's. From then on masks change alike everywhere, and batch norms keep
    statistics of their own process. `unread` tells that there may be weights on which no loss depends: nobody waits
    for a gradient of those.
    """
    if world() == 1:
        return model
    for buffer in model.buffers():
        dist.broadcast(buffer, src=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 has renamed it, torch 2.6 knows no other name
        return DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=unread)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside `parallel`."""
    return model.module if isinstance(model, DistributedDataParallel) else model
