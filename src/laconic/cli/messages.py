"""Text from outside made fit to be shown: names and messages that hold control characters, or bytes that are no text.

A terminal obeys what it is sent, so a file name could recolour it, rename its window or feign a line of output. JSON
keeps the real names.
"""

import contextlib
import os
import sys

from laconic.errors import printable


def printable_lines(text: str) -> str:
    """`printable`, but for the ends of lines."""
    return "\n".join(map(printable, text.split("\n")))


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
