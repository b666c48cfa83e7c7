"""Each row of the table does what it says; ``python -m tests.bad_input`` counts them."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from tests.bad_input import rows
from tests.bad_input.bench import Bench, Row
from tests.small_runs import ROOT

ROWS = rows()


@pytest.mark.parametrize('name', ROWS)
def test_bad_input_is_answered_as_the_table_says(name: str, digits: Path, digit_teacher: dict, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    row, said = ROWS[name], io.StringIO()
    bench = Bench(tmp_path, digit_teacher, digits, monkeypatch)
    if row.kind == 'accepted':
        row.do(bench)
        return
    expected = (ValueError, RuntimeError, SystemExit) if row.kind == 'clear' else Exception
    with contextlib.redirect_stderr(said), pytest.raises(expected) as caught:
        row.do(bench)
    assert_says(row, f'{said.getvalue()}{caught.value}')
    if isinstance(caught.value, SystemExit):
        assert caught.value.code not in (0, None)


def assert_says(row: Row, text: str) -> None:
    assert re.search(row.words, text, re.DOTALL), f'{text!r} does not match {row.words!r}'


def test_no_row_is_without_words_or_a_reason() -> None:
    for name, row in ROWS.items():
        assert row.reason if row.kind == 'accepted' else len(row.words) > 8, name


def test_there_are_enough_of_every_tool() -> None:
    tools = {row.tool for row in ROWS.values()}
    assert len(ROWS) >= 200 and tools >= {'train', 'test', 'export', 'compare', 'analyze', 'benchmark', 'coverage',
                                          'make_digit_scenes', 'demo', 'Distiller'}


def test_the_documentation_says_how_many_and_how_they_are_answered() -> None:
    text = ' '.join((ROOT / 'docs/how-it-works.md').read_text().split())
    clear = sum(row.kind == 'clear' for row in ROWS.values())
    assert len(ROWS) > 400 and clear >= 0.95 * len(ROWS)
    assert 'More than 400 wrong inputs' in text and 'at least 19 of 20 are refused in our own words' in text
