"""Tokenizer, vocabulary, padded batches, and vocabulary files from elsewhere."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.errors import ConfigError, FormatError, LaconicWarning
from laconic.text import BOS, EOS, MAX_BYTES, PAD, SPECIALS, UNK, Vocabulary, pad, tokenize, unspaced

CAPTIONS = ["A dog runs.", "a dog, a cat", "The cat sleeps", "a bird"]


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man's T-shirt , number 42 .", ["a", "man's", "t-shirt", "number", "42"]),
        ("the dogs' ball -- 'red' (new)", ["the", "dogs", "ball", "red", "new"]),
        ("black-and-white; rock'n'roll", ["black-and-white", "rock'n'roll"]),
        ("man’s X‑ray, well—no", ["man's", "x-ray", "well", "no"]),
        ("snake_case a-  -b a--b", ["snake", "case", "a", "b", "a", "b"]),
        ("Cafe\u0301 CAFÉ ＡＢＣ", ["café", "café", "abc"]),
        ("हिन्दी में कुत्ता", ["हिन्दी", "में", "कुत्ता"]),
        ("Два пса. 一只狗", ["два", "пса", "一只狗"]),
        ("❤️ a dog 🐕 co\u00adoperates 1️⃣", ["a", "dog", "cooperates", "1"]),
        ("\t \n .,!", []),
        ("", []),
    ],
)
def test_words(caption: str, words: list[str]) -> None:
    assert tokenize(caption) == words


@given(st.text())
def test_tokenizing_words_changes_nothing(caption: str) -> None:
    words = tokenize(caption)
    assert tokenize(" ".join(words)) == words
    Vocabulary(SPECIALS + tuple(dict.fromkeys(words)))  # every token can be a word


@given(st.text(alphabet="aB3-' .,_"))
def test_ascii_takes_the_same_path_as_the_rest(caption: str) -> None:
    assert tokenize(caption) == tokenize(caption + " é")[:-1]


def test_build_orders_by_count_then_word() -> None:
    vocabulary = Vocabulary.build(CAPTIONS, min_count=1)
    assert vocabulary.words == (
        *SPECIALS,
        *["a", "cat", "dog", "bird", "runs", "sleeps", "the"],
    )
    assert Vocabulary.build(reversed(CAPTIONS), min_count=1) == vocabulary
    assert Vocabulary.build(CAPTIONS, min_count=2).words[4:] == ("a", "cat", "dog")
    assert Vocabulary.build(CAPTIONS, min_count=1, max_size=6).words[4:] == ("a", "cat")
    assert len(vocabulary) == 11


def test_build_counts_only_what_training_sees() -> None:
    assert Vocabulary.build(CAPTIONS, 1, max_length=2).words[4:] == (
        "a",
        "dog",
        "bird",
        "cat",
        "the",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no word occurs 5 times"),
        ({"min_count": 0}, "min_count is 0"),
        ({"max_length": 0}, "max_length is 0"),
        ({"max_size": 4}, "max_size is 4, must be at least 5"),
    ],
)
def test_build_refuses(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Vocabulary.build(CAPTIONS, **arguments)


@pytest.mark.parametrize(
    ("captions", "expected"),
    [
        ([], False),
        (CAPTIONS, False),
        (["一只狗在草地上奔跑", "两个人骑着马，走过田野"], True),
        (["一只 狗 在 草地 上 奔跑", "两个 人 骑着 马"], False),
        (["草の上を走る犬"], True),
        (["草 の 上 を 走る 犬"], False),
        (["สุนัขวิ่งอยู่บนหญ้า"], True),
        (["สุนัข วิ่ง อยู่ บน หญ้า"], False),
        (["개가 풀밭을 달리고 있다", "Собака бежит по траве", "हिन्दी में कुत्ता"], False),
        (["a dog", "a sign that says 一只狗在草地上奔跑", "a cat"], False),
    ],
)
def test_captions_without_spaces_are_told(captions: list[str], expected: bool) -> None:
    assert unspaced(captions) == expected


def test_a_vocabulary_of_sentences_is_warned_of() -> None:
    sentences = ["一只狗在草地上奔跑", "两个人骑着马走过田野"]
    with pytest.warns(LaconicWarning, match="'一只狗在草地上奔跑' have no spaces between words"):
        vocabulary = Vocabulary.build(iter(sentences), 1)
    assert set(vocabulary.words[4:]) == set(sentences)


def test_encode_and_decode() -> None:
    vocabulary = Vocabulary.build(CAPTIONS, 1)  # a 4, cat 5, dog 6, bird 7, runs 8
    assert vocabulary.encode("A dog runs!", 10) == [BOS, 4, 6, 8, EOS]
    assert vocabulary.encode("a zebra <pad> runs", 10) == [BOS, 4, UNK, UNK, 8, EOS]
    assert vocabulary.encode("a dog runs", 2) == [BOS, 4, 6, EOS]  # cut, and closed all the same
    assert vocabulary.encode("", 5) == [BOS, EOS]
    assert vocabulary.decode([BOS, 4, UNK, 6, EOS, PAD]) == "a dog"
    assert vocabulary.decode(np.array([4, 6, 8])) == "a dog runs"
    for foreign in (-1, 11):
        with pytest.raises(IndexError, match=f"id {foreign} is not in a vocabulary of 11 words"):
            vocabulary.decode([foreign])


def test_sentencepiece_keeps_case_merges_unknown_words_and_shows_them(tmp_path: Path) -> None:
    vocabulary = Vocabulary((*SPECIALS, "a", "Dog", "very"), "sentencepiece")
    assert vocabulary.encode("a  Dog dog, barks very very", 10) == [BOS, 4, 5, UNK, 6, 6, EOS]
    assert vocabulary.encode("<bos> a\u2581<eos> Dog", 10) == [BOS, UNK, 4, UNK, 5, EOS]
    assert vocabulary.encode("x y a Dog", 2) == [BOS, UNK, 4, EOS]  # cut behind the merging
    assert vocabulary.decode([BOS, 4, UNK, UNK, 5, EOS, PAD]) == "a <unk> <unk> Dog"
    vocabulary.save(tmp_path / "words.json")
    assert Vocabulary.load(tmp_path / "words.json") == vocabulary
    assert vocabulary != Vocabulary(vocabulary.words)
    with pytest.raises(FormatError, match="'bpe' is unknown; there are words, sentencepiece"):
        Vocabulary(SPECIALS, "bpe")


@given(st.lists(st.lists(st.integers(0, 99), max_size=6), max_size=6))
def test_pad_is_the_slow_pad(sequences: list[list[int]]) -> None:
    batch = pad(sequences)
    longest = max(map(len, sequences), default=0)
    assert batch.dtype == np.int64
    assert batch.shape == (len(sequences), longest)
    assert batch.tolist() == [s + [PAD] * (longest - len(s)) for s in sequences]


def test_a_saved_vocabulary_comes_back(tmp_path: Path) -> None:
    vocabulary = Vocabulary.build([*CAPTIONS, "मे café t-shirt"], 1)
    path = tmp_path / "words.json"
    vocabulary.save(path)
    vocabulary.save(str(path))  # over an older one
    assert Vocabulary.load(path) == vocabulary
    assert Vocabulary.load(path).encode("a café", 9) == vocabulary.encode("a café", 9)
    assert list(tmp_path.iterdir()) == [path]  # no temporary file stays


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "words.json"
    old = Vocabulary.build(CAPTIONS, 2)
    old.save(path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match=r"words\.json: cannot write .*No space left"):
        Vocabulary.build(CAPTIONS, 1).save(path)
    assert Vocabulary.load(path) == old
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ConfigError, match="No such file or directory"):
        old.save(tmp_path / "absent" / "words.json")


def document(words: object, **changes: object) -> str:
    return json.dumps({"format": "laconic-vocabulary", "version": 1, "words": words} | changes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("\udcff", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1, 2]", "not a vocabulary"),
        ('{"words": []}', "not a vocabulary"),
        (document([*SPECIALS, "a"], version=2), "version 2 is not 1"),
        (document("abc"), "'words' is not a list"),
        (document(None), "'words' is not a list"),
        (document(["a", "b"]), "begins with <pad> <unk> <bos> <eos>"),
        (document([]), "begins with"),
        (document([[], {}, 1, 2]), "begins with"),
        (document([*SPECIALS, "a", 3]), "word 5 of the vocabulary is 3, not a word"),
        (document([*SPECIALS, ["a"]]), "word 4 of the vocabulary"),
        (document([*SPECIALS, ""]), "word 4 of the vocabulary is '', not a word"),
        (document([*SPECIALS, "two words"]), "word 4"),
        (document([*SPECIALS, "\u001b[2J"]), "word 4"),
        (document([*SPECIALS, "\ud800"]), "word 4"),
        (document([*SPECIALS, "a", "b", "a"]), "holds 'a' twice: 4, 6"),
        (document([*SPECIALS, "<eos>"]), "holds '<eos>' twice: 3, 4"),
        (" " * (MAX_BYTES + 1), "larger than"),
    ],
)
def test_hostile_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "words.json"
    path.write_text(content, errors="surrogateescape", encoding="utf-8")
    with pytest.raises(FormatError, match=message) as caught:
        Vocabulary.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < len(str(path)) + 200


def test_what_is_not_a_file_is_not_opened(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.json"):
        with pytest.raises(FormatError, match="no such file"):
            Vocabulary.load(path)
