"""What people give to the other tools: test, export, compare, analyze, benchmark, coverage, the data sets, the demo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from ckd_mmdet.lab.datasets.digit_sources import CLASSES
from ckd_mmdet.lab.demo import detection as demo
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


def shuffled(b: Bench) -> Path:
    loaded = torch.load(good(b), weights_only=False)
    return saved(dict(state_dict=loaded['state_dict'], meta=dict(dataset_meta=dict(classes=CLASSES[::-1]))))(b)


def diverged(b: Bench) -> Path:
    return saved(dict(state_dict={'a.weight': torch.full((1,), float('nan'))}, meta={}))(b)


def matrix(content: str) -> Callable[[Bench], Path]:
    return lambda b: b.file('matrix.json', content).parent




def work(b: Bench) -> Path:
    return b.folder / 'new'


TEST = {
    'test: no config': tool('test', words='the following arguments are required: config, checkpoint'),
    'test: no checkpoint': on('test', plain, words='the following arguments are required: checkpoint'),
    'test: a checkpoint that is not there': on('test', plain, 'gone.pth',
        words=r'checkpoint needs a file that exists, gone\.pth does not'),
    'test: a page as checkpoint': on('test', plain, page, real=True,
        words=r'.* is no whole checkpoint \(ValueError: it is no file that torch\.save wrote\)\.'),
    'test: other weights': on('test', plain, other, real=True,
        words='`checkpoint` needs the weights of the model of the config, .* does not fit it: 6 keys'),
    'test: classes in another order': on('test', plain, shuffled, real=True,
        words="`checkpoint` needs the classes of the test data in their order; 'zero' is class 9 in '.* and label 0"),
    'test: an unfit name of the predictions': on('test', plain, good, '--out', 'x.json',
        words=r'--out needs a file that ends in \.pkl, got x\.json'),
    'test: predictions where a file is': on('test', plain, good, '--out', lambda b: taken(b) / 'x.pkl',
        words=r'`--out` needs a folder that can be written, .* cannot: File exists\.'),
    'test: augmentation that the config lacks': on('test', plain, good, '--tta',
        words="--tta needs `tta_model` and `tta_pipeline` in the config; mmdet's configs/_base_ and"),
    'test: a misspelt option': on('test', plain, good, '--cfg-options', 'test_dataloader.batch_sizes=1',
        words=r'`--cfg-options test_dataloader\.batch_sizes=\.\.\.`: `test_dataloader` has no `batch_sizes`;'),
    'test: half an option': on('test', plain, good, '--cfg-options', 'model',
        words="--cfg-options needs key=value, with dots within keys, got 'model'"),
    'test: data that are not there': on('test', plain, good, '--cfg-options', 'test_dataloader.dataset.data_root=gone',
        words=r"`test_dataloader\.dataset\.data_root` needs a folder that exists, 'gone' does not \(from .*;"),
    'test: an unknown launcher': on('test', plain, good, '--launcher', 'x',
        words=r"argument --launcher: invalid choice: 'x' \(choose from 'none', 'pytorch', 'slurm', 'mpi'\)"),
    'test: an empty config': on('test', lambda b: b.file('e.py'), good,
        words=r'`config` needs a config with a `model`, a dict, .* has none\.'),
    'test: an abbreviated argument': on('test', plain, good, '--show', words='unrecognized arguments: --show'),
}
EXPORT = {
    'export: nothing': tool('export', words='the following arguments are required: checkpoint, out'),
    'export: no output': on('export', good, words='the following arguments are required: out'),
    'export: a checkpoint that is not there': on('export', 'gone.pth', new,
        words=r"`checkpoint` needs a readable checkpoint, 'gone\.pth' is not \(FileNotFoundError: gone\.pth"),
    'export: a page': on('export', page, new,
        words=r'`checkpoint` needs a readable checkpoint, .* is not \(ValueError: it is no file that'),
    'export: an empty file': on('export', taken, new,
        words=r'`checkpoint` needs a readable checkpoint, .* is not \(ValueError: it is empty\)\. Give a path'),
    'export: a folder': on('export', lambda b: b.folder, new,
        words=r'`checkpoint` needs a readable checkpoint, .* is not \(FileNotFoundError: .* can not be found\)\.'),
    'export: a list': on('export', saved([1]), new,
        words=r'`checkpoint` needs a checkpoint with a state dict, .* holds a list\.'),
    'export: a number': on('export', saved(3), new,
        words=r'`checkpoint` needs a checkpoint with a state dict, .* holds a int\.'),
    'export: no weights': on('export', saved(dict(state_dict={})), new,
        words=r'`checkpoint` needs a checkpoint with a state dict, .* holds no weights\.'),
    'export: weights of text': on('export', saved(dict(state_dict={'a': 'b'})), new,
        words='`checkpoint` needs a checkpoint with a state dict, whose values are tensors, .* has str'),
    'export: keys of numbers': on('export', saved(dict(state_dict={1: torch.ones(1)})), new,
        words=r'`checkpoint` needs a checkpoint with a state dict, whose keys are names, .* has the key 1\.'),
    'export: bare weights': on('export', saved({'a': torch.ones(1)}), new,
        words=r'`checkpoint` needs a training checkpoint with a `state_dict`, .* has none\.'),
    'export: weights of NaN': on('export', diverged, new,
        words=r"a student needs finite weights, 'a\.weight' has NaN or infinite values: the training"),
    'export: onto itself': on('export', copied, copied,
        words='`out` needs another file than `checkpoint`, .* is the same: the training checkpoint would be'),
    'export: onto a link to itself': on('export', copied, link,
        words='`out` needs another file than `checkpoint`, .* is the same: the training checkpoint would be'),
    'export: onto another file': on('export', good, taken,
        words=r'`out` needs a new file, .* is there; give another name, or allow it with `--overwrite` \(in'),
    'export: into a folder': on('export', good, lambda b: b.folder, words='`out` needs a file, .* is a folder; give'),
    'export: under a file': on('export', good, lambda b: taken(b) / 'x.pth', words=r'\[Errno 20\] Not a directory:'),
}
COMPARE = {
    'compare: nothing': tool('compare',
        words='needs STUDENT, --teacher and --methods, or --report DIR; not given: student, teacher'),
    'compare: no teacher': on('compare', plain, '--methods', 'ckd',
        words='needs STUDENT, --teacher and --methods, or --report DIR; not given: teacher'),
    'compare: a report beside a student': on('compare', plain, '--report', 'x',
        words='--report trains nothing; leave out STUDENT, --teacher, --methods, --titles and --check-data'),
    'compare: a report of nothing': on('compare', '--report', lambda b: b.folder,
        words=r'`--report` needs the folder of a matrix, .* has no matrix\.json\.'),
    'compare: a report of a file': on('compare', '--report', taken,
        words=r'`--report` needs the folder of a matrix, .* has no matrix\.json\.'),
    'compare: an empty matrix': on('compare', '--report', matrix(''),
        words=r'.* cannot be read, it is empty, cut off or no JSON \(Expecting value: line 1 column 1 \(char'),
    'compare: a matrix that is cut off': on('compare', '--report', matrix('{"student": {'),
        words=r'.* cannot be read, it is empty, cut off or no JSON \(Expecting property name enclosed in'),
    'compare: a matrix of another shape': on('compare', '--report', matrix('[]'),
        words=r'.* is not what compare\.py writes: it needs student, teacher, teacher_checkpoint, epochs'),
    'compare: a matrix of other keys': on('compare', '--report', matrix('{"methods": 3}'),
        words=r'.* is not what compare\.py writes: it needs student, teacher, teacher_checkpoint, epochs'),
    'compare: seeds in words': on('compare', plain, '--teacher', 't.py', '--methods', 'ckd', '--seeds', 'x',
        words="argument --seeds: invalid int value: 'x'"),
    'compare: half an option': on('compare', plain, '--teacher', 't.py', '--methods', 'ckd', '--cfg-options', 'x',
        words="--cfg-options needs key=value, with dots within keys, got 'x'"),
    'compare: an unknown method': on('compare', plain, '--teacher', plain, '--teacher-checkpoint', good, '--methods',
                                     'dark', '--out', work,
        words="`methods` has 'dark', and 'dark' is unknown; take of none, ckd, ckd_released, kd, dkd, dist, pckd"),
    'compare: a method config that is not there': on('compare', plain, '--teacher', plain, '--teacher-checkpoint', good,
                                                     '--methods', 'gone.py', '--out', work,
        words=r"`methods` has 'gone\.py', which is no readable config: \[Errno 2\] No such file or directory:"),
    'compare: a teacher that is not there': on('compare', plain, '--teacher', 'gone.py', '--methods', 'ckd', '--out',
                                               work,
        words=r"`teacher\.config` needs a readable config, got 'gone\.py': \[Errno 2\] No such file or"),
    'compare: weights that are not there': on('compare', plain, '--teacher', plain, '--teacher-checkpoint', 'gone.pth',
                                              '--methods', 'ckd', '--out', work,
        words=r"`--teacher-checkpoint` needs a file that exists, 'gone\.pth' does not\."),
    'compare: a page as weights': on('compare', plain, '--teacher', plain, '--teacher-checkpoint', page, '--methods',
                                     'none', '--out', work,
        words=r'`--teacher-checkpoint` needs a readable checkpoint, .* is not \(ValueError: it is no file'),
    'compare: other weights': on('compare', plain, '--teacher', plain, '--teacher-checkpoint', other, '--methods',
                                 'none', '--out', work,
        words='`--teacher-checkpoint` needs the weights of .*, .* does not fit it: 6 keys'),
    'compare: a misspelt metric': on('compare', plain, '--teacher', plain, '--teacher-checkpoint', good, '--methods',
                                     'none', '--metric', 'coco/mAP', '--out', work,
        words=r"`--metric` needs the key of a metric that `val_evaluator` logs, got 'coco/mAP' \(did you"),
    'compare: a misspelt option': on('compare', plain, '--teacher', plain, '--teacher-checkpoint', good, '--methods',
                                     'none', '--out', work, '--cfg-options', 'trian_cfg.max_epochs=3',
        words=r'.*: `--cfg-options trian_cfg\.max_epochs=\.\.\.` needs a key that the config has, and it has no'),
    'compare: a folder of something else': on('compare', plain, '--teacher', plain, '--teacher-checkpoint', good,
                                              '--methods', 'none', '--out', lambda b: taken(b).parent,
        words=r'`--out` needs a folder that is new, empty or a matrix of before, .* holds something else\.'),
}
ANALYZE = {
    'analyze: nothing': tool('analyze',
        words='needs CONFIG and at least one CHECKPOINT of the student, or --sweep DIR'),
    'analyze: no checkpoint': on('analyze', plain,
        words='needs CONFIG and at least one CHECKPOINT of the student, or --sweep DIR'),
    'analyze: a checkpoint that is not there': on('analyze', plain, 'gone.pth',
        words=r'`checkpoint` needs a file that exists, gone\.pth does not\.'),
    'analyze: no batch': on('analyze', plain, good, '--batches', '0',
        words=r'`--batches` needs a positive number, got 0\.'),
    'analyze: batches in words': on('analyze', plain, good, '--batches', 'x',
        words="argument --batches: invalid int value: 'x'"),
    'analyze: too many names': on('analyze', plain, good, '--method-name', 'a', 'b',
        words=r'`--method-name` needs a name for each of the 1 checkpoints, got 2\.'),
    'analyze: an output that is a file': on('analyze', plain, good, '--out', taken,
        words=r'`--out` needs a folder that can be written, .* cannot: File exists\.'),
    'analyze: an output under a file': on('analyze', plain, good, '--out', lambda b: taken(b) / 'x',
        words=r'`--out` needs a folder that can be written, .* cannot: Not a directory\.'),
    'analyze: no teacher': on('analyze', plain, good, '--out', lambda b: b.folder / 'a',
        words=r'`--teacher` needs the config of the teacher: a plain student names none\.'),
    'analyze: a sweep of nothing': on('analyze', '--sweep', lambda b: b.folder,
        words=r'`--sweep` needs the folder of a compare\.py run: `--report` needs the folder of a matrix'),
    'analyze: a sweep beside a config': on('analyze', plain, '--sweep', 'x',
        words='--sweep reads finished runs; leave out CONFIG and CHECKPOINT'),
    'analyze: a sweep of half a matrix': on('analyze', '--sweep', matrix('{"stu'),
        words=r'`--sweep` needs the folder of a compare\.py run: .* cannot be read, it is empty, cut off or'),
}
OTHERS = {
    'benchmark: a size in words': tool('benchmark', '--size', 'big',
        words='argument --size: needs HEIGHTxWIDTH in pixels, such as 256x384, got big'),
    'benchmark: a batch in words': tool('benchmark', '--batch', 'x', words="argument --batch: invalid int value: 'x'"),
    'benchmark: no image on the command line': tool('benchmark', '--batch', '0',
        words=r'a benchmark needs a `batch` of at least 1 and a `size` of at least 32x32, got 0 and 256x384\.'),
    'benchmark: an output nowhere': tool('benchmark', '--out', '/gone/x.json',
        words=r'--out needs a folder that exists, /gone/x\.json has none'),
    'benchmark: a config that is not there': tool('benchmark', 'gone.py', '--device', 'cpu', '--rounds', '1',
        words=r"\[Errno 2\] No such file or directory: 'gone\.py", kind='raw'),
    'benchmark: a plain config': on('benchmark', plain, '--device', 'cpu', '--rounds', '1', '--out',
                                    lambda b: b.folder / 'x.json',
        words=r'a benchmark needs the config of a `ckd_mmdet\.Distiller` with `teacher` and `alignments`'),
    'coverage: no time': tool('coverage', '--families', 'fcos', '--limit', '0',
        words=r'`limit` needs a finite number of seconds greater than 0, got 0\.0\.'),
    'coverage: a time of NaN': tool('coverage', '--families', 'fcos', '--limit', 'nan',
        words=r'`limit` needs a finite number of seconds greater than 0, got nan\.'),
    'coverage: an endless time': tool('coverage', '--families', 'fcos', '--limit', 'inf',
        words=r'`limit` needs a finite number of seconds greater than 0, got inf\.'),
    'coverage: a time in words': tool('coverage', '--limit', 'x', words="argument --limit: invalid float value: 'x'"),
    'coverage: no job': tool('coverage', '--families', 'fcos', '--jobs', '0',
        words=r'`jobs` needs a positive number of processes, got 0\.'),
    'coverage: an unknown family': tool('coverage', '--families', 'retina',
        words="`family` needs a folder of mmdet's configs, got 'retina'; known: atss, autoassign, boxinst"),
    'coverage: an output under a file': on('coverage', '--families', 'fcos', '--out', lambda b: taken(b) / 'x.md',
        words=r'`--out` needs a folder that can be written, .* cannot: File exists\.'),
    'scenes: an image less than none': tool('make_digit_scenes', '--train', '-1',
        words='`--train` needs to be at least 0, not -1; give 0 or more'),
    'scenes: images in words': tool('make_digit_scenes', '--train', 'x',
        words="argument --train: invalid int value: 'x'"),
    'scenes: a size of 3': tool('make_digit_scenes', '--size', '3',
        words='`--size` needs to be at least 64, not 3; give 64 or more'),
    'scenes: a seed below zero': tool('make_digit_scenes', '--seed', '-1',
        words='`--seed` needs to be at least 0, not -1; give 0 or more'),
    'scenes: onto a file': on('make_digit_scenes', '--out', taken,
        words='`--out` needs a folder; .* is a file; give another name, or remove the file'),
    'scenes: into a folder of something else': on('make_digit_scenes', '--out', lambda b: taken(b).parent,
        words='`--out` needs a new or empty folder, or one with a DigitScenes set; .* also holds taken'),
    'scenes: under a file': on('make_digit_scenes', '--train', '1', '--val', '1', '--size', '64', '--out',
                               lambda b: taken(b) / 'x',
        words=r'`--out` needs a folder that can be written; .* cannot \(\[Errno 17\] File exists: .*; give'),
    'demo: an unknown argument': tool('demo', '--fast', words='unrecognized arguments: --fast'),
}


def demo_with(change: Callable[[Bench], None], words: str) -> Row:
    """A demo whose folder holds something else than it would write."""
    def run(b: Bench) -> None:
        scenes = demo.Scenes(b.folder / 'data', 1, 1, replace(demo.DEMO.demo, folder=b.folder / 'demo'))
        change(b)
        with told_in_one_line():
            demo.run_detection(scenes, [0])

    return Row('demo', run, words)


def holds(name: str, content: str) -> Callable[[Bench], None]:
    def write(b: Bench) -> None:
        path = b.folder / name
        path.parent.mkdir(parents=True)
        path.write_text(content)

    return write


PLAN = 'demo/matrix/matrix.json'
DEMO = {
    'demo: quick and full at once': tool('demo', '--quick', '--full',
        words='--full: not allowed with argument --quick'),
    'demo: a seed that is none': tool('demo', '--seeds', 'x', words="argument --seeds: invalid int value: 'x'"),
    'demo: a plan that is cut off': demo_with(holds(PLAN, '{"seeds": ['),
        r'matrix\.json cannot be read, it is empty, cut off or no JSON'),
    'demo: a plan that is a list': demo_with(holds(PLAN, '[]'), r'matrix\.json is not what compare\.py writes'),
    'demo: a folder of something else': demo_with(holds('demo/matrix/x', ''),
        r'needs a folder that is new, empty or a matrix of before, .*matrix holds something else'),
}
ROWS = {**TEST, **EXPORT, **COMPARE, **ANALYZE, **OTHERS, **DEMO}
