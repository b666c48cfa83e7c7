"""The pages that are generated: options from `--help`, recipes from their table, the reference from docstrings."""

from __future__ import annotations

import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import ckd_mmdet
from ckd_mmdet.recipes import METHODS, RECIPES, SAYS, SUITS, Recipe

ROOT = Path(__file__).parents[1]
NO_COMMANDS = {'coverage'}
"""Tools that are for those who work on this repository."""
GROUPS = {  # of the reference, by the beginning of a module's name
    'Losses': ('losses', 'functional'),
    'Aligners and selectors': ('aligners', 'selectors', 'rows', 'samples', 'pairing', 'taps', 'classes'),
    'Image classifiers': ('classification',),
}
REST = 'Student, teacher and training'


def tools() -> list[str]:
    """Names of the tools that are documented, as `python -m ckd_mmdet` takes them."""
    return sorted(path.stem for path in (ROOT / 'tools').glob('*.py') if path.stem not in NO_COMMANDS)


def help_of(tool: str) -> str:
    """What the tool prints for `--help`."""
    env = {**os.environ, 'COLUMNS': '100', 'PYTHONPATH': str(ROOT)}
    return subprocess.run([sys.executable, str(ROOT / 'tools' / f'{tool}.py'), '--help'], capture_output=True,
                          text=True, check=True, env=env, cwd=ROOT).stdout


def options_of(help_text: str) -> set[str]:
    """The long options in a help text."""
    return set(re.findall(r'(?<![\w-])--[a-z][\w-]*', help_text))


def public_modules() -> list[str]:
    """Names of the package's modules, without the lab, other people's interfaces (`compat`) and `__main__`."""
    found = (module.name for module in pkgutil.walk_packages(ckd_mmdet.__path__, 'ckd_mmdet.'))
    return sorted(name for name in found if name.split('.')[1] not in ('lab', 'compat', '__main__', '.mim'))


def recipe_table() -> str:
    """Each method, and its rows and weight on what each aligner pairs, in Markdown."""
    lines = ['| method | what is compared | aligner | rows | weight |', '|---|---|---|---|---|']
    for method in METHODS:
        for aligner, recipes in RECIPES.items():
            if method in recipes:
                recipe = recipes[method]
                lines.append(f'| `{method}` | {SAYS[method]} | `{aligner}` | {_rows(recipe)} | {recipe.loss_weight} |')
    return '\n'.join(lines)


def _rows(recipe: Recipe) -> str:
    if recipe.selector is None:
        return 'whole maps'
    k = f':{recipe.selector["k"]}' if 'k' in recipe.selector else ''
    other = recipe.without_labels
    return f'`{recipe.selector["type"]}{k}`' + (f' (without labels `{other["type"]}:{other["k"]}`)' if other else '')


def suits_table() -> str:
    """Fewest shared classes of each method by the kinds of the two heads, in Markdown."""
    kinds = ('softmax', 'sigmoid', 'mixed', 'images')
    lines = [f'| method | {" | ".join(kinds)} |', '|---' * (len(kinds) + 1) + '|']
    lines += [f'| `{method}` | {" | ".join(str(fewest.get(kind, "no")) for kind in kinds)} |'
              for method, fewest in SUITS.items()]
    return '\n'.join(lines)


def write_pages(folder: Path) -> None:
    """Write the generated pages into the folder; a page that is the same stays as it is."""
    commands = ['# Options of each command', 'As each command prints them with `--help`.']
    for tool in tools():
        commands += [f'## {tool}', f'```text\n{help_of(tool).strip()}\n```']
    _write(folder / 'commands.md', '\n\n'.join(commands))
    _write(folder / 'recipes.md', '\n\n'.join([
        '# Recipes of `--method`', 'From `ckd_mmdet/recipes.py`. `--selector` and `--loss-weight` override them.',
        recipe_table(), '## Which heads a method suits',
        'The fewest classes that both models must share. `softmax`: both heads have background; `mixed`: one softmax, '
        'one sigmoid; `images`: two classifiers. `quality`, `boxes` and `bckd` also need a student whose rows have '
        'labels, `boxes` and `bckd` heads whose boxes we decode ([supported.md](../supported.md) has both), and `ld` '
        'heads with distributions of where the edges of a box are: GFL and its like.', suits_table()]))
    modules = public_modules()
    pages = {**{title: [name for name in modules if name.split('.')[1] in parts] for title, parts in GROUPS.items()}}
    grouped = {name for names in pages.values() for name in names}
    pages[REST] = [name for name in modules if name not in grouped]
    for title, names in pages.items():
        body = [f'# {title}', *map(_module, names)]
        _write(folder / f'{title.lower().replace(" ", "-").replace(",", "")}.md', '\n\n'.join(body))


def _module(name: str) -> str:
    # of a package what it defines itself: what it only names is documented where it is
    return f'## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n   :ignore-module-all:\n```'


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text() != text + '\n':
        path.write_text(text + '\n')


def for_napoleon(what: str, lines: list[str]) -> None:
    """Keep Napoleon from reading what stands before a colon as a type: our types are in the signatures. In place."""
    if what in ('attribute', 'data', 'property'):
        lines[:0] = ['..', '']  # an empty comment: Napoleon reads the first line alone so
    lines[:] = [':returns:' if line == 'Returns:' else line for line in lines]


def for_the_site(source: list[str], docs: Path) -> None:
    """Let links to what the site does not have, files of the repository and folders, be their paths, in place."""

    def link(match: re.Match) -> str:
        text, target = match[1], match[2].partition('#')[0]
        if '://' in target or not target or (docs / target).is_file() and not target.startswith('..'):
            return match[0]
        if target == '../configs/README.md':
            return f'[{text}](configs.md)'
        path = os.path.relpath(docs / target, docs.parent)
        return text if text.strip('`') == path else f'{text} (`{path}`)'

    source[0] = re.sub(r'(?<!!)\[([^\]\[]+)\]\(([^)\s]+)\)', link, source[0])
