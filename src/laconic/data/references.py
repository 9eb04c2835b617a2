"""Reference captions by image id, from any file of captions that laconic knows: what scores are computed against."""

from pathlib import Path

from laconic.data.captions import SUFFIXES, captions_of_split
from laconic.data.karpathy import Tokens, is_karpathy, references_of
from laconic.errors import DataError, printable
from laconic.metrics.captions import checked_references, read_document


def load_references(path: Path, split: str = "", tokens: Tokens = "auto") -> dict[int | str, list[str]]:
    """Captions of one split, or of all: of COCO's annotations, Karpathy's format, or a text file of captions.

    `tokens` is of Karpathy's format, see load_karpathy. Raises DataError naming the file: it cannot be read or is of no
    such format, or has no such split or no tokens.
    """
    document = None if path.suffix.lower() in SUFFIXES else read_document(path)
    if is_karpathy(document):
        return references_of(document, path, split, tokens)
    if tokens == "always":
        raise DataError(f"{printable(path)}: holds sentences without tokens of their own; leave tokens = always out")
    if path.suffix.lower() in SUFFIXES:
        return {name: list(some) for name, some in captions_of_split(path, split).items() if some}
    references = checked_references(document, path)
    if split:
        raise DataError(f"{printable(path)}: has no splits; leave the split {split!r:.60} out")
    return references
