r"""Text that people give (names of classes, methods, files) where it could be taken for something else.

A newline would break a table's row, ``|`` its columns, ``=1+1`` is a formula to a spreadsheet, ``<script>`` HTML in
Markdown, ``$\frac{$`` mathematics in a plot, ``\x1b[2J`` a command to a terminal, ``{{ fileDirname }}`` a variable in a
config of MMEngine's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

CONTROLS = {'\n': '\\n', '\r': '\\r', '\t': '\\t'}


def plain(text: object) -> str:
    r"""For one line of a log or a terminal: control characters are shown as ``\n`` or ``\x1b``, not sent."""
    return ''.join(CONTROLS.get(one) or (one.encode('unicode_escape').decode() if _is_control(one) else one)
                   for one in str(text))


def for_markdown(text: object) -> str:
    """For a cell of a Markdown table or a line of a list: one line, in which no column, tag or formula begins."""
    return re.sub(r'([|$])', r'\\\1', plain(text)).replace('<', '&lt;')


def for_csv(text: object) -> str:
    """For a cell of a CSV: one line, and no formula; quotes and commas are the CSV writer's."""
    shown = plain(text)
    return f"'{shown}" if shown.lstrip()[:1] in ('=', '+', '-', '@') and not _is_number(shown) else shown


def for_plot(text: object) -> str:
    """For a text in a Matplotlib figure: one line, its dollars no mathematics."""
    return plain(text).replace('$', r'\$')


def few(texts: Iterable[str], most: int = 12, join: str = ', ', total: bool = True) -> str:
    """The first ones of many, and how many there are; of up to ``most`` all, and nothing is said to be missing.

    Args:
        texts: What is listed.
        most: Number of those shown.
        join: Between them.
        total: Whether to say how many there are, where the sentence does not.
    """
    shown = list(texts)
    rest = [] if len(shown) <= most else [f'... ({len(shown)} in all)' if total else '...']
    return join.join([*shown[:most], *rest])


def quoted(names: Iterable[object], most: int = 12, join: str = ', ') -> str:
    """Names in quotation marks, of many the first ones and how many there are."""
    return few(map(repr, names), most, join)


def for_config(source: str) -> str:
    r"""The source of a config that MMEngine wrote: read again, ``{{`` begins no variable, and is the same text.

    Two braces stand in it within quotes only, where ``\x7b`` is one.
    """
    return source.replace('{{', r'{\x7b')


def class_map_for_config(class_map: Any) -> Any:
    """A class map as MMEngine can write it to a config: pairs, where a name would break out of its quotes as a key."""
    if not isinstance(class_map, Mapping) or all(repr(str(key)) == f"'{key}'" for key in class_map):
        return class_map
    return [list(pair) for pair in class_map.items()]


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ('Cc', 'Cf', 'Zl', 'Zp', 'Cs') and character != '\u200d'  # of emoji


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
