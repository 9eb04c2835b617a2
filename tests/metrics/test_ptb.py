"""The tokenizer against pairs that the Java program made, and against its own slow path."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.errors import DataError
from laconic.metrics import ptb, tokenize


def pairs(path: Path) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in json.loads(gzip.decompress(path.read_bytes()))]


def assert_equal(cases: list[tuple[str, str]]) -> None:
    raw, expected = zip(*cases, strict=True)
    wrong = [(a, b, c) for a, b, c in zip(raw, expected, tokenize(raw), strict=True) if b != c]
    assert not wrong, f"{len(wrong)} of {len(cases)} differ, first {wrong[0]}"


def test_tricky_pairs(golden: Path) -> None:
    assert_equal(pairs(golden / "metrics" / "ptb_tricky.json.gz"))


@pytest.mark.parametrize("name", ["ptb_coco_test", "ptb_flickr8k_val"])
def test_every_reference_caption(shared: Path, name: str) -> None:
    assert_equal(pairs(shared / "golden" / "metrics" / f"{name}.json.gz"))


# Answers of the Java program (Stanford PTBTokenizer 3.4.1) without the punctuation.
PROBES = [
    ("I'd've said he'lls isn'T mayn't don't've", "i 'd 've said he lls is n't may n't do n't 've"),
    ("it’s a café, don’t “quote” me…", "it 's a café do n't quote me"),
    (
        "'tis 'twas 'til 'em 'cause '80s 1980's",
        "'t is 't was 'til 'em 'cause '80s 1980 's",
    ),
    (
        "rock'n'roll o'clock O'Neil ma'am y'all C'mon",
        "rock 'n' roll o'clock o'neil ma'am y' all c'mon",
    ),
    ("No. 5 or no. no, pp. 3", "no. 5 or no no pp. 3"),
    ("on Main St. near Mass. in the mass.", "on main st. near mass. in the mass"),
    ("one/two/three/four w/o w/ a-b/c-d", "one/two/three / four w/o w / a-b/c-d"),
    ("A&W H&M r&b C++ c# AT&T's", "a&w h&m r & b c++ c# at&t 's"),
    ("U.S.-based 10:30a.m. 5.5-inch a-5.5", "u.s.-based 10:30 a.m. 5.5-inch a-5 .5"),
    ("1½ cups, 2 1/2 of ½-inch", "1 1/2 cups 2\u00a01/2 of 1/2 inch"),
    ("(555) 123-4567", "-lrb-555-rrb-\u00a0123-4567"),
    (":) ;-) <3 [x] {y} <unk>", ":-rrb- ;--rrb- < 3 -lsb- x -rsb- -lcb- y -rcb- <unk>"),
    ("a -- b --- c ----- d", "a b c ----- d"),
    ("zero\u200bwidth \U0001f600 \u2122", "zero width \u2122"),
    ("a dog lying I. The step", "a dog lying i the step"),
    ("J. Smith has a T.V. set.", "j. smith has a t.v. set"),
]


@pytest.mark.parametrize(("caption", "tokens"), PROBES)
def test_probes_of_the_java_program(caption: str, tokens: str) -> None:
    assert tokenize([caption]) == [tokens]


WORDS = ["a", "dog", "Mr", "st.", "cannot", "The", ",", ".", "U.", "no.", "gonna", "mass"]


def test_one_string_is_not_a_list_of_captions() -> None:
    with pytest.raises(DataError, match="not one string"):
        tokenize("a dog")


def test_line_breaks_never_shift_captions() -> None:
    broken = ["a\rdog\u2028runs\x0b on\x85grass", "a cat"]
    assert tokenize(broken) == ["a dog runs on grass", "a cat"]


@given(st.lists(st.sampled_from(WORDS), max_size=8))
def test_plain_captions_equal_the_rules(words: list[str]) -> None:
    caption = " ".join(words)
    by_rules = [ptb.REWRITTEN.get(token, token) for token in ptb._lex(caption)]
    assert tokenize([caption]) == [" ".join(by_rules)]


@given(st.text(max_size=60))
def test_any_text_gives_lower_case_tokens_without_loose_spaces(text: str) -> None:
    (tokens,) = tokenize([text])
    assert tokens == " ".join(tokens.split(" ")).strip(" ")
    assert "" not in tokens.split(" ") or tokens == ""
    assert not ptb.DROPPED & set(tokens.split(" "))
    assert not set("\n\r\u2028") & set(tokens)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["a!", "'", "a@", "1-", "<a ", "x.", "-", "(", "a'n", "1 "])
def test_long_hostile_text_ends(unit: str) -> None:
    (tokens,) = tokenize([unit * (10_000 // len(unit))])
    assert isinstance(tokens, str)
