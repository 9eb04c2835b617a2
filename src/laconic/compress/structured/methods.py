"""The named ways to find the units that go. Each is a row of METHODS; docs/UPOP.md compares them."""

from dataclasses import dataclass
from typing import Literal

from laconic.errors import PruningError

Score = Literal["gradient", "taylor", "magnitude", "mask"]
Scope = Literal["unified", "part"]


@dataclass(frozen=True)
class Method:
    """How units are scored, what they are ranked against, and when they go.

    Attributes:
        score: "gradient": the signed gradient of the loss by the mask, summed over all steps, largest first (UPop);
            "taylor": the squared product of gradient and mask, summed, smallest first (Molchanov et al. 2019);
            "magnitude": the norm of a unit's weights, smallest first; "mask": masks are learned under an L1 penalty,
            smallest first (Network Slimming, Liu et al. 2017; ViT-Slimming, Chavan et al. 2022).
        scope: "unified" ranks z-scores of all units of the model together; "part" takes the same ratio from each part.
        progressive: masks of units that are to go fall to zero along UPop's schedule; otherwise there is one cut at the
            end of the search.
        published: weights, threshold and survivors as in the published code, whose budget is none of real parameters.
        penalty: weight of the mean of the learned masks' absolute values, by kind, in the loss.
        rate: learning rate of learned masks (Adam).
    """

    score: Score = "gradient"
    scope: Scope = "unified"
    progressive: bool = True
    published: bool = False
    penalty: float = 1.0
    rate: float = 5e-3

    def __post_init__(self) -> None:
        if self.score == "mask" and self.progressive:
            raise PruningError('masks that are learned are not set by a schedule: give progressive=False with "mask"')
        if self.published and self.scope != "unified":
            raise PruningError('the published ranking is unified: give scope="unified" with published=True')
        if self.penalty < 0 or self.rate <= 0:
            raise PruningError(f"penalty={self.penalty}, rate={self.rate}; give at least 0, and more than 0")


UPOP = Method()

METHODS: dict[str, Method] = {
    "upop": UPOP,
    "published": Method(published=True),
    "mask": Method("mask", "part", progressive=False),
    "unified": Method("mask", "unified", progressive=False),
    "progressive": Method("gradient", "part"),
    "magnitude": Method("magnitude"),
    "taylor": Method("taylor"),
}
