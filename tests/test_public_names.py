"""The names users rely on, and that looking at them costs nothing."""

import subprocess
import sys

import pytest

import laconic

PROMISED = {
    "Pruner",
    "Quantizer",
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
