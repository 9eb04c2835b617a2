"""A model in evaluation mode for a while: what only looks at a model leaves it as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluated(*models: nn.Module) -> Iterator[None]:
    """The models in evaluation mode; each module then goes on in the mode that it was in.

    It is not `model.train()` that ends it: a user's model may hold parts that are not to train.
    """
    training = [module for model in models for module in model.modules() if module.training]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
