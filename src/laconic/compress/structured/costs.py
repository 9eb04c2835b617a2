"""What a model costs: parameters and multiply-adds of one forward pass, and both as the paper counts them.

    count(blip, inputs)       what a user pays: Costs(parameters=..., macs=...)
    published(blip, inputs)   what the tables of arXiv 2301.13741 say of the same model

PyTorch's own counter watches the model run, so no architecture is known here by name. It also runs on the meta device,
where nothing is computed: a model of any size is counted in seconds.

A multiply-add is 1. Matrix products, convolutions and the two products of attention count; look-ups, biases, norms,
activations, softmax and residual sums count nothing. What a model is given decides what it does: give the inputs of one
example as in use.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from laconic.compress.modes import evaluated
from laconic.errors import PruningError

Shape = tuple[int, ...]


def _attention_flops(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _layer_norm_flops(shape: Shape, *_: Any, **__: Any) -> int:
    return 2 * 5 * prod(shape)  # 5 multiply-adds an element, as in fvcore 0.1.5


# Rules beside PyTorch's own, which lacks the attention kernel of CPUs
ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
LAYER_NORM = {torch.ops.aten.native_layer_norm: _layer_norm_flops}


@dataclass(frozen=True)
class Costs:
    """Of one model.

    Attributes:
        parameters: numbers that are learned; shared ones once, buffers not.
        macs: multiply-adds of one forward pass.
    """

    parameters: int
    macs: int


def count(model: nn.Module, inputs: Mapping[str, Any]) -> Costs:
    """What the model costs to keep and to run once as `model(**inputs)`, in evaluation mode and without gradients.

    A mask that multiplies activations makes nothing smaller: the model that is being pruned costs what the dense one
    costs, and less once it is shrunk.

    Raises:
        PruningError: where the model cannot run on these inputs.
    """
    return Costs(parameters(model), _macs(model, inputs, {}))


def published(model: nn.Module, inputs: Mapping[str, Any], *, masks: int = 0, copies: int = 1) -> Costs:
    """What the paper's tables say: all that is an `nn.Parameter`, and multiply-adds by the rules of fvcore.

    Beside those of `count`, each element of a LayerNorm costs 5 multiply-adds. The uncompressed rows include the masks,
    and the rows of retrieval include the momentum encoders in both columns. The published multiply-adds of retrieval
    with BLIP are those of a training step, with three passes of the matching head; give inputs accordingly.

    Args:
        masks: units of all groups, one number each; 0 for a model that was shrunk.
        copies: of the whole model that are held: 2 beside momentum encoders.

    Raises:
        PruningError: where the model cannot run on these inputs.
    """
    return Costs(copies * parameters(model) + masks, copies * _macs(model, inputs, LAYER_NORM))


def parameters(model: nn.Module) -> int:
    """Numbers that the model learns; tied ones count once, and buffers do not count."""
    return sum(parameter.numel() for parameter in model.parameters())


def _macs(model: nn.Module, inputs: Mapping[str, Any], rules: Mapping[Any, Any]) -> int:
    counter = FlopCounterMode(display=False, custom_mapping={**ATTENTION, **rules})
    try:
        with evaluated(model), _known_kernels(), torch.no_grad(), counter:
            model(**inputs)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        given = ", ".join(sorted(inputs)) or "nothing"
        raise PruningError(
            f"{type(model).__name__} does not run on these inputs ({given}), so its multiply-adds cannot be counted: "
            f"{error}; give what model(**inputs) takes"
        ) from error
    return counter.get_total_flops() // 2  # PyTorch counts a multiply-add as 2


@contextmanager
def _known_kernels() -> Iterator[None]:
    """Without the one kernel that PyTorch runs for a whole `nn.MultiheadAttention` or encoder layer in evaluation mode:
    it is not in PyTorch's own table and would count nothing."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
