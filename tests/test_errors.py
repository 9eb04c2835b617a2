"""Names from outside become text that any terminal and any encoder takes."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.errors import printable


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("photo (1).jpg", "photo (1).jpg"),
        ("Bild-ä-图-🐕.jpg", "Bild-ä-图-🐕.jpg"),
        ("Bildschirmfoto 9.41\u202fAM.png", "Bildschirmfoto 9.41\u202fAM.png"),  # macOS puts this space there
        ("a\nb\tc\x1b[31m", r"a\nb\tc\x1b[31m"),
        ("\x9b31m\x7f\0", r"\x9b31m\x7f\x00"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("a\u2028b", r"a\u2028b"),
        ("\ud800", r"\ud800"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
        (7, "7"),
    ],
)
def test_printable(name: object, expected: str) -> None:
    assert printable(name) == expected


@given(st.text(st.characters()))
def test_whatever_comes_out_is_one_line_of_utf8_and_stays_as_it_is(name: str) -> None:
    shown = printable(name)
    shown.encode()
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown
