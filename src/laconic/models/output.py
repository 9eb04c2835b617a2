"""From a captioner's logits to what a search asks for. Knows no captioner."""

import numpy as np
import torch.nn.functional as F
from torch import Tensor


def best_words(logits: Tensor, k: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities and ids (rows, min(k, vocabulary)) of the most likely words, best first; with None of all
    words, in the order of their ids. Logits (rows, vocabulary)."""
    log_probs = F.log_softmax(logits.float(), -1)
    if k is None:
        return log_probs.cpu().numpy(), np.broadcast_to(np.arange(log_probs.shape[-1]), tuple(log_probs.shape))
    best = log_probs.topk(min(k, log_probs.shape[-1]), -1)
    return best.values.cpu().numpy(), best.indices.cpu().numpy()
