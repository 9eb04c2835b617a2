"""The page in a real browser: photos are dropped, captions and errors appear."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
QUIET = ("no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking", "disable-component-update")
DROPPED = """files => {
    const dropped = new DataTransfer();
    for (const [name, content] of files) {
        dropped.items.add(new File([Uint8Array.from(atob(content), (one) => one.charCodeAt(0))], name));
    }
    return dropped;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=[f"--{word}" for word in QUIET])
        yield opened
        opened.close()


def drop(page, **files: bytes) -> None:
    named = [(name.replace("_", "."), base64.b64encode(data).decode()) for name, data in files.items()]
    page.dispatch_event("#drop", "drop", {"dataTransfer": page.evaluate_handle(DROPPED, named)})


@pytest.mark.timeout(120)
def test_two_photos_and_a_broken_file(browser, served, engine, photo, tmp_path: Path):
    images = {"a_jpg": photo(1, size=(300, 200)), "b_png": photo(2, "PNG"), "c_jpg": photo(3)[:400]}
    paths = [tmp_path / name for name in images]
    for path, data in zip(paths, images.values(), strict=True):
        path.write_bytes(data)
    expected = engine.caption(paths[:2])
    with served(engine) as (port, _):
        page = browser.new_page(viewport={"width": 390, "height": 800})
        problems, asked = [], []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{port}/")
        drop(page, **images)
        page.locator(".done").nth(1).wait_for()
        page.locator(".wrong").wait_for()
        assert page.locator(".done .caption").all_inner_texts() == expected
        assert page.locator(".name").all_inner_texts() == ["a.jpg", "b.png", "c.jpg"]
        assert "Truncated or damaged" in page.locator(".wrong .caption").inner_text()
        assert page.locator("#status").inner_text() == "3 of 3 photos done, 1 of them could not be captioned."
        assert "ms" in page.locator(".done .facts").first.inner_text()
        page.locator(".done summary").first.click()
        others = page.locator(".done ol").first.locator("li")
        assert others.count() == 2
        assert page.locator("canvas:visible").count() == 2
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.fill("#beam", "1")
        drop(page, d_jpg=photo(4))
        page.locator(".done").nth(2).wait_for()
        assert page.locator(".done").nth(2).locator("details").is_hidden()  # greedy search finds nothing else
        assert any("beam=1" in url for url in asked)
        page.click("#clear")
        assert page.locator(".photo").count() == 0
        assert page.evaluate("document.activeElement.id") == "files"
        page.goto(f"http://127.0.0.1:{port}/docs")
        assert "POST /caption" in page.inner_text("main")
        page.close()
    assert problems == []
    assert all(url.startswith(f"http://127.0.0.1:{port}/") for url in asked)


@pytest.mark.timeout(120)
def test_limits_and_a_server_that_is_gone_are_said_in_plain_words(browser, served, engine, photo):
    page = browser.new_page()
    with served(engine, body_bytes=50_000) as (port, _):
        page.goto(f"http://127.0.0.1:{port}/")
        page.locator("#about", has_text="Captioned by tiny").wait_for()
        drop(page, large_jpg=bytes(60_000))
        page.locator(".wrong").wait_for()
        assert (
            page.locator(".wrong .caption").inner_text() == "This file has 60 kB, and the server takes 50 kB at most."
        )
        page.click("#clear")
    drop(page, a_jpg=photo(1))
    page.locator(".wrong").wait_for()
    assert page.locator(".wrong .caption").inner_text() == "The server did not answer. Is it still running?"
    assert page.locator(".again").is_visible()
    page.close()
