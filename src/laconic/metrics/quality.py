"""What scores do not show: are captions copied, repeated, short or broken off?

It deliberately does not know reference captions or images.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from laconic.errors import DataError
from laconic.metrics.ptb import tokenize

# A caption that ends in one of these was broken off (common after CIDEr optimisation that does not
# score the end of a caption).
_ENDINGS = "a after am an are at before for in is near of on the to upon with"
FUNCTION_WORDS = frozenset(_ENDINGS.split())


@dataclass(frozen=True)
class CaptionQuality:
    """Numbers about a set of captions, all on PTB tokens.

    `captions`: how many; `distinct`: how many different ones; `distinct_share`: their share;
    `novel_share`: share of captions that are not among the training captions, "Unique" in Table 1
    of the Supermask Pruning paper (None without training captions); `mean_words`: average length;
    `broken_share`: share that ends in a function word (`FUNCTION_WORDS`).
    """

    captions: int
    distinct: int
    distinct_share: float
    novel_share: float | None
    mean_words: float
    broken_share: float


def caption_quality(captions: Sequence[str], training: Collection[str] | None = None) -> CaptionQuality:
    """Describe `captions`, raw or tokenized; `training` are the captions learnt from.

    Raises DataError if there are no captions.
    """
    if not captions:
        raise DataError("no captions to describe; give at least one")
    tokens = tokenize(captions)
    count = len(tokens)
    distinct = len(set(tokens))
    novel = None
    if training is not None:
        known = set(tokenize(training))
        novel = sum(caption not in known for caption in tokens) / count
    return CaptionQuality(
        captions=count,
        distinct=distinct,
        distinct_share=distinct / count,
        novel_share=novel,
        mean_words=sum(len(caption.split()) for caption in tokens) / count,
        broken_share=sum(caption.rpartition(" ")[2] in FUNCTION_WORDS for caption in tokens) / count,
    )
