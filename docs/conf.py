"""How Sphinx builds the site from the pages of this folder: `make docs`. Nothing is fetched, here or by the pages."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

import laconic  # noqa: E402

project, author, release = "laconic", "the laconic authors", laconic.__version__
html_title = f"laconic {release}"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_show_copyright = html_show_sourcelink = False
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # pages of the log begin with a second heading
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#b3541e", "color-brand-content": "#b3541e"},
    "dark_css_variables": {"color-brand-primary": "#f0a06a", "color-brand-content": "#f0a06a"},
}
_PAGE = re.compile(r"`docs/([\w/-]+)\.md`")


def _link_pages(app: object, page: str, source: list[str]) -> None:
    """Where a page names another one as a file of the repository, the site has a link."""
    up = "../" * page.count("/")
    source[0] = _PAGE.sub(lambda found: f"[]({up}{found[1]}.md)", source[0])


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _link_pages)  # type: ignore[attr-defined]
