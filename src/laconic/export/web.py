"""The target `web`: a page that captions photos in the browser. It needs no server of its own and works offline.

The folder holds the page, and in a folder of its version's name all that the page loads: JavaScript, the WebAssembly
module and the plan, compressed. So nothing that a browser or a host has kept of another version is ever mixed in. Any
static host will do, below any address, since all addresses are relative.

    web/index.html start.js app.js       the page; what a browser must have; photos come in, captions go out
    web/captioning.js loading.js worker.js   the captioner, fetched, checked and run beside the page
    web/captioner.js photo.js resize.js  laconic.h from JavaScript; files to pixels; Pillow's resizing, byte for byte
    web/cards.js camera.js style.css     what is shown
    web/sw.js offline.js manifest.webmanifest icon.svg   the page kept on the device, and newer ones taken
"""

import base64
import gzip
import hashlib
import importlib
import json
import tempfile
from pathlib import Path

from laconic.captioner.engine import MEMORY, open_path
from laconic.captioner.inputs import reads_regions
from laconic.decode.search import Decoding, tokens_at_most
from laconic.errors import ConfigError, MissingError, not_installed, printable
from laconic.export.table import Options
from laconic.native import building
from laconic.runtime.native_path import NativePath
from laconic.runtime.plan import Plan
from laconic.runtime.planning import make_plan
from laconic.spec.packed import CaptionerSpec, read_spec
from laconic.store import Packed

SOURCES = Path(__file__).parent / "web"
KEEPER = "sw.js"  # knows the digests of all other files
PAGE = ("index.html", "icon.svg", "manifest.webmanifest", KEEPER)  # at the page's address; the rest has a version's
PLAN = "captioner.bin"  # gzip by content, not by name: hosts unpack files that are named so, or say that they are
VERSION_DIGITS = 12


def write(packed: Packed, folder: Path, options: Options) -> list[str]:
    """Fills a folder; lines that say how large the page is and how to open it.

    Raises:
        ConfigError: it reads region features, the engine has no rules for it, or beam or length are not possible.
        MissingError: the WebAssembly module is not there, and no compiler to make it.
    """
    spec = read_spec(packed)
    decoding = _decoding(spec, options)
    if reads_regions(spec):
        raise ConfigError(f"{packed.path}: reads region features, and a page has photos; give one that reads photos")
    plan = make_plan(packed, spec=spec, width=options.width or "exact")
    _check(plan, decoding, packed.path)
    module, compressed = wasm_module(), gzip.compress(plan.data.tobytes(), 9, mtime=0)
    settings = {
        "captioner": printable(packed.path.stem),
        "beam": decoding.beam,
        "maxLength": decoding.max_length,
        "module": _described(building.MODULE.name, module),
        "plan": _described(PLAN, compressed),
        "planBytes": plan.data.size,
    }
    written = _write_page(folder, {building.MODULE.name: module, PLAN: compressed}, settings)
    return [
        f"to the browser go {sum(written.values()):,} bytes, of which the captioner takes {len(compressed):,}",
        "to look at it: run python3 -m http.server in the folder, and open http://localhost:8000/",
    ]


def wasm_module() -> bytes:
    """The WebAssembly module that came with laconic or that `make wasm` made, else compiled now.

    MissingError where that is not possible.
    """
    if building.is_compiled_from_these(building.MODULE):
        return building.MODULE.read_bytes()
    try:
        importlib.import_module("ziglang")
    except ModuleNotFoundError as error:
        raise not_installed(error) or error from None
    with tempfile.TemporaryDirectory(prefix="laconic-", ignore_cleanup_errors=True) as folder:
        try:
            return building.build(building.TARGETS["wasm"], Path(folder) / building.MODULE.name).read_bytes()
        except building.FAILURES as error:
            raise MissingError(
                f"the page needs the WebAssembly module, and it cannot be compiled ({printable(error)}); install "
                "laconic from a wheel, which holds it"
            ) from error


def _decoding(spec: CaptionerSpec, options: Options) -> Decoding:
    """How the page searches. ConfigError where that is not possible."""
    usual = Decoding()
    beam = usual.beam if options.beam is None else options.beam
    decoding = Decoding(beam, usual.max_length if options.max_length is None else options.max_length)
    radix = spec.vocabulary.radix
    tokens_at_most(decoding.max_length, radix.digits if radix else 1)
    return decoding


def _check(plan: Plan, decoding: Decoding, file: Path) -> None:
    """ConfigError where a caption takes more memory than a page should; FormatError where the plan is not sound."""
    path = open_path(plan, str(file))
    if isinstance(path, NativePath) and not 0 < path.workspace_bytes(1, 0, decoding) <= MEMORY:
        raise ConfigError(
            f"{file}: a beam of {decoding.beam} and {decoding.max_length} words take more than {MEMORY:,} bytes, too "
            "much for a page; give less"
        )


def _write_page(folder: Path, captioner: dict[str, bytes], settings: dict[str, object]) -> dict[str, int]:
    """Writes the page around a captioner's files; the sizes of all that a browser loads."""
    sources = {path.name: path.read_bytes() for path in sorted(SOURCES.iterdir()) if path.is_file()}
    told = json.dumps(settings).replace("<", "\\u003c")  # no text ends the element that it lies in
    version = _version(told, sources | captioner)
    files = {f"{version}/{name}": data for name, data in (sources | captioner).items() if name not in PAGE}
    for name in PAGE:
        files[name] = _filled(sources[name], version=version, settings=told)
    digests = {name: _integrity(data) for name, data in files.items() if name != KEEPER}
    files[KEEPER] = _filled(files[KEEPER], files=json.dumps(digests, indent=2))
    (folder / version).mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return {name: len(data) for name, data in files.items()}


def _version(told: str, files: dict[str, bytes]) -> str:
    """The same for the same page, and another one for any other."""
    lines = [told, *(f"{name} {_integrity(data)}" for name, data in sorted(files.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:VERSION_DIGITS]


def _filled(text: bytes, **values: str) -> bytes:
    """A source with `@name@` replaced."""
    for name, value in values.items():
        text = text.replace(f"@{name}@".encode(), value.encode())
    return text


def _described(name: str, data: bytes) -> dict[str, object]:
    """What the page checks a file by."""
    return {"name": name, "bytes": len(data), "digest": _integrity(data)}


def _integrity(data: bytes) -> str:
    """A digest as browsers write it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(data).digest()).decode()}"
