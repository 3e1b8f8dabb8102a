"""Look for broken links inside the built website: ``python tools/site_links.py``, after ``make book``.

Every page, picture and anchor that a page names has to be there. Links to other servers are not followed.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

HTML = Path(__file__).parents[1] / "book" / "_build" / "html"


class _Page(HTMLParser):
    """Collects what a page refers to, and the anchors that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors = {"", "top"}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value or "")
            elif name in {"href", "src"}:
                self.links.append(value or "")


def read(path: Path) -> _Page:
    """Return the links and anchors of a page."""
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def broken(folder: Path) -> tuple[list[str], int, int]:
    """Return the broken links of a site, one line each, and how many pages and links were looked at."""
    folder = folder.resolve()
    pages = {path: read(path) for path in sorted(folder.rglob("*.html")) if folder / "_static" not in path.parents}
    found, looked_at = [], 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            looked_at += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            missing_anchor = target in pages and unquote(parts.fragment) not in pages[target].anchors
            if not target.is_relative_to(folder) or not target.exists() or missing_anchor:
                found.append(f"{path.relative_to(folder)}: {link}")
    return found, len(pages), looked_at


def main() -> int:
    """Print the broken links; return 1 if there are any, or no pages."""
    found, pages, links = broken(HTML)
    for line in found:
        print(line, file=sys.stderr)
    print(f"{pages} pages, {links} links inside the site: {len(found)} broken")
    return 1 if found or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
