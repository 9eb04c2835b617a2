"""From words to vectors and back: whole tables, tied ones, and factorised ones.

                embedding        widen                 reduce         output
    usual       V x word                                              V x hidden
    tied        V x word                               hidden x word  the embedding's table
    rank r      V x r            r x word              hidden x r     V x r
    both        V x r            r x word              hidden x r     the embedding's table

Tied: Press and Wolf 2017, arXiv 1608.05859; Inan et al. 2017. Factorised: Lan et al. 2020, arXiv 1909.11942 (ALBERT).
A tied table of as many columns as the hidden state needs no `reduce`.
"""

import torch
from torch import Tensor, nn

from laconic.compress.fold import fold_layer_norm
from laconic.spec.captioners import WordTables


class WordLayers(nn.Module):
    """What has these layers: a captioner, or a module that was made from one."""

    embedding: nn.Embedding
    widen: nn.Linear | None
    reduce: nn.Linear | None
    output: nn.Linear

    def embed(self, ids: Tensor) -> Tensor:
        """Vectors (..., word) of words (...,)."""
        rows: Tensor = self.embedding(ids)
        return rows if self.widen is None else self.widen(rows)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) of hidden states (..., hidden)."""
        scores: Tensor = self.output(hidden if self.reduce is None else self.reduce(hidden))
        return scores


def table_of(config: WordTables, word: int) -> tuple[nn.Embedding, nn.Linear | None]:
    """The table of words, and what makes vectors of `word` numbers of its rows; None where they have as many."""
    if not config.rank:
        return nn.Embedding(config.vocabulary, word), None
    return nn.Embedding(config.vocabulary, config.rank), nn.Linear(config.rank, word, bias=False)


def scores_of(config: WordTables, hidden: int, embedding: nn.Embedding) -> tuple[nn.Linear | None, nn.Linear]:
    """What makes of `hidden` numbers as many as the output reads, None where those are the same, and the output."""
    columns = embedding.embedding_dim if config.tied or config.rank else hidden
    reduced = bool(config.rank) or columns != hidden
    reduce = nn.Linear(hidden, columns, bias=False) if reduced else None
    output = nn.Linear(columns, config.vocabulary)
    if config.tied:
        output.weight = embedding.weight
    return reduce, output


@torch.no_grad()
def fold_into_scores(norm: nn.LayerNorm, reduce: nn.Linear | None, output: nn.Linear, *, tied: bool) -> None:
    """Moves gain and bias of the layer norm that the scores of words read into them; where the output reads it and is
    tied, its bias alone, since the table is read elsewhere, too."""
    if reduce is not None:
        output.bias.add_(output.weight @ (reduce.weight @ norm.bias))
        fold_layer_norm(norm, [], [reduce])
    elif tied:
        output.bias.add_(output.weight @ norm.bias)
        norm.bias.zero_()
    else:
        fold_layer_norm(norm, [output])
