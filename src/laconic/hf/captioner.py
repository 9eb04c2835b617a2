"""A captioner in the shape of transformers' image-to-text pipeline, and as a folder with a model card.

    pipe = laconic.hf.Captioner.from_pretrained()      # the captioner that comes with laconic
    pipe("photo.jpg")                                  # [{"generated_text": "a dog runs through the grass"}]
    pipe.save_pretrained("tiny")                       # model.safetensors, config.json, README.md

Captioners of laconic run in the engine, which needs neither torch nor transformers; a BLIP's folder, dense or slim, in
PyTorch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from laconic import store
from laconic.captioner.captioning import AnyCaptioner
from laconic.captioner.engine import Engine
from laconic.captioner.ready_made import SMALLEST, packed_file
from laconic.data.images import from_pillow
from laconic.decode.search import Decoding
from laconic.errors import ConfigError, TrainingError, printable
from laconic.hf.cards import CARD, captioner_card, write_card
from laconic.hf.configuration import CAPTIONER, CONFIG, architecture
from laconic.machine.folders import folder_atomically
from laconic.machine.reading import read_file
from laconic.spec.manifest import MODEL

if TYPE_CHECKING:
    from laconic.hf.blip import BlipCaptioner

Photo = str | PathLike[str] | np.ndarray | Image.Image
Said = list[dict[str, str]]

WRITTEN = {CARD, CONFIG, MODEL}
MOST_BYTES = 2**31  # of a packed file that is copied
RENAMED = {"num_beams": "beam", "max_new_tokens": "max_length", "length_penalty": "length_penalty"}


@dataclass(frozen=True, eq=False)
class Captioner:
    """Called with photos, it gives captions; see the module.

    Attributes:
        captioner: what captions.
        source: the packed file, or the folder, that it was read from.
    """

    captioner: AnyCaptioner
    source: Path

    @classmethod
    def from_pretrained(cls, path: str | PathLike[str] = SMALLEST) -> "Captioner":
        """Opens a packed file, a folder that `save_pretrained` wrote, a BLIP's folder, or the name of a captioner that
        comes with laconic. Nothing is downloaded.

        Raises FormatError where it is damaged or holds something else.
        """
        source = packed_file(path)
        if not source.is_dir():
            return cls(Engine.load(source), source)
        if not (source / CONFIG).is_file() or architecture(source) == CAPTIONER:
            return cls(Engine.load(source / MODEL), source / MODEL)
        from laconic.hf.blip import BlipCaptioner

        return cls(BlipCaptioner.from_pretrained(source), source)

    def __call__(
        self,
        images: Photo | list[Photo],
        *,
        max_new_tokens: int | None = None,
        generate_kwargs: Mapping[str, Any] | None = None,
        batch_size: int = 0,
    ) -> Said | list[Said]:
        """Captions as the pipeline gives them: a list of one dictionary for one photo, a list of such lists for a list.

        Args:
            images: paths, uint8 (height, width, 3) RGB, or Pillow's images.
            max_new_tokens: words of a caption at most (of a BLIP, tokens).
            generate_kwargs: num_beams, max_new_tokens and length_penalty, as transformers calls them.
            batch_size: images that are read at once; 0 chooses.

        Raises:
            ConfigError: an option that there is not, or an address in the place of a photo.
            DataError: a file that cannot be read.
        """
        decoding = _decoding(generate_kwargs or {}, max_new_tokens)
        several = isinstance(images, list)
        photos = [_photo(image) for image in (images if isinstance(images, list) else [images])]
        said: list[Said] = [[{"generated_text": text}] for text in self.captioner.caption(photos, decoding, batch_size)]
        return said if several else said[0]

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Writes the captioner as a folder with its model card; a kill leaves it whole or not there.

        Raises TrainingError where the folder holds something else than an earlier one, or cannot be written.
        """
        folder = Path(folder)
        if not isinstance(self.captioner, Engine):
            from laconic import hf

            blip: BlipCaptioner = self.captioner  # type: ignore[assignment]
            hf.save_pretrained(blip.net, folder, blip.tokenizer, blip.processor)
            return
        others = {path.name for path in folder.iterdir()} - WRITTEN if folder.is_dir() else set()
        if others or (folder.exists() and not folder.is_dir()):
            other = printable(min(others, default=folder.name))
            raise TrainingError(f"{folder}: holds something else than a captioner ({other}); give another folder")
        try:
            data = read_file(self.source, MOST_BYTES)
            with folder_atomically(folder) as place:
                (place / MODEL).write_bytes(data)
                (place / CONFIG).write_text(json.dumps(_configuration(self.captioner), indent=1), encoding="utf8")
                card = captioner_card(self.captioner.spec, store.inspect(place / MODEL))
                write_card(place, folder, card)
        except OSError as error:
            raise TrainingError(f"{folder}: cannot be written ({error}); free the disk or give another") from error


def _configuration(engine: Engine) -> dict[str, Any]:
    """What the Hub and `from_pretrained` look for; the packed file says everything else by itself."""
    import laconic

    return {
        "architectures": [CAPTIONER],
        "model_type": "laconic",
        "laconic_version": laconic.__version__,
        "encoder": engine.config.encoder.name,
        "captioner": engine.config.decoder.name,
        "image_size": engine.side,
        "vocab_size": len(engine.vocabulary.words),
    }


def _decoding(options: Mapping[str, Any], max_new_tokens: int | None) -> Decoding:
    given = {**options, **({} if max_new_tokens is None else {"max_new_tokens": max_new_tokens})}
    for name in given:
        if name not in RENAMED:
            raise ConfigError(f"generate_kwargs: no option {name!r}; there are {', '.join(RENAMED)}")
    return replace(Decoding(), **{RENAMED[name]: value for name, value in given.items()})


def _photo(image: Photo) -> str | PathLike[str] | np.ndarray:
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        raise ConfigError(f"{printable(image)}: nothing is downloaded; give the path of a file")
    if isinstance(image, Image.Image):
        return from_pillow(image)
    return image
