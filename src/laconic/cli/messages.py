"""Text from outside made fit to be shown: names and messages that hold control characters, or bytes that are no text.

A terminal obeys what it is sent, so a file name could recolour it, rename its window or feign a line of output. JSON
keeps the real names.
"""

import contextlib
import os
import re
import sys

_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029"  # controls of both sets, separators of lines and paragraphs
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of writing
    "\ud800-\udfff]"  # bytes that are not UTF-8, as Python holds them
)


def printable(text: str) -> str:
    """One line in which whatever is not to be shown is escaped, such as \\n, \\x1b and \\xff."""
    return _UNPRINTABLE.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """`printable`, but for the ends of lines."""
    return "\n".join(map(printable, text.split("\n")))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape").decode()


def show(line: str) -> None:
    """One line on standard output, at once."""
    print(printable(line), flush=True)


def say(message: str) -> None:
    """One line on standard error."""
    line = " ".join(part.strip() for part in message.split("\n"))
    print(f"laconic: {printable(line)}", file=sys.stderr)


def open_streams() -> bool:
    """Makes the standard streams such that writing any text to them works; whether standard output was open.

    What their encoding lacks is escaped. One that is closed becomes the null device.
    """
    shown = sys.stdout is not None
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf8", errors="backslashreplace"))  # noqa: SIM115
        else:
            with contextlib.suppress(AttributeError, ValueError):  # not a text stream of Python's own
                stream.reconfigure(errors="backslashreplace")
    return shown


def drop_output() -> None:
    """Sends what is still to come on standard output, and waits in its buffer, to nowhere."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
