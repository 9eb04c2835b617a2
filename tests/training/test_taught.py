"""Captions that a teacher writes: those of its own search, in the order asked for, the same after a stop."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import load
from laconic.decode.search import Decoding
from laconic.errors import ConfigError, FormatError
from laconic.metrics.bleu import Bleu
from laconic.recipes.plan import Place, plan
from laconic.recipes.recipe import DataRecipe, Recipe
from laconic.recipes.run import Watcher, learned_captions, open_sources, run_recipe
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import Vocabulary
from laconic.training.distillation import look_themselves
from laconic.training.features import cache_pixels
from laconic.training.settings import Distillation, Training
from laconic.training.taught import read_captions, written_by

OWN = [("a red dog runs",), ("a dog sleeps", "a dog runs on grass"), (), ("two birds fly over a lake",)]
VOCABULARY = Vocabulary.build((caption for some in OWN for caption in some), 1)


class Pixels:
    """Noise, with one image that cannot be read."""

    valid, skipped = np.array([True, True, True, False]), ()

    def batch(self, rows, mirrored=None):
        pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
        return torch.from_numpy(pixels[rows])


@pytest.fixture(scope="module")
def teacher() -> ImageCaptioner:
    torch.manual_seed(0)
    model = ModelConfig(EncoderConfig("toy", size=32, stride=16), DecoderConfig(options={"word": 12, "hidden": 16}))
    return ImageCaptioner(model, VOCABULARY).eval()


def beams(teacher: ImageCaptioner) -> list[list[str]]:
    found = teacher.search(Pixels().batch([0, 1]), Decoding(5))
    return [[VOCABULARY.decode(each.tokens) for each in some] for some in found]


def test_the_likeliest_captions_of_readable_images(teacher):
    written = written_by(teacher, Pixels(), OWN, Decoding(5), count=2, choice="best")
    first, second = beams(teacher)
    assert written == [tuple(first[:2]), tuple(second[:2]), (), ()]


def test_those_nearest_to_what_people_wrote(teacher):
    (_, written, *_) = written_by(teacher, Pixels(), OWN, Decoding(5), count=3, choice="nearest")
    found = beams(teacher)[1]
    near = Bleu([OWN[1]] * len(found)).sentences(found)[:, -1]
    assert written == tuple(found[index] for index in np.argsort(-near, kind="stable")[:3])


@pytest.mark.parametrize("text", ["", "[", "{}", "[[]]", '{"origin": "a", "captions": 3}', "[" * 100_000])
def test_a_damaged_file_is_named(text, tmp_path):
    (tmp_path / "taught.json").write_text(text)
    with pytest.raises(FormatError, match=r"taught\.json.*--resume"):
        read_captions(tmp_path / "taught.json", "a")


RECIPE = Recipe(
    data=DataRecipe("scenes", min_count=1, train=24, val=4),
    encoder=EncoderConfig("toy", size=32, stride=16),
    decoder=DecoderConfig(options={"word": 12, "hidden": 16}),
    training=Training(epochs=1, batch=8, learning_rate=5e-3, precision="float32", mirror=False),
    decoding=Decoding(beam=1),
)


def test_they_join_the_images_own_and_stay_the_same_after_a_stop(tmp_path):
    run_recipe(RECIPE, tmp_path / "teacher", tmp_path / "cache")
    options = Distillation(str(tmp_path / "teacher" / "model.safetensors"), sequences=2)
    planned = plan(replace(RECIPE, distillation=options), Place(tmp_path / "run", tmp_path / "cache"))
    (tmp_path / "run").mkdir()
    source = open_sources(planned, Watcher())["train"]
    own = [tuple(planned.train[row].captions) for row in range(24)]
    learned = learned_captions(planned, source, Watcher())
    assert [some[: len(mine)] for some, mine in zip(learned, own, strict=True)] == own
    assert {len(some) - len(mine) for some, mine in zip(learned, own, strict=True)} == {2}
    path = tmp_path / "run" / "taught.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "captions": [["x"]] * 24}))
    assert learned_captions(planned, source, Watcher())[0] == (*own[0], "x")


@pytest.mark.parametrize("other", [{"choice": "nearest"}, {"sequences": 1}, {"teacher": "second"}])
def test_captions_of_another_teacher_are_not_taken_for_this_ones(other, tmp_path):
    """A run that was stopped before it had trained holds no folder, and what its teacher wrote may lie there."""
    for epochs, name in enumerate(("first", "second"), 1):
        training = replace(RECIPE.training, epochs=epochs)
        run_recipe(replace(RECIPE, training=training), tmp_path / name, tmp_path / "cache")
    if "teacher" in other:
        other = {"teacher": str(tmp_path / "second" / "model.safetensors")}
    options = Distillation(str(tmp_path / "first" / "model.safetensors"), sequences=2)
    place = Place(tmp_path / "run", tmp_path / "cache", resume=True)
    place.folder.mkdir()
    before, after = (plan(replace(RECIPE, distillation=replace(options, **some)), place) for some in ({}, other))
    source = open_sources(before, Watcher())["train"]
    learned_captions(before, source, Watcher())
    path = place.folder / "taught.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "captions": [["x"]] * 24}))
    assert not any("x" in some for some in learned_captions(after, source, Watcher()))


@pytest.mark.parametrize("several", [False, True])
def test_a_teacher_of_captions_alone_sees_with_its_own_encoder(several, tmp_path):
    """Larger photos, another encoder: it writes what it says of the photos, and words it cannot teach."""
    larger = EncoderConfig("toy", size=64, stride=32)
    run_recipe(replace(RECIPE, encoder=larger), tmp_path / "teacher", tmp_path / "cache")
    file = tmp_path / "teacher" / "model.safetensors"
    options = Distillation(str(file), weight=0.0, sequences=1, ensemble=(str(file),) if several else ())
    planned = plan(replace(RECIPE, distillation=options), Place(tmp_path / "run", tmp_path / "cache"))
    (tmp_path / "run").mkdir()
    source = open_sources(planned, Watcher())["train"]
    learned = learned_captions(planned, source, Watcher())
    photos = cache_pixels(planned.train, 64, tmp_path / "cache")
    speaks = load(file).eval()
    for row in range(24):
        (found,) = speaks.search(photos.batch(np.array([row])), Decoding(beam=1))
        assert learned[row] == (*planned.train[row].captions, speaks.vocabulary.decode(found[0].tokens))
    with pytest.raises(ConfigError, match=r"size=64.*asks for.*size=32.*weight = 0 and distillation.sequences"):
        plan(replace(RECIPE, distillation=replace(options, weight=0.5)), Place(tmp_path / "run", tmp_path / "cache"))


def test_a_teacher_that_reads_regions_is_given_what_its_student_is_given(teacher):
    options = Distillation("some.safetensors", weight=0.0, sequences=1)
    regions = ModelConfig(EncoderConfig("regions", channels=8), DecoderConfig(options={"word": 12, "hidden": 16}))
    assert look_themselves(options, [teacher])
    assert not look_themselves(options, [teacher, ImageCaptioner(regions, VOCABULARY)])
    assert not look_themselves(replace(options, weight=0.1), [teacher])
    assert not look_themselves(replace(options, features=0.1), [teacher])
