"""Two plain configs in, a distilled one out: what is chosen, what is said, what is refused."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import ckd_mmdet
import pytest
import torch
from ckd_mmdet import choice
from ckd_mmdet.auto import distill_config
from ckd_mmdet.config import HOOK, class_names, student_of
from ckd_mmdet.explanation import explain
from ckd_mmdet.lab.datasets.digit_sources import CLASSES
from ckd_mmdet.losses import DistillLoss
from ckd_mmdet.method_options import student_options
from ckd_mmdet.recipes import AUTO, MEASURED, METHODS
from ckd_mmdet.registry import MODELS, build_part
from ckd_mmdet.student_export import mend_dumped_config
from ckd_mmdet.teacher import FrozenTeacher
from mmdet.models import RetinaNet
from mmengine.config import Config

from tests.small_runs import ROOT, run_config, run_tool, student_config
from tests.test_text import NASTY
from tests.toys import saved_teacher, toy_batch, toy_config

NO_ADDRESS = 'mmdet::faster_rcnn/faster-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco.py'
NAMES = ('cat', 'dog', 'cow')


def plain(detector: str, classes: tuple[str, ...] | None = NAMES, num_classes: int | None = None) -> Config:
    """A user's config of a toy detector, as far as it says what is trained."""
    metainfo = {} if classes is None else dict(metainfo=dict(classes=classes))
    return Config(dict(default_scope='mmdet', model=toy_config(detector, num_classes or len(classes or NAMES)),
                       train_dataloader=dict(dataset=dict(type='CocoDataset', **metainfo))))


def attached(student: Config, teacher: Config, method: str = 'ckd', **options: Any) -> Config:
    return distill_config(student, teacher, method, **{'teacher_checkpoint': 'weights.pth', **options})


# what is chosen

@pytest.mark.parametrize(('student', 'teacher', 'method', 'aligners', 'selector', 'losses'), [
    ('retinanet', 'retinanet', 'ckd', dict(dense=dict(type='DenseAligner')), dict(type='Foreground'),
     dict(loss_ckd=dict(type='CKDLoss', loss_weight=1.0))),
    ('retinanet', 'retinanet', 'kd', dict(dense=dict(type='DenseAligner')), dict(type='TeacherTopK', k=1024),
     dict(loss_kd=dict(type='KDLoss', loss_weight=1.0))),
    ('faster_rcnn', 'faster_rcnn', 'ckd', dict(roi=dict(type='RoIAligner')), dict(type='Foreground'),
     dict(loss_ckd=dict(type='CKDLoss', loss_weight=1.0))),
    ('faster_rcnn', 'mask_rcnn', 'ckd_released', dict(roi=dict(type='RoIAligner')), dict(type='All'),
     dict(loss_ckd=dict(type='CKDLoss', loss_weight=0.1))),
    ('mask_rcnn', 'faster_rcnn', 'kd', dict(roi=dict(type='RoIAligner')), dict(type='All'),
     dict(loss_kd=dict(type='KDLoss', loss_weight=1.0))),
    ('faster_rcnn', 'cascade_rcnn', 'ckd', dict(roi=dict(type='RoIAligner', stage=2)), dict(type='Foreground'),
     dict(loss_ckd=dict(type='CKDLoss', loss_weight=1.0))),
    ('retinanet', 'faster_rcnn', 'ckd', dict(object=dict(type='ObjectAligner')), dict(type='All'),
     dict(loss_ckd=dict(type='CKDLoss', loss_weight=1.0))),
    ('retinanet', 'fcos', 'kd', dict(object=dict(type='ObjectAligner')), dict(type='All'),
     dict(loss_kd=dict(type='KDLoss', loss_weight=1.0))),
    ('cascade_rcnn', 'cascade_rcnn', 'ckd', {f'roi{k}': dict(type='RoIAligner', stage=k) for k in range(3)},
     dict(type='Foreground'), dict(loss_ckd=dict(type='CKDLoss', loss_weight=1.0)))])
def test_the_heads_decide_the_aligner_and_it_the_recipe(student: str, teacher: str, method: str, aligners: dict,
                                                        selector: dict, losses: dict) -> None:
    cfg = attached(plain(student), plain(teacher), method)
    assert cfg.model.alignments.to_dict() == {name: dict(aligner=aligner, selector=selector, losses=losses)
                                              for name, aligner in aligners.items()}
    assert cfg.model.student == plain(student).model and cfg.custom_hooks == [dict(type=HOOK)]


@pytest.mark.parametrize(('student', 'teacher', 'losses'), [
    ('retinanet', 'retinanet', {'dense.loss_ckd'}), ('retinanet', 'faster_rcnn', {'object.loss_ckd'}),
    ('faster_rcnn', 'cascade_rcnn', {'roi.loss_ckd'}),
    ('cascade_rcnn', 'cascade_rcnn', {'roi0.loss_ckd', 'roi1.loss_ckd', 'roi2.loss_ckd'})])
def test_what_is_chosen_gives_a_loss(student: str, teacher: str, losses: set[str], tmp_path: Path) -> None:
    checkpoint = saved_teacher(tmp_path, toy_config(teacher), classes=NAMES)
    distiller = MODELS.build(attached(plain(student), plain(teacher), teacher_checkpoint=checkpoint).model)
    distiller.distillation.pair(distiller, None)
    batch = distiller.data_preprocessor(toy_batch(num_items=[3, 3]), training=True)
    got = {key: value.item() for key, value in distiller(**batch, mode='loss').items() if key in losses}
    assert set(got) == losses and all(0 < value < 100 for value in got.values())


def test_choosing_changes_neither_config_nor_the_random_state() -> None:
    student, teacher, state = plain('retinanet'), plain('retinanet'), torch.get_rng_state()
    before = copy.deepcopy((student.to_dict(), teacher.to_dict()))
    attached(student, teacher)
    assert (student.to_dict(), teacher.to_dict()) == before and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(('given', 'selector'), [
    ('TeacherTopK:512', dict(type='TeacherTopK', k=512)),
    ('Foreground', dict(type='Foreground')),
    ('Foreground+PerImageCap:32', [dict(type='Foreground'), dict(type='PerImageCap', k=32)]),
    (dict(type='Random', k=8), dict(type='Random', k=8)),
    (['Foreground', dict(type='Random', k=8)], [dict(type='Foreground'), dict(type='Random', k=8)])])
def test_rows_and_weight_may_be_given(given: Any, selector: Any) -> None:
    cfg = attached(plain('retinanet'), plain('retinanet'), selector=given, loss_weight=0.25)
    assert cfg.to_dict()['model']['alignments']['dense']['selector'] == selector
    assert cfg.model.alignments.dense.losses.loss_ckd.loss_weight == 0.25


@pytest.mark.parametrize(('method', 'expected'), [
    ('l2', dict(neck=dict(loss_l2=1.0))),
    ('ckd+pkd', dict(dense=dict(loss_ckd=1.0), neck=dict(loss_pkd=6.0))),
    ('l2:2+reviewkd:balance:0.5', dict(neck=dict(loss_l2=2.0, loss_reviewkd='balance:0.5'))),
    ('kd:3+ckd', dict(dense=dict(loss_kd=3.0), dense_ckd=dict(loss_ckd=1.0))),  # on other rows
    ('crosskd:2+kd', dict(dense=dict(loss_quality=2.0, loss_boxes=2.0), dense_kd=dict(loss_kd=1.0)))])
def test_methods_may_be_joined_each_with_its_weight(method: str, expected: dict) -> None:
    cfg = attached(plain('retinanet'), plain('retinanet'), method=method)
    assert {name: {key: loss.loss_weight for key, loss in alignment.losses.items()}
            for name, alignment in cfg.model.alignments.items()} == expected


def test_methods_on_the_same_rows_share_an_alignment() -> None:
    alignments = attached(plain('retinanet'), plain('retinanet'), method='ckd+kd', selector='TeacherTopK:64',
                          loss_weight='balance:0.3').model.alignments
    assert list(alignments) == ['dense'] and list(alignments.dense.losses) == ['loss_ckd', 'loss_kd']
    assert alignments.dense.losses.loss_kd.loss_weight == 'balance:0.3'


def test_maps_are_distilled_whatever_the_heads_and_classes_are(capsys: pytest.CaptureFixture) -> None:
    teacher = plain('gfl', ('bee', 'ant', 'fly'))
    cfg = attached(plain('retinanet'), teacher, method='pkd')
    assert cfg.model.teacher.get('class_map') is None
    assert capsys.readouterr().out.splitlines()[1:] == [
        'aligner   NeckAligner: the feature maps of both, level by level',
        'loss      PKDLoss, weight 6.0, on maps (neck)', 'rows      none: feature maps are compared as a whole (neck)',
        'classes   not looked at: feature maps have no classes']


def test_none_is_the_students_own_config_with_the_hook_that_seeds() -> None:
    student = plain('retinanet')
    cfg = distill_config(student, None, 'none')
    assert cfg.to_dict() == {**student.to_dict(), 'custom_hooks': [dict(type=HOOK)]}
    assert distill_config(student, 'gone.py', 'none').to_dict() == cfg.to_dict()  # the teacher is not looked at


def test_a_preprocessing_outside_the_model_stays_the_students(tmp_path: Path) -> None:
    student, teacher = plain('retinanet'), plain('retinanet')
    for cfg in (student, teacher):
        cfg.data_preprocessor = cfg.model.pop('data_preprocessor')
    student.data_preprocessor.mean = [1.0, 2.0, 3.0]
    checkpoint = saved_teacher(tmp_path, toy_config('retinanet'), classes=NAMES)
    cfg = attached(student, teacher, teacher_checkpoint=checkpoint)
    assert cfg.data_preprocessor == student.data_preprocessor and 'data_preprocessor' not in cfg.model.student
    # the Runner hands it to the model
    distiller = MODELS.build(dict(**cfg.model, data_preprocessor=cfg.data_preprocessor))
    assert distiller.data_preprocessor.mean.flatten().tolist() == [1, 2, 3]
    assert distiller.distillation.teachers[None].model.data_preprocessor.mean.flatten()[0] == pytest.approx(123.675)


# what is said

@pytest.mark.parametrize(('student', 'teacher', 'classes', 'best', 'why'), [
    ('faster_rcnn', 'faster_rcnn', NAMES, 'features', 'it closed 70 % of the gap between two Faster R-CNNs'),
    ('cascade_rcnn', 'cascade_rcnn', NAMES, 'features', 'it closed 70 %'),
    ('retinanet', 'retinanet', NAMES, 'kd', 'it closed 40 % of the gap between two RetinaNets'),
    ('retinanet', 'faster_rcnn', NAMES, 'ckd', 'nothing has been measured on such rows'),
    ('retinanet', 'faster_rcnn', NAMES[:1], 'kd', 'nothing has been measured on such rows')])
def test_auto_is_what_gave_most_between_such_heads_and_says_why(
        student: str, teacher: str, classes: tuple[str, ...], best: str, why: str, capsys: pytest.CaptureFixture
        ) -> None:
    cfg = attached(plain(student, classes), plain(teacher, classes), AUTO)
    assert f'method    {best}: ' in (said := capsys.readouterr().out) and why in said
    assert cfg.model.alignments == attached(plain(student, classes), plain(teacher, classes), best).model.alignments


def test_what_auto_stands_for_stands_with_its_number_in_the_documentation() -> None:
    for best, why in MEASURED.values():
        page = ' '.join((ROOT / re.search(r'docs/\w+\.md', why)[0]).read_text().split())
        shares = re.findall(r'\d+(?= %)', why)
        assert best in METHODS and shares and all(f'{share} %' in page for share in shares)


def test_what_was_chosen_and_why_is_said(capsys: pytest.CaptureFixture) -> None:
    student = plain('retinanet')
    student.work_dir = 'runs/mine'
    cfg = attached(student, plain('retinanet'), loss_weight=0.5)
    assert capsys.readouterr().out.splitlines() == [
        'teacher   a given config, weights weights.pth',
        'aligner   DenseAligner: both score every anchor of the same levels; student RetinaNet, 3 classes (sigmoid), '
        'teacher RetinaNet, 3 classes (sigmoid)',
        '          (`RoIAligner` needs a student with `roi_head.bbox_head`, got a RetinaNet)',
        'loss      CKDLoss, weight 0.5, on the rows of Foreground (dense)',
        'rows      200,700 anchors in an image of 800x1333 (dense)',
        'classes   the same 3',
        'config    runs/mine/student_ckd_teacher.py']
    assert cfg.distillation.aligner[0].startswith('DenseAligner') and len(cfg.distillation.refused) == 1


def test_the_processes_of_a_launcher_say_it_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
                                                 ) -> None:
    monkeypatch.setenv('RANK', '1')
    attached(plain('retinanet'), plain('retinanet'))
    assert capsys.readouterr().out == ''


def test_the_stages_of_a_cascade_are_said(capsys: pytest.CaptureFixture) -> None:
    attached(plain('cascade_rcnn'), plain('cascade_rcnn'))
    assert ('loss      CKDLoss, weight 1.0, on the rows of Foreground (roi0, roi1, roi2)'
            in capsys.readouterr().out.splitlines())


# its config

@pytest.mark.parametrize('method', ['ckd', 'none'])
def test_the_config_is_itself_after_dump_and_reload(method: str, tmp_path: Path) -> None:
    name = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
    cfg = distill_config(name, name, method, selector='Foreground+PerImageCap:32')
    cfg.dump(tmp_path / 'whole.py')
    again = Config.fromfile(tmp_path / 'whole.py')
    assert again.to_dict() == cfg.to_dict()
    if method == 'ckd':
        assert again.model.teacher.config == name and again.default_scope == 'mmdet'
        assert again.model.teacher.checkpoint.startswith('https://download.openmmlab.com/')  # the model zoo's


def test_a_teacher_read_before_keeps_what_a_teacher_needs(tmp_path: Path) -> None:
    teacher = plain('retinanet', ('cat', 'dog', 'cow', 'bee'))
    cfg = attached(plain('retinanet'), teacher)
    cfg.dump(tmp_path / 'whole.py')
    again = Config.fromfile(tmp_path / 'whole.py')
    assert again.to_dict() == cfg.to_dict()
    torch.save(torch.load(saved_teacher(tmp_path, teacher.model))['state_dict'], tmp_path / 'bare.pth')
    frozen = FrozenTeacher(**{**again.to_dict()['model']['teacher'], 'checkpoint': tmp_path / 'bare.pth'})
    assert frozen.classes == ('cat', 'dog', 'cow', 'bee') and frozen.class_map == 'name'


PURE_PYTHON = """
from mmengine.config import read_base
from mmengine.hooks import CheckpointHook
from mmdet.models import RetinaNet

with read_base():
    from .base import *

model['type'] = RetinaNet
default_hooks = dict(checkpoint=dict(type=CheckpointHook, interval=1))
"""


@pytest.mark.parametrize('method', ['none', 'ckd'])
def test_a_pure_python_config_can_be_changed_and_dumped(method: str, tmp_path: Path) -> None:
    plain('retinanet').dump(tmp_path / 'base.py')
    (tmp_path / 'pure.py').write_text(PURE_PYTHON)
    cfg = distill_config(tmp_path / 'pure.py', tmp_path / 'pure.py', method, teacher_checkpoint='weights.pth')
    cfg.default_hooks = dict(checkpoint={**cfg.default_hooks['checkpoint'], 'interval': 3})  # as a tool would
    cfg.dump(tmp_path / 'whole.py')
    again = Config.fromfile(tmp_path / 'whole.py')
    assert again.to_dict() == cfg.to_dict() and again.default_hooks.checkpoint.interval == 3
    assert isinstance(MODELS.build(student_of(again.model) if method == 'ckd' else again.model), RetinaNet)


@pytest.mark.parametrize(('detector', 'alpha', 'mask_ratio'), [('faster_rcnn', 5e-5, 0.45), ('retinanet', 1e-3, 0.65)])
def test_fgd_and_mgd_have_the_published_weights_of_their_kind_of_detector(detector: str, alpha: float,
                                                                          mask_ratio: float) -> None:
    losses = attached(plain(detector), plain(detector), 'fgd+mgd').model.alignments.neck.losses
    assert build_part(MODELS, losses.loss_fgd, DistillLoss, 'fgd').factors[0] == alpha
    assert build_part(MODELS, losses.loss_mgd, DistillLoss, 'mgd').mask_ratio == mask_ratio


# classes

@pytest.mark.parametrize(('ours', 'theirs', 'class_map', 'said'), [
    (NAMES, NAMES, None, 'the same 3'),
    (NAMES, ('cow', 'bee', 'cat', 'dog'), 'name',
     'the teacher knows 4, the student 3; 3 paired by name: cat, dog, cow'),
    (NAMES, ('cow', 'cat', 'dog'), 'name', 'the teacher knows 3, the student 3; 3 paired by name: cat, dog, cow'),
    (NAMES, ('cat', 'bee'), 'name', 'the teacher knows 2, the student 3; 1 paired by name: cat')])
def test_classes_that_differ_are_paired_by_name_and_said(ours: tuple, theirs: tuple, class_map: str | None, said: str
                                                         ) -> None:
    cfg = attached(plain('faster_rcnn', ours), plain('faster_rcnn', theirs))
    assert cfg.model.teacher.get('class_map') == class_map and cfg.distillation.classes == said


def test_a_given_class_map_wins() -> None:
    cfg = attached(plain('retinanet'), plain('retinanet', ('kitten', 'cat', 'cow')),
                   class_map=dict(cat='kitten', cow='cow'))
    assert cfg.model.teacher.class_map == dict(cat='kitten', cow='cow')
    assert cfg.distillation.classes.endswith('2 paired by `class_map`: cat (as kitten), cow')


def test_names_that_would_break_out_of_a_config_are_paired_dumped_and_read_again(tmp_path: Path) -> None:
    # as keys, MMEngine puts them between quotes as they are
    ours, theirs = tuple(NASTY), tuple(f'{name}, theirs' for name in NASTY)
    class_map = dict(zip(ours, theirs, strict=True))
    cfg = attached(plain('faster_rcnn', ours, num_classes=len(ours)),
                   plain('faster_rcnn', theirs, num_classes=len(theirs)), class_map=class_map)
    cfg.dump(tmp_path / 'whole.py')
    mend_dumped_config(tmp_path / 'whole.py')
    again = Config.fromfile(tmp_path / 'whole.py')
    assert again.to_dict() == cfg.to_dict() and dict(again.model.teacher.class_map) == class_map
    shown = explain(cfg).splitlines()
    assert all(line.isprintable() for line in shown)
    assert [line.split()[0] for line in shown if line[0] != ' '] == ['teacher', 'aligner', 'loss', 'rows', 'classes']


def test_three_classes_meet_the_eighty_of_coco() -> None:
    cfg = attached(plain('retinanet', ('dog', 'person', 'car')), plain('retinanet', None, num_classes=80))
    assert cfg.distillation.classes == 'the teacher knows 80, the student 3; 3 paired by name: dog, person, car'


def test_a_teacher_whose_config_names_other_classes_than_it_scores_is_asked_later() -> None:
    cfg = attached(plain('retinanet'), plain('retinanet', None, num_classes=5))  # COCO's eighty names for five scores
    assert cfg.model.teacher.class_map == 'name'
    assert 'paired by name when the names in its checkpoint are read' in cfg.distillation.classes


@pytest.mark.parametrize(('dataset', 'names'), [
    (dict(type='CocoDataset', metainfo=dict(classes=NAMES)), NAMES),
    (dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[
        dict(type='CocoDataset', metainfo=dict(classes=['cat']))])), ('cat',)),
    (dict(type='CocoDataset', metainfo=dict(classes='cat')), ('cat',)),
    (dict(type='CityscapesDataset'),
     ('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle')),
    (dict(type='UnknownDataset'), None), ({}, None)])
def test_class_names_are_those_of_the_training_data(dataset: dict, names: tuple | None) -> None:
    assert class_names(Config(dict(train_dataloader=dict(dataset=dataset)))) == names


def test_class_names_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / 'names.txt').write_text('cat\ndog\n')
    metainfo = dict(classes=str(tmp_path / 'names.txt'))
    assert class_names(Config(dict(train_dataloader=dict(dataset=dict(metainfo=metainfo))))) == ('cat', 'dog')


@pytest.mark.parametrize('method', ['boxes+features+l2', 'features+boxes+l2'])
def test_boxes_of_rois_take_the_rows_of_the_method_beside_them(method: str) -> None:
    made = attached(plain('faster_rcnn'), plain('faster_rcnn'), method).model.alignments
    assert set(made) == {'roi', 'neck'} and set(made.roi.losses) == {'loss_alignment', 'loss_boxes'}
    assert made.roi.selector == dict(type='ForegroundPlus', k=64)
    assert attached(plain('faster_rcnn'), plain('faster_rcnn'), 'boxes').model.alignments.roi.selector == dict(
        type='Foreground')


# refusals

def pair(student: str = 'retinanet', teacher: str = 'retinanet', **options: Any) -> Callable[[], Config]:
    return lambda: attached(plain(student), plain(teacher), **options)


@pytest.mark.parametrize(('attach_it', 'text'), [
    (pair(method='dark'), f'`method` needs one of {", ".join(METHODS)}, several of them joined by +, auto or none, got '
                          "'dark'."),
    (pair(method='ckd+none'), "joined by +, auto or none, got 'ckd+none'."),
    (pair(method='ckd+ckd:2'), "joined by +, auto or none, got 'ckd+ckd:2'."),
    (pair(method='l2:much'), "`L2Loss` needs a `loss_weight` that is a number, a dict "
                             "or 'balance:RATIO', as in 'balance:0.5', got 'much'."),
    (pair(selector='Best'), "`alignments.dense.selector` needs the name of a registered Selector, got 'Best'; "
                            'ckd_mmdet has All, Foreground, '),
    (pair(selector='TeacherTopK:many'), "`selector` needs a whole number after the colon, as in TeacherTopK:512, got "
                                        "'TeacherTopK:many'."),
    (pair(selector='TeacherTopK'), "`alignments.dense.selector`: `TeacherTopK` missing a required argument: 'k'"),
    (pair(method='l2+pkd', selector='Foreground'), "`selector` chooses rows, and `method='l2+pkd'` pairs feature maps, "
                                                   'all of them; leave the selector out, or join a method of rows'),
    (pair(selector='All'), '`alignments.dense` needs a `selector`, every anchor of a RetinaHead would be too many'),
    (pair('retinanet', 'faster_rcnn', method='dkd'),
     '`alignments.object.losses.loss_dkd` is a DKDLoss, which makes no sense between a student with 3 classes '
     '(sigmoid) and a teacher with 3 classes and background (softmax); take `--method ckd` or `--method kd` or '
     '`--method l2`.'),
    (pair('retinanet', 'retinanet', method='pckd'),
     "`method='pckd'` has no recipe for the rows of a DenseAligner (a dense head scores by a convolution that the "
     'anchors of all places share: it has no category centres, and no feature of a row); take `--method ckd` or '
     '`--method kd`'),
    (pair(method='ld'), "the student's RetinaHead regresses plain numbers; take `--method boxes`, or `--method kd`"),
    (pair('gfl', 'atss', method='ld'), "the teacher's ATSSHead regresses plain numbers; take `--method boxes`, or"),
    (pair(method='ckd_released'), "`method='ckd_released'` has no recipe for the rows of a DenseAligner; take "
                                  '`--method ckd` or `--method kd` or'),
    (pair('faster_rcnn', 'retinanet', method='ckd_released'), 'the rows of a ObjectAligner; take `--method ckd` or'),
    (pair('faster_rcnn', 'faster_rcnn', method='ckd_released+ckd:2'),
     '`method` joins ckd_released and ckd, which are one loss with other rows and weights; leave one of the two out.'),
    (pair(method='boxes:2+bckd'), '`method` joins bckd to another method that has loss_boxes, too; leave one of the'),
    (pair('tood', 'tood', method='boxes'), "does not know how the student's TOODHead writes its boxes"),
    (pair('paa', 'paa', method='boxes'), '`alignments.dense` needs labels for ForegroundPlus, BoxLoss, and the loss'),
    (pair('faster_rcnn', 'faster_rcnn', method='ld'), "`method='ld'` has no recipe for the rows of a RoIAligner (a RoI "
                                                      'head regresses plain numbers, which BoxLoss compares); take'),
    (pair('yolof', 'yolof', method='l2+reviewkd'), 'needs at least two levels'),
    (pair(loss_weight=-1.0), '`CKDLoss` needs a finite `loss_weight` of at least 0, got -1.0.'),
    (lambda: distill_config(plain('retinanet'), None), "`method='ckd'` needs a `teacher`; to train the student alone"),
    (lambda: distill_config(Config(dict()), None, 'none'), '`student` needs a config with a `model`, a given config'),
    (lambda: attached(attached(plain('retinanet'), plain('retinanet')), plain('retinanet')),
     '`student` needs the config of a plain detector, student_ckd_teacher.py is distilled already'),
    (lambda: distill_config(plain('retinanet'), 'gone.py'), "`teacher.config` needs a readable config, got 'gone.py'"),
    (lambda: distill_config(plain('faster_rcnn'), NO_ADDRESS),
     f'no address of a checkpoint is known for {NO_ADDRESS}; give the path or address of the weights (to '
     'tools/train.py, with `--teacher-checkpoint`).'),
    (lambda: attached(plain('retinanet'), plain('retinanet', ('bee', 'ant', 'fly'))),
     "`teacher.class_map='name'` finds no class that student and teacher share. The student knows 'cat', 'dog', "
     "'cow'; the teacher knows 'bee', 'ant', 'fly'. Give a dict from the student's names to the teacher's (to the "
     'tools, as `--class-map OURS=THEIRS ...`), or another teacher.'),
    (pair(class_map=dict(horse='cow')), "`teacher.class_map` names 'horse', which the student does not know"),
    (lambda: attached(plain('retinanet', NAMES, 80), plain('retinanet')),
     "the student's head scores 80 classes, and its training data have 3 (cat, dog, cow); set `num_classes` of its "
     'head'),
    (lambda: attached(plain('retinanet'), plain('retinanet', ('cow', 'bee'))),
     '`alignments.dense.losses.loss_ckd` is a CKDLoss, which needs rows of at least 2 scores')])
def test_what_cannot_be_attached_is_refused_in_words(attach_it: Callable[[], Config], text: str) -> None:
    with pytest.raises(ValueError) as refused:
        attach_it()
    assert text in str(refused.value)


def test_models_that_no_aligner_pairs_are_refused_with_what_each_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, 'REASONS', {kind: choice.REASONS[kind] for kind in ('RoIAligner', 'DenseAligner')})
    with pytest.raises(ValueError) as refused:
        attached(plain('retinanet'), plain('faster_rcnn'))
    first, roi, dense = str(refused.value).splitlines()
    assert first == ('no aligner can pair the rows of a RetinaNet as student with those of a FasterRCNN as teacher: '
                     'each alone could be paired with its like; feature maps can be compared: take `--method l2` or '
                     '`--method pkd`. What each said:')
    assert roi.startswith('`RoIAligner` needs a student with `roi_head.bbox_head`, got a RetinaNet')
    assert dense.startswith('`DenseAligner` needs a teacher with a dense head `bbox_head`, and the FasterRCNN has no')


def test_without_a_network_the_address_and_the_way_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> None:
        raise URLError('Name or service not known')

    monkeypatch.setattr('ckd_mmdet.checkpoints.CheckpointLoader.load_checkpoint', offline)
    name = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
    with pytest.raises(ValueError, match=r"needs a readable checkpoint, 'https://download.openmmlab.com/.*r18.*\.pth' "
                                         r'is not \(URLError.*not known.*with `--teacher-checkpoint`'):
        FrozenTeacher(**distill_config(name, name).model.teacher)


# the command

@pytest.fixture
def files(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in with ``student.py``, ``teacher.py`` and ``teacher.pth``."""
    monkeypatch.chdir(tmp_path)
    for name in ('student', 'teacher'):
        cfg = run_config(student_config(), digits, tmp_path / 'own', epochs=1)
        cfg.dump(f'{name}.py')
    Path(saved_teacher(tmp_path, student_config(), classes=CLASSES)).rename('teacher.pth')
    return tmp_path


def test_a_plain_config_is_distilled_by_the_command_line_alone(files: Path, monkeypatch: pytest.MonkeyPatch,
                                                               capsys: pytest.CaptureFixture) -> None:
    run_tool(monkeypatch, 'train', 'student.py', '--teacher', 'teacher.py', '--teacher-checkpoint', 'teacher.pth',
             '--method', 'kd', '--loss-weight', '2', '--selector', 'Foreground+PerImageCap:8', '--cfg-options',
             'model.teacher.check_accuracy=False', 'model.student.test_cfg.rcnn.max_per_img=7')
    run = files / 'work_dirs/student_kd_teacher'
    whole = Config.fromfile(run / 'student_kd_teacher.py')
    assert whole.model.teacher.to_dict() == dict(config='teacher.py', checkpoint='teacher.pth', check_accuracy=False)
    assert whole.model.alignments.roi.to_dict() == dict(
        aligner=dict(type='RoIAligner'), losses=dict(loss_kd=dict(type='KDLoss', loss_weight=2.0)),
        selector=[dict(type='Foreground'), dict(type='PerImageCap', k=8)])
    assert whole.model.student.test_cfg.rcnn.max_per_img == 7 and whole.work_dir == 'work_dirs/student_kd_teacher'
    assert 'config    work_dirs/student_kd_teacher/student_kd_teacher.py' in capsys.readouterr().out
    logged, = run.glob('*/vis_data/scalars.json')
    assert '"roi.loss_kd": ' in logged.read_text() and (run / 'student.pth').exists()


def test_none_trains_the_student_alone(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_tool(monkeypatch, 'train', 'student.py', '--method', 'none')
    run = files / 'work_dirs/student_none'
    assert Config.fromfile(run / 'student.py').model.type == 'FasterRCNN' and (run / 'student.pth').exists()


def test_an_option_that_changes_the_students_classes_is_seen_by_the_choice(files: Path,
                                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Config] = []
    monkeypatch.setattr('mmengine.runner.Runner.from_cfg', seen.append)
    monkeypatch.setattr('mmengine.runner.Runner.train', lambda self: None)
    with pytest.raises(AttributeError):  # there is no Runner to train
        run_tool(monkeypatch, 'train', 'student.py', '--teacher', 'teacher.py', '--teacher-checkpoint', 'teacher.pth',
                 '--work-dir', 'here', '--cfg-options', 'model.student.roi_head.bbox_head.num_classes=2',
                 'train_dataloader.dataset.metainfo.classes=("nine", "one")')
    cfg, = seen
    assert cfg.model.teacher.class_map == 'name' and cfg.work_dir == 'here'
    assert cfg.distillation.classes.endswith('2 paired by name: nine, one')


def test_an_option_that_no_distilled_config_has_is_refused_before_anything_is_built(files: Path,
                                                                                    monkeypatch: pytest.MonkeyPatch
                                                                                    ) -> None:
    with pytest.raises(ValueError, match=r'`--cfg-options model.backbone.depth=.* write model.student.backbone.depth='):
        run_tool(monkeypatch, 'train', 'student.py', '--teacher', 'teacher.py', '--teacher-checkpoint', 'teacher.pth',
                 '--cfg-options', 'model.backbone.depth=18')


def test_options_for_the_student_are_told_from_those_for_the_distiller() -> None:
    assert student_options({'model.student.neck.num_outs': 4, 'model.teacher.check_accuracy': False,
                            'train_cfg.max_epochs': 1}) == {'model.neck.num_outs': 4, 'train_cfg.max_epochs': 1}


@pytest.mark.parametrize('lonely', [['--method', 'ckd'], ['--loss-weight', '1'], ['--selector', 'All'],
                                    ['--teacher-checkpoint', 'teacher.pth']])
def test_what_speaks_of_a_teacher_needs_one(lonely: list[str], monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, 'train', 'student.py', *lonely)
    assert f'{lonely[0]} needs --teacher, the config of the detector that teaches' in capsys.readouterr().err


def test_an_unknown_method_lists_the_known(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, 'train', 'student.py', '--teacher', 'teacher.py', '--method', 'dark')
    assert "several of them joined by +, auto or none, got 'dark'." in capsys.readouterr().err


# the notebook

def test_a_notebook_finds_it_in_the_package() -> None:
    assert ckd_mmdet.distill_config is distill_config
    with pytest.raises(AttributeError, match="module 'ckd_mmdet' has no attribute 'distil'"):
        _ = ckd_mmdet.distil


def test_importing_the_package_stays_light() -> None:
    code = 'import sys, ckd_mmdet; print(ckd_mmdet.__version__, {"torch", "mmengine", "mmdet"} & set(sys.modules))'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f'{ckd_mmdet.__version__} set()\n'
