"""Configurations of fresh BLIP models, as small as a recipe asks for."""

from typing import Any

from laconic.errors import ConfigError
from laconic.tasks.captioned import LONGEST
from laconic.tasks.images import Shape
from laconic.tasks.nets import Tokenizer
from laconic.tasks.settings import ModelRecipe, Tower

POSITIONS = LONGEST + 8  # of a fresh text tower: captions and a little room


def blip_config(model: ModelRecipe, shape: Shape, tokenizer: Tokenizer, *, preserve: bool = False) -> Any:
    """A BlipConfig. Its towers may differ in width: cross-attention reads what the vision tower gives.

    Args:
        preserve: first weights have a deviation of 1 / sqrt(width), which preserves variance at any width (LeCun et
            al. 1998); otherwise BLIP's 0.02, which leaves attention of narrow towers all but uniform.
    """
    from transformers import BlipConfig, BlipTextConfig, BlipVisionConfig

    for name, tower in (("vision", model.vision), ("text", model.text)):
        check_tower(name, tower)
    vision = BlipVisionConfig(  # type: ignore[call-arg]
        **shape_of_tower(model.vision),
        attention_dropout=model.vision.dropout,
        image_size=shape.side,
        patch_size=shape.patch,
        num_channels=shape.channels,
        initializer_range=_deviation(model.vision, preserve),  # transformers' default is next to nothing
    )
    text = BlipTextConfig(
        **shape_of_tower(model.text),
        hidden_dropout_prob=model.text.dropout,
        attention_probs_dropout_prob=model.text.dropout,
        vocab_size=len(tokenizer),
        max_position_embeddings=POSITIONS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.sep_token_id,
        sep_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=_deviation(model.text, preserve),
    )
    width = model.text.width
    return BlipConfig(text_config=text, vision_config=vision, projection_dim=width, image_text_hidden_size=width)


def _deviation(tower: Tower, preserve: bool) -> float:
    return tower.width**-0.5 if preserve else 0.02


def check_tower(name: str, tower: Tower) -> None:
    """ConfigError for a tower that cannot be built."""
    for key, value in {"width": tower.width, "layers": tower.layers, "heads": tower.heads}.items():
        if value < 1:
            raise ConfigError(f"model.{name}.{key} = {value}; give at least 1")
    if tower.width % tower.heads:
        raise ConfigError(f"model.{name}: width {tower.width} is not a multiple of {tower.heads} heads")
    if tower.feed_forward < 0 or not 0 <= tower.dropout < 1:
        raise ConfigError(
            f"model.{name}: feed_forward = {tower.feed_forward}, dropout = {tower.dropout}; give at least 0, and "
            "0 <= dropout < 1"
        )


def shape_of_tower(tower: Tower) -> dict[str, Any]:
    """What every configuration of transformers calls a tower's widths and numbers."""
    return {
        "hidden_size": tower.width,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "intermediate_size": tower.feed_forward or 4 * tower.width,
    }
