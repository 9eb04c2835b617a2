"""Tokenizers of fresh models: the same one for the same texts, and what its ids are."""

import pytest

pytest.importorskip("transformers")

from laconic.errors import ConfigError
from laconic.hf.tokens import SPECIALS, make_tokenizer

TEXTS = ["A dog runs through the grass.", "Two dogs run on grass", "the brown cat's ball", "Café au lait, dogs"]


def test_the_same_texts_give_the_same_ids_however_often_they_are_learned() -> None:
    """Equally frequent pairs must not be decided by the order of a hash table: a resumed run learns its tokenizer anew,
    and its weights know the ids of the first one."""
    first, *others = (make_tokenizer(TEXTS * 3, 60).get_vocab() for _ in range(6))
    assert all(other == first for other in others)


def test_special_tokens_come_first_and_words_come_back() -> None:
    tokenizer = make_tokenizer(TEXTS, 200)
    assert tokenizer.convert_tokens_to_ids(list(SPECIALS)) == list(range(len(SPECIALS)))
    ids = tokenizer("A DOG runs")["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a dog runs"
    assert tokenizer.decode(tokenizer("café")["input_ids"], skip_special_tokens=True) == "cafe"
    assert len(tokenizer) <= 200


def test_letters_inside_of_words_are_no_special_tokens() -> None:
    assert set(make_tokenizer(TEXTS, 200).all_special_tokens) == set(SPECIALS)


@pytest.mark.parametrize("texts", [[], ["  "]])
def test_no_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(ConfigError, match="no text"):
        make_tokenizer(texts, 100)


def test_a_vocabulary_smaller_than_the_alphabet_is_refused() -> None:
    with pytest.raises(ConfigError, match="too small"):
        make_tokenizer(TEXTS, 12)
