"""From a captioner's logits to what a search asks for. Knows no captioner."""

import numpy as np
import torch.nn.functional as F
from torch import Tensor


def best_words(logits: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities and ids (rows, min(k, vocabulary)) of the most likely words, best first; logits (rows,
    vocabulary)."""
    log_probs = F.log_softmax(logits.float(), -1)
    best = log_probs.topk(min(k, log_probs.shape[-1]), -1)
    return best.values.cpu().numpy(), best.indices.cpu().numpy()
