"""Captions in plain text: the files that Flickr8k and Flickr30k come with, and anyone's own.

The first line tells the layout:

    image,caption                          CSV with these heads (Flickr8k's captions.txt)
    name.jpg#0<TAB>caption                 Flickr8k.token.txt and results_20130124.token
    image_name| comment_number| comment    Flickr30k's results.csv

Ids are file names. Splits are those of the lists beside the file, see SPLIT_LISTS; where there is none, `deal` makes
them. Files are taken as hostile: sizes and paths are checked before use. Reading opens no image.
"""

import csv
import hashlib
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from laconic.data.examples import Example
from laconic.data.photos import Photos, find_photos, photo_name
from laconic.errors import DataError, LaconicWarning, printable
from laconic.machine.reading import read_file

CAPTION_FILES = ("captions.txt", "captions.csv", "Flickr8k.token.txt", "results_20130124.token", "results.csv")
TEXT_FOLDERS = (".", "Flickr8k_text")  # the last: as the archive unpacks
SUFFIXES = (".txt", ".csv", ".tsv", ".token")
SPLIT_LISTS = {
    "train": ("Flickr_8k.trainImages.txt", "train.txt"),
    "val": ("Flickr_8k.devImages.txt", "val.txt"),
    "test": ("Flickr_8k.testImages.txt", "test.txt"),
}
"""Split -> files that list its images, one name a line."""
UNUSED = "unused"  # the split of images that no list names
MAX_BYTES = 2**27  # Flickr30k's captions have 14 MB

_IMAGE_HEADS, _CAPTION_HEADS = ("image", "image_name", "filename", "file"), ("caption", "comment", "text")
_NUMBERED = re.compile(r"\s*\d+\s+(.*)")  # a line of results.csv that lacks its second bar


def load_captions(
    root: Path, split: str, annotations: Path | None = None, photos: Photos = "all"
) -> tuple[Example, ...]:
    """Read one split of the captions in `annotations`, by default one of CAPTION_FILES in `root`, in the file's order.

    The photos lie in `root` or one of IMAGE_FOLDERS; `photos` is as in load_karpathy. Raises DataError: no or unusable
    captions (with the line), a split that is not there or empty, names that lead out of `root`, missing images.
    """
    source = annotations or captions_file(root)
    if source is None:
        raise DataError(f"{printable(root)}: no {', '.join(CAPTION_FILES)} in it; put one there, or correct the root")
    captions = captions_of_split(source, split)
    names = [photo_name("", name, f"{printable(source)}: {name!r:.60}") for name in captions]
    paths = find_photos(root, names, photos)
    return tuple(Example(name, path, some) for (name, some), path in zip(captions.items(), paths, strict=True))


def captions_file(root: Path) -> Path | None:
    """The first of CAPTION_FILES in a folder, if any."""
    places = (root / folder / name for folder in TEXT_FOLDERS for name in CAPTION_FILES)
    return next((path for path in places if path.is_file()), None)


def read_captions(source: Path) -> dict[str, tuple[str, ...]]:
    """Captions by file name, white space evened out, blank ones dropped. Raises DataError naming file and line."""
    found: dict[str, list[str]] = {}
    for name, caption in _rows(_text(source), source):
        words = caption.split()
        of_image = found.setdefault(name, [])
        if words:
            of_image.append(" ".join(words))
    if not found:
        raise DataError(f"{printable(source)}: no captions in it; {_LAYOUTS}")
    return {name: tuple(captions) for name, captions in found.items()}


def captions_of_split(source: Path, split: str = "") -> dict[str, tuple[str, ...]]:
    """`read_captions` of one split, of all by default. Raises DataError where it is not there or empty, too."""
    captions = read_captions(source)
    if not split:
        return captions
    splits = splits_of(source, captions)
    chosen = {name: some for name, some in captions.items() if splits[name] == split}
    if not chosen:
        present = ", ".join(f"{key} ({count})" for key, count in Counter(splits.values()).items())
        raise DataError(f"{printable(source)}: no images in split {split!r}; it has {present}")
    return chosen


def splits_of(source: Path, names: Iterable[str]) -> dict[str, str]:
    """Split of each image: as the lists of SPLIT_LISTS beside `source` say, else as `deal`, with a LaconicWarning."""
    names = list(names)
    splits: dict[str, str] = {}
    for split, files in SPLIT_LISTS.items():
        path = next((path for file in files if (path := source.parent / file).is_file()), None)
        for name in _text(path).split("\n") if path else ():
            if name.strip() and splits.setdefault(name.strip(), split) != split:
                raise DataError(f"{printable(path)}: {name.strip()!r:.60} is in split {splits[name.strip()]!r}, too")
    if not splits:
        lists = ", ".join(files[0] for files in SPLIT_LISTS.values())
        warnings.warn(
            f"{printable(source)}: no lists of splits beside it ({lists}); a tenth of the images becomes val, a tenth "
            "test, by their names",
            LaconicWarning,
            stacklevel=2,
        )
        return deal(names)
    if not splits.keys() & set(names):
        raise DataError(f"{printable(source)}: none of its images is in the lists of splits beside it; correct those")
    return {name: splits.get(name, UNUSED) for name in names}


def deal(names: Iterable[str]) -> dict[str, str]:
    """A split for each image: ordered by the SHA-256 of their names, the first tenth is val, the next test.

    The same names give the same splits, in whatever order and on whatever machine.
    """
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode("utf8", "surrogatepass")).digest())
    tenth = max(1, len(order) // 10)
    return {name: "val" if at < tenth else "test" if at < 2 * tenth else "train" for at, name in enumerate(order)}


def _text(path: Path) -> str:
    try:
        return read_file(path, MAX_BYTES).decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{printable(path)}: not UTF-8 text ({error.reason} at byte {error.start}); convert it"
        ) from None
    except ValueError as error:
        raise DataError(f"{printable(path)}: {error}") from None


def _rows(text: str, source: Path) -> Iterator[tuple[str, str]]:
    """(file name, caption) of each line."""
    head = text.lstrip("\n").partition("\n")[0]
    if "\t" in head:
        yield from _tabbed(text, source)
    elif "|" in head:
        yield from _barred(text, source)
    else:
        yield from _comma_separated(text, source)


def _tabbed(text: str, source: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        name, tab, caption = line.partition("\t")
        if tab:
            image, mark, count = name.rpartition("#")
            yield image if mark and count.isdigit() else name, caption
        elif line.strip():
            raise _wrong_line(source, number, "no tab between image and caption")


def _barred(text: str, source: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        fields = [field.strip() for field in line.split("|", 2)]
        if number == 1 and fields[0] in _IMAGE_HEADS:
            continue
        if len(fields) == 2 and (found := _NUMBERED.fullmatch(fields[1])):
            fields = [fields[0], "", found[1]]
        if len(fields) == 3:
            yield fields[0], fields[2]
        elif line.strip():
            raise _wrong_line(source, number, "not image|number|caption")


def _comma_separated(text: str, source: Path) -> Iterator[tuple[str, str]]:
    rows = csv.reader(io.StringIO(text, newline=""))
    try:
        heads = [head.strip().lower() for head in next(rows, [])]
        image = next((heads.index(head) for head in _IMAGE_HEADS if head in heads), None)
        caption = next((heads.index(head) for head in _CAPTION_HEADS if head in heads), None)
        if image is None or caption is None:
            raise DataError(f"{printable(source)}: its first line is neither of a known layout; {_LAYOUTS}")
        for row in rows:
            if len(row) == len(heads):
                yield row[image], row[caption]
            elif row:
                raise _wrong_line(source, rows.line_num, f"{len(row)} fields instead of {len(heads)}")
    except csv.Error as error:
        raise _wrong_line(source, rows.line_num, str(error)) from None


def _wrong_line(source: Path, number: int, reason: str) -> DataError:
    return DataError(f"{printable(source)}: line {number}: {reason}; {_LAYOUTS}")


_LAYOUTS = "give lines such as image,caption (with these heads) or name.jpg#0<TAB>caption"
