"""The documentation against what it speaks of: options, commands, code, names, numbers and links."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import re
import runpy
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from ckd_mmdet import __version__
from ckd_mmdet.recipes import RECIPES
from mmengine.config import Config

ROOT = Path(__file__).parents[2]
DOCS = ROOT / 'docs'
sys.path.insert(0, str(DOCS))
from check_links import broken_links  # noqa: E402
from written import for_napoleon, for_the_site, options_of, public_modules, recipe_table, tools  # noqa: E402

PAGES = [*sorted(DOCS.glob('*.md')), ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'configs/README.md']
WRITTEN = {'_written/commands', '_written/recipes', '_written/losses', '_written/aligners-and-selectors',
           '_written/student-teacher-and-training', '_written/image-classifiers'}
FOREIGN = {'--show', '--wait-time', '--launcher'}
"""Options of mmdet's own tools, which the pages name."""


@cache
def help_of(tool: str) -> str:
    """As the page of commands has it, in this process: an import of torch a tool would take a minute."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        patch.setattr(sys, 'argv', [f'{tool}.py', '--help'])
        runpy.run_path(str(ROOT / 'tools' / f'{tool}.py'), run_name='__main__')
    return printed.getvalue()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```', page.read_text(), re.M | re.S)


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Tool and options of each command of ours in a text, lines that end in a backslash joined."""
    text = re.sub(r'\\\n', ' ', text)
    for match in re.finditer(r'(?:tools/(\w+)\.py|python -m ckd_mmdet (\w+))\b([^`\n]*)', text):
        if match[1] or match[2] in tools():
            words = re.split(r'(?<!\w)tools/|python -m', match[3])[0]
            yield match[1] or match[2], re.findall(r'(?<![\w-])--[a-z][\w-]*', words)


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize('page', PAGES, ids=page_name)
def test_a_command_has_the_options_that_its_help_has(page):
    unknown = [(tool, option) for tool, options in commands(page.read_text()) if (ROOT / f'tools/{tool}.py').exists()
               for option in options if option not in options_of(help_of(tool))]
    assert unknown == []


def test_options_named_in_running_text_exist():
    known = set().union(*(options_of(help_of(tool)) for tool in [*tools(), 'coverage'])) | FOREIGN
    named = {(page.name, option) for page in PAGES for option in re.findall(r'`(--[a-z][\w-]*)', page.read_text())}
    assert len(named) > 20
    assert {(page, option) for page, option in named if option not in known} == set()


def test_every_tool_says_its_version():
    for tool in [*tools(), 'coverage']:
        assert '--version' in options_of(help_of(tool)), tool


def test_every_make_target_that_a_page_names_exists():
    targets = set(re.findall(r'^([a-z][\w-]*):', (ROOT / 'Makefile').read_text(), re.M))
    named = {target for page in PAGES for target in re.findall(r'(?:^|`)make ([a-z-]+)', page.read_text(), re.M)}
    assert {'demo', 'docs', 'test'} <= named <= targets


@pytest.mark.parametrize('page', [page for page in PAGES if blocks(page, 'python')], ids=page_name)
def test_each_block_of_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(DOCS / 'examples')
    for i, block in enumerate(blocks(page, 'python')):
        if 'init_detector' in block:  # needs a finished training: the notebook does it
            ast.parse(block)
        elif '_base_' in block:
            config = tmp_path / f'block_{i}.py'
            config.write_text(block)
            assert Config.fromfile(config).model.type == 'ckd_mmdet.Distiller'
        else:
            exec(compile(block, f'{page.name}, block {i}', 'exec'), {})


def test_every_public_name_has_documentation():
    missing = []
    for name in public_modules():
        module = importlib.import_module(name)
        for key, part in vars(module).items():
            if key.startswith('_') or getattr(part, '__module__', None) != name:
                continue
            if inspect.isfunction(part) or inspect.isclass(part):
                missing += [] if inspect.getdoc(part) else [f'{name}.{key}']
            if inspect.isclass(part):
                missing += [f'{name}.{key}.{method}' for method, value in vars(part).items()
                            if not method.startswith('_') and _is_method(value)
                            and not inspect.getdoc(getattr(part, method))]
    assert missing == []


def _is_method(value: object) -> bool:
    function = value.fget if isinstance(value, property) else getattr(value, '__func__', value)
    return inspect.isfunction(function)


def test_each_message_that_troubleshooting_quotes_is_in_the_code():
    quoted = re.findall(r'^\*\*`([^`]+ [^`]+)`', (DOCS / 'troubleshooting.md').read_text(), re.M)
    texts = [_text(node) for file in (ROOT / 'ckd_mmdet').rglob('*.py') if '.mim' not in file.parts
             for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.JoinedStr | ast.Constant)]
    lost = [message for message in quoted if 'mmcv._ext' not in message  # Python's own
            and not any(all(part.strip() in text for part in message.split('...')) for text in texts)]
    assert len(quoted) > 8 and lost == []


def _text(node: ast.JoinedStr | ast.Constant) -> str:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return ''.join(str(part.value) if isinstance(part, ast.Constant) else '...' for part in parts).replace('`', '')


def test_every_page_is_in_the_table_of_contents():
    listed = re.findall(r'^([\w/-]+)$', ''.join(blocks(DOCS / 'index.md', '{toctree}')), re.M)
    assert sorted(listed) == sorted({page.stem for page in DOCS.glob('*.md')} - {'index'} | WRITTEN)


def test_the_table_of_recipes_has_each_method_on_each_aligner():
    table = recipe_table()
    assert len(table.splitlines()) - 2 == sum(len(recipes) for recipes in RECIPES.values())
    assert '| `DenseAligner` | `Foreground` (without labels `TeacherTopK:256`) | 1.0 |' in table


def test_a_link_out_of_the_site_is_a_path_and_others_stay():
    source = ['[`tools/compare.py`](../tools/compare.py) [raw](study/demo) [there](results.md) [web](https://x.org/a)']
    for_the_site(source, DOCS)
    assert source == ['`tools/compare.py` raw (`docs/study/demo`) [there](results.md) [web](https://x.org/a)']


def test_what_stands_before_a_colon_is_no_type():
    lines = ['A sentence.', '', 'Returns:', '    Shape: ``(n,)``.']
    for_napoleon('function', lines)
    assert lines == ['A sentence.', '', ':returns:', '    Shape: ``(n,)``.']


def test_a_broken_link_and_a_missing_anchor_are_found(tmp_path):
    (tmp_path / 'a.html').write_text('<p id="here"><a href="b.html#there">1</a><a href="c.html">2</a>'
                                     '<a href="#here">3</a><a href="https://x.org">4</a></p>')
    (tmp_path / 'b.html').write_text('<p id="other"></p>')
    assert broken_links(tmp_path) == (['a.html: b.html#there', 'a.html: c.html'], 3, 1)


def test_the_metafile_has_configs_that_exist_and_numbers_of_the_results():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert index == yaml.safe_load((ROOT / 'ckd_mmdet/.mim/model-index.yml').read_text())
    measured = ''.join((DOCS / name).read_text() for name in ('results.md', 'classification.md'))
    models = [model for file in index['Import'] for model in yaml.safe_load((ROOT / file).read_text())['Models']]
    assert len(models) > 10
    for model in models:
        assert (ROOT / model['Config']).is_file()
        for name, value in [item for result in model['Results'] for item in result['Metrics'].items()]:
            shown = f'{value:.2f}' if 'Top 1' in name else f'{value / 100:.3f}'
            assert shown in measured, (model['Name'], name)


def test_the_citation_names_this_version_and_both_papers():
    cited = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert cited['version'] == __version__
    assert [part['url'][-10:] for part in cited['references']] == ['2404.14109', '2410.14143']
