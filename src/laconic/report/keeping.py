"""What is kept of a finished run under version control: a few kilobytes that a report can be written from.

Recipe and result as JSON with a line for each of their tables, the log compressed, captions compressed or left out.
Equal runs give equal bytes. Knows nothing of what a report makes of them.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from laconic.errors import ConfigError
from laconic.machine.files import write_text
from laconic.metrics import caption_quality
from laconic.report.files import read_text, stored, write_compressed
from laconic.report.gallery import open_source
from laconic.report.runs import FinishedRun, read_runs
from laconic.report.slim_runs import TIMING, is_slim, read_slim_runs
from laconic.spec.manifest import CAPTIONS, LOG, RECIPE, RESULT


def keep(folder: Path, out: Path, *, captions: bool = False) -> None:
    """Writes into `out` what is kept of the run in `folder`; captions only where asked for.

    Of a run that slimmed a Transformer, recipe, result and measured latency.

    Raises:
        ConfigError, DataError: where the folder holds no finished run; where its captions are to be kept but are gone;
            or where its result does not say what they are like, and the captions or the data set are gone.
        OSError: where `out` cannot be written.
    """
    if is_slim(folder):
        _keep_slim(folder, out, captions)
        return
    found, notes = read_runs([folder])
    if notes or len(found) > 1:
        raise ConfigError("; ".join(notes) or f"{folder}: {len(found)} runs; give the folder of one")
    (run,) = found
    if captions and run.captions is None:
        raise ConfigError(f"{folder}: its captions were not kept; leave them out here, too")
    result = {**run.result, "quality": _quality(run)}
    out.mkdir(parents=True, exist_ok=True)
    if (log := stored(folder / LOG)) is not None:
        write_compressed(out / f"{LOG}.gz", read_text(log))
    if captions and run.captions is not None:
        rows = [json.dumps({"image_id": key, "caption": caption}) for key, caption in run.captions.items()]
        write_compressed(out / f"{CAPTIONS}.gz", "[\n" + ",\n".join(rows) + "\n]\n")
    write_text(out / RECIPE, _by_lines(run.recipe))
    write_text(out / RESULT, _by_lines(result))


def _keep_slim(folder: Path, out: Path, captions: bool) -> None:
    if captions:
        raise ConfigError(f"{folder}: a run that slims keeps no captions; leave them out")
    found, notes = read_slim_runs([folder])
    if notes or len(found) != 1:
        raise ConfigError("; ".join(notes) or f"{folder}: holds no finished run")
    (run,) = found
    out.mkdir(parents=True, exist_ok=True)
    for name, table in ((RECIPE, run.recipe), (RESULT, run.result), (TIMING, run.timing)):
        if table:
            write_text(out / name, _by_lines(table))


def _quality(run: FinishedRun) -> dict[str, Any]:
    if run.quality is not None:
        return asdict(run.quality)
    if run.captions is None:
        raise ConfigError(f"{run.folder}: neither its captions nor what they are like was kept; train it again")
    return asdict(caption_quality(list(run.captions.values()), open_source(run).training))


def _by_lines(table: Mapping[str, Any]) -> str:
    """JSON with a line for each key of the table."""
    return "{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in table.items()) + "\n}\n"
