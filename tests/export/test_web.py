"""The folder of a page: complete, small, the same for the same captioner. In node its modules do what laconic does."""

import gzip
import hashlib
import importlib
import json
import re
import shutil
import subprocess
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import laconic
from laconic.captioner.ready_made import SMALLEST, packed_file
from laconic.cli import main
from laconic.data.images import read_image, resize
from laconic.decode.search import Decoding
from laconic.errors import ConfigError, MissingError
from laconic.export.table import MANIFEST, Options, export
from laconic.export.web import PLAN, wasm_module
from laconic.native import building
from laconic.runtime import rules_encoders
from laconic.runtime.plan import Plan
from laconic.spec.model import EncoderConfig

NODE = shutil.which("node")
PHOTOS = EncoderConfig("mobilenet_v1_025", 64, 16)
needs_module = pytest.mark.skipif(
    not building.is_compiled_from_these(building.MODULE), reason="no WebAssembly module of these sources; make wasm"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page of the captioner that comes with laconic."""
    folder = tmp_path_factory.mktemp("page") / "site"
    export(packed_file(SMALLEST), folder, "web")
    return folder


def version_of(site: Path) -> Path:
    """The folder of all that the page loads."""
    [version] = (path for path in site.iterdir() if path.is_dir())
    return version


def settings_of(site: Path) -> dict[str, object]:
    found = re.search(r'id="settings">(.*?)</script>', (site / "index.html").read_text(encoding="utf8"))
    return json.loads(found[1])


def digests_of(site: Path) -> dict[str, str]:
    """What the service worker keeps."""
    return json.loads(re.search(r"FILES = (\{.*?\});", (site / "sw.js").read_text(encoding="utf8"), re.DOTALL)[1])


def run(site: Path, folder: Path, *jobs: dict[str, object]) -> list[object]:
    """What test_web_run.mjs gives. The page's files are called .js, and node wants to be told that they are modules."""
    if NODE is None:
        pytest.skip("no node here")
    page = folder / "page"
    shutil.copytree(version_of(site), page)
    (page / "package.json").write_text('{"type": "module"}', encoding="utf8")
    command = [NODE, str(Path(__file__).with_name("test_web_run.mjs")), str(page), json.dumps(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# What is in the folder


@needs_module
def test_the_ready_made_captioner_is_small(site):
    """In bytes as they lie there, which any host sends: program, plan and page beside the packed file."""
    packed = packed_file(SMALLEST).stat().st_size
    assert packed < 1_000_000
    assert sum(path.stat().st_size for path in site.rglob("*") if path.name != MANIFEST) < 2.5 * packed


@needs_module
def test_every_file_is_kept_on_the_device(site):
    files = {path.relative_to(site).as_posix(): path.read_bytes() for path in site.rglob("*") if path.is_file()}
    digests = digests_of(site)
    assert set(files) == {*digests, "sw.js", MANIFEST}
    for name, digest in digests.items():
        assert b64decode(digest.removeprefix("sha256-")) == hashlib.sha256(files[name]).digest(), name
        assert not re.search(rb"@(version|settings|files)@", files[name]), name


@needs_module
def test_all_addresses_are_relative_and_none_is_foreign(site):
    for path in site.rglob("*"):
        if path.suffix in (".html", ".js", ".css", ".webmanifest", ".svg"):
            text = path.read_text(encoding="utf8")
            assert set(re.findall(r"https?://[\w.]+", text)) <= {"http://www.w3.org", "http://localhost"}, path
            assert not re.search(r"""(?:src|href|from|import|fetch|start_url|scope)["']?[=:(\s]+["']/""", text), path
    named = re.findall(r'(?:src|href)="([^"]+)"', (site / "index.html").read_text(encoding="utf8"))
    assert [name for name in named if not (site / name).is_file()] == []


@needs_module
def test_every_source_says_what_it_is(site):
    for path in site.rglob("*.js"):
        assert path.read_text(encoding="utf8").startswith("// "), path


@needs_module
def test_the_plan_is_that_of_the_captioner(random_captioner, tmp_path):
    file = random_captioner("up_down", PHOTOS)
    export(file, tmp_path / "a", "web")
    plan = Plan.of(gzip.decompress((version_of(tmp_path / "a") / PLAN).read_bytes()))
    assert np.array_equal(plan.data, laconic.load(file).plan.data)
    export(file, tmp_path / "b", "web", Options(width="bfloat16"))
    rounded = gzip.decompress((version_of(tmp_path / "b") / PLAN).read_bytes())
    assert len(rounded) < plan.data.size
    assert settings_of(tmp_path / "b")["planBytes"] == len(rounded)


@needs_module
def test_another_page_has_another_version(random_captioner, tmp_path):
    file = random_captioner("soft_attention", PHOTOS)
    versions = []
    for name, options in (("a", Options()), ("b", Options()), ("c", Options(beam=5)), ("d", Options(max_length=9))):
        export(file, tmp_path / name, "web", options)
        versions.append(version_of(tmp_path / name).name)
    assert versions[0] == versions[1]
    assert len(set(versions)) == 3
    assert settings_of(tmp_path / "a")["beam"] == Decoding().beam
    assert settings_of(tmp_path / "c")["beam"] == 5
    assert settings_of(tmp_path / "d")["maxLength"] == 9


@needs_module
def test_a_name_ends_no_element(random_captioner, tmp_path):
    name = "<!--<script>&amp;"
    shutil.copyfile(random_captioner("soft_attention", PHOTOS), tmp_path / f"{name}.safetensors")
    export(tmp_path / f"{name}.safetensors", tmp_path / "site", "web")
    assert "<!--<" not in (tmp_path / "site" / "index.html").read_text(encoding="utf8")
    assert settings_of(tmp_path / "site")["captioner"] == name


@needs_module
def test_the_command_line_says_how_to_open_it(tmp_path, capsys):
    assert main(["export", SMALLEST, str(tmp_path / "site"), "--to", "web", "--beam", "2"]) == 0
    said = capsys.readouterr().out
    assert "to the browser go 2," in said
    assert "http://localhost:8000/" in said
    assert main(["export", SMALLEST, str(tmp_path / "site"), "--to", "web"]) == 0  # over the earlier one
    assert len([path for path in (tmp_path / "site").iterdir() if path.is_dir()]) == 1


# What is refused


def test_captioners_of_regions_are_refused(random_captioner, tmp_path):
    file = random_captioner("up_down", EncoderConfig("regions", channels=12))
    with pytest.raises(ConfigError, match="reads region features, and a page has photos"):
        export(file, tmp_path / "site", "web")
    assert list(tmp_path.iterdir()) == []


def test_encoders_without_rules_are_refused(random_captioner, tmp_path, monkeypatch):
    monkeypatch.delitem(rules_encoders.RULES, PHOTOS.name)
    with pytest.raises(ConfigError, match=f"encoder '{PHOTOS.name}' has no rules in the engine"):
        export(random_captioner("up_down", PHOTOS), tmp_path / "site", "web")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(beam=0), "beam is 0"),
        (Options(beam=1001), "beam is 1001"),
        (Options(max_length=501), "max_length is 501"),
        (Options(beam=1000, max_length=500), "too much for a page"),
        (Options(int8=True), "--int8 is not for --to web"),
    ],
)
def test_options_that_cannot_be_are_refused(options, said, random_captioner, tmp_path):
    with pytest.raises(ConfigError, match=said):
        export(random_captioner("object_relation", PHOTOS), tmp_path / "site", "web", options)
    assert list(tmp_path.iterdir()) == []


# The WebAssembly module


@needs_module
def test_a_module_of_other_sources_is_not_taken(tmp_path, monkeypatch):
    module = tmp_path / "laconic.wasm"
    assert not building.is_compiled_from_these(module)
    module.write_bytes(building.MODULE.read_bytes())
    assert building.is_compiled_from_these(module)
    source = tmp_path / "engine.c"
    source.write_text("int other;", encoding="utf8")
    monkeypatch.setattr(building, "HERE", tmp_path)
    assert not building.is_compiled_from_these(module)


def test_without_a_module_or_a_compiler_it_says_what_to_install(tmp_path, monkeypatch, random_captioner):
    monkeypatch.setattr(building, "MODULE", tmp_path / "none.wasm")
    monkeypatch.setitem(importlib.sys.modules, "ziglang", None)
    with pytest.raises(MissingError, match=r"pip install 'laconic\[web\]'"):
        export(random_captioner("up_down", PHOTOS), tmp_path / "site", "web")
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "MODULE", tmp_path / "none.wasm")
    monkeypatch.setitem(importlib.sys.modules, "ziglang", importlib)  # which is not one that can be run
    with pytest.raises(MissingError, match="cannot be compiled"):
        wasm_module()


# What the page computes


SHAPES = [  # width, height, side
    (300, 200, 224),
    (224, 224, 224),
    (1, 1, 64),
    (223, 200, 224),
    (640, 481, 224),
    (37, 41, 64),
    (3000, 65, 64),
    (500, 375, 224),
]


@needs_module
def test_photos_are_shrunk_as_laconic_does(site, tmp_path):
    images = [np.random.default_rng(i).integers(0, 256, (h, w, 4), np.uint8) for i, (w, h, _) in enumerate(SHAPES)]
    jobs = []
    for i, ((width, height, side), image) in enumerate(zip(SHAPES, images, strict=True)):
        image.tofile(tmp_path / str(i))
        jobs.append({"shrink": str(tmp_path / str(i)), "width": width, "height": height, "side": side, "scale": 1})
    run(site, tmp_path, *jobs)
    for i, ((_, _, side), image) in enumerate(zip(SHAPES, images, strict=True)):
        found = np.fromfile(tmp_path / f"{i}.rgb", np.uint8).reshape(side, side, 3)
        np.testing.assert_array_equal(found, resize(np.ascontiguousarray(image[..., :3]), side))


@needs_module
def test_rows_are_shrunk_before_columns(site, tmp_path):
    """Of tall images, too, where Pillow 13 does it the other way round, which changes the last bit of some pixels."""
    image, side = np.random.default_rng(0).integers(0, 256, (900, 300, 4), np.uint8), 64
    image.tofile(tmp_path / "tall")
    run(site, tmp_path, {"shrink": str(tmp_path / "tall"), "width": 300, "height": 900, "side": side, "scale": 1})
    narrow = Image.fromarray(image[..., :3]).resize((side, 900), Image.Resampling.BILINEAR)
    found = np.fromfile(tmp_path / "tall.rgb", np.uint8).reshape(side, side, 3)
    np.testing.assert_array_equal(found, np.asarray(narrow.resize((side, side), Image.Resampling.BILINEAR)))


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth, as photos are."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 40 + 2, width // 40 + 2, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@needs_module
def test_large_jpegs_are_averaged_as_their_decoder_does(site, tmp_path):
    jobs, expected, scales = [], [], []
    for i, (width, height) in enumerate([(640, 480), (448, 448), (447, 600), (1030, 901), (2000, 1795)]):
        name = tmp_path / f"{i}.jpg"
        photo(width, height).save(name, quality=90)
        whole, draft = read_image(name), read_image(name, 224)
        scales.append(-(-height // draft.shape[0]))
        np.dstack([whole, whole[..., 0]]).tofile(tmp_path / str(i))
        sizes = {"width": width, "height": height, "side": 224, "scale": scales[-1]}
        jobs += [{"draft": [width, height, 224]}, {"shrink": str(tmp_path / str(i)), **sizes}]
        expected.append(resize(draft, 224))
    assert run(site, tmp_path, *jobs)[::2] == scales
    assert set(scales) == {1, 2, 4, 8}
    for i, pixels in enumerate(expected):
        found = np.fromfile(tmp_path / f"{i}.rgb", np.uint8).reshape(224, 224, 3)
        assert np.abs(found.astype(int) - pixels).mean() < 0.6, i


@needs_module
@pytest.mark.parametrize("captioner", ["soft_attention", "up_down", "object_relation", "aoanet"])
def test_captions_are_the_engines(captioner, random_captioner, tmp_path):
    file = random_captioner(captioner, PHOTOS)
    export(file, tmp_path / "site", "web")
    engine, pixels = laconic.load(file), np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    pixels.tofile(tmp_path / "pixels")
    [found] = run(
        tmp_path / "site", tmp_path, {"caption": str(tmp_path / "pixels"), "count": 3, "beam": 3, "maxLength": 8}
    )
    for captions, hypotheses in zip(found, engine.search(pixels, Decoding(3, 8)), strict=True):
        assert [one["text"] for one in captions] == [engine.vocabulary.decode(h.tokens) for h in hypotheses]
        np.testing.assert_allclose([one["score"] for one in captions], [h.score for h in hypotheses], rtol=1e-4)
