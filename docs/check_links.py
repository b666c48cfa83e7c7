"""Follow every link of the built site to files and anchors in it; what leads elsewhere is counted, never opened."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Links(HTMLParser):
    """The targets of a page's links, and its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name in ('href', 'src'):
                self.targets.append(value)
            elif name in ('id', 'name'):
                self.anchors.add(value)


def read(path: Path) -> Links:
    """Parse a page."""
    links = Links()
    links.feed(path.read_text(encoding='utf-8'))
    return links


def broken_links(site: Path) -> tuple[list[str], int, int]:
    """Links that lead nowhere, as ``page: target``; then the numbers of links within the site and out of it."""
    pages = {path.resolve(): read(path) for path in sorted(site.rglob('*.html'))}
    broken, inside, outside = [], 0, 0
    for page, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                outside += 1
                continue
            inside += 1
            path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchors = pages[path].anchors if path in pages else None
            if not path.exists() or parts.fragment and anchors is not None and unquote(parts.fragment) not in anchors:
                broken.append(f'{page.relative_to(site.resolve())}: {target}')
    return broken, inside, outside


def main() -> None:
    site = Path(sys.argv[1])
    broken, inside, outside = broken_links(site)
    pages = len(list(site.rglob('*.html')))
    if broken:
        sys.exit('\n'.join(['links that lead nowhere:', *broken]))
    print(f'{site}: {pages} pages, {inside} links within them lead somewhere, {outside} links elsewhere are not opened')


if __name__ == '__main__':
    main()
