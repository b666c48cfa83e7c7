"""What people call their classes, methods and files stays text wherever it is written."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from ckd_mmdet.student_export import mend_dumped_config
from ckd_mmdet.text import few, for_config, for_csv, for_markdown, for_plot, plain, quoted
from matplotlib.figure import Figure
from mmengine.config import Config

NASTY = ['two\nlines', 'a|b', '=1+1', '-2+3', '@cmd', '+1', '<script>alert(1)</script>', r'$\frac{$', '$a$ and $b$',
         '\x1b[2J\x1b[31mred', '{{ fileDirname }}', '{{_base_.model}}', 'tab\there', 'quote"s and \'s', 'back\\slash',
         '\u202eright to left', '\r\nmore', 'ordinary name', 'Größe 猫 🐈', '']


@pytest.mark.parametrize('text', NASTY)
def test_a_line_stays_a_line_without_control_characters(text: str) -> None:
    for write in (plain, for_markdown, for_csv, for_plot):
        written = write(text)
        assert written.isprintable() and len(written.splitlines()) <= 1


@pytest.mark.parametrize('text', NASTY)
def test_markdown_has_no_column_tag_or_formula_of_a_name(text: str) -> None:
    written = for_markdown(text)
    assert '<' not in written
    assert written.count('|') == written.count(r'\|') and written.count('$') == written.count(r'\$')


@pytest.mark.parametrize('text', NASTY)
def test_no_cell_of_a_csv_is_a_formula(text: str) -> None:
    buffer = io.StringIO()
    csv.writer(buffer).writerow([for_csv(text), 'next'])
    row, = csv.reader(io.StringIO(buffer.getvalue()))
    assert row == [for_csv(text), 'next'] and not row[0].startswith(('=', '@', '-2'))


@pytest.mark.parametrize('number', ['-0.5', '+1', '1e-3'])
def test_numbers_stay_numbers_in_a_csv(number: str) -> None:
    assert for_csv(number) == number


@pytest.mark.parametrize('text', NASTY)
def test_a_plot_draws_any_name(text: str) -> None:
    figure = Figure()
    axis = figure.subplots()
    axis.set_title(for_plot(text))
    axis.plot([0, 1], label=for_plot(text) or 'x')
    axis.legend()
    axis.set_xticks([0], [for_plot(text)])
    assert axis.title._preprocess_math(for_plot(text)) == (plain(text), False)
    figure.savefig(io.BytesIO(), format='png', dpi=20)


def test_ordinary_names_are_left_alone() -> None:
    for text in ('ordinary name', 'Größe 猫 🐈', 'ckd:0.5+pkd', 'traffic_light', '`x` needs [1, 2]', ''):
        assert plain(text) == for_markdown(text) == for_csv(text) == for_plot(text) == text


@pytest.mark.parametrize('text', NASTY)
def test_a_dumped_config_is_read_as_it_was(text: str, tmp_path: Path) -> None:
    cfg = Config(dict(classes=[text, text], nested=dict(a={'1': {'2': {}}})))
    (tmp_path / 'ours.py').write_text(for_config(cfg.pretty_text))
    assert Config.fromfile(tmp_path / 'ours.py').to_dict() == cfg.to_dict()
    cfg.dump(tmp_path / 'theirs.py')
    mend_dumped_config(tmp_path / 'theirs.py')
    assert Config.fromfile(tmp_path / 'theirs.py').to_dict() == cfg.to_dict()


def test_without_it_a_name_becomes_a_variable(tmp_path: Path) -> None:
    """What the rest guards against."""
    Config(dict(classes=['{{ fileDirname }}'])).dump(tmp_path / 'x.py')
    assert Config.fromfile(tmp_path / 'x.py').classes == [str(tmp_path)]


def test_of_many_names_the_first_are_shown_and_of_few_none_is_said_to_be_missing() -> None:
    assert few(['a', 'b'], 2) == 'a, b' and few(['a', 'b', 'c'], 2) == 'a, b, ... (3 in all)' and few([]) == ''
    assert few('abc', 2, '; ', total=False) == 'a; b; ...' and few('ab', 2, '; ', total=False) == 'a; b'
    assert quoted(map(str, range(12))).endswith("'10', '11'") and quoted([None, "it's"]) == """None, "it's\""""
    assert quoted(map(str, range(13))).endswith("'11', ... (13 in all)")
