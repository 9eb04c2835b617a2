"""Initial values of a captioner from a trained larger one of its kind, so that a change of architecture starts near
what has been learned and not from nothing.

    inherit(smaller, larger)     # both ImageCaptioner, of one encoder and the same words

    fewer units          those that weigh least are left out: laconic.captioner.narrowing
    rank                 the best tables of that rank: truncated singular value decomposition
    tied                 the output's table (Press and Wolf 2017, arXiv 1608.05859: tied tables evolve like it); where a
                         layer stands before it, turned so that it is as near to the vectors of words as it can be
    share_layers         the mean of the layers that become one
    share_attention      the mean of the two projections that become one
    data.radix           tables of digits begin afresh: those of words say nothing of them

What the two have alike is taken as it is. Knows weights by their names, not what they learned from.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.narrowing import narrowed, sizes_of
from laconic.errors import ConfigError
from laconic.models.torch_captioner import TorchCaptioner
from laconic.spec.captioners import PROJECTIONS, ObjectRelationConfig, WordTables

EMBEDDING, OUTPUT, WIDEN, REDUCE = "embedding.weight", "output.weight", "widen.weight", "reduce.weight"
TABLES = (EMBEDDING, OUTPUT, WIDEN, REDUCE, "output.bias")
LAYER = re.compile(r"(encoder|decoder|relation)\.(\d+)\.(.+)")  # of the Object Relation Transformer
Weights = dict[str, Tensor]
Shape = tuple[int, ...]


@torch.no_grad()
def inherit(smaller: ImageCaptioner, larger: ImageCaptioner) -> None:
    """Gives `smaller` the weights of `larger`, cut to its form; `larger` stays as it is.

    Raises ConfigError where they are of other kinds, encoders or words, or differ by more than is listed above.
    """
    _check(smaller, larger)
    to, source = smaller.decoder, larger.decoder
    config: Any = to.config
    weights = _whole_tables(source)
    shapes = {name: tuple(parameter.shape) for name, parameter in to.named_parameters()}
    if to.units and to.units == source.units:
        whole = {**shapes, EMBEDDING: (0, config.word), OUTPUT: (0, config.hidden)}
        weights = narrowed(weights, to.units, sizes_of(whole, to.units))
    if isinstance(config, ObjectRelationConfig) and isinstance(source.config, ObjectRelationConfig):
        weights = _shared(weights, config, source.config)
    if smaller.vocabulary == larger.vocabulary:
        weights |= _same_tables(shapes, source) or _tables(config, weights, reduces=to.reduce is not None)
    else:
        shapes = {name: shape for name, shape in shapes.items() if name not in TABLES}
    _check_shapes(shapes, {name: tuple(weight.shape) for name, weight in weights.items()})
    smaller.encoder.load_state_dict(larger.encoder.state_dict())
    for name in shapes:
        to.get_parameter(name).copy_(weights[name])


def _check(smaller: ImageCaptioner, larger: ImageCaptioner) -> None:
    mine, theirs = smaller.config, larger.config
    if mine.decoder.name != theirs.decoder.name:
        raise ConfigError(f"inherit: a {mine.decoder.name} cannot begin with the weights of a {theirs.decoder.name}")
    if mine.encoder != theirs.encoder:
        raise ConfigError(f"inherit: has encoder {theirs.encoder}, the recipe asks for {mine.encoder}")
    if smaller.vocabulary.words != larger.vocabulary.words:
        raise ConfigError("inherit: says other words; give a captioner that was trained on the same captions")


def _check_shapes(wanted: Mapping[str, Shape], found: Mapping[str, Shape]) -> None:
    """ConfigError where anything but the tables, which can have any form, is not of one shape."""
    for name in dict.fromkeys([*wanted, *found]):
        if name not in TABLES and wanted.get(name) != found.get(name):
            shapes = [found.get(name, "not there"), wanted.get(name, "not there")]
            raise ConfigError(
                f"inherit: {name} is {shapes[0]} in the larger captioner and {shapes[1]} in this one; docs/METHODS.md "
                "says what may differ"
            )


def _whole_tables(captioner: TorchCaptioner[Any]) -> Weights:
    """Weights in double precision, with vectors of words and weights of scores multiplied out."""
    weights = {name: weight.double() for name, weight in captioner.named_parameters()}
    weights[OUTPUT] = captioner.output.weight.double()  # of tied tables only one has been named
    if WIDEN in weights:
        weights[EMBEDDING] = weights[EMBEDDING] @ weights.pop(WIDEN).T
    if REDUCE in weights:
        weights[OUTPUT] = weights[OUTPUT] @ weights.pop(REDUCE)
    return weights


def _same_tables(shapes: Mapping[str, Shape], source: TorchCaptioner[Any]) -> Weights:
    """The source's tables where they have the form that is asked for, with their zeros; else none."""
    tables: Weights = {name: weight for name, weight in source.named_parameters() if name in TABLES}
    wanted = {name: shape for name, shape in shapes.items() if name in TABLES}
    return tables if wanted == {name: tuple(weight.shape) for name, weight in tables.items()} else {}


def _tables(config: WordTables, weights: Mapping[str, Tensor], *, reduces: bool) -> Weights:
    """Tables in the form of a captioner, of whole ones; `laconic.models.words` has a picture."""
    embedding, output, rank = weights[EMBEDDING], weights[OUTPUT], config.rank
    if config.tied and rank:
        table, both = factorised(torch.cat([embedding, output], 1), rank)
        widen, reduce = both.split([embedding.shape[1], output.shape[1]], 1)
        return {EMBEDDING: table, WIDEN: widen.T, REDUCE: reduce}
    if rank:
        (table, widen), (scores, reduce) = factorised(embedding, rank), factorised(output, rank)
        return {EMBEDDING: table, WIDEN: widen.T, OUTPUT: scores, REDUCE: reduce}
    if config.tied and reduces:
        table, reduce = factorised(output, embedding.shape[1])
        turn = torch.linalg.pinv(table) @ embedding
        return {EMBEDDING: table @ turn, REDUCE: torch.linalg.pinv(turn) @ reduce}
    return {EMBEDDING: output} if config.tied else {}


def factorised(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best factors (rows, rank) and (rank, columns) by least squares (Eckart and Young 1936), of like size; zero
    where the matrix has not that rank."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    root = s[:rank].sqrt()
    missing = rank - len(root)
    pad = torch.nn.functional.pad
    return pad(u[:, :rank] * root, (0, missing)), pad(root[:, None] * vh[:rank], (0, 0, 0, missing))


def _shared(weights: Mapping[str, Tensor], to: ObjectRelationConfig, source: ObjectRelationConfig) -> Weights:
    """Weights of layers and projections that others share, as the means of what they stand for."""
    if to.layers != source.layers:
        raise ConfigError(
            f"inherit: layers = {to.layers}, and {source.layers} in the larger captioner; share_layers instead"
        )
    merged = {name: weight for name, weight in weights.items() if not LAYER.fullmatch(name)}
    layers = [match.groups() for match in map(LAYER.fullmatch, weights) if match]
    for kind, rest in dict.fromkeys((kind, rest) for kind, _, rest in layers):
        for layer in range(to.unique_layers):
            originals = [old for new, old in zip(to.order, source.order, strict=True) if new == layer]
            merged[f"{kind}.{layer}.{rest}"] = _mean([weights[f"{kind}.{old}.{rest}"] for old in originals])
    return _merged_projections(merged, to, source)


def _merged_projections(weights: Weights, to: ObjectRelationConfig, source: ObjectRelationConfig) -> Weights:
    """One layer for the two that `share_attention` makes one."""
    roles, had = PROJECTIONS[to.share_attention], PROJECTIONS[source.share_attention]
    if roles == had:
        return weights
    becomes: dict[str, list[str]] = {}
    for new, old in zip(roles, had, strict=True):
        becomes.setdefault(new, []).append(old)
    merged = {}
    for name, weight in weights.items():
        head, _, kind = name.rpartition(".")
        parent, _, role = head.rpartition(".")
        if role not in had or "attention" not in parent:
            merged[name] = weight
            continue
        for new, olds in becomes.items():
            merged[f"{parent}.{new}.{kind}"] = _mean([weights[f"{parent}.{old}.{kind}"] for old in olds])
    return merged


def _mean(several: list[Tensor]) -> Tensor:
    return torch.stack(several).mean(0)
