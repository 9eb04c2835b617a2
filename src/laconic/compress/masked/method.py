"""What a pruning method is: a frozen dataclass of numbers that states facts, and hands out masks and their driver.

Most methods are a score x scope x schedule: inherit from `Scored` (scored.py) and write one pure function. Callers
decide by the facts alone, never by a method's name or type.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from laconic.compress.masked.masks import FixedMask, Mask
from laconic.compress.sites import Where
from laconic.errors import PruningError

if TYPE_CHECKING:
    from laconic.compress.masked.driver import Driver, MaskedWeight


class Method:
    """A pruning method.

    Attributes:
        needs_steps: it prunes while the model trains and has to know for how many steps.
        needs_losses: it prunes before the training, by losses given to `Pruner.sense`.
        needs_moments: it reads the second moments of the optimizer that the Pruner is attached to.
        needs_ticket: its masks come from a finished run with the same beginning, in the folder that its option `ticket`
            names.
        moves_masks: weights are taken away, or come back, after the model was built; where false, what the pruned
            weights compute before the training may be kept.
    """

    needs_steps: ClassVar[bool] = False
    needs_losses: ClassVar[bool] = False
    needs_moments: ClassVar[bool] = False
    needs_ticket: ClassVar[bool] = False

    @property
    def moves_masks(self) -> bool:
        return True

    @property
    def losses_wanted(self) -> int:
        """Of how many batches it asks for the losses."""
        return int(self.needs_losses)

    def resolve(self, model: nn.Module, where: Where, freeze: Where) -> "Method":
        """The method that prunes this model: itself, or what it comes to where masks have to be looked up first."""
        return self

    def mask(self, name: str, weight: Tensor) -> Mask:
        """A fresh mask for one weight."""
        return FixedMask(weight)

    def drive(self, weights: "Mapping[str, MaskedWeight]", steps: int) -> "Driver":
        """What carries the method out on these weights, in a training of so many steps."""
        raise NotImplementedError


def check_share(name: str, value: float) -> None:
    """Raises PruningError unless 0 <= value < 1."""
    if not 0.0 <= value < 1.0:
        raise PruningError(f"{name} {value} is not possible; give 0 <= {name} < 1")


def check_parts(parts: Mapping[str, float]) -> None:
    """Raises PruningError unless every part's sparsity is a number from 0 to less than 1."""
    for part, sparsity in parts.items():
        if isinstance(sparsity, bool) or not isinstance(sparsity, int | float):
            raise PruningError(f"parts: {part} = {sparsity!r}; give a sparsity, a number from 0 to less than 1")
        check_share(f"sparsity of {part}", sparsity)
