"""Image-text matching: do an image and a text belong together? Hard negatives to learn it, and re-ranking by it.

ALBEF (Li et al. 2021, arXiv 2107.07651, section 3.2) and BLIP (Li et al. 2022, arXiv 2201.12086). Under torchrun
negatives are drawn from the batch of the own process.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

NEVER = -100.0  # similarity of what is no candidate
AT_ONCE = 256  # pairs that are read together


def match_logits(net: Any, seen: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Logits (pairs, 2) of not matching and matching.

    Args:
        net: a BlipForImageTextRetrieval.
        seen: (pairs, patches, width), what its vision tower says of the images.
        tokens, mask: (pairs, longest).
    """
    words = net.text_encoder(tokens, attention_mask=mask, encoder_hidden_states=seen).last_hidden_state
    logits: Tensor = net.itm_head(words[:, 0])
    return logits


def hard_negatives(logits: Tensor, right: Tensor) -> Tensor:
    """For each query one wrong candidate, drawn by its softmax: the closer, the likelier.

    Args:
        logits, right: (queries, candidates), at least one of each row wrong.
    """
    weights = logits.detach().float().softmax(-1).clamp(min=1e-6).masked_fill(right, 0)
    return torch.multinomial(weights, 1).squeeze(1)


def matching_loss(
    net: Any, seen: Tensor, tokens: Tensor, mask: Tensor, image_of: Tensor, logits: Tensor, right: Tensor
) -> Tensor:
    """Mean cross-entropy of every text with its image, of every image with a wrong text, and of every text with a
    wrong image.

    Args:
        seen: (n, patches, width).
        tokens, mask: (m, longest).
        image_of: (m,), image of each text.
        logits, right: (n, m), similarities and what belongs together.
    """
    wrong_texts = hard_negatives(logits, right)
    wrong_images = hard_negatives(logits.t(), right.t())
    images = torch.cat([seen[image_of], seen, seen[wrong_images]])
    each = torch.arange(len(tokens), device=tokens.device)
    texts = torch.cat([each, wrong_texts, each])
    matches = torch.zeros(len(texts), dtype=torch.int64, device=tokens.device)
    matches[: len(tokens)] = 1
    return F.cross_entropy(match_logits(net, images, tokens[texts], mask[texts]).float(), matches)


@torch.inference_mode()
def reranked(
    net: Any, seen: Tensor, tokens: Tensor, mask: Tensor, similarity: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Similarities (images, texts) to rank texts by, and to rank images by.

    The `count` closest of each query get the matching head's logit added; all others come after them.
    """
    ways = []
    for forward in (True, False):
        scores = similarity if forward else similarity.T
        best = np.argpartition(-scores, min(count, scores.shape[1]) - 1, axis=1)[:, :count]
        queries = np.repeat(np.arange(len(scores)), best.shape[1])
        found = best.ravel()
        images, texts = (queries, found) if forward else (found, queries)
        added = np.concatenate(
            [
                match_logits(net, seen[images[at]], tokens[texts[at]], mask[texts[at]])[:, 1].float().cpu().numpy()
                for at in (slice(start, start + AT_ONCE) for start in range(0, len(images), AT_ONCE))
            ]
        )
        way = np.full(similarity.shape, NEVER)
        way[images, texts] = similarity[images, texts] + added
        ways.append(way)
    return ways[0], ways[1]
