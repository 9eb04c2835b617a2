"""A report: finished runs in, a folder of CSV, Markdown, figures and a page out.

Each section is written from the runs that have what it shows; where none has, a line says so. Knows where things
go and in what order, not how they are computed or drawn.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from laconic.errors import ConfigError, DataError, LaconicError
from laconic.machine.files import write_text
from laconic.metrics import CaptionQuality, caption_quality
from laconic.report import figures
from laconic.report.drawing import drawing, write_figure
from laconic.report.gallery import Source, markdown_gallery, open_source, write_gallery
from laconic.report.methods import in_order, learned_masks, method_name
from laconic.report.runs import (
    FinishedRun,
    captioner_key,
    captioner_title,
    dense_counterpart,
    read_runs,
    run_folders,
)
from laconic.report.slim import CSV, slim_sections
from laconic.report.slim_runs import SlimRun, is_slim, read_slim_runs
from laconic.report.tables import (
    Row,
    ablation_table,
    ablations,
    cost_table,
    csv_text,
    percent,
    results_table,
    seeds_table,
    statistics_table,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MANY_METHODS = 2  # that make a comparison
TITLE = "# Report\n"  # of README.md, by which a folder is known to be a report's

CommandOf = Callable[[FinishedRun | SlimRun], str]


def write_report(folders: Sequence[Path], out: Path, command_of: CommandOf, *, gallery: bool = True) -> list[str]:
    """Writes runs.csv, README.md, figures/*.png and gallery*.html into `out`; gives lines on what was (not) done.

    Runs that slimmed a Transformer have sections and a CSV file of their own, slim.csv.

    Args:
        folders: of runs, or of folders of runs.
        command_of: the command that repeats a run; empty where unknown.
        gallery: shows photos with their captions, what the data set itself holds among them.

    Raises:
        ConfigError: where there is no finished run, or `out` cannot be written or holds something else than a report.
        MissingError: where matplotlib is not installed.
    """
    with drawing():
        found = run_folders(folders)
        slim = [folder for folder in found if is_slim(folder)]
        captioners = [folder for folder in found if folder not in slim]
        runs, notes = read_runs(captioners) if captioners or not slim else ([], [])
        slim_runs, more = read_slim_runs(slim) if slim else ([], [])
        try:
            _claim(out)
            (out / "figures").mkdir(parents=True, exist_ok=True)
            return _Report(runs, slim_runs, out, [*notes, *more]).write(command_of, gallery)
        except OSError as error:
            raise ConfigError(f"{out}: cannot be written ({error}); give --out another folder") from None


def _claim(out: Path) -> None:
    """Makes `out` a report's folder; ConfigError where it holds something that is not a report's."""
    readme = out / "README.md"
    if out.is_dir() and any(out.iterdir()):
        with readme.open("rb") if readme.is_file() else io.BytesIO() as file:
            if file.read(len(TITLE)) != TITLE.encode():
                raise ConfigError(f"{out}: holds something else than a report; give --out a new or an empty folder")
        return
    out.mkdir(parents=True, exist_ok=True)
    write_text(readme, TITLE)  # at once, so that a report that is interrupted can be written again


class _Report:
    """One report under way: sections so far, and remarks on what is left out."""

    def __init__(self, runs: Sequence[FinishedRun], slim: Sequence[SlimRun], out: Path, notes: list[str]) -> None:
        self.runs, self.slim, self.out, self.notes = runs, slim, out, notes
        self.sections: list[str] = []
        self.sources: dict[str, Source | None] = {}

    def write(self, command_of: CommandOf, gallery: bool) -> list[str]:
        done = []
        if self.runs:
            self._captioners(command_of, gallery)
            done.append(f"{len(self.runs)} runs, runs.csv")
        if self.slim:
            commands = {str(run.folder): command_of(run) for run in self.slim}
            for title, body in slim_sections(self.slim, self.out, commands, self.note):
                self.section(title, body)
            done.append(f"{len(self.slim)} runs of slim models, {CSV}")
        text = f"{TITLE}\n" + "\n".join(self.sections)
        if self.notes:
            text += "\n## Left out\n\n" + "".join(f"- {note}\n" for note in self.notes)
        write_text(self.out / "README.md", text)
        return [f"{self.out}: {', '.join(done)}, README.md, figures", *self.notes]

    def _captioners(self, command_of: CommandOf, gallery: bool) -> None:
        rows = [self._row(run, command_of(run)) for run in self.runs]
        write_text(self.out / "runs.csv", csv_text(rows))
        self.section("Results", results_table(rows) + "\nScores times 100, on validation images.\n")
        if repeated := seeds_table(rows):
            self.section("Seeds", "Runs that differ in their seed alone.\n\n" + repeated)
        for number, group in enumerate(self._groups(), 1):
            self._compare(group, number)
        self._ablations(rows)
        self.section("Cost", cost_table(rows) + COST_NOTE)
        self._look_for_small_dense()
        self.section("Captions", statistics_table(rows) + STATISTICS_NOTE)
        for number, group in enumerate(self._groups() if gallery else [], 1):
            self._gallery(group, number)

    def section(self, title: str, text: str) -> None:
        self.sections.append(f"## {title}\n\n{text}")

    # Rows

    def _row(self, run: FinishedRun, command: str) -> Row:
        dense = dense_counterpart(run, self.runs)
        if dense is None:
            self.note(f"share of dense of {run.name}: no dense run of {self._title(run)}")
        if run.operations is None:
            self.note(f"operations of {run.name}: the version of laconic that trained it did not count them")
        return Row(run, run if run.is_dense and not run.distilled else dense, self._quality(run), command)

    def _quality(self, run: FinishedRun) -> CaptionQuality | None:
        """As the run wrote it down; of older runs from their captions, where these were kept."""
        if run.quality is not None:
            return run.quality
        if run.captions is None:
            self.note(f"captions of {run.name}: neither they nor what they are like was kept")
            return None
        source = self._source(run)
        return caption_quality(list(run.captions.values()), None if source is None else source.training)

    def _source(self, run: FinishedRun) -> Source | None:
        key = repr(sorted(run.recipe["data"].items()))
        if key not in self.sources:
            try:
                self.sources[key] = open_source(run)
            except (DataError, ConfigError) as error:
                self.note(f"photos and training captions of {run.name}: {error}")
                self.sources[key] = None
        return self.sources[key]

    def _title(self, run: FinishedRun) -> str:
        return captioner_title(run, self.runs)

    def note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)

    # Comparisons of methods on one captioner

    def _groups(self) -> list[list[FinishedRun]]:
        """Pruned runs of one captioner, one budget and one pruned part, in reading order."""
        groups: dict[tuple[str, int, str, int, tuple[str, ...]], list[FinishedRun]] = {}
        for run in self.runs:
            if not run.is_dense:
                key = (captioner_title(run), -run.weights(), captioner_key(run), run.budget, tuple(run.parts))
                groups.setdefault(key, []).append(run)
        order = in_order([method_name(run) for run in self.runs])
        return [
            sorted(group, key=lambda run: (order.index(method_name(run)), run.sparsity, run.name))
            for _, group in sorted(groups.items())
        ]

    def _compare(self, group: list[FinishedRun], number: int) -> None:
        denses = [dense for run in group if (dense := dense_counterpart(run, self.runs)) is not None]
        dense = max(denses, key=lambda run: (run.cider, run.name), default=None)  # of all seeds, as are the pruned ones
        title = f"{self._title(group[0])}; {' and '.join(group[0].parts)} pruned"
        images = [self._draw(f"cider_{number}", figures.cider_figure(group, dense, title), "CIDEr against non-zeros")]
        learned = [run for run in group if run.pruning["method"] == "supermask" and run.curve("gate_mean")]
        if learned:
            best = figures.best_by_sparsity(learned)
            some = [*([dense] if dense and dense.loss else []), *best][: figures.MOST_CURVES]
            images.append(self._draw(f"training_{number}", figures.progression_figure(some), "Training progression"))
        else:
            self.note(f"training progression of {title}: no run with learned masks and a log")
        level, alike = most_compared(group)
        if len(alike) >= MANY_METHODS or learned:
            images.append(self._draw(f"layers_{number}", figures.layers_figure(alike, level), "Weights kept by layer"))
            images += self._densities([*([dense] if dense else []), *alike], level, number)
        else:
            self.note(f"layers and weights of {title}: fewer than two methods at one sparsity")
        self.section(title, "\n".join(images))

    def _densities(self, runs: list[FinishedRun], level: float, number: int) -> list[str]:
        """The figure of the weights themselves, of those runs whose packed files are there."""
        parts = runs[-1].parts
        there = []
        for run in runs:
            try:
                there.append((run, figures.non_zero_weights(run, parts)))
            except LaconicError as error:
                self.note(f"weights of {run.name}: {error if run.model.exists() else f'no {run.model}'}")
        if not there:
            return []
        title = f"weights of the {' and '.join(parts)}, {percent(level)} pruned"
        return [self._draw(f"weights_{number}", figures.densities_figure(there, title), "Non-zero weights")]

    def _draw(self, name: str, figure: "Figure", alternative: str) -> str:
        write_figure(figure, self.out / "figures" / f"{name}.png")
        return f"![{alternative}](figures/{name}.png)\n"

    def _ablations(self, rows: Sequence[Row]) -> None:
        found = ablations(rows)
        if found:
            tables = [f"{ablation_table(ablation)}" for ablation in found]
            self.section("Ablations", "Runs that differ in one option alone.\n\n" + "\n".join(tables))
        else:
            self.note("ablations: no two runs differ in one option alone")

    def _look_for_small_dense(self) -> None:
        if len({run.weights() for run in self.runs if run.is_dense}) < 2:
            self.note("large and sparse against small and dense: no dense runs of different size")

    # Photos

    def _gallery(self, group: list[FinishedRun], number: int) -> None:
        learned = [run for run in group if learned_masks(run)] or group
        sparsest = max(learned, key=lambda run: (run.sparsity, run.cider, run.name))
        dense = dense_counterpart(sparsest, self.runs)
        if dense is None:
            self.note(f"gallery of {self._title(sparsest)}: no dense run to compare with")
            return
        silent = [run for run in [dense, *learned] if run.captions is None]
        for run in silent:
            self.note(f"gallery of {self._title(sparsest)}: the captions of {run.name} were not kept")
        if dense in silent or sparsest in silent:
            return
        source = self._source(dense)
        chosen = sorted((run for run in learned if run not in silent), key=lambda run: (run.sparsity, run.name))
        text = markdown_gallery([dense, *chosen], source)
        if source is not None:
            page = f"gallery_{number}.html"
            try:
                write_gallery(dense, sparsest, source, self.out / page)
                text = f"With photos: [{page}]({page}), {dense.name} and {sparsest.name}.\n\n{text}"
            except DataError as error:
                self.note(f"gallery of {self._title(dense)}: {error}")
        self.section(f"Gallery: {self._title(dense)}", text)


def most_compared(group: Sequence[FinishedRun]) -> tuple[float, list[FinishedRun]]:
    """The sparsity at which most methods were tried, the highest of these; and the best run of each method."""
    levels: dict[float, dict[str, FinishedRun]] = {}
    for run in sorted(group, key=lambda run: (run.cider, run.name)):
        levels.setdefault(run.sparsity, {})[method_name(run)] = run
    level = max(levels, key=lambda sparsity: (len(levels[sparsity]), sparsity))
    best = levels[level]
    return level, [best[method] for method in in_order(list(best))]


COST_NOTE = """
Operations are those of one image and a greedy caption of nine words: a multiply-add is 2, matrix products and
convolutions count, zero weights do not. Counted on the models as they ran.
"""
STATISTICS_NOTE = """
Of the captions of the validation images. A caption that ends in a function word, such as "a" or "with", was broken off.
"""
