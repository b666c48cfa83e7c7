"""One table of methods: every pair of heads has one that works, and shipped configs are its recipes."""

from __future__ import annotations

from typing import Any

import ckd_mmdet.auto
import pytest
from ckd_mmdet.auto import distill_config
from ckd_mmdet.config import DISTILLER, read_config, student_of
from ckd_mmdet.recipes import BY_HEAD, METHODS, RECIPES, SAYS, SUITS, methods_for, of_maps
from ckd_mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from tests.classification.toys import classifier_config
from tests.small_runs import ROOT
from tests.toys import toy_config, toy_model

SOFTMAX = dict(type='CrossEntropyLoss', use_sigmoid=False)
HEADS = {  # kind of head, and the toy that has it
    'softmax RoI': ('mask_rcnn', {}), 'sigmoid dense': ('retinanet', {}),
    'softmax dense': ('retinanet', SOFTMAX), 'sigmoid points': ('fcos', {}),
    'sigmoid queries': ('deformable_detr', {}), 'softmax queries': ('detr', {})}
PAIRS = [('softmax RoI', 'softmax RoI'), ('softmax RoI', 'sigmoid dense'), ('sigmoid dense', 'softmax RoI'),
         ('sigmoid dense', 'sigmoid dense'), ('softmax dense', 'softmax dense'), ('sigmoid dense', 'softmax dense'),
         ('sigmoid points', 'sigmoid dense'), ('sigmoid queries', 'sigmoid queries'),
         ('softmax queries', 'softmax queries'), ('sigmoid queries', 'softmax queries'),
         ('softmax RoI', 'sigmoid queries'), ('sigmoid dense', 'softmax queries')]


MODELS_BUILT: dict[str, nn.Module] = {}


def head_config(kind: str, classes: int) -> dict:
    name, loss = HEADS[kind]
    config = toy_config(name, classes)
    if loss:
        config.bbox_head.loss_cls = loss
    return config


def plain(kind: str, classes: int) -> Config:
    names = [f'class {number}' for number in range(classes)]
    return Config(dict(default_scope='mmdet', kind=kind, model=head_config(kind, classes),
                       train_dataloader=dict(dataset=dict(type='CocoDataset', metainfo=dict(classes=names)))))


@pytest.fixture
def built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model is built once for all methods."""
    def build(config: Config) -> nn.Module:
        key = str(config.model)
        if key not in MODELS_BUILT:
            MODELS_BUILT[key] = toy_model(config.model)
        return MODELS_BUILT[key]

    monkeypatch.setattr(ckd_mmdet.auto, 'build_model', build)


@pytest.mark.parametrize('classes', [1, 2, 5])
@pytest.mark.parametrize(('student', 'teacher'), PAIRS)
def test_each_method_works_between_two_heads_or_names_one_that_does(student: str, teacher: str, classes: int,
                                                                    built_once: None) -> None:
    ours, theirs = plain(student, classes), plain(teacher, classes)

    def attach(method: str) -> str | None:
        """Why it is refused, if it is."""
        try:
            distill_config(ours, theirs, method, teacher_checkpoint='weights.pth')
        except ValueError as error:
            return str(error)
        return None

    # feature maps have no classes: looked at once
    asked = [method for method in METHODS if classes == 1 or not of_maps(method)]
    refusals = {method: attach(method) for method in asked}
    works = {method for method, refusal in refusals.items() if refusal is None}
    assert 'kd' in works and (classes > 1 or 'l2' in works)
    for method, refusal in refusals.items():
        ways = {name for name in METHODS if refusal and f'`--method {name}`' in refusal}
        assert refusal is None or ways and ways <= works | {'l2'}, (method, refusal)
    # the table says so
    aligner = next(iter(distill_config(ours, theirs, 'kd', teacher_checkpoint='w').model.alignments.values()))
    kinds = {student.split()[0], teacher.split()[0]}
    kind = kinds.pop() if len(kinds) == 1 else 'mixed'
    assert [name for name in METHODS if name in works and not of_maps(name) and name not in BY_HEAD] == methods_for(
        aligner.aligner.type, kind, classes)
    assert all(classes >= SUITS[name].get(kind, classes + 1) for name in works & BY_HEAD)


def test_the_table_has_each_method_once() -> None:
    assert set(SAYS) == set(METHODS) == set(SUITS) | set(RECIPES['NeckAligner'])
    assert {method for of_aligner in RECIPES.values() for method in of_aligner} == set(METHODS)


# shipped configs

NOT_A_RECIPE = {
    'roi_stage2_ckd': 'CKD as released, on the last stage of a cascade',
    'review': 'the released weights of ReviewKD, with levels of their own',
}
PARTS = {'dense_ckd': ('retinanet', 'retinanet', 'ckd'), 'dense_kd': ('retinanet', 'retinanet', 'kd'),
         'query_ckd': ('deformable_detr', 'dino', 'ckd'), 'query_kd': ('deformable_detr', 'dino', 'kd'),
         'roi_ckd': ('faster_rcnn', 'faster_rcnn', 'ckd_released'),
         'roi_ckd_foreground': ('faster_rcnn', 'faster_rcnn', 'ckd'), 'roi_kd': ('faster_rcnn', 'faster_rcnn', 'kd'),
         'roi_dkd': ('faster_rcnn', 'faster_rcnn', 'dkd'), 'roi_pckd': ('faster_rcnn', 'faster_rcnn', 'pckd')}
"""Each part that the shipped configs take, and a pair of toys with its heads."""
ALIGNMENTS = ROOT / 'configs/_base_/alignments'


def normal(alignments: dict) -> dict:
    """Losses by their arguments, those by default included."""
    return {name: dict(aligner=one['aligner'], selector=one.get('selector', dict(type='All')), losses={
        key: vars_of(loss) for key, loss in one['losses'].items()}) for name, one in alignments.items()}


def vars_of(loss: dict) -> dict[str, Any]:
    made = MODELS.build({**loss, 'type': f'ckd_mmdet.{loss["type"]}'})
    return {key: str(value) if key == 'weight' else value for key, value in vars(made).items()
            if not key.startswith('_') and key not in ('preview', 'training')} | dict(
                type=type(made).__name__, preview=loss.get('preview'), loss_weight=loss.get('loss_weight', 1.0))


@pytest.mark.parametrize('part', PARTS)
def test_a_shipped_part_is_the_recipe_of_its_method(part: str) -> None:
    student, teacher, method = PARTS[part]
    models = [Config(dict(default_scope='mmdet', model=toy_config(name))) for name in (student, teacher)]
    made = distill_config(*models, method, teacher_checkpoint='weights.pth').to_dict()['model']['alignments']
    shipped = Config.fromfile(ALIGNMENTS / f'{part}.py').to_dict()[part]
    assert normal(made) == normal(shipped)


def test_every_shipped_part_is_a_recipe_or_says_that_it_is_none() -> None:
    parts = {path.stem for path in ALIGNMENTS.glob('*.py')}
    assert parts - {'review'} == set(PARTS) | (set(NOT_A_RECIPE) - {'review'})
    for name in set(NOT_A_RECIPE) & parts:
        text = (ALIGNMENTS / f'{name}.py').read_text()
        assert 'as released' in text or 'As roi_ckd' in text


def test_the_ckd_of_a_retinanet_is_one_recipe_by_command_and_by_config() -> None:
    name = 'configs/ckd/ckd_retinanet_r18-r18w16_fpn_12e_digit_scenes.py'
    shipped = read_config(ROOT / name)
    assert shipped.model.type == DISTILLER
    student = Config(dict(default_scope='mmdet', model=student_of(shipped.model)))
    made = distill_config(student, str(ROOT / shipped.model.teacher.config), 'ckd', teacher_checkpoint='weights.pth')
    assert normal(made.to_dict()['model']['alignments']) == normal(shipped.to_dict()['model']['alignments'])


@pytest.mark.parametrize(('student', 'selector'), [
    ('retinanet', dict(type='Foreground')), ('gfl', dict(type='Foreground')), ('tood', dict(type='Foreground')),
    ('paa', dict(type='TeacherTopK', k=256)), ('vfnet', dict(type='TeacherTopK', k=256))])
def test_ckd_takes_the_rows_of_objects_where_the_head_gives_labels(student: str, selector: dict) -> None:
    model = Config(dict(default_scope='mmdet', model=toy_config(student)))
    made = distill_config(model, model, 'ckd', teacher_checkpoint='weights.pth')
    assert made.to_dict()['model']['alignments']['dense']['selector'] == selector


def test_labels_that_a_head_has_not_are_refused_before_training() -> None:
    model = Config(dict(default_scope='mmdet', model=toy_config('paa')))
    with pytest.raises(ValueError, match=r'needs labels for Foreground, .*with `--selector TeacherTopK:256` or none'):
        distill_config(model, model, 'ckd', teacher_checkpoint='weights.pth', selector='Foreground')
    distill_config(model, model, 'ckd', teacher_checkpoint='weights.pth', selector='TeacherTopK:256')


def test_the_released_ckd_of_classifiers_takes_every_image_with_the_weight_of_imagenet() -> None:
    model = Config(dict(default_scope='mmpretrain', model=classifier_config()))
    made = distill_config(model, model, 'ckd_released', teacher_checkpoint='weights.pth').to_dict()
    assert made['model']['alignments'] == dict(image=dict(
        aligner=dict(type='ImageAligner'), selector=dict(type='All'),
        losses=dict(loss_ckd=dict(type='CKDLoss', loss_weight=10.0))))
