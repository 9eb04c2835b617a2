"""`laconic caption FILE --folder DIR --out OUT`: a folder of any size, by any number of processes."""

import hashlib
import shlex
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from laconic.cli.arguments import model_file, open_captioner
from laconic.cli.console import console_for, tell
from laconic.cli.messages import say
from laconic.cli.progress import stages
from laconic.errors import ConfigError, printable
from laconic.spec.model import REGIONS

if TYPE_CHECKING:
    from laconic.bulk.worker import Captioner
    from laconic.cli.caption import Cluster
    from laconic.decode.search import Decoding


def caption_folder(
    file: Path, folder: Path, out: Path, decoding: "Decoding", *, overwrite: bool, keep: bool, cluster: "Cluster"
) -> int:
    """Captions a folder, or takes part in it; 2 where no image could be captioned.

    `out` holds captions alone; the skipped files are counted, and listed beside it.
    """
    from laconic import store
    from laconic.bulk.job import Request, check_request
    from laconic.bulk.ray_job import caption_on_cluster
    from laconic.bulk.worker import caption_folder as take_part
    from laconic.config import to_mapping
    from laconic.spec.packed import read_spec

    source = model_file(file)
    spec = read_spec(store.load(source))
    if spec.model.encoder.name == REGIONS:
        raise ConfigError(f"{printable(file)}: captions region features; --folder is for photos")
    request = Request(folder, out, {"captioner": _digest(source), **to_mapping(decoding)}, keep)
    check_request(request, overwrite)
    console = console_for()
    load = partial(_load, source.absolute())
    try:
        with stages(console) as show:
            run = caption_on_cluster if cluster == "ray" else take_part
            found = run(request, decoding, load, lambda done, of: show("captioning", done, of, ""))
    except KeyboardInterrupt:
        say(f"stopped; what is done is kept, go on with: {shlex.join(['laconic', *sys.argv[1:]])}")
        return 128 + signal.SIGINT
    tell(console, f"{out}: {found['captions']:,} captions")
    if found["skipped"]:
        tell(console, f"{request.skipped}: {found['skipped']:,} files skipped, with the reasons")
    return 0 if found["captions"] else 2


def _load(path: Path) -> "Captioner":
    return open_captioner(path)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
