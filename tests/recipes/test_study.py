"""Study files: what runs they mean, in which order, and every mistake said before anything starts."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import save
from laconic.config import to_mapping
from laconic.errors import ConfigError, TrainingError
from laconic.recipes.folders import claim
from laconic.recipes.recipe import Recipe
from laconic.recipes.study import StudyRun, in_order, merge, only, read_study
from laconic.recipes.study_files import check_files
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import SPECIALS, Vocabulary

STUDIES = sorted((Path(__file__).parents[2] / "recipes" / "studies").glob("*.toml"))

RESULT = {
    "scores": {"CIDEr": 0.5, "Bleu_4": 0.2, "ROUGE_L": 0.4},
    "bytes": 1,
    "non_zeros": {"encoder": 1, "encoder_weights": 1, "decoder": 1, "decoder_weights": 1},
    "seconds": {},
    "skipped": [],
}
BASE = """
[data]
name = "scenes"
min_count = 1
[encoder]
name = "toy"
size = 64
[decoder.options]
word = 8
hidden = 8
"""
METHODS = """
base = "base.toml"

[[grid]]
name = "{method}_{sparsity}"
vary.pruning.options.sparsity = [0.8, 0.95]
[grid.choices.method]
lottery = { pruning.method = "lottery", pruning.options.ticket = "{runs}/gradual_{sparsity}" }
gradual = { pruning.method = "gradual" }
blind = { pruning.method = "magnitude", initial = "{runs}/dense" }

[[run]]
name = "dense"
decoder.options.dropout = 0.4
"""


@pytest.fixture
def read(tmp_path):
    """Reads a study of this text beside base.toml; its runs lie in tmp_path / "runs"."""

    def read(text: str) -> tuple[StudyRun, ...]:
        (tmp_path / "base.toml").write_text(BASE)
        (tmp_path / "study.toml").write_text(text)
        return read_study(tmp_path / "study.toml", tmp_path / "runs")

    return read


def test_runs_of_a_grid_in_the_order_of_their_needs(read, tmp_path):
    runs = read(METHODS)
    names = [run.name for run in runs]
    assert sorted(names) == [
        *("blind_0.8", "blind_0.95", "dense", "gradual_0.8", "gradual_0.95", "lottery_0.8", "lottery_0.95"),
    ]
    for run in runs:
        assert all(names.index(need) < names.index(run.name) for need in run.needs)
    by_name = {run.name: run for run in runs}
    assert by_name["lottery_0.95"].needs == ("gradual_0.95",)
    assert by_name["lottery_0.95"].recipe.pruning.options["ticket"] == str(tmp_path / "runs" / "gradual_0.95")
    assert by_name["blind_0.8"].recipe.initial == str(tmp_path / "runs" / "dense" / "model.safetensors")
    assert by_name["blind_0.8"].recipe.pruning.options["sparsity"] == 0.8
    # overrides go into tables, they do not replace them
    assert by_name["dense"].recipe.decoder.options == {"word": 8, "hidden": 8, "dropout": 0.4}


def test_the_order_of_the_file_is_kept_where_nothing_is_needed(read):
    text = 'base = "base.toml"\n' + "".join(f'[[run]]\nname = "{name}"\n' for name in "cab")
    assert [run.name for run in read(text)] == ["c", "a", "b"]


def test_some_runs_and_what_they_need(read):
    runs = read(METHODS)
    assert [run.name for run in only(runs, ["lottery_0.8"])] == ["gradual_0.8", "lottery_0.8"]
    assert [run.name for run in only(runs, ["lottery_0.8"], lambda run: run.name == "lottery_0.8")] == ["lottery_0.8"]
    assert [run.name for run in only(runs, ["*_0.95", "dense"])] == [
        run.name for run in runs if run.name == "dense" or "0.95" in run.name
    ]
    with pytest.raises(ConfigError, match=r"no run matches 'smp\*'; there are .*dense"):
        only(runs, ["dense", "smp*"])


def test_files_that_nothing_makes_are_missed_before_the_first_run(read, tmp_path):
    runs = read(METHODS)
    check_files(runs, tmp_path / "runs")  # dense and gradual runs are still to come
    (first,) = read(RUN + f'initial = "{tmp_path}/nowhere.safetensors"')
    with pytest.raises(ConfigError, match=r"run 'a': initial = .*there is no .*nowhere\.safetensors"):
        check_files([first], tmp_path / "runs")
    with claim(tmp_path / "runs" / "a", first.recipe, resume=False):
        (tmp_path / "runs" / "a" / "result.json").write_text(json.dumps(RESULT))
    check_files([first], tmp_path / "runs")  # finished, needs it no more


def test_packed_files_that_cannot_be_begun_with_are_found_before_the_first_run(read, tmp_path):
    config = ModelConfig(EncoderConfig("vgg_small", size=32), DecoderConfig(options={"word": 8, "hidden": 9}))
    save(ImageCaptioner(config, Vocabulary(SPECIALS)), tmp_path / "small.safetensors")
    (tmp_path / "none.safetensors").write_bytes(b"no captioner")
    begins = f'{RUN}encoder = {{ name = "vgg_small", size = %s }}\ninitial = "{tmp_path}/%s.safetensors"\n'
    for size, name, message in (
        (64, "small", r"run 'a': initial: .*another encoder than .*encoder\.size: 32 -> 64"),
        (32, "small", r"run 'a': initial: .*another captioner than .*decoder\.options\.hidden: 9 -> 8"),
        (32, "none", "run 'a': initial: .*none.safetensors: not a safetensors file"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_files(read(begins % (size, name)), tmp_path / "runs")


def test_data_that_cannot_be_read_is_missed_before_the_first_run(read, tmp_path):
    runs = read(RUN + f'data = {{ name = "flickr8k", root = "{tmp_path}/nowhere" }}')
    with pytest.raises(ConfigError, match=r"run 'a': data: .*nowhere"):
        check_files(runs, tmp_path / "runs")
    runs = read(RUN + 'data = { name = "flickr8k", root = "~nosuchuser/data" }')
    with pytest.raises(ConfigError, match=r"run 'a': data: ~nosuchuser/data: there is no user 'nosuchuser' here"):
        check_files(runs, tmp_path / "runs")


def test_a_packed_captioner_has_no_batch_norms_to_differ_in(read):
    text = RUN + 'encoder.norm = true\n[[run]]\nname = "b"\ninitial = "{runs}/a"'
    assert [run.name for run in read(text)] == ["a", "b"]


def test_options_belong_to_their_method(read):
    base = (
        '[base]\ndata.name = "scenes"\npruning = { method = "supermask", options = { sparsity = 0.9, init = 2.0 } }\n'
    )
    more = '[[run]]\nname = "{}"\n'
    first, none, frozen, same = read(
        base
        + more.format("first")
        + more.format("none")
        + 'pruning.method = "none"\n'
        + more.format("frozen")
        + 'pruning.method = "frozen"\n'
        + more.format("same")
        + 'pruning = { method = "supermask", options.init = 3.0 }\n'
    )
    assert first.recipe.pruning.options == {"sparsity": 0.9, "init": 2.0}
    assert none.recipe.pruning.options == frozen.recipe.pruning.options == {}
    assert same.recipe.pruning.options == {"sparsity": 0.9, "init": 3.0}


def test_options_belong_to_their_captioner(read):
    base = '[base]\ndata.name = "scenes"\ndecoder = { name = "up_down", options = { hidden = 256 } }\n'
    other, same = read(
        base
        + '[[run]]\nname = "other"\ndecoder.name = "soft_attention"\n'
        + '[[run]]\nname = "same"\ndecoder = { name = "up_down", options.dropout = 0.1 }\n'
    )
    assert other.recipe.decoder.options == {}
    assert same.recipe.decoder.options == {"hidden": 256, "dropout": 0.1}


def test_a_folder_may_be_named_with_a_slash_behind_it(read, tmp_path):
    _, second = read(RUN + '[[run]]\nname = "b"\ninitial = "{runs}/a/"\n')
    assert second.recipe.initial == str(tmp_path / "runs" / "a" / "model.safetensors")


def test_a_teacher_is_the_model_of_a_run_before(read, tmp_path):
    taught = 'name = "b"\ndistillation.teacher = "{runs}/a"\n[[run]]\nname = "a"'
    first, second = read(RUN.replace('name = "a"', taught))
    assert (first.name, second.name, second.needs) == ("a", "b", ("a",))
    assert second.recipe.distillation.teacher == str(tmp_path / "runs" / "a" / "model.safetensors")
    check_files((first, second), tmp_path / "runs")
    with pytest.raises(ConfigError, match=r"run 'b': distillation\.teacher = .*there is no "):
        check_files((replace(second, needs=()),), tmp_path / "runs")


def test_an_inline_base_and_names_that_the_axes_give(read):
    base = '[base]\ndata.name = "scenes"\npruning.method = "supermask"\n'
    text = f"{base}[[grid]]\nvary.pruning.options.init = [1, 2.5]\nvary.data.min_count = [1]\n"
    runs = read(text)
    assert [run.name for run in runs] == ["1_1", "2.5_1"]
    assert [run.recipe.pruning.options["init"] for run in runs] == [1.0, 2.5]


def test_environment_variables_are_left_for_the_recipe(read):
    (run,) = read('base = "base.toml"\n[[run]]\nname = "a"\nimagenet = "${LACONIC_SHARED}/x.npz"\n')
    assert run.recipe.imagenet == "${LACONIC_SHARED}/x.npz"


RUN = 'base = "base.toml"\n[[run]]\nname = "a"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bse = 1", r"study\.toml: unknown key 'bse'; a study has"),
        ("base = [", r"study\.toml: not valid TOML"),
        ('base = "nope.toml"', r"nope\.toml: no such file"),
        ("base = 3", "base = 3; give the path of a recipe"),
        ('base = "base.toml"', "no runs; add"),
        ('base = "base.toml"\n[[run]]\nepochs = 3', "run 1 has no name"),
        ('base = "base.toml"\nrun = 3', r"write \[\[run\]\]"),
        (RUN + 'pruning.methd = "supermask"', r"run 'a': pruning: unknown key 'methd'; did you mean 'method'\?"),
        (RUN + 'pruning.method = "prune"', "run 'a': pruning: method = 'prune'; choose one of"),
        (RUN + "pruning.sparsity = 0.5", r"run 'a': pruning\.sparsity is now pruning\.options\.sparsity"),
        (
            'base = "base.toml"\n[[grid]]\nvary.pruning.sparsity = [0.5]',
            r"run '0\.5': pruning\.sparsity is now pruning\.options\.sparsity",
        ),
        (RUN + "pruning.options.sparsity = 0.5", r"run 'a': pruning\.options\.sparsity = 0\.5, but nothing is pruned"),
        (RUN + f"{'.'.join('a' * 30)} = 1", "tables or lists lie more than 20 deep"),
        (RUN + f"{'.'.join('a' * 100_000)} = 1", "a key has more than 100 dots"),
        (RUN + f"a = {'[' * 9000}{']' * 9000}", "tables or lists lie more than 20 deep"),
        (RUN + f"training.epochs = {'1' * 5000}", "an integer has too many digits"),
        (RUN + f"training.epochs = 0x{'1' * 5000}", "an integer has more than 128 bits"),
        (
            RUN + '[[run]]\nname = "b"\ninitial = "{runs}/a"\nencoder.norm = true',
            r"run 'b': encoder\.norm = true .* set encoder\.norm = false beside initial",
        ),
        (RUN + 'objective = "scst"', "run 'a': objective = \"scst\" improves a trained captioner"),
        (RUN + 'initial = "{runs}/b"', "'{runs}/b' names no run of the study; runs: a"),
        (RUN + 'initial = "./{runs}/a"', "'./{runs}/a'; {runs} stands at the beginning"),
        ('base = "base.toml"\n[[grid]]\nvary.data.val = [1, 1]', "data.val = .*two values have one label"),
        ('base = "base.toml"\n[[grid]]\nvary.data.root = ["1", 1]', "two values have one label"),
        ('base = "base.toml"\n[[grid]]\nname = "{x}"\nvary.x = [2026-01-01]', "run name"),
        (RUN + 'initial = ["x"]', r"'a': initial = \['x'\]; expected str"),
        (RUN + 'distillation.teacher = ["x"]', r"'a': distillation: teacher = \['x'\]; expected str"),
        (RUN + 'initial = "{other}"', "'a': {other} in '{other}' is unknown; there are {runs}"),
        (RUN + 'initial = "{runs}/a"', "circle: a -> a"),
        (
            RUN + '[[run]]\nname = "b"\ninitial = "{runs}/a"\ndecoder.options.hidden = 9',
            "run 'b' begins with 'a', which has another encoder or captioner",
        ),
        (RUN + '[[run]]\nname = "b"\ninitial = "{runs}/a"\nencoder.size = 96', "run 'b' begins with 'a', which has"),
        (RUN + "training.seed = 18446744073709551616", "run 'a': training: seed = 18446744073709551616; give less"),
        (RUN + '[[run]]\nname = "a"', "two runs are named 'a'"),
        ('base = "base.toml"\n[[run]]\nname = "../a"', r"run name '\.\./a'"),
        ('base = "base.toml"\n[[grid]]\nname = "x"', "grid 1: no axis"),
        ('base = "base.toml"\n[[grid]]\nvary.pruning.options.sparsity = 0.5', "expected a list of values"),
        ('base = "base.toml"\n[[grid]]\nvary = 3', "vary = 3; expected KEY"),
        ('base = "base.toml"\n[[grid]]\nchoices.a = 3', "choices.a = 3; expected label"),
        ('base = "base.toml"\n[[grid]]\naxes.a = 3', "grid 1: unknown key 'axes'"),
        ('base = "base.toml"\n[[grid]]\nname = "{b}"\nvary.data.val = [1]', "name: {b} in '{b}' is unknown"),
        ('base = "base.toml"\n[[grid]]\nvary.data.val = [1]\nchoices.val = {}', "two axes are named 'val'"),
        ('base = "base.toml"\n[[grid]]\nvary.training.seed = ' + str(list(range(1001))), "over 1,000 runs"),
    ],
)
def test_mistakes_name_the_file_the_run_and_the_key(read, text, message):
    with pytest.raises(ConfigError, match=message):
        read(text)


def test_a_mistake_in_the_base_is_said_of_the_base(read, tmp_path):
    (tmp_path / "other.toml").write_text("epochs = 3")
    with pytest.raises(ConfigError, match=r"other\.toml: unknown key 'epochs'"):
        read('base = "other.toml"\n[[run]]\nname = "a"')


def test_a_folder_with_other_settings_is_found_before_the_start(read, tmp_path):
    with claim(tmp_path / "runs" / "a", Recipe(), resume=False):
        pass
    (tmp_path / "runs" / "a" / "log.jsonl").touch()
    runs = read(RUN + '[[run]]\nname = "b"')
    with pytest.raises(TrainingError, match="holds a run with other settings"):
        check_files(runs, tmp_path / "runs")
    check_files(only(runs, ["b"]), tmp_path / "runs")
    assert json.loads((tmp_path / "runs" / "a" / "recipe.json").read_text()) == json.loads(
        json.dumps(to_mapping(Recipe()))
    )


def test_reading_a_study_leaves_nothing_behind(read, tmp_path):
    read(METHODS)
    assert not (tmp_path / "runs").exists()


def test_longer_circles_are_named():
    runs = [StudyRun(a, Recipe(), (b,)) for a, b in ("ab", "bc", "ca")]
    with pytest.raises(
        ConfigError, match=r"circle: (a -> c -> b -> a|c -> b -> a -> c|b -> a -> c -> b|a -> b -> c -> a)"
    ):
        in_order(runs, Path("x.toml"))


def test_merge_leaves_its_arguments_alone():
    settings = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merge(settings, {"a": {"b": 5}, "d": {"e": 1}}) == {"a": {"b": 5, "c": 2}, "d": {"e": 1}}
    assert settings == {"a": {"b": 1, "c": 2}, "d": 3}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_studies_of_the_repository_can_be_read(path, tmp_path):
    assert read_study(path, tmp_path)
