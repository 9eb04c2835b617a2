"""The page that `laconic export --to web` writes, in Chromium: bytes, first caption, captions beside the engine's.

    python benchmarks/browser.py --csv results/browser.csv

Photos are the first 200 of Flickr8k's validation split, as they are and enlarged, so that both sides have to shrink
them. Milliseconds are CPU time from a photo's file to its caption, of the page's worker and of the engine's process on
one thread, medians over groups of photos that are taken in turns. Needs playwright and a Chromium, and Linux, which
tells the CPU time of a thread.
"""

import argparse
import contextlib
import csv
import gzip
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

import laconic
from laconic import data
from laconic.bench.processor import level, processor
from laconic.captioner.ready_made import SMALLEST, packed_file
from laconic.export.table import MANIFEST, export

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SWITCHES = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
LOADS, GROUP, TIMES = 5, 20, 6  # page loads; photos in a group; how many times as wide enlarged photos are
BAR_SECONDS = 3.0  # from load to the first caption
PATIENCE = 120_000  # milliseconds
ABOUT = ("captioner", "browser", "processor", "level", "command")  # columns of every row
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument(
        "--captioner", type=Path, default=Path(SMALLEST), help="a packed captioner, or a ready-made one's name"
    )
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--browser", help="a Chromium; by default the one on the PATH")
    given = parser.parse_args()
    root = Path(os.environ.get("LACONIC_SHARED", "../shared")) / "data" / "flickr8k"
    examples = data.load("flickr8k", root, "val")
    photos = [Path(examples[i].image) for i in range(given.photos)]
    with tempfile.TemporaryDirectory(prefix="laconic-bench-") as folder:
        site, larger = Path(folder) / "site", Path(folder) / "larger"
        export(packed_file(given.captioner), site, "web")
        larger.mkdir()
        enlarged = [enlarge(photo, larger / photo.name) for photo in photos]
        with served(site) as address, chromium(given.browser) as browser:
            rows = [sizes(site), first_caption(browser, address, photos[0])]
            for what, files in {"photos": photos, f"photos, {TIMES} times as wide": enlarged}.items():
                rows.append({"what": what} | compared(browser, address, files, packed_file(given.captioner)))
            about = {"captioner": given.captioner.name, "browser": f"Chromium {browser.version}"}
    about |= {"processor": processor(), "level": level(), "command": " ".join(["python", *sys.argv])}
    write(given.csv, [row | about for row in rows])


def sizes(site: Path) -> Row:
    """What goes to a browser: as it lies in the folder, and where the host compresses."""
    files = [path.read_bytes() for path in site.rglob("*") if path.is_file() and path.name != MANIFEST]
    return {"what": "bytes", "bytes": sum(map(len, files)), "gzip_bytes": sum(len(gzip.compress(f, 9)) for f in files)}


def first_caption(browser: Browser, address: str, photo: Path) -> Row:
    """Median seconds from load to the first caption, with nothing kept from before."""
    seconds = []
    for _ in range(LOADS):
        with contextlib.closing(browser.new_context()) as context:
            page = context.new_page()
            started = time.perf_counter()
            page.goto(address)
            captions_of(page, [photo])
            seconds.append(time.perf_counter() - started)
    return {"what": "first caption", "seconds": statistics.median(seconds), "bar_seconds": BAR_SECONDS}


def compared(browser: Browser, address: str, photos: Sequence[Path], file: Path) -> Row:
    """How many captions are the engine's, and what a caption takes of CPU time on either side."""
    engine = laconic.load(file, threads=1)
    equal, taken = 0, {"browser_ms": [], "engine_ms": []}
    with contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        page.goto(address)
        captions_of(page, photos[:GROUP])  # by then the browser has compiled all it runs
        for start in range(0, len(photos), GROUP):
            group = photos[start : start + GROUP]
            before, begun = worker_seconds(browser), time.process_time()
            theirs = captions_of(page, group)
            taken["browser_ms"].append(1000 * (worker_seconds(browser) - before) / len(group))
            begun = time.process_time()
            ours = [engine.caption([photo])[0] for photo in group]
            taken["engine_ms"].append(1000 * (time.process_time() - begun) / len(group))
            equal += sum(map(str.__eq__, theirs, ours))
    row = {name: statistics.median(values) for name, values in taken.items()}
    return {"photos": len(photos), "equal": equal, **row, "times_engine": row["browser_ms"] / row["engine_ms"]}


def enlarge(photo: Path, larger: Path) -> Path:
    """Writes a photo at TIMES its width and height."""
    with Image.open(photo) as image:
        image.resize((image.width * TIMES, image.height * TIMES), Image.Resampling.BICUBIC).save(larger, quality=90)
    return larger


# The page


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which a web server gives a folder's files, on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


def find_chromium() -> str | None:
    """A Chromium on the PATH."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def chromium(path: str | None = None, *switches: str) -> Iterator[Browser]:
    """A Chromium without windows."""
    with sync_playwright() as playwright:
        found = path or find_chromium()
        with contextlib.closing(
            playwright.chromium.launch(executable_path=found, args=[*SWITCHES, *switches])
        ) as browser:
            yield browser


def captions_of(page: Page, photos: Sequence[Path]) -> list[str]:
    """What the page says of photos that are chosen together; for one that it cannot read, why."""
    page.wait_for_selector("#choose:enabled", timeout=PATIENCE)
    page.set_input_files("#files", photos, timeout=PATIENCE)
    page.wait_for_selector(".card:not([data-state])", state="detached", timeout=PATIENCE)
    return page.locator(".card .caption").all_text_contents()[: len(photos)]  # newer cards are above older ones


def worker_seconds(browser: Browser) -> float:
    """CPU time of the threads of all workers, so far."""
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    ticks = 0
    for process in processes:
        for task in Path(f"/proc/{process['id']}/task").iterdir():
            if (task / "comm").read_text() == "DedicatedWorker\n":
                ticks += sum(map(int, (task / "stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def write(path: Path, rows: list[Row]) -> None:
    numbers = dict.fromkeys(name for row in rows for name in row if name not in ABOUT)
    rounded = [
        {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}
        for row in rows
    ]
    for row in rounded:
        print(*(f"{key}={value}" for key, value in row.items()), flush=True)
    with path.open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, [*numbers, *ABOUT], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rounded)


if __name__ == "__main__":
    main()
