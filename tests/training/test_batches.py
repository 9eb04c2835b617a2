"""Batches: the same for the same (seed, epoch), every image once an epoch, padding, mirroring."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from laconic.errors import ConfigError, DataError
from laconic.models.layers import Features
from laconic.text import Vocabulary
from laconic.training.batches import make_batches

VOCABULARY = Vocabulary(("<pad>", "<unk>", "<bos>", "<eos>", "a", "cat", "dog", "runs"))
CAPTIONS = [["a cat", "a dog runs"], ["a dog"], [], ["cat cat cat cat", "dog", "a horse"], ["runs"]]


@dataclass
class Numbers:
    """A source whose feature is the row itself, negative where mirrored."""

    valid: np.ndarray
    skipped: tuple = ()

    def batch(self, rows, mirrored=None):
        values = torch.from_numpy(rows if mirrored is None else np.where(mirrored, -rows, rows))
        return Features(values[:, None, None].float(), values[:, None].float())


def make(size: int = 2, valid=(1, 1, 1, 1, 1), **options):
    source = Numbers(np.array(valid, bool))
    return make_batches(source, CAPTIONS, VOCABULARY, **{"max_length": 4, "size": size, "seed": 7, **options})


def rows_of(batches, epoch: int) -> list[int]:
    inputs = [batches(epoch, step).inputs.pooled.abs().flatten().tolist() for step in range(len(batches))]
    return [int(row) for some in inputs for row in some]


def test_tokens_are_padded_to_the_longest_of_the_batch():
    batches = make(size=4)
    assert len(batches) == 1
    batch = batches(0, 0)
    assert batch.tokens.dtype == torch.int64
    by_row = dict(zip(batch.rows.tolist(), batch.tokens.tolist(), strict=True))
    assert batch.inputs.pooled.flatten().tolist() == batch.rows.tolist()
    assert by_row[0] == [[2, 4, 5, 3, 0, 0], [2, 4, 6, 7, 3, 0], [0] * 6]
    assert by_row[3] == [[2, 5, 5, 5, 5, 3], [2, 6, 3, 0, 0, 0], [2, 4, 1, 3, 0, 0]]
    assert by_row[4] == [[2, 7, 3, 0, 0, 0], [0] * 6, [0] * 6]
    assert max(len(make(size=1)(0, step).tokens[0, 0]) for step in range(4)) == 6
    assert min(len(make(size=1)(0, step).tokens[0, 0]) for step in range(4)) == 3


def test_some_captions_of_each_image_are_drawn_anew_in_each_epoch():
    one = make(size=4, captions_each=1)
    drawn = set()
    for epoch in range(20):
        batch = one(epoch, 0)
        assert batch.tokens.shape[1] == 1
        assert (batch.tokens[:, 0, 0] == 2).all()  # never padding where an image has captions
        np.testing.assert_array_equal(batch.tokens, one(epoch, 0).tokens)
        by_row = dict(zip(batch.rows.tolist(), batch.tokens.tolist(), strict=True))
        drawn.add(tuple(by_row[3][0][:3]))
    assert drawn == {(2, 5, 5), (2, 6, 3), (2, 4, 1)}
    torch.testing.assert_close(make(size=4, captions_each=9)(0, 0).tokens, make(size=4)(0, 0).tokens)


def test_long_captions_are_cut_and_still_end():
    tokens = make(size=4, max_length=2)(0, 0).tokens
    assert tokens.shape[2] == 4
    assert int((tokens == 3).sum()) == 7


def test_an_epoch_has_every_usable_image_once_in_its_own_order():
    batches = make(size=1)
    orders = [rows_of(batches, epoch) for epoch in range(6)]
    assert all(sorted(order) == [0, 1, 3, 4] for order in orders)
    assert len(set(map(tuple, orders))) > 2


def test_the_incomplete_last_batch_is_dropped():
    batches = make(size=3)
    assert len(batches) == 1
    assert len({*rows_of(batches, 0)}) == 3


def test_seed_and_epoch_decide_everything():
    first, second, other = make(mirror=True), make(mirror=True), make(mirror=True, seed=8)
    different = 0
    for epoch in (5, 0, 3):
        for step in (1, 0):
            a, b, c = (batches(epoch, step) for batches in (first, second, other))
            assert torch.equal(a.inputs.pooled, b.inputs.pooled)
            assert torch.equal(a.tokens, b.tokens)
            different += not torch.equal(a.inputs.pooled, c.inputs.pooled)
    assert different


def test_processes_share_each_batch():
    whole = make(size=3, mirror=True)
    shares = [whole.shared(rank, 2) for rank in (0, 1)]
    assert [len(share) for share in shares] == [len(whole)] * 2
    for epoch in range(4):
        expected, parts = whole(epoch, 0), [share(epoch, 0) for share in shares]
        assert [len(part.rows) for part in parts] == [2, 1]
        assert {*expected.inputs.pooled.flatten().tolist()} == {
            value for part in parts for value in part.inputs.pooled.flatten().tolist()
        }
        words = int((expected.tokens != 0).sum())
        assert words == sum(int((part.tokens != 0).sum()) for part in parts)
    with pytest.raises(ConfigError, match=r"training\.batch 3 cannot be shared by 4 processes"):
        whole.shared(0, 4)


def test_half_of_the_images_are_mirrored_only_when_asked():
    batches = make(mirror=True)
    values = torch.cat([batches(e, s).inputs.pooled.flatten() for e in range(60) for s in (0, 1)])
    nonzero = values[values != 0]  # row 0 shows no sign
    assert 0.35 < (nonzero < 0).float().mean().item() < 0.65
    assert not any((make()(e, 0).inputs.pooled < 0).any() for e in range(20))


def test_unreadable_images_are_left_out():
    assert sorted(rows_of(make(size=1, valid=(1, 0, 1, 1, 0)), 0)) == [0, 3]


def test_too_few_images_are_refused():
    with pytest.raises(DataError, match="2 usable training images are fewer than one batch of 3"):
        make(size=3, valid=(1, 0, 1, 1, 0))
    with pytest.raises(DataError, match="0 usable"):
        make_batches(Numbers(np.ones(0, bool)), [], VOCABULARY, max_length=4, size=1, seed=0)
