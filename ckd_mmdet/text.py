r"""Text that people give (names of classes, methods, files) where it could be taken for something else.

A newline would break a table's row, ``|`` its columns, ``=1+1`` is a formula to a spreadsheet, ``<script>`` HTML in
Markdown, ``$\frac{$`` mathematics in a plot, ``\x1b[2J`` a command to a terminal, ``{{ fileDirname }}`` a variable in a
config of MMEngine's.
"""

from __future__ import annotations

import re
import unicodedata

CONTROLS = {'\n': '\\n', '\r': '\\r', '\t': '\\t'}
MARKDOWN = re.compile(r'([\\`*_\[\]<>|#])')
VARIABLE = re.compile(r'\{\{')


def plain(text: object) -> str:
    r"""For one line of a log or a terminal: control characters are shown as ``\n`` or ``\x1b``, not sent."""
    return ''.join(CONTROLS.get(one) or (one.encode('unicode_escape').decode() if _is_control(one) else one)
                   for one in str(text))


def for_markdown(text: object) -> str:
    """For a cell of a Markdown table or a line of a list: one line, without columns, markup or HTML."""
    return MARKDOWN.sub(r'\\\1', plain(text)).replace('\\_', '_').replace('\\<', '&lt;').replace('\\>', '&gt;')


def for_csv(text: object) -> str:
    """For a cell of a CSV: one line, and no formula; quotes and commas are the CSV writer's."""
    shown = plain(text)
    return f"'{shown}" if shown.lstrip()[:1] in ('=', '+', '-', '@') and not _is_number(shown) else shown


def for_plot(text: object) -> str:
    """For a text in a Matplotlib figure: one line, its dollars no mathematics."""
    return plain(text).replace('$', r'\$')


def for_config(text: str) -> str:
    """For a value of a config that is written and read again: ``{{`` begins no variable there."""
    return VARIABLE.sub('{ {', text)


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ('Cc', 'Cf', 'Zl', 'Zp', 'Cs') and character != '\u200d'  # of emoji


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
