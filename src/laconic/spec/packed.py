"""A captioner in a packed file: what the file's configuration says of it, written and checked in this one place.

packed = store.load("tiny.safetensors")
spec = read_spec(packed)            # spec.model, spec.vocabulary, spec.captioner, spec.normalization
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from laconic.config import from_mapping, to_mapping
from laconic.errors import ConfigError, FormatError
from laconic.spec.captioners import CaptionerConfig, captioner_config
from laconic.spec.encoders import detects, normalization_of
from laconic.spec.model import ModelConfig
from laconic.spec.pixels import Normalization
from laconic.store import Packed
from laconic.text import Vocabulary

KIND = "image_captioner"


@dataclass(frozen=True)
class CaptionerSpec:
    """All of a captioner but its weights."""

    model: ModelConfig
    vocabulary: Vocabulary

    @cached_property
    def captioner(self) -> CaptionerConfig:
        """The captioner's own configuration. Raises ConfigError where there is no such model."""
        return captioner_config(self.model, self.vocabulary.size)

    @property
    def normalization(self) -> Normalization:
        """Of the pixels that the encoder reads."""
        return normalization_of(self.model.encoder)


def read_spec(packed: Packed) -> CaptionerSpec:
    """The captioner that a packed file holds, its configuration checked; its tensors are not looked at.

    Raises FormatError, naming the file, where it holds something else or its configuration is damaged.
    """
    config, path = packed.config, packed.path
    if config.get("kind") != KIND or packed.vocabulary is None:
        raise FormatError(f"{path}: holds weights but no image captioner; use a file that `laconic pack` wrote")
    try:
        model = from_mapping(config["model"], ModelConfig, "model")
        vocabulary = Vocabulary(tuple(packed.vocabulary), config.get("tokenization", "words"), config.get("base", 0))
        spec = CaptionerSpec(model, vocabulary)
        spec.captioner  # noqa: B018 - the check is in making it
        given = from_mapping(config.get("pixels", {}), Normalization, "pixels")
        if given != spec.normalization:
            raise ConfigError(f"pixels: {given} is not how encoder {model.encoder.name!r} reads them")
    except FormatError as error:  # of the vocabulary, which does not know the file
        raise FormatError(f"{path}: {error}") from None
    except (ConfigError, KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise damaged_configuration(packed, error) from None
    return spec


def damaged_configuration(packed: Packed, error: Exception) -> FormatError:
    """What is said of a file whose configuration describes no captioner that could be built."""
    reason = (str(error) or type(error).__name__).splitlines()[0]  # torch appends its C++ stack
    return FormatError(f"{packed.path}: its model configuration is damaged ({reason})")


def packed_config(spec: CaptionerSpec, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that a packed file holds, whose batch norms are folded; `facts` are JSON-able remarks.

    The normalisation of pixels is said where it is not the usual one, the base of digits where they spell words, and
    the number of regions of detectors alone.
    """
    folded = replace(spec.model, encoder=replace(spec.model.encoder, norm=False))
    model = to_mapping(folded)
    if not detects(spec.model.encoder):
        del model["encoder"]["regions"]
    config: dict[str, Any] = {
        "kind": KIND,
        "model": model,
        "tokenization": spec.vocabulary.tokenization,
        "facts": dict(facts),
    }
    if spec.vocabulary.base:
        config["base"] = spec.vocabulary.base
    if spec.normalization != Normalization():
        config["pixels"] = to_mapping(spec.normalization)
    return config
