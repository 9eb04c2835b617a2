"""The verb `plan`: a packed captioner becomes the file that the native library runs without Python."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from laconic.cli.arguments import model_file
from laconic.cli.messages import show
from laconic.cli.paths import Overwrite, PlanFile


@dataclass(frozen=True)
class Plan:
    """Turns a packed captioner into a plan, which a program in C or a browser captions with (docs/ENGINE.md)."""

    file: Annotated[Path, Positional, arg(metavar="FILE")]
    """A packed captioner, or the folder of a finished run."""
    out: PlanFile
    """The file to write."""
    width: Literal["exact", "bfloat16"] = "exact"
    """How weights lie in the plan: as exactly as in FILE, or in half of the memory, rounded to 8 significant bits."""
    overwrite: Overwrite = False


def plan(options: Plan) -> None:
    """Writes the plan and says how large it is."""
    from laconic import store
    from laconic.runtime.planning import make_plan

    packed = store.load(model_file(options.file))
    packed.verify()
    made = make_plan(packed, width=options.width)
    made.save(options.out)
    operations, matrices = len(made.operations), len(made.matrices)
    show(f"{options.out}: {made.data.size:,} bytes, {matrices} matrices, {operations} operations")
