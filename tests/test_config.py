"""Dataclasses from TOML and back: errors that name the key, stable digests, readable differences."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.config import differences, digest, expand, from_mapping, read_toml, to_mapping
from laconic.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    kind: Literal["lstm", "gru"] = "lstm"
    limit: float | None = None


@dataclass(frozen=True)
class Outer:
    name: str
    steps: int = 3
    quiet: bool = False
    sizes: tuple[int, ...] = (1, 2)
    options: dict[str, Any] = field(default_factory=dict)
    inner: Inner = Inner()


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf8")
    return path


def test_reads_every_kind_of_value(tmp_path):
    text = """
    name = "über"
    quiet = true
    sizes = [4, 5, 6]
    [options]
    cell = "gru"
    [inner]
    rate = 2
    limit = 0.5
    """
    found = read_toml(write(tmp_path, text), Outer)
    expected = Outer("über", 3, True, (4, 5, 6), {"cell": "gru"}, Inner(2.0, "lstm", 0.5))
    assert found == expected
    assert isinstance(found.inner.rate, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = 3", "key 'name' is missing"),
        ("name = 'a'\nstep = 3", "unknown key 'step'; did you mean 'steps'?"),
        ("name = 'a'\nzzz = 3", "unknown key 'zzz'; known keys: name, steps, quiet"),
        ("name = 'a'\ninner.rat = 3", "inner: unknown key 'rat'; did you mean 'rate'?"),
        ("name = 3", "name = 3; expected str"),
        ("name = 'a'\nsteps = 1.5", "steps = 1.5; expected int"),
        ("name = 'a'\nsteps = true", "steps = True; expected int"),
        ("name = 'a'\nquiet = 1", "quiet = 1; expected bool"),
        ("name = 'a'\ninner.rate = true", "inner: rate = True; expected float"),
        ("name = 'a'\ninner.rate = '1'", "inner: rate = '1'; expected float"),
        ("name = 'a'\ninner.limit = 'x'", "inner: limit = 'x'; expected float"),
        ("name = 'a'\ninner.kind = 'rnn'", "kind = 'rnn'; choose one of 'lstm', 'gru'"),
        ("name = 'a'\ninner.kind = []", "kind = []; choose one of 'lstm', 'gru'"),
        ("name = 'a'\nsizes = 3", "sizes = 3; expected a list"),
        ("name = 'a'\nsizes = [1, 'x']", "sizes = 'x'; expected int"),
        ("name = 'a'\noptions = 'x'", "options = 'x'; expected a table"),
        ("name = 'a'\ninner = 3", "inner: expected a table, got 3"),
        ("name = ", "not valid TOML"),
        ("name = 'a'\nname = 'b'", "not valid TOML"),
    ],
)
def test_errors_name_file_and_key(text, message, tmp_path):
    with pytest.raises(ConfigError) as raised:
        read_toml(write(tmp_path, text), Outer)
    assert "recipe.toml: " in str(raised.value)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_files_that_are_no_recipes(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml: no such file"):
        read_toml(tmp_path / "absent.toml", Outer)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path, Outer)
    (tmp_path / "photo.toml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ConfigError, match=r"photo\.toml: cannot be read"):
        read_toml(tmp_path / "photo.toml", Outer)


@given(
    st.builds(
        Outer,
        st.text(),
        st.integers(),
        st.booleans(),
        st.lists(st.integers()).map(tuple),
        st.dictionaries(st.text(), st.integers() | st.text()),
        st.builds(Inner, st.floats(allow_nan=False), st.sampled_from(["lstm", "gru"]), st.none() | st.floats(0, 1)),
    )
)
def test_round_trip(config):
    assert from_mapping(to_mapping(config), Outer, "here") == config


def test_mapping_holds_what_json_holds():
    assert to_mapping(Outer("a"))["sizes"] == [1, 2]


def test_digest_is_stable_across_processes_and_versions():
    # caches and runs on users' disks are named by it
    assert digest(1, {"b": [1, 2.5, None], "a": "é"}, True) == "9adf915cfdd8d392"


def test_digest_sees_values_not_the_order_of_keys():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert len({digest(*values) for values in [(1,), ("1",), (1.5,), (1, 1), ([1, 1],), (None,)]}) == 6


def test_differences_name_the_path_of_each_value():
    old = {"a": 1, "b": {"c": 2, "d": 3}, "gone": 5}
    new = {"a": 1, "b": {"c": 4, "d": 3}, "fresh": 6}
    assert differences(old, new) == ["b.c: 2 -> 4", "fresh: None -> 6", "gone: 5 -> None"]
    assert differences(new, new) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"name = 'a'\nsteps = {'1' * 5000}", "an integer has too many digits"),
        (f"name = 'a'\nsteps = 0x{'1' * 5000}", "an integer has more than 128 bits"),
        (f"name = 'a'\ninner.rate = {'1' * 400}", "an integer has more than 128 bits"),
        (f"options = {'[' * 5000}{']' * 5000}", "tables or lists lie more than 20 deep"),
        (f"options = {'{a=' * 50}1{'}' * 50}", "tables or lists lie more than 20 deep"),
        (f"{'.'.join('a' * 90)} = 1", "tables or lists lie more than 20 deep"),
        (f"{'.'.join('a' * 200_000)} = 1", "a key has more than 100 dots"),
        (f"[{'.'.join('a' * 200_000)}]", "a key has more than 100 dots"),
        ("#" * (1 << 20) + "#", "larger than 1,048,576 bytes"),
    ],
    ids=range(9),
)
def test_what_no_person_wrote_is_refused_in_one_line(text, message, tmp_path):
    with pytest.raises(ConfigError, match=rf"recipe\.toml: .*{message}"):
        read_toml(write(tmp_path, text), Outer)


def test_dots_of_comments_and_texts_are_no_keys(tmp_path):
    dots = "." * 500
    assert read_toml(write(tmp_path, f"# {dots}\nname = 'a'\n"), Outer) == Outer("a")


@dataclass(frozen=True)
class Moved:
    options: dict[str, Any] = field(default_factory=dict)
    MOVED: ClassVar[dict[str, str]] = {"rate": "options.rate"}


def test_a_key_that_has_moved_is_named_with_its_place():
    with pytest.raises(ConfigError, match=r"^run 'a': pruning\.rate is now pruning\.options\.rate$"):
        from_mapping({"rate": 1.0}, Moved, "run 'a': pruning")


@pytest.mark.parametrize("path", ["~nosuchuser/x", "~nosuchuser", "a\0b"])
def test_paths_that_cannot_be(path):
    with pytest.raises(ConfigError, match=r"there is no user 'nosuchuser' here|no path can hold a NUL"):
        expand(path)


def test_paths_expand_home_and_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SOMEWHERE", "/data")
    monkeypatch.setenv("LACONIC_SHARED", "/reference")
    assert expand("~/x") == tmp_path / "x"
    assert expand("$SOMEWHERE/x") == Path("/data/x")
    assert expand("$LACONIC_SHARED/x") == expand("${LACONIC_SHARED}/x") == Path("/reference/x")
    monkeypatch.delenv("LACONIC_SHARED")
    assert expand("$LACONIC_SHARED/x") == Path("../shared/x")
