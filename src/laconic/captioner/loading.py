"""`laconic.load`: one captioner, two backends. Needs no torch unless that is what is asked for."""

from os import PathLike
from typing import TYPE_CHECKING, Literal, overload

from laconic.captioner.ready_made import SMALLEST, packed_file
from laconic.errors import ConfigError

if TYPE_CHECKING:
    from laconic.captioner.engine import Engine
    from laconic.captioner.image_captioner import ImageCaptioner

Backend = Literal["engine", "torch"]


@overload
def load(path: str | PathLike[str] = ..., *, backend: Literal["engine"] = ..., threads: int = ...) -> "Engine": ...
@overload
def load(path: str | PathLike[str] = ..., *, backend: Literal["torch"], threads: int = ...) -> "ImageCaptioner": ...


def load(
    path: str | PathLike[str] = SMALLEST, *, backend: Backend = "engine", threads: int = 0
) -> "Engine | ImageCaptioner":
    """A packed captioner that captions: `laconic.load("tiny.safetensors").caption(["photo.jpg"])`.

    path: of its file, or the name of one that comes with laconic (laconic.captioner.ready_made), as by default.
    backend: "engine" runs sparse weights on the CPU and needs no torch; "torch" gives the PyTorch module, for training
        and comparison.
    threads: of the engine, for batches of images; 0: as many as there are processor cores.

    Raises FormatError where the file is damaged or holds something else.
    """
    if backend == "engine":
        from laconic.captioner.engine import Engine

        return Engine.load(packed_file(path), threads=threads)
    if backend != "torch":
        raise ConfigError(f"backend={backend!r} is unknown; choose engine or torch")
    from laconic.captioner.packing import load as load_module

    return load_module(packed_file(path))
