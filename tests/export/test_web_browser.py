"""The exported page in Chromium: it says what the engine says, keeps photos to itself, works offline, and says what is
wrong."""

import base64
import contextlib
import re
import runpy
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import laconic
from laconic.captioner.ready_made import SMALLEST, packed_file
from laconic.export.table import Options, export
from laconic.export.web import PLAN
from laconic.native import building

pytest.importorskip("playwright", reason="playwright is not installed")
BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "browser.py"), run_name="browser")
chromium, find_chromium, served, captions_of = (
    BENCHMARK[name] for name in ("chromium", "find_chromium", "served", "captions_of")
)
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
PATIENCE = 60_000  # milliseconds
pytestmark = [
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium here"),
    pytest.mark.skipif(
        not building.is_compiled_from_these(building.MODULE), reason="no WebAssembly module of these sources; make wasm"
    ),
]


@pytest.fixture(scope="module")
def browser():
    with chromium(None, *CAMERA) as found:
        yield found


@dataclass
class Visit:
    """A browser that has seen no page of ours, at an export that lies below a host's root."""

    address: str
    folder: Path
    context: Any
    page: Any
    said: list[str] = field(default_factory=list)  # in the console
    asked: set[str] = field(default_factory=set)  # addresses

    def open(self) -> Any:
        self.page.goto(self.address)
        return self.page

    def wait(self, selector: str) -> str:
        """What an element says once it can be seen."""
        return self.page.wait_for_selector(selector, timeout=PATIENCE).text_content()

    @property
    def version(self) -> Path:
        [found] = (path for path in self.folder.iterdir() if path.is_dir())
        return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """The page of the captioner that comes with laconic."""
    folder = tmp_path_factory.mktemp("exported") / "site"
    export(packed_file(SMALLEST), folder, "web")
    return folder


@pytest.fixture
def visit(browser, exported, tmp_path) -> Iterator[Visit]:
    folder = tmp_path / "root" / "some" / "where"
    shutil.copytree(exported, folder)
    with served(tmp_path / "root") as root, contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        found = Visit(f"{root}some/where/", folder, context, page)
        page.on("console", lambda message: found.said.append(message.text))
        page.on("pageerror", lambda error: found.said.append(str(error)))
        context.on("request", lambda request: found.asked.add(request.url))
        yield found


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Path]:
    """Of several kinds: a phone's, lying on its side; a large one; one with transparent pixels; a grey one."""
    folder = tmp_path_factory.mktemp("photos")
    turned = Image.Exif()
    turned[0x0112] = 6
    blots(900, 672, 0).save(folder / "turned.jpg", exif=turned, quality=95)
    blots(2400, 1800, 1).save(folder / "large.jpg", quality=90)
    clear = blots(600, 401, 2).convert("RGBA")
    clear.putalpha(blots(600, 401, 3).convert("L"))
    clear.save(folder / "clear.png")
    blots(320, 500, 4).convert("L").save(folder / "grey.webp", lossless=True)
    return sorted(folder.iterdir())


def blots(width: int, height: int, seed: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (height // 60 + 2, width // 60 + 2, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def give(page, how: str, photo: Path) -> None:
    """Drops a photo on the page, or pastes it."""
    page.evaluate(
        """([how, text, name]) => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const data = new DataTransfer();
            if (name) data.items.add(new File([bytes], name));
            const made = { drop: () => new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }),
                           paste: () => new ClipboardEvent("paste", { clipboardData: data, bubbles: true }) };
            document.body.dispatchEvent(made[how]());
        }""",
        [how, base64.b64encode(photo.read_bytes() if photo.name else b"").decode(), photo.name],
    )


def test_it_says_what_the_engine_says_and_tells_nobody(visit, photos):
    page = visit.open()
    assert captions_of(page, photos) == laconic.load().caption(photos)
    assert "works offline" in visit.wait("#facts:has-text('offline')")
    assert visit.said == []
    assert {url for url in visit.asked if not url.startswith((visit.address, "blob:"))} == set()
    best = page.locator(".card").first
    assert best.locator("details li").count() == 2
    assert re.fullmatch(r"\d+ ms", best.locator(".time").text_content())
    assert best.locator("img").get_attribute("alt") == best.locator(".caption").text_content()


def test_the_page_may_talk_to_its_own_host_alone(visit):
    refused = visit.open().evaluate(
        """() => new Promise((done) => {
            addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
            fetch("http://localhost:1/").catch(() => {});
        })"""
    )
    assert refused == "connect-src"


def test_flickr8k_photos_have_the_engines_captions(visit, shared):
    found = sorted((shared / "data" / "flickr8k" / "images").glob("*.jpg"))[:20]
    assert captions_of(visit.open(), found) == laconic.load().caption(found)


def test_it_works_offline_after_the_first_visit(visit, photos):
    visit.open()
    visit.wait("#facts:has-text('works offline')")
    for path in visit.folder.rglob("*"):
        if path.is_file():
            path.unlink()  # and the host is gone
    visit.context.set_offline(True)
    visit.page.reload()
    assert captions_of(visit.page, photos[:1]) == laconic.load().caption(photos[:1])


def test_photos_come_by_all_ways(visit, photos, tmp_path):
    visit.page.on("filechooser", lambda chooser: chooser.set_files(photos[0]))
    page = visit.open()
    page.wait_for_selector("#choose:enabled")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector(".card")
    give(page, "drop", photos[1])
    give(page, "paste", photos[2])
    page.wait_for_selector(".card:nth-of-type(3)")
    page.click("#camera")
    page.click("#viewfinder .take:enabled")
    for place in range(4, 0, -1):
        page.wait_for_selector(f".card:nth-of-type({place})[data-state=captioned]")
    expected = laconic.load().caption(photos[:3])
    assert page.locator(".caption").all_text_contents()[1:] == expected[::-1]
    give(page, "paste", Path())
    assert visit.wait("#status") == "No photo is among what was pasted: give files, not addresses."
    assert visit.said == []


def test_photos_that_come_early_wait(visit, photos):
    """Files of the captioner are held back until a photo and an address have been given."""
    held = []
    visit.page.route(f"**/{PLAN}", lambda route: held.append(route))
    page = visit.open()
    page.wait_for_selector("#choose:enabled")
    give(page, "drop", photos[0])
    give(page, "paste", Path())
    assert visit.wait(".card .caption") == "Waiting …"
    while not held:
        page.wait_for_timeout(50)
    held[0].continue_()
    page.wait_for_selector(".card[data-state=captioned]")
    assert visit.wait("#status") == "Ready."


def test_what_is_no_photo_is_said_and_can_be_removed(visit, photos, tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "notes.txt").write_text("no photo", encoding="utf8")
    (tmp_path / "cut.jpg").write_bytes(photos[0].read_bytes()[:100])
    blots(70_000, 2, 0).save(tmp_path / "wide.png")
    files = [*(tmp_path / name for name in ("empty.jpg", "notes.txt", "cut.jpg", "wide.png")), photos[0]]
    empty, *unread, wide, captioned = captions_of(visit.open(), files)
    assert empty == "The file is empty."
    assert {said.partition(":")[0] for said in unread} == {"This browser cannot read it"}
    assert wide == "It is too wide for this browser."
    assert captioned == laconic.load().caption(photos[:1])[0]
    for _ in files:
        visit.page.click(".card .remove >> nth=0")
    assert visit.page.locator(".card").count() == 0


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda plan: plan[: len(plan) // 2], f"{PLAN} is damaged, or not the one that this page was made with"),
        (lambda plan: plan[:-9] + b"\1" + plan[-8:], f"{PLAN} is damaged"),
        (None, f"{PLAN} is not on the server (status 404)"),
    ],
)
def test_a_captioner_that_is_damaged_is_said(harm, said, visit, photos):
    file = visit.version / PLAN
    plan = file.read_bytes()
    file.unlink()
    if harm:
        file.write_bytes(harm(plan))
    visit.open()
    assert said in visit.wait("#problem")
    assert not visit.page.is_visible("#choose")


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("WebAssembly.validate = () => false", "does not run WebAssembly with vectors"),
        ("delete self.Worker", "newer one"),
    ],
)
def test_a_browser_that_is_too_old_is_told(lacks, said, visit):
    visit.page.add_init_script(lacks)
    visit.open()
    assert said in visit.wait("#problem")


def test_a_page_that_is_opened_as_a_file_says_what_to_do(visit):
    visit.page.goto((visit.folder / "index.html").as_uri())
    assert "python3 -m http.server" in visit.wait("#problem")


def test_a_newer_page_is_taken_whole_when_the_user_says_so(visit):
    visit.open()
    visit.wait("#facts:has-text('works offline')")
    export(packed_file(SMALLEST), visit.folder, "web", Options(beam=2))
    resize = visit.version / "resize.js"
    held = resize.read_bytes()
    resize.unlink()  # the folder is being copied to the host
    visit.page.reload()
    visit.wait("#facts:has-text('works offline')")
    assert (
        visit.page.evaluate("navigator.serviceWorker.ready.then((found) => found.update()).catch(String)") is not None
    )
    assert "beam 3" in visit.wait("#facts")
    assert not visit.page.is_visible("#newer")
    resize.write_bytes(held)
    visit.page.reload()
    visit.page.click("#newer button")
    visit.wait("#facts:has-text('beam 2'):has-text('works offline')")
    [kept] = visit.page.evaluate("caches.keys()")
    assert kept.endswith(visit.version.name)
