"""What the body of a request consists of, chunk by chunk and in memory: one image, or a form with several."""

from io import BytesIO
from typing import Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException

from laconic.errors import printable

FORM = b"multipart/form-data"
UNSPOKEN = (b"", b"application/octet-stream", b"application/x-www-form-urlencoded")  # curl says the last of any file
MAX_HEADERS = 4096  # bytes of the lines before an image in a form
MAX_NAME = 200  # characters


class Reader(Protocol):
    """Takes a body's chunks, then gives its images: each with its name, empty where it has none."""

    def feed(self, chunk: bytes) -> None: ...
    def images(self) -> list[tuple[str, bytes]]: ...
    def clear(self) -> None: ...  # lets go of all that has come


def is_form(content_type: str) -> bool:
    return parse_options_header(content_type)[0].lower() == FORM


def reader_for(content_type: str, most: int) -> Reader:
    """What reads a body of that Content-Type, of so many images at most. HTTPException where nothing does."""
    kind, options = parse_options_header(content_type)
    kind = kind.lower()
    if kind == FORM:
        return Form(options.get(b"boundary", b""), most)
    if kind in UNSPOKEN or kind.startswith(b"image/"):
        return OneImage()
    said = printable(kind.decode("latin-1"))[:MAX_NAME]
    raise HTTPException(
        415, f"a body of type {said} is not read; send an image as the whole body, or images as multipart/form-data"
    )


class OneImage:
    """The whole body is one image."""

    def __init__(self) -> None:
        self._data = BytesIO()  # gives what it holds without a copy

    def feed(self, chunk: bytes) -> None:
        self._data.write(chunk)

    def images(self) -> list[tuple[str, bytes]]:
        return [("", self._data.getvalue())]

    def clear(self) -> None:
        self._data = BytesIO()


class Form:
    """A multipart/form-data body: each of its files is an image. It has to have a file, and nothing else."""

    def __init__(self, boundary: bytes, most: int) -> None:
        """`most` is the number of files that are read; HTTPException where the boundary cannot be one."""
        if not boundary:
            raise HTTPException(400, "the Content-Type multipart/form-data lacks its boundary; let a library write it")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._field,
                    "on_header_value": self._value,
                    "on_header_end": self._header,
                    "on_headers_finished": self._named,
                    "on_part_data": self._data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _damaged(error) from None
        self._most, self._ended = most, False
        self._files: list[tuple[str, BytesIO]] = []
        self._headers: dict[bytes, bytes] = {}  # of the part that is being read
        self._key, self._said, self._size = bytearray(), bytearray(), 0  # of its header, and of all of them

    def feed(self, chunk: bytes) -> None:
        """HTTPException for what is no form, for a field that is no file, and for one file too many."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _damaged(error) from None

    def images(self) -> list[tuple[str, bytes]]:
        if not self._ended:
            raise _damaged("its last boundary is missing")
        if not self._files:
            raise HTTPException(400, "the form holds no file; add an image")
        return [(name, file.getvalue()) for name, file in self._files]

    def clear(self) -> None:
        self._files.clear()  # the form itself stays until Python looks for cycles: its parser knows its methods

    # What the parser calls

    def _begin(self) -> None:
        self._headers, self._key, self._said, self._size = {}, bytearray(), bytearray(), 0
        self._files.append(("", BytesIO()))

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._key += self._bounded(data[start:end])

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._said += self._bounded(data[start:end])

    def _bounded(self, data: bytes) -> bytes:
        self._size += len(data)
        if self._size > MAX_HEADERS:
            raise _damaged(f"a file has more than {MAX_HEADERS} bytes of headers")
        return data

    def _header(self) -> None:
        self._headers[bytes(self._key).lower()] = bytes(self._said)
        self._key, self._said = bytearray(), bytearray()

    def _named(self) -> None:
        options = parse_options_header(self._headers.get(b"content-disposition"))[1]
        if b"filename" not in options:
            field = printable(options.get(b"name", b"").decode("utf8", "replace"))[:MAX_NAME]
            raise HTTPException(
                400, f"the form's field {field!r} is no file; beam and max_length go into the address: /caption?beam=5"
            )
        if len(self._files) > self._most:
            raise HTTPException(413, f"more than {self._most} images; send fewer at once")
        self._files[-1] = (printable(options[b"filename"].decode("utf8", "replace"))[:MAX_NAME], BytesIO())

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._files[-1][1].write(memoryview(data)[start:end])

    def _end(self) -> None:
        self._ended = True


def _damaged(why: object) -> HTTPException:
    return HTTPException(400, f"the multipart/form-data body is damaged ({printable(why)}); send it again")
