"""The operations of captioners in numpy; see numpy_path."""

from collections.abc import Callable

from laconic.runtime import numpy_recurrent, numpy_transformer
from laconic.runtime.numpy_work import linear

OPERATIONS: dict[str, Callable[..., None]] = {
    "LINEAR": linear,
    **numpy_recurrent.OPERATIONS,
    **numpy_transformer.OPERATIONS,
}
