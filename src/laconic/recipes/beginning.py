"""Whether a packed captioner is one that a recipe can begin with. Here is no torch."""

from laconic.config import differences, to_mapping
from laconic.errors import ConfigError
from laconic.recipes.recipe import Recipe
from laconic.spec.captioners import form
from laconic.spec.packed import CaptionerSpec


def check_encoder(spec: CaptionerSpec, recipe: Recipe, file: str) -> None:
    """ConfigError where a file's captioner sees with another encoder than the recipe's, or sees otherwise."""
    changed = differences(to_mapping(spec.model.encoder), to_mapping(recipe.encoder), "encoder.")
    if changed:
        raise ConfigError(f"{file}: has another encoder than the recipe asks for ({'; '.join(changed)})")


def check_initial(spec: CaptionerSpec, recipe: Recipe, file: str) -> None:
    """ConfigError where a file's captioner is another function than the recipe's, weights and dropout apart."""
    check_encoder(spec, recipe, file)
    if spec.vocabulary.base != recipe.data.radix:
        raise ConfigError(
            f"{file}: spells words with data.radix = {spec.vocabulary.base}, the recipe asks for {recipe.data.radix}"
        )
    held, asked = spec.model.decoder, recipe.decoder
    changed = differences(form(held.name, held.options), form(asked.name, asked.options), "decoder.")
    if changed:
        raise ConfigError(f"{file}: has another captioner than the recipe asks for ({'; '.join(changed)})")
