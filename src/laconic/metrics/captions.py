"""Reference and result captions, from COCO files or Python values, checked.

Every complaint names the image and says what to do. It deliberately does not know tokens or scores.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from laconic.errors import DataError, printable
from laconic.machine.reading import MAX_JSON_BYTES, read_json

ImageId = int | str
References = Mapping[ImageId, Sequence[str]] | Mapping[str, Any]
Results = Mapping[ImageId, str] | Sequence[Mapping[str, Any]]

MAX_FILE = MAX_JSON_BYTES
MAX_CAPTION = 10_000  # characters; the longest COCO caption has 250


def load_references(path: str | Path) -> dict[ImageId, list[str]]:
    """Reference captions of a COCO annotation file, by image id; laconic.data.load_references knows more formats.

    Raises DataError, with the file's name, for anything that is not such a file.
    """
    return checked_references(read_document(Path(path)), Path(path))


def checked_references(document: Any, path: Path) -> dict[ImageId, list[str]]:
    """`as_references` of what was read from a file; DataError with its name."""
    try:
        if not isinstance(document, dict):
            raise DataError('expected {"annotations": [{"image_id": .., "caption": ..}, ..]}')
        return as_references(document)
    except DataError as error:
        raise DataError(f"{printable(path)}: {error}") from None


def load_results(path: str | Path) -> dict[ImageId, str]:
    """Captions of a COCO result file, by image id; raises DataError like `load_references`."""
    data = read_document(Path(path))
    try:
        if not isinstance(data, list):
            raise DataError('expected [{"image_id": .., "caption": ..}, ..]')
        return as_results(data)
    except DataError as error:
        raise DataError(f"{printable(path)}: {error}") from None


def read_document(path: Path) -> Any:
    """What a JSON file of captions holds; DataError where it cannot be read."""
    try:
        return read_json(path, MAX_FILE)
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise DataError(f"{printable(path)}: {error}; give a file in COCO format") from None


def as_references(references: References) -> dict[ImageId, list[str]]:
    """A mapping id -> captions or a COCO annotation dictionary, checked and copied."""
    found: dict[ImageId, list[str]] = {}
    if not isinstance(references, Mapping):
        raise DataError(
            "references must map image id to a list of captions, or be a COCO annotation "
            f"dictionary, not {type(references).__name__}"
        )
    images = references.get("images")
    if isinstance(images, list) and "annotations" not in references and not _captions(images):
        raise DataError("this is Karpathy's format; laconic.data.load_references reads it, from a file")
    if isinstance(references.get("annotations"), list) and not _captions(references["annotations"]):
        for image, caption in _rows(references["annotations"], "annotations"):
            found.setdefault(image, []).append(caption)
    else:
        for image, captions in references.items():
            if not isinstance(captions, Sequence) or isinstance(captions, str | bytes):
                raise DataError(
                    f"references of image {image!r} must be a list of captions, not {type(captions).__name__}"
                )
            found[_image(image)] = [_caption(caption, image) for caption in captions]
    if not found:
        raise DataError("no reference captions; give at least one image with one caption")
    empty = [image for image, captions in found.items() if not captions]
    if empty:
        raise DataError(f"image {empty[0]!r} has no reference captions; add one or leave the image out")
    return found


def as_results(results: Results) -> dict[ImageId, str]:
    """A mapping id -> caption or a COCO result list, checked and copied."""
    found: dict[ImageId, str] = {}
    if isinstance(results, Mapping):
        found = {_image(image): _caption(caption, image) for image, caption in results.items()}
    elif isinstance(results, Sequence) and not isinstance(results, str | bytes):
        for image, caption in _rows(results, "results"):
            if image in found:
                raise DataError(f"image {image!r} has two results; keep one caption for each image")
            found[image] = caption
    else:
        raise DataError(
            f"results must map image id to a caption, or be a COCO result list, not {type(results).__name__}"
        )
    if not found:
        raise DataError("no results; give at least one image with its caption")
    return found


def _rows(rows: Sequence[Any], where: str) -> list[tuple[ImageId, str]]:
    pairs = []
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping) or "image_id" not in row or "caption" not in row:
            raise DataError(f'{where}[{number}] must be an object with "image_id" and "caption"')
        image = _image(row["image_id"])
        pairs.append((image, _caption(row["caption"], image)))
    return pairs


def _captions(values: Sequence[Any]) -> bool:
    """Whether this is a list of captions, so that "annotations" was an image's id."""
    return bool(values) and all(isinstance(value, str) for value in values)


def _image(image: Any) -> ImageId:
    if isinstance(image, np.integer):
        return int(image)
    if isinstance(image, bool) or not isinstance(image, int | str):
        raise DataError(f"image id {image!r} must be an integer or a string")
    return image


def _caption(caption: Any, image: Any) -> str:
    if not isinstance(caption, str):
        raise DataError(f"the caption of image {image!r} must be a string, not {type(caption).__name__}")
    if len(caption) > MAX_CAPTION:
        raise DataError(f"the caption of image {image!r} has {len(caption)} characters, over {MAX_CAPTION}")
    return caption
