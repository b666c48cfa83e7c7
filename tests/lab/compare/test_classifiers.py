"""Matrices of image classifiers: what is compared, what is refused, and what a method may change."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ckd_mmdet.lab.compare.methods import Method, Pair, make_method
from ckd_mmdet.lab.compare.plan import Matrix, Settings, make_matrix
from ckd_mmdet.teacher import build_model
from mmengine.config import Config

from tests.lab.compare.matrices import a_matrix, play, run  # noqa: F401  play is a fixture
from tests.small_classifiers import classifier_config, distilled, run_config

DETECTOR = 'configs/baselines/faster_rcnn_r18_fpn_9e_digit_scenes.py'
KD = dict(loss_kd=dict(type='ckd_mmdet.KDLoss', temperature=4.0, loss_weight=0.9))


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With configs of two students, of the teacher, and its untrained weights."""
    folder = tmp_path_factory.mktemp('classifiers')
    for name, model in (('student', classifier_config()), ('wide', classifier_config('resnet8x4', 256)),
                        ('teacher', classifier_config('resnet14'))):
        run_config(model).dump(folder / f'{name}.py')
    weights = build_model(Config.fromfile(folder / 'teacher.py')).state_dict()
    torch.save(dict(state_dict=weights), folder / 'teacher.pth')
    return folder


def matrix(folder: Path, methods: list[str], student: str = 'student', **changes: Any) -> Matrix:
    return make_matrix(Settings(**{**dict(
        student=str(folder / f'{student}.py'), teacher=str(folder / 'teacher.py'), methods=methods, seeds=[0],
        out=folder / 'out', checkpoint=str(folder / 'teacher.pth')), **changes}))


def given(folder: Path, name: str, **changes: Any) -> Method:
    """A whole config of a distilled student, with other settings than the plain one's where ``changes`` say so."""
    cfg = run_config(distilled(classifier_config(), folder / 'teacher.py', folder / 'teacher.pth', KD))
    cfg.merge_from_dict(changes)
    cfg.dump(folder / f'{name}.py')
    pair = Pair(*(str(folder / file) for file in ('student.py', 'teacher.py', 'teacher.pth')), epochs=None, options={})
    return make_method(str(folder / f'{name}.py'), pair)


# what is compared

def test_classifiers_are_compared_by_their_first_accuracy(folder: Path) -> None:
    made = matrix(folder, ['kd', 'ckd:5', 'ckd:10', 'dist', 'pckd'])
    assert made.settings.metric == 'accuracy/top1' and made.no_teacher is None
    assert [(method.name, method.refused) for method in made.methods] == [
        (name, None) for name in ('none', 'kd', 'ckd:5', 'ckd:10', 'dist', 'pckd')]
    assert made.teacher.default_scope == 'mmpretrain' and made.teacher.test_evaluator.type == 'Accuracy'
    assert matrix(folder, ['kd'], metric='accuracy/top5').settings.metric == 'accuracy/top5'


def test_a_method_that_the_pair_cannot_give_is_refused_and_the_rest_goes_on(folder: Path) -> None:
    refused = {method.name: method.refused for method in matrix(folder, ['kd', 'pckd', 'ckd'], 'wide').methods}
    assert [name for name, reason in refused.items() if reason] == ['pckd']
    assert 'CenterAlignmentLoss' in refused['pckd'] and '256' in refused['pckd']


def test_a_detector_does_not_teach_a_classifier(folder: Path) -> None:
    teacher = str(Path(__file__).parents[3] / DETECTOR)
    torch.save(dict(state_dict=build_model(Config.fromfile(teacher)).state_dict()), folder / 'detector.pth')
    kd = matrix(folder, ['kd'], teacher=teacher, checkpoint=str(folder / 'detector.pth')).methods[1]
    assert kd.config is None and '`ImageAligner` needs an `ImageClassifier` of mmpretrain as teacher' in kd.refused


# what a method may change

VIEWS = {'data_preprocessor.type': 'ckd_mmdet.ViewsPreprocessor', 'train_dataloader.dataset.pipeline': [
    dict(type='ckd_mmdet.RotatedViews', transforms=[]), dict(type='PackInputs')]}


@pytest.mark.parametrize('changes', [{}, {'model.student.head.loss.loss_weight': 0.1}, VIEWS],
                         ids=['nothing', 'loss_weight', 'views'])
def test_the_weight_of_the_own_loss_and_the_views_belong_to_the_method(changes: dict, folder: Path) -> None:
    method = given(folder, 'kd', **changes)
    assert method.refused is None and method.config.model.type == 'ckd_mmdet.Distiller'


@pytest.mark.parametrize(('changes', 'text'), [
    ({'optim_wrapper.optimizer.lr': 0.1}, 'in `optim_wrapper`;'),
    ({'train_dataloader.dataset.images_per_class': 4}, 'in `train_dataloader`;'),
    ({'model.student.head.loss.type': 'FocalLoss'}, 'in `model.student`;'),
    ({'data_preprocessor.mean': [0.0] * 3}, 'in `data_preprocessor`;'),
    ({**VIEWS, 'train_dataloader.dataset.pipeline': [
        dict(type='ckd_mmdet.RotatedViews', transforms=[dict(type='RandomFlip', prob=0.5)]), dict(type='PackInputs')]},
     'in `train_dataloader`;')])
def test_whatever_else_differs_is_refused(changes: dict, text: str, folder: Path) -> None:
    assert text in given(folder, 'other', **changes).refused


# a sweep

def test_a_sweep_s_table_has_each_run_by_method_and_seed(play: Any, tmp_path: Path) -> None:  # noqa: F811
    methods = [Method(name, Config(dict(train_cfg=dict(max_epochs=3), model=dict(type='Classifier', method=name))))
               for name in ('none', 'ckd:5', 'ckd:10')]
    play(scores={method.folder: 0.4 + 0.01 * place for place, method in enumerate(methods)})
    run(a_matrix(tmp_path / 'out', methods, [0, 1]))
    found = json.loads((tmp_path / 'out/table.json').read_text())
    assert {(one['method'], one['seed']): round(one['value'], 6) for one in found['runs']} == {
        ('none', 0): 0.4, ('ckd:5', 0): 0.41, ('ckd:10', 0): 0.42,
        ('none', 1): 0.41, ('ckd:5', 1): 0.42, ('ckd:10', 1): 0.43}
    assert list(found['methods']) == ['none', 'ckd:5', 'ckd:10']
