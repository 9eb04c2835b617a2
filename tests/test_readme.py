"""Pages for readers: numbers are those of the CSV files, commands can be given, and files that they name exist."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from laconic.cli import VERBS
from laconic.cli.arguments import parse

ROOT = Path(__file__).parents[1]
NUMBERED = ("README.md", "docs/RESULTS.md", "docs/ENGINE.md")
PAGES = (
    *NUMBERED,
    "CHANGELOG.md",
    "benchmarks/README.md",
    *(f"docs/{n}.md" for n in ("DATA", "EXTEND", "FOLDERS", "LOG", "METHODS", "SERVING", "UPOP")),
    *(f"docs/log/{path.name}" for path in sorted((ROOT / "docs" / "log").glob("*.md"))),
)
TEXTS = {page: (ROOT / page).read_text(encoding="utf8") for page in PAGES}
README = TEXTS["README.md"]
GUIDES = ("README.md", "docs/RESULTS.md", "docs/DATA.md", "benchmarks/README.md")  # others quote parts of commands

spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tables)

RESULT = re.compile(r"\d[\d,]*\.\d+(?: %)?|\d[\d,]* ?(?:%|MB|bytes|minutes|seconds|x\b)|\d{1,3}(?:,\d{3})+")
SETTINGS = {"80 %", "90 %", "95 %", "97.5 %", "1,000", "5,000"}  # what was asked for, not what came out
VERSIONS = {"3.11", "2.0"}


def test_length():
    assert README.count("\n") <= 150
    assert TEXTS["docs/LOG.md"].count("\n") <= 250


@pytest.mark.parametrize("page", [*NUMBERED, "docs/UPOP.md"])
def test_every_number_between_markers_is_that_of_its_file(page):
    assert tables.filled(TEXTS[page], ROOT) == TEXTS[page], f"run python benchmarks/tables.py {page}"


@pytest.mark.parametrize("page", NUMBERED)
def test_no_result_stands_outside_of_markers(page):
    prose = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", tables.stripped(TEXTS[page]), flags=re.DOTALL)
    assert set(RESULT.findall(prose)) - SETTINGS - VERSIONS == set()


def commands(text: str) -> set[str]:
    """Whole commands of a page, in code blocks or sentences; none with a place to fill in."""
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0] for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return {
        line.strip() for line in lines if re.match(r"laconic [a-z]+ \S", line) and not re.search(r"\b[A-Z]{3,}\b", line)
    }


@pytest.mark.parametrize("command", sorted(set().union(*(commands(TEXTS[page]) for page in GUIDES))))
def test_commands_can_be_given_as_they_stand(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, name, *words = shlex.split(command)
    assert parse(name, VERBS[name], words) is not None


@pytest.mark.parametrize("page", PAGES)
def test_files_it_names_exist(page):
    named = re.findall(r"\b((?:docs|results)/[\w./]+\w|(?:[a-z]+/)+\w+\.(?:py|c|toml))\b", TEXTS[page])
    linked = re.findall(r"\]\(([^):]+)\)", TEXTS[page])
    there = [[ROOT / name, ROOT / "src" / "laconic" / name] for name in named]  # modules go without src/laconic
    there += [[(ROOT / page).parent / name] for name in linked]
    assert [str(paths[0]) for paths in there if not any(path.exists() for path in paths)] == []


def test_what_is_where():
    (tree,) = re.findall(r"^```\nsrc/laconic/\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    named = re.findall(r"(?:^ +|\()(\w+)/(?= |\))", tree, re.MULTILINE)  # at the beginning of a line, or in parentheses
    folders = {path.name for path in (ROOT / "src/laconic").rglob("*") if path.is_dir() and path.name != "__pycache__"}
    assert set(named) >= folders - {"laconic"}
    assert set(named) <= folders
    files = re.findall(r"\b\w+\.py\b", tree)
    assert [name for name in files if not (ROOT / "src/laconic" / name).is_file()] == []


# What fills the pages


ROWS = "run,CIDEr,bytes\ndense,50.04,4000000\nseed1,45.0,1000\nseed2,47.0,1000\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "a.csv").write_text(ROWS)
    return tmp_path


@pytest.mark.parametrize(
    ("marker", "shown"),
    [
        ("is <!--= a.csv; {CIDEr:.1f}; dense -->?<!--/-->", "50.0"),
        ("is <!--= a.csv; {CIDEr:.1f}; seed1 + seed2 -->?<!--/-->", "46.0"),
        ("is <!--= a.csv; {CIDEr[0] / CIDEr[1]:.1%}; seed1 + seed2; run=dense -->?<!--/-->", "91.9 %"),
        ("is <!--= a.csv; {bytes / 1e6:.2f} MB; dense -->?<!--/-->", "4.00 MB"),
        ("is <!--= a.csv; {bytes:,.0f}; run=seed1 & bytes=1000 -->?<!--/-->", "1,000"),
        ("is <!--= a.csv; {run}; dense -->?<!--/-->", "dense"),
    ],
)
def test_a_number_in_a_sentence(marker, shown, root):
    text = f"It {marker}."
    assert tables.filled(text, root) == text.replace("?", shown)
    assert tables.stripped(text) == "It is ."


def test_a_table(root):
    head = "<!-- table: a.csv\ncolumn run: *\ncolumn CIDEr: {CIDEr:.1f}\n"
    table = "| run | CIDEr |\n| --- | ---: |\n"
    every = f"{head}-->\nold\n<!-- /table -->\n"
    rows = "| dense | 50.0 |\n| seed1 | 45.0 |\n| seed2 | 47.0 |\n"
    assert tables.filled(every, root) == every.replace("old\n", table + rows)
    some = f"{head}row both: seed1 + seed2\n-->\n<!-- /table -->\n"
    assert tables.filled(some, root) == some.replace("<!-- /", f"{table}| both | 46.0 |\n<!-- /")


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("It is\n<!--= a.csv; {CIDEr:.1f}; dense -->?<!--/-->", "begins a line"),
        ("is <!--= a.csv; {CIDEr:.1f}; nobody -->?<!--/-->", "0 rows are 'nobody'"),
        ("is <!--= a.csv; {CIDEr:.1f}; bytes=1000 -->?<!--/-->", "2 rows are"),
        ("is <!--= a.csv; {BLEU:.1f}; dense -->?<!--/-->", "no such column"),
        ("is <!--= a.csv; {CIDEr[1]:.1f}; dense -->?<!--/-->", "no such column or group"),
        ("is <!--= a.csv; {CIDEr % bytes:.1f}; dense -->?<!--/-->", "neither a column nor"),
        ("is <!--= a.csv {CIDEr:.1f} dense -->?<!--/-->", "1 such markers, but 0 are whole"),
        ("<!-- table: a.csv\ncolumn run: *\n-->\n", "1 such markers, but 0 are whole"),
        ("<!-- table: a.csv\ncolumns run\n-->\n<!-- /table -->", "neither 'column HEAD"),
    ],
)
def test_a_wrong_marker_is_refused(marker, said, root):
    with pytest.raises(SystemExit, match=re.escape(said)):
        tables.filled(marker, root)


def test_the_command_writes_or_checks(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    page = root / "page.md"
    page.write_text("is <!--= a.csv; {CIDEr:.1f}; dense -->1<!--/-->")
    assert tables.main(["--check", "page.md"]) == 1
    assert "not up to date: page.md" in capsys.readouterr().out
    assert tables.main(["page.md"]) == 0
    assert page.read_text() == "is <!--= a.csv; {CIDEr:.1f}; dense -->50.0<!--/-->"
    assert tables.main(["--check", "page.md"]) == 0
