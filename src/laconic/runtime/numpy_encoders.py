"""The operations of encoders in numpy; see numpy_path."""

from collections.abc import Callable

OPERATIONS: dict[str, Callable[..., None]] = {}
