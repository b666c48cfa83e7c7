"""What people give to tools/train.py: arguments, configs, overrides, annotations."""

from __future__ import annotations

import json
from typing import Any

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
    'no such config': Row('train', lambda b: b.tool('train', 'gone.py')),
    'a config in no package': Row('train', lambda b: b.tool('train', 'mmdet::gone/gone.py')),
    'an unknown package': Row('train', lambda b: b.tool('train', 'nopackage::x.py')),
    'a folder as config': Row('train', lambda b: b.tool('train', b.folder)),
    'a checkpoint as config': Row('train', lambda b: b.tool('train', b.taught['checkpoint'])),
    'a config without ending': Row('train', lambda b: b.tool('train', b.file('config'))),
    'an empty config': source(''),
    'a config that is its own base': source("_base_ = 'config.py'\n"),
    'two configs that are bases of each other': Row('train', two),
    'a base that is not there': source("_base_ = 'gone.py'\n"),
    'a base that is a number': source('_base_ = 3\n'),
    'a bracket left open': source('model = dict('),
    'a name that is not defined': source('model = dict(type=Faster)'),
    'a config with an error of its own': source('model = 1 / 0'),
    'a config with a null byte': source(b'model = "\x00"'),
    'a config in Latin-1': source('model = "größe"'.encode('latin-1')),
    'a config with a byte order mark': source(b'\xef\xbb\xbfmodel = dict(type="X")'),
    'a page as config': source('<html>404</html>'),
    'a custom import that is not there': source('custom_imports = dict(imports=["gone_module"])\nmodel = dict()'),
    'a model of text': source('model = "FasterRCNN"'),
    'a model of none': source('model = None'),
    'a model without type': setting('model', dict(), real=True),
    'an unknown model': setting('model', dict(type='FasterRNN'), real=True),
    'two bases with the same key': Row('train', lambda b: (
        b.file('a.py', 'model = dict(x=1)'), b.file('b.py', 'model = dict(x=2)'),
        b.train_file("_base_ = ['a.py', 'b.py']\n"))),
}

DISTILLER = {
    'alignments are a list': setting('model.alignments', [1], real=True),
    'alignments are text': setting('model.alignments', 'roi', real=True),
    'alignments are a number': setting('model.alignments', 3, real=True),
    'an alignment is text': setting('model.alignments.roi', 'RoIAligner', real=True),
    'an alignment is none': setting('model.alignments.roi', None, real=True),
    'an aligner is text': setting('model.alignments.roi.aligner', 'RoIAligner', real=True),
    'losses are a list': setting('model.alignments.roi.losses', [dict(type='CKDLoss')], real=True),
    'losses are text': setting('model.alignments.roi.losses', 'ckd', real=True),
    'a loss is text': setting('model.alignments.roi.losses.loss_ckd', 'CKDLoss', real=True),
    'a loss is none': setting('model.alignments.roi.losses.loss_ckd', None, real=True),
    'a selector is text': setting('model.alignments.roi.selector', 'Foreground', real=True),
    'a selector is a number': setting('model.alignments.roi.selector', 5, real=True),
    'a teacher is text': setting('model.teacher', 'mmdet::x.py', real=True),
    'a teacher is a list': setting('model.teacher', [1], real=True),
    'a teacher is a number': setting('model.teacher', 3, real=True),
    'a teacher without config': setting('model.teacher', dict(checkpoint='x.pth'), real=True),
    'a teacher of an empty dict': setting('model.teacher', {}, real=True),
    'a checkpoint is a number': setting('model.teacher.checkpoint', 3, real=True),
    'a checkpoint is a list': setting('model.teacher.checkpoint', ['x.pth'], real=True),
    'a class map is a number': setting('model.teacher.class_map', 3, real=True),
    'a class map is text': setting('model.teacher.class_map', 'names', real=True),
    'a student is text': setting('model.student', 'FasterRCNN', real=True),
    'a student is none': setting('model.student', None, real=True),
    'a student without type': setting('model.student', dict(backbone={}), real=True),
    'a student is a Distiller': Row('train', lambda b: b.train_changed(
        lambda cfg: cfg.model.update(student=dict(type='ckd_mmdet.Distiller', student=student_config())), real=True)),
    'an unknown key of the Distiller': setting('model.temperature', 3.0, real=True),
    'hooks are a number': setting('custom_hooks', 3),
    'a hook is text': setting('custom_hooks', ['EMAHook']),
    'patience is zero': setting('custom_hooks', [dict(type='ckd_mmdet.DistillHook', patience=0)], real=True),
    'patience is text': setting('custom_hooks', [dict(type='ckd_mmdet.DistillHook', patience='x')], real=True),
}

NUMBERS = {
    'no epoch': option('train_cfg.max_epochs=0'),
    'a negative number of epochs': option('train_cfg.max_epochs=-3'),
    'half an epoch': option('train_cfg.max_epochs=0.5'),
    'endless epochs': option('train_cfg.max_epochs=inf'),
    'epochs in words': option('train_cfg.max_epochs=twelve'),
    'epochs of True': option('train_cfg.max_epochs=True'),
    'never validated': option('train_cfg.val_interval=0'),
    'validated in words': option('train_cfg.val_interval=often'),
    'a batch of none': option('train_dataloader.batch_size=0'),
    'a batch of 2.5': option('train_dataloader.batch_size=2.5'),
    'minus one worker': option('train_dataloader.num_workers=-1'),
    'a learning rate of NaN': option('optim_wrapper.optimizer.lr=nan'),
    'an infinite learning rate': option('optim_wrapper.optimizer.lr=inf'),
    'a negative learning rate': option('optim_wrapper.optimizer.lr=-0.1'),
    'a learning rate with a comma': option('optim_wrapper.optimizer.lr=0,01'),
    'a learning rate in words': option('optim_wrapper.optimizer.lr=small'),
    'a momentum of NaN': option('optim_wrapper.optimizer.momentum=nan'),
    'a seed below zero': option('randomness.seed=-1'),
    'a seed above NumPy\'s': option('randomness.seed=4294967296'),
    'a seed in words': option('randomness.seed=lucky'),
    'clipping at NaN': option('optim_wrapper.clip_grad.max_norm=nan'),
    'a learning rate of zero': option('optim_wrapper.optimizer.lr=0'),
}

OPTIONS = {
    'an override without value': option('model'),
    'an override without key': option('=3'),
    'an override with two dots': option('model..x=3'),
    'a misspelt first key': option('modle.foo=3'),
    'a misspelt key': option('train_dataloader.datset.ann_file=x.json'),
    'a misspelt last key': option('train_cfg.max_epoch=3'),
    'a first key that nothing reads': option('lr=0.1'),
    'a place behind the end of a list': option('param_scheduler.9.end=3'),
    'a name in a list': option('param_scheduler.first.end=3'),
    'a key of a number': option('train_cfg.max_epochs.x=3'),
    'a bracket that does not close': option('param_scheduler=[1,(2'),
    'a new key that somebody may read': option('model.student.test_cfg.foo=3'),
    'a path with spaces that is not there': option('train_dataloader.dataset.data_root=/my data/set'),
}

ARGUMENTS = {
    'no config': Row('train', lambda b: b.tool('train')),
    'an unknown argument': arguments('--epochs', '3'),
    'an unknown launcher': arguments('--launcher', 'torchrun'),
    'a method without teacher': arguments('--method', 'ckd'),
    'an unknown method': arguments('--method', 'cdk', '--teacher', 'x.py'),
    'a method twice': arguments('--method', 'ckd+ckd', '--teacher', 'x.py'),
    'a weight without teacher': arguments('--loss-weight', '3'),
    'a teacher that is not there': arguments('--teacher', 'gone.py'),
    'a teacher without weights': Row('train', lambda b: b.tool(
        'train', b.config(plain=True), '--teacher', b.file('t.py', b.config(plain=True).read_text()))),
    'a checkpoint that is not there to resume': arguments('--resume', 'gone.pth'),
    'a page to resume': Row('train', lambda b: b.tool(
        'train', b.config(plain=True), '--resume', b.file('x.pth', '<html>'), real=True)),
    'resume and overwrite': arguments('--resume', '--overwrite'),
    'a learning rate to scale without base': arguments('--auto-scale-lr'),
    'a work dir that is a file': Row('train', lambda b: b.tool(
        'train', b.config(plain=True), '--work-dir', b.file('taken'))),
    'a work dir that cannot be made': arguments('--work-dir', '/proc/run'),
    'a finished work dir': Row('train', lambda b: (
        (b.folder / 'w').mkdir(), (b.folder / 'w/epoch_1.pth').touch(),
        b.tool('train', b.config(plain=True), '--work-dir', b.folder / 'w'))),
    'nothing to resume in an empty work dir': Row('train', lambda b: b.tool(
        'train', b.config(plain=True), '--work-dir', b.folder / 'new', '--resume')),
    'only half a checkpoint to resume': Row('train', lambda b: (
        (b.folder / 'w').mkdir(), (b.folder / 'w/epoch_1.pth').write_bytes(b'PK half'),
        b.tool('train', b.config(plain=True), '--work-dir', b.folder / 'w', '--resume'))),
}

ANNOTATIONS = {
    'annotations with a byte order mark': Row('train', lambda b: b.with_annotations(
        b'\xef\xbb\xbf' + b.coco().encode())),
    'annotations in UTF-16': Row('train', lambda b: b.with_annotations(b.coco().encode('utf-16'))),
    'annotations with a trailing comma': Row('train', lambda b: b.with_annotations(
        b.coco().rstrip()[:-1] + ',}')),
    'annotations in single quotes': Row('train', lambda b: b.with_annotations(str(json.loads(b.coco())))),
    'no image': coco(lambda data: data.update(images=[])),
    'no annotation': coco(lambda data: data.update(annotations=[])),
    'no category': coco(lambda data: data.update(categories=[])),
    'images are a dict': coco(lambda data: data.update(images={'1': {}})),
    'annotations by image': coco(lambda data: data.update(annotations={'1': []})),
    'an annotation is none': coco(lambda data: data['annotations'].append(None)),
    'an annotation without area': coco(lambda data: data['annotations'][0].pop('area')),
    'no annotation has an area': coco(each(lambda one: one.pop('area'))),
    'an annotation without box': coco(lambda data: data['annotations'][0].pop('bbox')),
    'an annotation without image': coco(lambda data: data['annotations'][0].pop('image_id')),
    'an annotation without category': coco(lambda data: data['annotations'][0].pop('category_id')),
    'an annotation without id': coco(lambda data: data['annotations'][0].pop('id')),
    'two annotations of one id': coco(lambda data: data['annotations'][0].update(id=data['annotations'][1]['id'])),
    'two images of one id': coco(lambda data: data['images'][0].update(id=data['images'][1]['id'])),
    'an image without file': coco(lambda data: data['images'][0].pop('file_name')),
    'an image without height': coco(lambda data: data['images'][0].pop('height')),
    'a box with NaN': coco(first(bbox=[1, 2, NAN, 4])),
    'an infinite box': coco(first(bbox=[1, 2, INF, 4])),
    'a box of text': coco(first(bbox=['1', '2', '3', '4'])),
    'a box of three numbers': coco(first(bbox=[1, 2, 3])),
    'an empty box': coco(first(bbox=[])),
    'boxes of corners': coco(each(lambda one: one.update(bbox=[30, 30, 60, 60]))),
    'boxes from 0 to 1': coco(each(lambda one: one.update(bbox=[0.1, 0.1, 0.5, 0.5]))),
    'boxes of negative size': coco(each(lambda one: one.update(bbox=[30, 30, -9, -9]))),
    'boxes without size': coco(each(lambda one: one.update(bbox=[30, 30, 0, 0]))),
    'boxes outside': coco(each(lambda one: one.update(bbox=[900, 900, 9, 9]))),
    'crowds only': coco(each(lambda one: one.update(iscrowd=1))),
    'areas of zero': coco(each(lambda one: one.update(area=0))),
    'categories that are not listed': coco(each(lambda one: one.update(category_id=77))),
    'images that are not listed': coco(each(lambda one: one.update(image_id=7777))),
    'a category without name': coco(lambda data: data['categories'][0].pop('name')),
    'one box outside': coco(first(bbox=[900, 900, 9, 9])),
    'one box of negative size': coco(first(bbox=[30, 30, -9, -9])),
}

CLASSES = {
    'a misspelt class': setting('train_dataloader.dataset.metainfo.classes', ('zero', 'oen')),
    'classes in capitals': setting('train_dataloader.dataset.metainfo.classes', ('Zero', 'One')),
    'classes are a number': setting('train_dataloader.dataset.metainfo.classes', 10),
    'classes are numbers': setting('train_dataloader.dataset.metainfo.classes', (0, 1, 2)),
    'a file of classes that is not there': setting('train_dataloader.dataset.metainfo.classes', 'gone.txt'),
    'data set without type': Row('train', lambda b: b.train_changed(
        lambda cfg: cfg.train_dataloader.dataset.pop('type'))),
    'an unknown data set': setting('train_dataloader.dataset.type', 'CocoDatset'),
    'no data set': setting('train_dataloader.dataset', None),
    'a data set of text': setting('train_dataloader.dataset', 'coco'),
    'a data root of a number': setting('train_dataloader.dataset.data_root', 3),
    'an annotation file of a number': setting('train_dataloader.dataset.ann_file', 3),
    'a data loader of text': setting('train_dataloader', 'default'),
}
ROWS = {**CONFIGS, **DISTILLER, **NUMBERS, **OPTIONS, **ARGUMENTS, **ANNOTATIONS, **CLASSES}
