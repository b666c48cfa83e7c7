"""What people give to the other tools: test, export, compare, analyze, benchmark, coverage, the data sets, the demo."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from ckd_mmdet.lab.demo import plan as demo
from ckd_mmdet.lab.jobs.commands import told_in_one_line

from tests.bad_input.bench import Bench, Row


def tool(name: str, *given: str, words: str = '', **kind: str) -> Row:
    return Row(name, lambda b: b.tool(name, *given), words, **kind)


def on(name: str, *given: Callable[[Bench], object] | str, words: str = '', real: bool = False, **kind: str) -> Row:
    """A tool with arguments of which some are made first."""
    return Row(name, lambda b: b.tool(name, *(one(b) if callable(one) else one for one in given), real=real), words,
               **kind)


def plain(b: Bench) -> Path:
    return b.config(plain=True)


def good(b: Bench) -> str:
    return b.taught['checkpoint']


def page(b: Bench) -> Path:
    return b.file('page.pth', '<html>404</html>')


def saved(content: object, name: str = 'x.pth') -> Callable[[Bench], Path]:
    def write(b: Bench) -> Path:
        torch.save(content, b.folder / name)
        return b.folder / name

    return write


def new(b: Bench) -> Path:
    return b.folder / 'out.pth'


def taken(b: Bench) -> Path:
    return b.file('taken')


def copied(b: Bench) -> Path:
    """A checkpoint that may be overwritten by mistake."""
    return b.file('c.pth', Path(good(b)).read_bytes())


def link(b: Bench) -> Path:
    copied(b)
    (b.folder / 'link.pth').symlink_to(b.folder / 'c.pth')
    return b.folder / 'link.pth'


def other(b: Bench) -> Path:
    weights = torch.load(good(b), weights_only=False)['state_dict']
    return saved(dict(state_dict={key: value for key, value in weights.items() if 'rpn' not in key}))(b)


def diverged(b: Bench) -> Path:
    return saved(dict(state_dict={'a.weight': torch.full((1,), float('nan'))}, meta={}))(b)


def matrix(content: str) -> Callable[[Bench], Path]:
    return lambda b: b.file('matrix.json', content).parent




def work(b: Bench) -> Path:
    return b.folder / 'new'


TEST = {
    'test: no config': tool('test'),
    'test: no checkpoint': on('test', plain),
    'test: a checkpoint that is not there': on('test', plain, 'gone.pth'),
    'test: a page as checkpoint': on('test', plain, page, real=True),
    'test: other weights': on('test', plain, other, real=True),
    'test: an unfit name of the predictions': on('test', plain, good, '--out', 'x.json'),
    'test: predictions where a file is': on('test', plain, good, '--out', lambda b: taken(b) / 'x.pkl'),
    'test: augmentation that the config lacks': on('test', plain, good, '--tta'),
    'test: a misspelt option': on('test', plain, good, '--cfg-options', 'test_dataloader.batch_sizes=1'),
    'test: half an option': on('test', plain, good, '--cfg-options', 'model'),
    'test: data that are not there': on('test', plain, good, '--cfg-options', 'test_dataloader.dataset.data_root=gone'),
    'test: an unknown launcher': on('test', plain, good, '--launcher', 'x'),
    'test: an empty config': on('test', lambda b: b.file('e.py'), good),
    'test: an abbreviated argument': on('test', plain, good, '--show'),
}
EXPORT = {
    'export: nothing': tool('export'),
    'export: no output': on('export', good),
    'export: a checkpoint that is not there': on('export', 'gone.pth', new),
    'export: a page': on('export', page, new),
    'export: an empty file': on('export', taken, new),
    'export: a folder': on('export', lambda b: b.folder, new),
    'export: a list': on('export', saved([1]), new),
    'export: a number': on('export', saved(3), new),
    'export: no weights': on('export', saved(dict(state_dict={})), new),
    'export: weights of text': on('export', saved(dict(state_dict={'a': 'b'})), new),
    'export: keys of numbers': on('export', saved(dict(state_dict={1: torch.ones(1)})), new),
    'export: bare weights': on('export', saved({'a': torch.ones(1)}), new),
    'export: weights of NaN': on('export', diverged, new),
    'export: onto itself': on('export', copied, copied),
    'export: onto a link to itself': on('export', copied, link),
    'export: onto another file': on('export', good, taken),
    'export: into a folder': on('export', good, lambda b: b.folder),
    'export: under a file': on('export', good, lambda b: taken(b) / 'x.pth'),
}
COMPARE = {
    'compare: nothing': tool('compare'),
    'compare: no teacher': on('compare', plain, '--methods', 'ckd'),
    'compare: a report beside a student': on('compare', plain, '--report', 'x'),
    'compare: a report of nothing': on('compare', '--report', lambda b: b.folder),
    'compare: a report of a file': on('compare', '--report', taken),
    'compare: an empty matrix': on('compare', '--report', matrix('')),
    'compare: a matrix that is cut off': on('compare', '--report', matrix('{"student": {')),
    'compare: a matrix of another shape': on('compare', '--report', matrix('[]')),
    'compare: a matrix of other keys': on('compare', '--report', matrix('{"methods": 3}')),
    'compare: seeds in words': on('compare', plain, '--teacher', 't.py', '--methods', 'ckd', '--seeds', 'x'),
    'compare: half an option': on('compare', plain, '--teacher', 't.py', '--methods', 'ckd', '--cfg-options', 'x'),
    'compare: an unknown method': on('compare', plain, '--teacher', plain, '--teacher-checkpoint', good, '--methods',
                                     'dark', '--out', work),
    'compare: a method config that is not there': on('compare', plain, '--teacher', plain, '--teacher-checkpoint', good,
                                                     '--methods', 'gone.py', '--out', work),
    'compare: a teacher that is not there': on('compare', plain, '--teacher', 'gone.py', '--methods', 'ckd', '--out',
                                               work),
    'compare: weights that are not there': on('compare', plain, '--teacher', plain, '--teacher-checkpoint', 'gone.pth',
                                              '--methods', 'ckd', '--out', work),
    'compare: a page as weights': on('compare', plain, '--teacher', plain, '--teacher-checkpoint', page, '--methods',
                                     'none', '--out', work),
    'compare: other weights': on('compare', plain, '--teacher', plain, '--teacher-checkpoint', other, '--methods',
                                 'none', '--out', work),
    'compare: a misspelt metric': on('compare', plain, '--teacher', plain, '--teacher-checkpoint', good, '--methods',
                                     'none', '--metric', 'coco/mAP', '--out', work),
    'compare: a misspelt option': on('compare', plain, '--teacher', plain, '--teacher-checkpoint', good, '--methods',
                                     'none', '--out', work, '--cfg-options', 'trian_cfg.max_epochs=3'),
    'compare: a folder of something else': on('compare', plain, '--teacher', plain, '--teacher-checkpoint', good,
                                              '--methods', 'none', '--out', lambda b: taken(b).parent),
}
ANALYZE = {
    'analyze: nothing': tool('analyze'),
    'analyze: no checkpoint': on('analyze', plain),
    'analyze: a checkpoint that is not there': on('analyze', plain, 'gone.pth'),
    'analyze: no batch': on('analyze', plain, good, '--batches', '0'),
    'analyze: batches in words': on('analyze', plain, good, '--batches', 'x'),
    'analyze: too many names': on('analyze', plain, good, '--method-name', 'a', 'b'),
    'analyze: an output that is a file': on('analyze', plain, good, '--out', taken),
    'analyze: an output under a file': on('analyze', plain, good, '--out', lambda b: taken(b) / 'x'),
    'analyze: no teacher': on('analyze', plain, good, '--out', lambda b: b.folder / 'a'),
    'analyze: a sweep of nothing': on('analyze', '--sweep', lambda b: b.folder),
    'analyze: a sweep beside a config': on('analyze', plain, '--sweep', 'x'),
    'analyze: a sweep of half a matrix': on('analyze', '--sweep', matrix('{"stu')),
}
OTHERS = {
    'benchmark: a size in words': tool('benchmark', '--size', 'big'),
    'benchmark: a batch in words': tool('benchmark', '--batch', 'x'),
    'benchmark: no image on the command line': tool('benchmark', '--batch', '0'),
    'benchmark: an output nowhere': tool('benchmark', '--out', '/gone/x.json'),
    'benchmark: a config that is not there': tool('benchmark', 'gone.py', '--device', 'cpu', '--rounds', '1'),
    'benchmark: a plain config': on('benchmark', plain, '--device', 'cpu', '--rounds', '1', '--out',
                                    lambda b: b.folder / 'x.json'),
    'coverage: no time': tool('coverage', '--families', 'fcos', '--limit', '0'),
    'coverage: a time of NaN': tool('coverage', '--families', 'fcos', '--limit', 'nan'),
    'coverage: an endless time': tool('coverage', '--families', 'fcos', '--limit', 'inf'),
    'coverage: a time in words': tool('coverage', '--limit', 'x'),
    'coverage: no job': tool('coverage', '--families', 'fcos', '--jobs', '0'),
    'coverage: an unknown family': tool('coverage', '--families', 'retina'),
    'coverage: an output under a file': on('coverage', '--families', 'fcos', '--out', lambda b: taken(b) / 'x.md'),
    'scenes: an image less than none': tool('make_digit_scenes', '--train', '-1'),
    'scenes: images in words': tool('make_digit_scenes', '--train', 'x'),
    'scenes: a size of 3': tool('make_digit_scenes', '--size', '3'),
    'scenes: a seed below zero': tool('make_digit_scenes', '--seed', '-1'),
    'scenes: onto a file': on('make_digit_scenes', '--out', taken),
    'scenes: into a folder of something else': on('make_digit_scenes', '--out', lambda b: taken(b).parent),
    'scenes: under a file': on('make_digit_scenes', '--train', '1', '--val', '1', '--size', '64', '--out',
                               lambda b: taken(b) / 'x'),
    'demo: an unknown argument': tool('demo', '--fast'),
}


def settings(content: str) -> Callable[[Bench], None]:
    def keep(b: Bench) -> None:
        (b.folder / 'settings.json').write_text(content)
        with told_in_one_line():
            demo.keep_settings(replace(demo.QUICK, folder=b.folder), {})

    return keep


DEMO = {f'demo: settings that are {name}': Row('demo', settings(content)) for name, content in {
    'empty': '', 'cut off': '{"data": {', 'a list': '[]', 'a number': '3', 'of another demo': json.dumps(dict(data=3))
}.items()}
ROWS = {**TEST, **EXPORT, **COMPARE, **ANALYZE, **OTHERS, **DEMO}
