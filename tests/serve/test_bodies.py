"""Forms, chunk by chunk, sound ones and hostile ones."""

import random
from contextlib import suppress

import pytest
from starlette.exceptions import HTTPException

from laconic.serve.bodies import MAX_NAME, Form, OneImage, is_form, reader_for

BOUNDARY = "b0undary"


def form(*parts: tuple[str, bytes], end: str = "--\r\n") -> bytes:
    body = b"".join(f"--{BOUNDARY}\r\n{headers}\r\n\r\n".encode() + data + b"\r\n" for headers, data in parts)
    return body + f"--{BOUNDARY}{end}".encode()


def file(name: str) -> str:
    return f'Content-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: image/jpeg'


def read(body: bytes, size: int = 10**6, most: int = 16) -> list[tuple[str, bytes]]:
    reader = Form(BOUNDARY.encode(), most)
    for start in range(0, len(body), size):
        reader.feed(body[start : start + size])
    return reader.images()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10**6])
def test_files_in_chunks_of_any_size(size):
    images = [
        ("a.jpg", b"\xff\xd8\xff" + bytes(300)),
        ("ä b.png", b"\r\n--b0"),
        ("empty", b""),
        ("like a boundary", f"\r\n--{BOUNDARY[:-1]}\r\n-".encode()),
    ]
    assert read(form(*((file(name), data) for name, data in images)), size) == images


def test_which_reader():
    assert isinstance(reader_for(f'Multipart/Form-Data; boundary="{BOUNDARY}"', 1), Form)
    assert isinstance(reader_for("image/png", 1), OneImage)
    assert is_form("multipart/form-data; boundary=x")
    assert not is_form("")
    for kind, status in {"text/html": 415, "multipart/mixed; boundary=x": 415, "multipart/form-data": 400}.items():
        with pytest.raises(HTTPException) as caught:
            reader_for(kind, 1)
        assert caught.value.status_code == status


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "last boundary is missing"),
        (b"no form", 400, "damaged"),
        (form((file("a"), b"x"), end=""), 400, "last boundary is missing"),
        (form(), 400, "form"),
        (form(('Content-Disposition: form-data; name="beam"', b"5")), 400, "field 'beam' is no file"),
        (form(("X: y", b"5")), 400, "field '' is no file"),
        (form((file("a") + "\r\nX: " + "y" * 5000, b"x")), 400, "damaged"),
        (form(("X" * 5000 + ": y", b"x")), 400, "damaged"),
        (form(*[("X: y", b"")] * 20), 400, "is no file"),
        (form(*[(file("a"), b"x")] * 17), 413, "more than 16 images"),
    ],
)
@pytest.mark.parametrize("size", [5, 10**6])
def test_what_is_no_form_of_files(body, status, says, size):
    with pytest.raises(HTTPException) as caught:
        read(body, size)
    assert caught.value.status_code == status
    assert says in caught.value.detail


def test_names_are_fit_to_be_shown():
    (name, _), *_ = read(form((file("\x1b[31m" + "x" * 500), b"")))
    assert name.startswith(r"\x1b[31m")
    assert len(name) == MAX_NAME


def test_damage_of_any_kind_is_an_error_or_a_form():
    rng = random.Random(0)
    whole = form((file("a.jpg"), bytes(100)), (file("b.jpg"), b"\r\n" * 50))
    for _ in range(2000):
        body = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(body))
            body[at : at + rng.randint(0, 3)] = rng.choice(
                (b"", b"\r", b"\n", b"-", b":", b'"', b"\0", rng.randbytes(2))
            )
        with suppress(HTTPException):
            read(bytes(body), rng.randint(1, 300))
