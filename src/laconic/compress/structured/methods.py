"""The named ways to find the units that go. Each is a row of METHODS; docs/UPOP.md compares them.

They differ in three things: what a unit is scored by, which units it is ranked against, and whether units fade one
after another or are cut all at once. UPop (Shi et al. 2023, arXiv 2301.13741) is one choice of the three, and what it
is compared with in its tables are others.
"""

from dataclasses import dataclass
from typing import Literal

from laconic.errors import PruningError

Budget = Literal["parameters", "macs", "mask-count"]
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
        attention_weight: of a unit of attention there, where one of a feed-forward network has 1: 36 in the BLIP and
            CLIP searches, 12 in those of DeiT and Segmenter.
        first_step: masks are set after step 0, too, as in the BLIP and CLIP searches; not in the others.
        schedule: p_t as the published code has it, or as the paper does (laconic.compress.structured.progress).
        penalty: weight of the mean of the learned masks' absolute values, by kind, in the loss.
        rate: learning rate of learned masks (Adam).
    """

    score: Score = "gradient"
    scope: Scope = "unified"
    progressive: bool = True
    published: bool = False
    attention_weight: int = 36
    first_step: bool = True
    schedule: Literal["code", "paper"] = "code"
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
    # unified and progressive, by true costs
    "upop": UPOP,
    # what made the tables of the paper, for BLIP and CLIP
    "published": Method(published=True),
    # ViT-Slimming extended to all towers, the "mask-based" rows of the paper: one ratio for each part, one cut
    "mask": Method("mask", "part", progressive=False),
    # the paper's "unified" rows: learned masks again, but one ranking for all parts
    "unified": Method("mask", "unified", progressive=False),
    # the other half of UPop alone: units fade by its schedule, but each part loses the same ratio
    "progressive": Method("gradient", "part"),
    # UPop's ranking and schedule over other scores
    "magnitude": Method("magnitude"),
    "taylor": Method("taylor"),
}
