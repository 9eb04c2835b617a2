"""The names users rely on, and that looking at them costs nothing."""

import subprocess
import sys
from typing import get_args, get_type_hints

import pytest

import laconic
from laconic.cli.convert import Convert
from laconic.cli.pack import Pack
from laconic.cli.scores import Evaluate, Score
from laconic.metrics import METRICS, STANDARD
from laconic.recipes.methods import METHODS
from laconic.recipes.recipe import Pruning
from laconic.store.values import VALUES

PROMISED = {
    "Pruner",
    "Supermask",
    "Magnitude",
    "Snip",
    "store.save",
    "store.load",
    "store.inspect",
    "metrics.tokenize",
    "metrics.evaluate",
}


def test_all_and_dir_agree():
    assert sorted(laconic.__all__) == list(laconic.__all__)
    assert set(dir(laconic)) - {"__version__"} == set(laconic.__all__)


@pytest.mark.parametrize("name", laconic.__all__)
def test_every_name_resolves_to_what_its_module_defines(name):
    value = getattr(laconic, name)
    assert value.__name__ in (name, f"laconic.{name}")
    assert value.__doc__


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_promised_names(name):
    value = laconic
    for part in name.split("."):
        value = getattr(value, part)
    assert callable(value)


def test_unknown_names_are_attribute_errors():
    assert not hasattr(laconic, "Prunner")
    with pytest.raises(ImportError):
        exec("from laconic import Prunner")


@pytest.mark.parametrize(
    "code",
    [
        "import laconic; dir(laconic); laconic.__version__",
        "from laconic import Decoding, Vocabulary, LaconicError, data, metrics, store",
    ],
)
def test_torch_is_not_imported_before_it_is_needed(code):
    check = f"{code}\nimport sys\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_choices_of_options_are_the_rows_of_the_tables():
    """docs/EXTEND.md: who adds a row learns here which type lists it."""
    choices = {
        "Pruning.method": (get_type_hints(Pruning)["method"], {"none", *METHODS}),
        "pack --values": (get_type_hints(Pack)["values"], set(VALUES)),
        "convert --values": (get_type_hints(Convert)["values"], set(VALUES)),
        "evaluate --metrics": (get_args(get_type_hints(Evaluate)["metrics"])[0], METRICS.keys() - set(STANDARD)),
        "score --metrics": (get_args(get_type_hints(Score)["metrics"])[0], METRICS.keys() - set(STANDARD)),
    }
    for option, (type_, rows) in choices.items():
        assert set(get_args(type_)) == set(rows), option
