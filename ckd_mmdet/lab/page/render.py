"""From what a page says to its HTML: one file, without network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ckd_mmdet.text import plain
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

FOLDER = Path(__file__).parent
NAME = 'report.html'


def render(template: str, **content: Any) -> str:
    """The page; every text in ``content`` is escaped, and its control characters are shown."""
    environment = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True, finalize=_shown)
    return environment.get_template(template).render(
        css=Markup((FOLDER / 'page.css').read_text()), script=Markup((FOLDER / 'sort.js').read_text()), **content)


def _shown(value: Any) -> Any:
    """Keep line breaks, which the page's own texts have."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return '\n'.join(map(plain, value.split('\n')))
    return value
