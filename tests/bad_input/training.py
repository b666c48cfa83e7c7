"""What people give to tools/train.py: arguments, configs, overrides, annotations."""

from __future__ import annotations

import json
from typing import Any

from ckd_mmdet.recipes import METHODS

from tests.bad_input.bench import Bench, Row
from tests.small_runs import student_config

INF, NAN = float('inf'), float('nan')


def option(*options: str, words: str = '', **kind: str) -> Row:
    return Row('train', lambda b: b.train_tool(*options), words, **kind)


def arguments(*given: str, words: str = '', **kind: str) -> Row:
    return Row('train', lambda b: b.tool('train', b.config(plain=True), *given), words, **kind)


def source(text: str | bytes, words: str = '', **kind: str) -> Row:
    return Row('train', lambda b: b.train_file(text), words, **kind)


def setting(key: str, value: Any, words: str = '', real: bool = False, **kind: str) -> Row:
    """A config in which something has a wrong value or type."""
    def change(cfg: Any) -> None:
        *parents, last = key.split('.')
        for parent in parents:
            cfg = cfg[int(parent)] if parent.isdigit() else cfg[parent]
        cfg[last] = value

    return Row('train', lambda b: b.train_changed(change, real=real), words, **kind)


def coco(spoil: Any, words: str = '', **kind: str) -> Row:
    return Row('train', lambda b: b.with_coco(spoil), words, **kind)


def each(change: Any) -> Any:
    return lambda data: [change(one) for one in data['annotations']]


def first(**changes: object) -> Any:
    return lambda data: data['annotations'][0].update(changes)


def two(b: Bench) -> None:
    b.file('other.py', "_base_ = 'config.py'\n")
    b.train_file("_base_ = 'other.py'\n")


CONFIGS = {
    'no such config': Row('train', lambda b: b.tool('train', 'gone.py'),
        words=r'`config` needs a readable config, .* is not: FileNotFoundError: \[Errno 2\] No such file or'),
    'a config in no package': Row('train', lambda b: b.tool('train', 'mmdet::gone/gone.py'),
        words='`config` needs a readable config, .* is not: FileNotFoundError: file'),
    'an unknown package': Row('train', lambda b: b.tool('train', 'nopackage::x.py'),
        words='`config` needs a readable config, .* is not: `_get_package_and_cfg_path` is used'),
    'a folder as config': Row('train', lambda b: b.tool('train', b.folder),
        words='`config` needs a readable config, .* is not: FileNotFoundError: file .* does not exist'),
    'a checkpoint as config': Row('train', lambda b: b.tool('train', b.taught['checkpoint']),
        words='`config` needs a readable config, .* is not: OSError: Only py/yml/yaml/json type are'),
    'a config without ending': Row('train', lambda b: b.tool('train', b.file('config')),
        words='`config` needs a readable config, .* is not: OSError: Only py/yml/yaml/json type are'),
    'an empty config': source('', words=r'`config` needs a config with a `model`, a dict, .* has none\.'),
    'a config that is its own base': source("_base_ = 'config.py'\n",
        words=r'`_base_` needs other configs, .* has itself, through config\.py\.'),
    'two configs that are bases of each other': Row('train', two,
        words=r'`_base_` needs other configs, .* has itself, through config\.py and other\.py\.'),
    'a base that is not there': source("_base_ = 'gone.py'\n",
        words=r'`config` needs a readable config, .* is not: FileNotFoundError: \[Errno 2\] No such file or'),
    'a base that is a number': source('_base_ = 3\n',
        words=r'`_base_` needs the path of a config, or a list of paths, in .* it is 3\.'),
    'a bracket left open': source('model = dict(',
        words=r"`config` needs a readable config, .* is not: .*SyntaxError \(line 1\): '\(' was never closed"),
    'a name that is not defined': source('model = dict(type=Faster)',
        words="`config` needs a readable config, .* is not: .*NameError: name 'Faster' is not defined"),
    'a config with an error of its own': source('model = 1 / 0',
        words='`config` needs a readable config, .* is not: ZeroDivisionError: division by zero'),
    'a config with a null byte': source(b'model = "\x00"',  # a ValueError before Python 3.11.4
        words='`config` needs a readable config, .* is not: .*source code string cannot contain'),
    'a config in Latin-1': source('model = "größe"'.encode('latin-1'),
        words="`config` needs a readable config, .* is not: UnicodeDecodeError: 'utf-8' codec can't decode"),
    'a config with a byte order mark': source(b'\xef\xbb\xbfmodel = dict(type="X")',
        words='`config` needs a readable config, .* is not: .*SyntaxError .*: invalid non-printable character'),
    'a page as config': source('<html>404</html>',
        words=r'`config` needs a readable config, .* is not: .*SyntaxError \(line 1\): invalid syntax'),
    'a custom import that is not there': source('custom_imports = dict(imports=["gone_module"])\nmodel = dict()',
        words='gone_module', kind='raw'),
    'a model of text': source('model = "FasterRCNN"',
        words=r"`config` needs a config with a `model`, a dict, .* has 'FasterRCNN'\."),
    'a model of none': source('model = None', words=r'`config` needs a config with a `model`, a dict, .* has none\.'),
    'a model without type': setting('model', dict(), real=True,
        words='`cfg` or `default_args` must contain the key "type"', kind='raw'),
    'an unknown model': setting('model', dict(type='FasterRNN'), real=True,
        words=r'FasterRNN is not in the mmdet::model registry\. Please check whether the value of', kind='raw'),
    'two bases with the same key': Row('train', lambda b: (
        b.file('a.py', 'model = dict(x=1)'), b.file('b.py', 'model = dict(x=2)'),
        b.train_file("_base_ = ['a.py', 'b.py']\n")),
        words='`config` needs a readable config, .* is not: KeyError: "Duplicate key is not allowed among'),
}

DISTILLER = {
    'alignments are a list': setting('model.alignments', [1], real=True,
        words=r'`Distiller` needs a dict as `alignments`, got \[1\]\.'),
    'alignments are text': setting('model.alignments', 'roi', real=True,
        words=r"`Distiller` needs a dict as `alignments`, got 'roi'\."),
    'alignments are a number': setting('model.alignments', 3, real=True,
        words=r'`Distiller` needs a dict as `alignments`, got 3\.'),
    'an alignment is text': setting('model.alignments.roi', 'RoIAligner', real=True,
        words=r'`alignments\.roi` needs the keys `aligner` and `losses`, and may have `selector` and'),
    'an alignment is none': setting('model.alignments.roi', None, real=True,
        words=r'`alignments\.roi` needs the keys `aligner` and `losses`, and may have `selector` and'),
    'an aligner is text': setting('model.alignments.roi.aligner', 'RoIAligner', real=True,
        words=r"`alignments\.roi\.aligner` needs a dict with the key `type`, got 'RoIAligner'\."),
    'losses are a list': setting('model.alignments.roi.losses', [dict(type='CKDLoss')], real=True,
        words=r'`alignments\.roi\.losses` needs at least one loss, by name; to train the student alone, leave'),
    'losses are text': setting('model.alignments.roi.losses', 'ckd', real=True,
        words=r'`alignments\.roi\.losses` needs at least one loss, by name; to train the student alone, leave'),
    'a loss is text': setting('model.alignments.roi.losses.loss_ckd', 'CKDLoss', real=True,
        words=r"`alignments\.roi\.losses\.loss_ckd` needs a dict with the key `type`, got 'CKDLoss'\."),
    'a loss is none': setting('model.alignments.roi.losses.loss_ckd', None, real=True,
        words=r'`alignments\.roi\.losses\.loss_ckd` needs a dict with the key `type`, got None\.'),
    'a selector is text': setting('model.alignments.roi.selector', 'Foreground', real=True,
        words=r"`alignments\.roi\.selector` needs a dict with the key `type`, got 'Foreground'\."),
    'a selector is a number': setting('model.alignments.roi.selector', 5, real=True,
        words=r'`alignments\.roi\.selector` needs a dict with the key `type`, got 5\.'),
    'a teacher is text': setting('model.teacher', 'mmdet::x.py', real=True,
        words=r"`Distiller` needs a dict as `teacher`, got 'mmdet::x\.py'\."),
    'a teacher is a list': setting('model.teacher', [1], real=True,
        words=r'`Distiller` needs a dict as `teacher`, got \[1\]\.'),
    'a teacher is a number': setting('model.teacher', 3, real=True,
        words=r'`Distiller` needs a dict as `teacher`, got 3\.'),
    'a teacher without config': setting('model.teacher', dict(checkpoint='x.pth'), real=True,
        words="`teacher`: `FrozenTeacher` missing a required argument: 'config'; it takes config"),
    'a teacher of an empty dict': setting('model.teacher', {}, real=True,
        words='`Distiller` needs a `teacher` with a `config`, or `None` to train the student alone, got an'),
    'a checkpoint is a number': setting('model.teacher.checkpoint', 3, real=True,
        words=r"`teacher\.checkpoint` needs a readable checkpoint, '3' is not \(FileNotFoundError: 3 can not"),
    'a checkpoint is a list': setting('model.teacher.checkpoint', ['x.pth'], real=True,
        words=r'`teacher\.checkpoint` needs a readable checkpoint, "\[.x\.pth.\]" is not \(FileNotFoundError:'),
    'a class map is a number': setting('model.teacher.class_map', 3, real=True,
        words=r"`teacher\.class_map` needs to be 'name' or a dict from the student's names to the teacher's"),
    'a class map is text': setting('model.teacher.class_map', 'names', real=True,
        words=r"`teacher\.class_map` needs to be 'name' or a dict from the student's names to the teacher's"),
    'a student is text': setting('model.student', 'FasterRCNN', real=True,
        words=r"`Distiller` needs a dict as `student`, got 'FasterRCNN'\."),
    'a student is none': setting('model.student', None, real=True,
        words=r'`Distiller` needs a dict as `student`, got None\.'),
    'a student without type': setting('model.student', dict(backbone={}), real=True,
        words='`cfg` or `default_args` must contain the key "type"', kind='raw'),
    'a student is a Distiller': Row('train', lambda b: b.train_changed(
        lambda cfg: cfg.model.update(student=dict(type='ckd_mmdet.Distiller', student=student_config())), real=True),
        words="`Distiller` needs the config of a plain model as `student`, and this is a Distiller's; give"),
    'an unknown key of the Distiller': setting('model.temperature', 3.0, real=True,
        words=r"distil\(\) got an unexpected keyword argument 'temperature", kind='raw'),
    'hooks are a number': setting('custom_hooks', 3, words=r'`custom_hooks` needs a list of dicts, got 3\.'),
    'a hook is text': setting('custom_hooks', ['EMAHook'],
        words=r"`custom_hooks` needs a list of dicts, got \['EMAHook'\]\."),
    'patience is zero': setting('custom_hooks', [dict(type='ckd_mmdet.DistillHook', patience=0)], real=True,
        words=r'`DistillHook` needs a whole `patience` of at least 1, got 0\.'),
    'patience is text': setting('custom_hooks', [dict(type='ckd_mmdet.DistillHook', patience='x')], real=True,
        words=r"`DistillHook` needs a whole `patience` of at least 1, got 'x'\."),
}

NUMBERS = {
    'no epoch': option('train_cfg.max_epochs=0',
        words=r'`train_cfg\.max_epochs` needs a whole number of at least 1, got 0\.'),
    'a negative number of epochs': option('train_cfg.max_epochs=-3',
        words=r'`train_cfg\.max_epochs` needs a whole number of at least 1, got -3\.'),
    'half an epoch': option('train_cfg.max_epochs=0.5',
        words=r'`train_cfg\.max_epochs` needs a whole number of at least 1, got 0\.5\.'),
    'endless epochs': option('train_cfg.max_epochs=inf',
        words=r'`train_cfg\.max_epochs` needs a whole number of at least 1, got inf\.'),
    'epochs in words': option('train_cfg.max_epochs=twelve',
        words=r"`train_cfg\.max_epochs` needs a whole number of at least 1, got 'twelve'\."),
    'epochs of True': option('train_cfg.max_epochs=True',
        words=r'`train_cfg\.max_epochs` needs a whole number of at least 1, got True\.'),
    'never validated': option('train_cfg.val_interval=0',
        words=r'`train_cfg\.val_interval` needs a whole number of at least 1, got 0\.'),
    'validated in words': option('train_cfg.val_interval=often',
        words=r"`train_cfg\.val_interval` needs a whole number of at least 1, got 'often'\."),
    'a batch of none': option('train_dataloader.batch_size=0',
        words=r'`train_dataloader\.batch_size` needs a whole number of at least 1, got 0\.'),
    'a batch of 2.5': option('train_dataloader.batch_size=2.5',
        words=r'`train_dataloader\.batch_size` needs a whole number of at least 1, got 2\.5\.'),
    'minus one worker': option('train_dataloader.num_workers=-1',
        words=r'`train_dataloader\.num_workers` needs a whole number of at least 0, got -1\.'),
    'a learning rate of NaN': option('optim_wrapper.optimizer.lr=nan',
        words=r'`optim_wrapper\.optimizer\.lr` needs a finite number of at least 0, got nan\.'),
    'an infinite learning rate': option('optim_wrapper.optimizer.lr=inf',
        words=r'`optim_wrapper\.optimizer\.lr` needs a finite number of at least 0, got inf\.'),
    'a negative learning rate': option('optim_wrapper.optimizer.lr=-0.1',
        words=r'`optim_wrapper\.optimizer\.lr` needs a finite number of at least 0, got -0\.1\.'),
    'a learning rate with a comma': option('optim_wrapper.optimizer.lr=0,01',
        words=r'`optim_wrapper\.optimizer\.lr` needs a finite number of at least 0, got \[0, 1\]\.'),
    'a learning rate in words': option('optim_wrapper.optimizer.lr=small',
        words=r"`optim_wrapper\.optimizer\.lr` needs a finite number of at least 0, got 'small'\."),
    'a momentum of NaN': option('optim_wrapper.optimizer.momentum=nan',
        words=r'`optim_wrapper\.optimizer\.momentum` needs a finite number of at least 0, got nan\.'),
    'a seed below zero': option('randomness.seed=-1',
        words=r'`randomness\.seed` needs a whole number of at least 0, got -1\.'),
    'a seed above NumPy\'s': option('randomness.seed=4294967296',
        words=r'`randomness\.seed` needs a whole number from 0 to 4294967295, got 4294967296\.'),
    'a seed in words': option('randomness.seed=lucky',
        words=r"`randomness\.seed` needs a whole number of at least 0, got 'lucky'\."),
    'clipping at NaN': option('optim_wrapper.clip_grad.max_norm=nan',
        words=r'`optim_wrapper\.clip_grad\.max_norm` needs a finite number of at least 0, got nan\.'),
    'a learning rate of zero': option('optim_wrapper.optimizer.lr=0',
        kind='accepted', reason='a part of the model may be trained alone'),
}

OPTIONS = {
    'an override without value': option('model',
        words="--cfg-options needs key=value, with dots within keys, got 'model'"),
    'an override without key': option('=3', words="--cfg-options needs key=value, with dots within keys, got '=3'"),
    'an override with two dots': option('model..x=3',
        words=r"--cfg-options needs key=value, with dots within keys, got 'model\.\.x=3'"),
    'a misspelt first key': option('modle.foo=3',
        words=r'`--cfg-options modle\.foo=\.\.\.` needs a key that the config has, and it has no `modle`; did'),
    'a misspelt key': option('train_dataloader.datset.ann_file=x.json',
        words=r'`--cfg-options train_dataloader\.datset\.ann_file=\.\.\.`: `train_dataloader` has no `datset`;'),
    'a misspelt last key': option('train_cfg.max_epoch=3',
        words=r'`--cfg-options train_cfg\.max_epoch=\.\.\.`: `train_cfg` has no `max_epoch`; did you mean'),
    'a first key that nothing reads': option('lr=0.1',
        words=r'`--cfg-options lr=\.\.\.` needs a key that the config has, and it has no `lr`; to add it'),
    'a place behind the end of a list': option('param_scheduler.9.end=3',
        words=r'`--cfg-options param_scheduler\.9\.end=\.\.\.` needs a number from 0 to 0 after'),
    'a name in a list': option('param_scheduler.first.end=3',
        words=r'`--cfg-options param_scheduler\.first\.end=\.\.\.` needs a number from 0 to 0 after'),
    'a key of a number': option('train_cfg.max_epochs.x=3',
        words=r'`--cfg-options train_cfg\.max_epochs\.x=\.\.\.` needs a dict or a list as'),
    'a bracket that does not close': option('param_scheduler=[1,(2',
        words='--cfg-options needs a bracket that closes for each that opens: Imbalanced brackets exist in'),
    'a new key that somebody may read': option('model.student.test_cfg.foo=3',
        kind='accepted', reason="a head of one's own may read it"),
    'a path with spaces that is not there': option('train_dataloader.dataset.data_root=/my data/set',
        words=r"`train_dataloader\.dataset\.data_root` needs a folder that exists, '/my data/set' does not"),
}

ARGUMENTS = {
    'no config': Row('train', lambda b: b.tool('train'), words='the following arguments are required: config'),
    'train: an unknown argument': arguments('--epochs', '3', words='unrecognized arguments: --epochs 3'),
    'an unknown launcher': arguments('--launcher', 'torchrun',
        words=r"argument --launcher: invalid choice: 'torchrun' \(choose from 'none', 'pytorch', 'slurm'"),
    'a method without teacher': arguments('--method', 'ckd',
        words='--method needs --teacher, the config of the detector that teaches'),
    'an unknown method': arguments('--method', 'cdk', '--teacher', 'x.py',
        words=f'`method` needs one of {", ".join(METHODS)},'),
    'a method twice': arguments('--method', 'ckd+ckd', '--teacher', 'x.py',
        words=f'`method` needs one of {", ".join(METHODS)},'),
    'a weight without teacher': arguments('--loss-weight', '3',
        words='--loss-weight needs --teacher, the config of the detector that teaches'),
    'a teacher that is not there': arguments('--teacher', 'gone.py',
        words=r"`teacher\.config` needs a readable config, got 'gone\.py': \[Errno 2\] No such file or"),
    'a teacher without weights': Row('train', lambda b: b.tool(
        'train', b.config(plain=True), '--teacher', b.file('t.py', b.config(plain=True).read_text())),
        words=r'`teacher\.checkpoint` is missing, and no address of a checkpoint is known for .*; give the'),
    'a checkpoint that is not there to resume': arguments('--resume', 'gone.pth',
        words=r'--resume needs a checkpoint that exists, gone\.pth does not; without a name it takes the'),
    'a page to resume': Row('train', lambda b: b.tool(
        'train', b.config(plain=True), '--resume', b.file('x.pth', '<html>'), real=True),
        words=r'.* is no whole checkpoint \(ValueError: it is no file that torch\.save wrote\)\.'),
    'resume and overwrite': arguments('--resume', '--overwrite',
        words='--overwrite trains anew and --resume goes on; give one of them'),
    'a learning rate to scale without base': arguments('--auto-scale-lr',
        words=r'--auto-scale-lr needs `auto_scale_lr\.base_batch_size` in the config; add `auto_scale_lr ='),
    'a work dir that is a file': Row('train', lambda b: b.tool(
        'train', b.config(plain=True), '--work-dir', b.file('taken')),
        words=r'`--work-dir` needs a folder that can be written, .* cannot: File exists\.'),
    'a work dir that cannot be made': arguments('--work-dir', '/proc/run',
        words='`--work-dir` needs a folder that can be written, /proc/run cannot: No such file or'),
    'a finished work dir': Row('train', lambda b: (
        (b.folder / 'w').mkdir(), (b.folder / 'w/epoch_1.pth').touch(),
        b.tool('train', b.config(plain=True), '--work-dir', b.folder / 'w')),
        words=r'`--work-dir` needs a folder without a training, .* holds one \(epoch_1\.pth\)\. Go on with it by'),
    'nothing to resume in an empty work dir': Row('train', lambda b: b.tool(
        'train', b.config(plain=True), '--work-dir', b.folder / 'new', '--resume'),
        kind='accepted', reason='a command that is repeated until it is done has a first time; the log says so'),
    'only half a checkpoint to resume': Row('train', lambda b: (
        (b.folder / 'w').mkdir(), (b.folder / 'w/epoch_1.pth').write_bytes(b'PK half'),
        b.tool('train', b.config(plain=True), '--work-dir', b.folder / 'w', '--resume')),
        words=r'`--resume` needs a whole checkpoint in .*, and none of epoch_1\.pth is: they are cut off, or'),
}

ANNOTATIONS = {
    'annotations with a byte order mark': Row('train', lambda b: b.with_annotations(
        b'\xef\xbb\xbf' + b.coco().encode()),
        words=r'`train_dataloader\.dataset\.ann_file` needs a COCO JSON, .* is none: it starts with a byte'),
    'annotations in UTF-16': Row('train', lambda b: b.with_annotations(b.coco().encode('utf-16')),
        words=r'`train_dataloader\.dataset\.ann_file` needs a COCO JSON, .* is none: it starts with a byte'),
    'annotations with a trailing comma': Row('train', lambda b: b.with_annotations(
        b.coco().rstrip()[:-1] + ',}'),
        words=r'`train_dataloader\.dataset\.ann_file` needs a COCO JSON, .* is none: Expecting property name'),
    'annotations in single quotes': Row('train', lambda b: b.with_annotations(str(json.loads(b.coco()))),
        words=r'`train_dataloader\.dataset\.ann_file` needs a COCO JSON, .* is none: it has no images and no'),
    'no image': coco(lambda data: data.update(images=[]),
        words=r'needs boxes .* unfit ones: MMDetection leaves out 63 of 63\. Of the 63 annotations, 63 are of'),
    'no annotation': coco(lambda data: data.update(annotations=[]), words=r'needs boxes .* none\.'),
    'no category': coco(lambda data: data.update(categories=[]),
        words=r'needs boxes .* unfit ones: MMDetection leaves out 63 of 63\. Of the 63 annotations, 63 have a'),
    'images are a dict': coco(lambda data: data.update(images={'1': {}}),
        words=r'`train_dataloader\.dataset\.ann_file` needs a COCO JSON, whose `images` is a list of dicts'),
    'annotations by image': coco(lambda data: data.update(annotations={'1': []}),
        words=r'`train_dataloader\.dataset\.ann_file` needs a COCO JSON, whose `annotations` is a list of'),
    'an annotation is none': coco(lambda data: data['annotations'].append(None),
        words=r'`train_dataloader\.dataset\.ann_file` needs a COCO JSON, whose `annotations` is a list of'),
    'an annotation without area': coco(lambda data: data['annotations'][0].pop('area'),
        words=r"needs boxes .* 1 annotations without `area`, such as \{'id': 1, 'image_id': 1, 'category_id':"),
    'no annotation has an area': coco(each(lambda one: one.pop('area')),
        words=r"needs boxes .* 63 annotations without `area`, such as \{'id': 1, 'image_id': 1"),
    'an annotation without box': coco(lambda data: data['annotations'][0].pop('bbox'),
        words=r"needs boxes .* 1 annotations without `bbox`, such as \{'id': 1, 'image_id': 1, 'category_id':"),
    'an annotation without image': coco(lambda data: data['annotations'][0].pop('image_id'),
        words=r"needs boxes .* 1 annotations without `image_id`, such as \{'id': 1, 'category_id': 1, 'bbox':"),
    'an annotation without category': coco(lambda data: data['annotations'][0].pop('category_id'),
        words=r"needs boxes .* 1 annotations without `category_id`, such as \{'id': 1, 'image_id': 1, 'bbox':"),
    'an annotation without id': coco(lambda data: data['annotations'][0].pop('id'),
        words=r"needs boxes .* 1 annotations without `id`, such as \{'image_id': 1, 'category_id': 1, 'bbox':"),
    'two annotations of one id': coco(lambda data: data['annotations'][0].update(id=data['annotations'][1]['id']),
        words=r'needs boxes .* several annotations with the `id` 2; give each its own\.'),
    'two images of one id': coco(lambda data: data['images'][0].update(id=data['images'][1]['id']),
        words='needs boxes .* 1 `id`s that several images share, of which all but the last would be left'),
    'an image without file': coco(lambda data: data['images'][0].pop('file_name'),
        words=r"needs boxes .* an image without `file_name`: \{'id': 1, 'width': 64, 'height': 64, 'photo':"),
    'an image without height': coco(lambda data: data['images'][0].pop('height'),
        words=r"needs boxes .* an image without `height`: \{'id': 1, 'file_name': '000001\.png', 'width': 64"),
    'a box with NaN': coco(first(bbox=[1, 2, NAN, 4]),
        words='needs boxes .* an annotation whose `bbox` is not four finite numbers, or whose `area` is'),
    'an infinite box': coco(first(bbox=[1, 2, INF, 4]),
        words='needs boxes .* an annotation whose `bbox` is not four finite numbers, or whose `area` is'),
    'a box of text': coco(first(bbox=['1', '2', '3', '4']),
        words='needs boxes .* an annotation whose `bbox` is not four finite numbers, or whose `area` is'),
    'a box of three numbers': coco(first(bbox=[1, 2, 3]),
        words='needs boxes .* an annotation whose `bbox` is not four finite numbers, or whose `area` is'),
    'an empty box': coco(first(bbox=[]),
        words='needs boxes .* an annotation whose `bbox` is not four finite numbers, or whose `area` is'),
    'boxes of corners': coco(each(lambda one: one.update(bbox=[30, 30, 60, 60])),
        words=r'needs boxes .* unfit ones: they look like \[x1, y1, x2, y2\], and a `bbox` is \[x, y, width'),
    'boxes from 0 to 1': coco(each(lambda one: one.update(bbox=[0.1, 0.1, 0.5, 0.5])),
        words=r'needs boxes .* unfit ones: most are from 0 to 1, and a `bbox` is \[x, y, width, height\] in'),
    'boxes of negative size': coco(each(lambda one: one.update(bbox=[30, 30, -9, -9])),
        words=r'needs boxes .* unfit ones: MMDetection leaves out 63 of 63\. Of the 63 annotations, 63 have a'),
    'boxes without size': coco(each(lambda one: one.update(bbox=[30, 30, 0, 0])),
        words=r'needs boxes .* unfit ones: MMDetection leaves out 63 of 63\. Of the 63 annotations, 63 have a'),
    'boxes outside': coco(each(lambda one: one.update(bbox=[900, 900, 9, 9])),
        words=r'needs boxes .* unfit ones: MMDetection leaves out 63 of 63\. Of the 63 annotations, 63 lie'),
    'crowds only': coco(each(lambda one: one.update(iscrowd=1)),
        words=r'needs boxes .* unfit ones: all are crowds \(`iscrowd=1`\), and none is left to learn from\. Of'),
    'areas of zero': coco(each(lambda one: one.update(area=0)),
        words=r'needs boxes .* unfit ones: MMDetection leaves out 63 of 63\. Of the 63 annotations, 63 have'),
    'categories that are not listed': coco(each(lambda one: one.update(category_id=77)),
        words=r'needs boxes .* unfit ones: MMDetection leaves out 63 of 63\. Of the 63 annotations, 63 have a'),
    'images that are not listed': coco(each(lambda one: one.update(image_id=7777)),
        words=r'needs boxes .* unfit ones: MMDetection leaves out 63 of 63\. Of the 63 annotations, 63 are of'),
    'a category without name': coco(lambda data: data['categories'][0].pop('name'),
        words=r"needs boxes .* a category without `id` and `name`: \{'id': 1\}\."),
    'one box outside': coco(first(bbox=[900, 900, 9, 9]), kind='accepted', reason='the log counts it, with its id'),
    'one box of negative size': coco(first(bbox=[30, 30, -9, -9]),
        kind='accepted', reason='the log counts it, with its id'),
}

CLASSES = {
    'a misspelt class': setting('train_dataloader.dataset.metainfo.classes', ('zero', 'oen'),
        words=r'`metainfo\.classes` of CocoDataset \(.* needs names that the annotations have, and they have'),
    'classes in capitals': setting('train_dataloader.dataset.metainfo.classes', ('Zero', 'One'),
        words=r'`metainfo\.classes` of CocoDataset \(.* needs names that the annotations have, and they have'),
    'classes are a number': setting('train_dataloader.dataset.metainfo.classes', 10,
        words=r'`classes` needs names, as a list of text, got 10\.'),
    'classes are numbers': setting('train_dataloader.dataset.metainfo.classes', (0, 1, 2),
        words=r'`classes` needs names, as a list of text, got 0 in \[0, 1, 2\]\.'),
    'a file of classes that is not there': setting('train_dataloader.dataset.metainfo.classes', 'gone.txt',
        words=r"`metainfo\.classes` needs a file of names that exists, 'gone\.txt' does not \(from .*; MMEngine"),
    'data set without type': Row('train', lambda b: b.train_changed(
        lambda cfg: cfg.train_dataloader.dataset.pop('type')),
        words=r'`train_dataloader\.dataset\.type` needs text, got None\.'),
    'an unknown data set': setting('train_dataloader.dataset.type', 'CocoDatset',
        words=r"`train_dataloader\.dataset\.type` needs the name of a registered data set, got 'CocoDatset'"),
    'no data set': setting('train_dataloader.dataset', None,
        words='`train_dataloader` needs a dict with the config of a `dataset`, a dict with a `type`, got'),
    'a data set of text': setting('train_dataloader.dataset', 'coco',
        words='`train_dataloader` needs a dict with the config of a `dataset`, a dict with a `type`, got'),
    'a data root of a number': setting('train_dataloader.dataset.data_root', 3,
        words=r'`train_dataloader\.dataset\.data_root` needs text, got 3\.'),
    'an annotation file of a number': setting('train_dataloader.dataset.ann_file', 3,
        words=r'`train_dataloader\.dataset\.ann_file` needs text, got 3\.'),
    'a data loader of text': setting('train_dataloader', 'default',
        words='`train_dataloader` needs a dict with the config of a `dataset`, a dict with a `type`, got'),
}
ROWS = {**CONFIGS, **DISTILLER, **NUMBERS, **OPTIONS, **ARGUMENTS, **ANNOTATIONS, **CLASSES}
