"""Writes the numbers of Markdown pages from the CSV files in results/, between markers.

    python benchmarks/tables.py README.md docs/RESULTS.md            # writes what has changed
    python benchmarks/tables.py --check README.md docs/RESULTS.md    # writes nothing; fails where something has

A number in a sentence (never at the beginning of a line, where Markdown ends the paragraph), and a table:

    It keeps <!--= results/demo.csv; {CIDEr[0] / CIDEr[1]:.1%}; pruned; dense -->72.5 %<!--/-->

    <!-- table: results/flickr8k.csv
    column captioner: *
    column CIDEr: {CIDEr:.1f}
    column packed: {half_bytes / 1e6:.2f} MB
    row dense: flickr8k_dense
    row pruned: recipe=flickr8k_smp95
    -->
    | captioner | ...
    <!-- /table -->

`{...}` holds a column of the CSV file, or two of them, or one and a number, with an operator between them, and a format
as Python has it. Which rows it is taken from stands after semicolons: the value of the first column, or conditions
`column=value & column=value`; of several rows joined by ` + ` it is the mean. `column[1]` takes the second of several
such groups. `*` is the label of the row. A table without `row` has one for each row of the file.
"""

import argparse
import csv
import operator
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NoReturn

Record = dict[str, str]
Group = list[Record]  # rows of a CSV file that are taken together

TABLE = re.compile(r"(<!-- table: (\S+)\n(.*?)-->\n)(.*?)(<!-- /table -->)", re.DOTALL)
NUMBER = re.compile(r"(<!--= ([^;]+); ([^;]+); ([^>]+?) -->)([^<]*)(<!--/-->)")
PLACE = re.compile(r"\{([^{}:]+)(?::([^{}]+))?\}")
TERM = re.compile(r"([A-Za-z_]\w*)(?:\[(\d+)\])?$")
OPERATORS = {"/": operator.truediv, "*": operator.mul, "+": operator.add, "-": operator.sub}


def filled(text: str, root: Path) -> str:
    """The page with its numbers as the CSV files below `root` have them. SystemExit where a marker is wrong."""

    def number(match: re.Match[str]) -> str:
        opening, file, template, groups, _, closing = match.groups()
        records = read(root / file)
        return opening + fill(template, select(records, groups.split("; "), opening)) + closing

    def table(match: re.Match[str]) -> str:
        opening, file, lines, _, closing = match.groups()
        return opening + make_table(read(root / file), lines.splitlines(), opening) + closing

    if re.search(r"^\s*<!--=", text, re.MULTILINE):
        refuse("<!--=", "begins a line, where Markdown ends the sentence; let a word stand before it")
    for pattern, opening in ((TABLE, "<!-- table"), (NUMBER, "<!--=")):
        if len(pattern.findall(text)) != text.count(opening):
            refuse(opening, f"{text.count(opening)} such markers, but {len(pattern.findall(text))} are whole")
    return NUMBER.sub(number, TABLE.sub(table, text))


def stripped(text: str) -> str:
    """The page without markers and what is between them."""
    return NUMBER.sub("", TABLE.sub("", text))


def make_table(records: Group, lines: Sequence[str], where: str) -> str:
    columns: list[tuple[str, str]] = []
    rows: list[tuple[str, list[Group]]] = []
    for line in lines:
        kind, _, rest = line.partition(" ")
        head, separator, body = rest.partition(": ")
        if not separator or kind not in ("column", "row"):
            refuse(where, f"{line!r} is neither 'column HEAD: TEMPLATE' nor 'row LABEL: ROWS'")
        if kind == "column":
            columns.append((head, body))
        else:
            rows.append((head, select(records, body.split("; "), where)))
    rows = rows or [(next(iter(record.values())), [[record]]) for record in records]
    marks = ["---:" if template != "*" else "---" for _, template in columns]
    cells = [
        [label if template == "*" else fill(template, groups) for _, template in columns] for label, groups in rows
    ]
    written = [[head for head, _ in columns], marks, *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in written)


def select(records: Group, groups: Sequence[str], where: str) -> list[Group]:
    """For each group the rows that it names, in its order."""
    return [[_one(records, name, where) for name in group.split(" + ")] for group in groups]


def _one(records: Group, name: str, where: str) -> Record:
    first = next(iter(records[0]))
    pairs = [part.partition("=") for part in name.strip().split(" & ")]
    wanted = {key if equals else first: value if equals else key for key, equals, value in pairs}
    found = [record for record in records if all(record.get(key) == value for key, value in wanted.items())]
    if len(found) != 1:
        refuse(where, f"{len(found)} rows are {name!r}; one is needed")
    return found[0]


def fill(template: str, groups: Sequence[Group]) -> str:
    """The template with each `{...}` replaced by what it comes to."""

    def place(match: re.Match[str]) -> str:
        words, form = match[1].split(" "), match[2]
        if form is None:
            return _texts(words[0], groups)[0]
        value = _number(words[0], groups)
        if len(words) == 3 and words[1] in OPERATORS:
            value = OPERATORS[words[1]](value, _number(words[2], groups))
        elif len(words) != 1:
            refuse(template, f"{match[1]!r} is neither a column nor 'column / column'")
        text = format(value, form)
        return text.removesuffix("%") + " %" if form.endswith("%") else text

    return PLACE.sub(place, template)


def _number(word: str, groups: Sequence[Group]) -> float:
    """A number as written, or the mean of a column over a group's rows."""
    return fmean(map(float, _texts(word, groups))) if TERM.match(word) else float(word)


def _texts(word: str, groups: Sequence[Group]) -> list[str]:
    term = TERM.match(word)
    if term is None:
        refuse(word, "is no column")
    index = int(term[2] or 0)
    if index >= len(groups) or term[1] not in groups[index][0]:
        refuse(word, f"there is no such column or group; columns: {', '.join(groups[0][0])}")
    return [record[term[1]] for record in groups[index]]


def read(path: Path) -> Group:
    with path.open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))


def refuse(where: str, what: str) -> NoReturn:
    raise SystemExit(f"{where.strip()}: {what}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "pages", type=Path, nargs="+", help="Markdown files; results/ is looked for in the current folder"
    )
    parser.add_argument("--check", action="store_true", help="writes nothing; fails where a number is not up to date")
    options = parser.parse_args(arguments)
    changed = []
    for page in options.pages:
        text = page.read_text(encoding="utf8")
        new = filled(text, Path())
        if new != text:
            changed.append(str(page))
            if not options.check:
                page.write_text(new, encoding="utf8")
    if changed:
        print(f"{'not up to date' if options.check else 'written'}: {', '.join(changed)}")
    return int(options.check and bool(changed))


if __name__ == "__main__":
    raise SystemExit(main())
