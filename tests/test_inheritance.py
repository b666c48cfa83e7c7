"""The student starts from the teacher's neck and head, where names and shapes agree."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ckd_mmdet import inheritance as module
from ckd_mmdet.auto import distill_config
from ckd_mmdet.cached.teacher import CachedTeacher
from ckd_mmdet.config import add_hook
from ckd_mmdet.inheritance import check_inheriting, inheritance, layers_of_classes
from ckd_mmdet.lab.compare.methods import check_names
from ckd_mmdet.lab.datasets.digit_sources import CLASSES
from ckd_mmdet.method_options import parse_method, split_inherit
from ckd_mmdet.teacher import FrozenTeacher
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from tests.small_runs import distilled, run_config, student_config, train
from tests.toys import saved_teacher, toy_config, toy_model

OF_CLASSES = {f'roi_head.bbox_head.fc_{name}.{kind}' for name in ('cls', 'reg') for kind in ('weight', 'bias')}
State = dict[str, torch.Tensor]


class Started(Exception):
    pass


class StopsAtTheStart(Hook):
    priority = 'VERY_LOW'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        raise Started


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(module, 'print_log', lambda text, **options: texts.append(text))
    return texts


def started(cfg: Config) -> State:
    """The student's weights before its first step."""
    add_hook(cfg)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(StopsAtTheStart())
    with pytest.raises(Started):
        runner.train()
    return copy.deepcopy(runner.model.state_dict())


def inheriting(teacher: dict, losses: dict | None = None, **teachers: Any) -> dict:
    return {**distilled(student_config(), {**teacher, **teachers}, losses), 'inherit': True}


def weights(path: str | Path) -> State:
    return torch.load(path, weights_only=False)['state_dict']


def equal(ours: State, theirs: State) -> set[str]:
    return {name for name, value in ours.items() if torch.equal(value, theirs[name])}


def varied(model: dict, seed: int) -> dict:
    """Weights of a teacher none of which is what a student starts with, zeros of biases included."""
    draw = torch.Generator().manual_seed(seed)
    return {name: value + (0.01 * torch.rand(value.shape, generator=draw) if value.is_floating_point() else 7 + seed)
            for name, value in toy_model(model, seed).state_dict().items()}


@pytest.fixture(scope='module')
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp('varied') / 'teacher.pth'
    torch.save(dict(meta=dict(dataset_meta=dict(classes=CLASSES)), state_dict=varied(student_config(), 0)), path)
    return dict(config=student_config(), checkpoint=str(path))


@pytest.fixture(scope='module')
def reversed_teacher(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """It knows the same classes in another order."""
    path = tmp_path_factory.mktemp('reversed') / 'teacher.pth'
    torch.save(dict(meta=dict(dataset_meta=dict(classes=CLASSES[::-1])), state_dict=varied(student_config(), 1)), path)
    return dict(config=student_config(), checkpoint=str(path))


# what is inherited

def test_neck_and_head_are_the_teachers_to_the_last_bit_and_the_backbone_is_not(
        digits: Path, teacher: dict, tmp_path: Path, said: list[str]) -> None:
    first, second = (started(run_config(inheriting(teacher), digits, tmp_path / name)) for name in 'ab')
    alone = started(run_config(student_config(), digits, tmp_path / 'alone'))
    assert equal(first, weights(teacher['checkpoint'])) == {name for name in first if not name.startswith('backbone.')}
    assert equal(first, alone) == {name for name in first if name.startswith('backbone.')}
    assert equal(first, second) == set(first)
    assert said[0] == said[1] and said[0].endswith(
        'in neck, rpn_head, roi_head; beside its backbone it keeps none of its own.')


def test_it_is_off_by_default(digits: Path, teacher: dict, tmp_path: Path, said: list[str]) -> None:
    ours = started(run_config(distilled(student_config(), teacher), digits, tmp_path / 'off'))
    assert equal(ours, started(run_config(student_config(), digits, tmp_path / 'alone'))) == set(ours) and not said


def test_weights_of_another_shape_are_left_out_and_named() -> None:
    student, taught = (toy_model(toy_config('faster_rcnn', classes)) for classes in (3, 5))
    plan = inheritance(student, taught)
    assert {text.split()[0] for text in plan.reshaped} == OF_CLASSES and not plan.absent
    assert not OF_CLASSES & set(plan.taken) and 'roi_head.bbox_head.shared_fcs.0.weight' in plan.taken
    assert '4 of another shape (roi_head.bbox_head.fc_cls.weight (4, ' in plan.told('t')


def test_between_two_kinds_of_heads_the_neck_is_inherited() -> None:
    student, taught = toy_model(toy_config('gfl')), toy_model(toy_config('retinanet'))
    plan = inheritance(student, taught)
    assert any(name.startswith('neck.') for name in plan.taken)
    assert 'bbox_head.integral.project' in plan.absent and 'bbox_head.gfl_cls.weight' in plan.absent


@pytest.mark.parametrize(('name', 'expected'), [
    ('faster_rcnn', OF_CLASSES), ('retinanet', {f'bbox_head.retina_cls.{kind}' for kind in ('weight', 'bias')})])
def test_layers_of_classes_are_those_that_grow_with_them(name: str, expected: set[str], tmp_path: Path) -> None:
    config = toy_config(name)
    assert layers_of_classes(FrozenTeacher(config, saved_teacher(tmp_path, config))) == expected


@pytest.mark.parametrize('model', [
    lambda teacher: inheriting(teacher, class_map='name'),
    lambda teacher: {**inheriting(teacher), 'alignments': dict(
        neck=dict(aligner=dict(type='NeckAligner'), losses=dict(loss_l2=dict(type='L2Loss'))))}],
    ids=['by class_map', 'by the names alone'])
def test_layers_of_other_classes_are_left_out(model: Callable[[dict], dict], digits: Path, reversed_teacher: dict,
                                              tmp_path: Path, said: list[str]) -> None:
    ours = started(run_config(model(reversed_teacher), digits, tmp_path))
    taken = equal(ours, weights(reversed_teacher['checkpoint']))
    assert taken == {name for name in ours if not name.startswith('backbone.')} - OF_CLASSES
    assert '4 of other classes (roi_head.bbox_head.fc_cls.weight, ' in said[0]


# beside other beginnings

def test_a_resumed_run_goes_on_from_its_own_weights_and_the_export_is_an_ordinary_student(
        digits: Path, teacher: dict, tmp_path: Path, said: list[str]) -> None:
    train(run_config(inheriting(teacher), digits, tmp_path / 'run', epochs=1))
    saved = weights(tmp_path / 'run/epoch_1.pth')
    toy_model(student_config()).load_state_dict(weights(tmp_path / 'run/student.pth'), strict=True)
    assert not {name for name in equal(saved, weights(teacher['checkpoint'])) if name.endswith('.weight')}
    again = run_config(inheriting(teacher), digits, tmp_path / 'again')
    again.load_from, again.resume = str(tmp_path / 'run/epoch_1.pth'), True
    assert equal(started(again), saved) == set(saved) and len(said) == 1


def test_a_load_from_of_the_backbone_is_welcome_and_one_of_the_neck_is_refused(digits: Path, teacher: dict,
                                                                              tmp_path: Path) -> None:
    given = varied(student_config(), 2)
    own = {name: value for name, value in given.items() if name.startswith('backbone.')}
    for name, state in (('backbone', own), ('all', given)):
        torch.save(dict(meta={}, state_dict=state), tmp_path / f'{name}.pth')
    cfg = run_config(inheriting(teacher), digits, tmp_path / 'run')
    cfg.load_from = str(tmp_path / 'backbone.pth')
    ours = started(cfg)
    assert equal(ours, given) >= set(own) and equal(ours, weights(teacher['checkpoint'])) == set(ours) - set(own)
    other = run_config(inheriting(teacher), digits, tmp_path / 'other')
    other.load_from = str(tmp_path / 'all.pth')
    add_hook(other)
    text = (r'`load_from` .*all.pth\) and `inherit` both give \d+ weights of neck and head \(neck\..*; '
            r'leave `load_from` out, or leave `inherit` out')
    with pytest.raises(ValueError, match=text):
        Runner.from_cfg(other).train()


# by the method

def plain(name: str, classes: int = 3) -> Config:
    return Config(dict(default_scope='mmdet', model=toy_config(name, classes)))


@pytest.mark.parametrize(('method', 'losses'), [('none+inherit', set()), ('inherit+l2', {'neck'}),
                                                ('auto+inherit', {'roi'}), ('ckd:2+inherit+l2', {'roi', 'neck'})])
def test_it_stands_beside_any_method(method: str, losses: set[str], capsys: pytest.CaptureFixture) -> None:
    made = distill_config(plain('faster_rcnn'), plain('faster_rcnn'), method, teacher_checkpoint='weights.pth')
    assert made.model.inherit is True and set(made.model.alignments) == losses
    check_names([method] if 'auto' not in method else [])
    assert 'weights of neck and head agree in name and shape' in capsys.readouterr().out
    off = distill_config(plain('faster_rcnn'), plain('faster_rcnn'), 'l2', teacher_checkpoint='weights.pth')
    assert 'inherit' not in off.model


def test_none_with_it_trains_the_student_alone_from_there(digits: Path, teacher: dict, tmp_path: Path) -> None:
    cfg = run_config(student_config(), digits, tmp_path, epochs=1)
    made = distill_config(cfg, Config(dict(default_scope='mmdet', model=teacher['config'])), 'none+inherit',
                          teacher_checkpoint=teacher['checkpoint'])
    steps = train(made)
    assert {key for key in steps[0] if 'loss' in key} == {'loss', 'loss_cls', 'loss_bbox', 'loss_rpn_cls',
                                                          'loss_rpn_bbox'}
    assert (tmp_path / 'student.pth').is_file()


@pytest.mark.parametrize('method', ['inherit', 'inherit:2', 'ckd+inherit:2', 'ckd+inherit+inherit', 'inherit+inherit'])
def test_it_is_no_method_and_has_no_weight(method: str) -> None:
    with pytest.raises(ValueError, match='`method` needs one of ckd, '):
        parse_method(method)
    with pytest.raises(ValueError, match='is unknown; take of none, ckd'):
        check_names([method])


def test_the_switch_is_read_wherever_it_stands() -> None:
    assert [split_inherit(text) for text in ('ckd', 'ckd+inherit', 'inherit+ckd:2+l2')] == [
        ('ckd', False), ('ckd', True), ('ckd:2+l2', True)]


# refusals

def faster(**speed: Any) -> Callable[[Path], dict]:
    config = toy_config('faster_rcnn')
    return lambda folder: {None: FrozenTeacher(config, saved_teacher(folder, config), **speed)}


@pytest.mark.parametrize(('teachers', 'text'), [
    (lambda folder: {None: object.__new__(CachedTeacher)},
     '`inherit` takes weights, and a cache keeps what the teacher says without them; leave `inherit` out .*live '
     'teacher'),
    (faster(fuse=True), '`teacher.fuse=True` changes the neck.s; leave `teacher.fuse` out'),
    (lambda folder: dict(big=None, other=None), 'the weights of one teacher, and there are 2; leave `inherit` out')])
def test_teachers_that_give_no_weights_are_refused(teachers: Callable[[Path], dict], text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=text):
        check_inheriting(toy_model(toy_config('faster_rcnn')), teachers(tmp_path))


def test_models_without_an_equal_weight_are_refused() -> None:
    with pytest.raises(ValueError, match=r'the DeformableDETR shares none with the FasterRCNN \(.*leave `inherit` out'):
        distill_config(plain('deformable_detr'), plain('faster_rcnn'), 'ckd+inherit', teacher_checkpoint='weights.pth')


def test_without_a_teacher_there_is_nothing_to_inherit() -> None:
    with pytest.raises(ValueError, match='needs a `teacher` to `inherit` from, got None; give one, or leave'):
        toy_model(dict(type='ckd_mmdet.Distiller', student=toy_config('faster_rcnn'), inherit=True))
    with pytest.raises(ValueError, match="`method='none.inherit'` needs a `teacher`"):
        distill_config(plain('faster_rcnn'), None, 'none+inherit')
