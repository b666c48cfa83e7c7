import copy
from pathlib import Path

import pytest
import torch
from ckd_mmdet.teacher import FrozenTeacher, build_model
from mmengine.config import Config

from tests.small_runs import distilled
from tests.toys import saved_teacher, toy_config, toy_model


@pytest.fixture(scope='module')
def config() -> dict:
    return toy_config('faster_rcnn')


@pytest.fixture(scope='module')
def checkpoint(config: dict, tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_teacher(tmp_path_factory.mktemp('teacher'), config, classes=('cat', 'dog', 'cow'))


def test_the_digest_is_of_every_weight(config: dict, checkpoint: str) -> None:
    one, other = FrozenTeacher(config, checkpoint), FrozenTeacher(config, checkpoint)
    assert one.digest() == other.digest()
    other.model.roi_head.bbox_head.fc_cls.bias[0] += 1e-3
    assert one.digest() != other.digest()
    third = FrozenTeacher(config, checkpoint)
    third.model.backbone.bn1.running_mean[0] += 1
    assert third.digest() not in (one.digest(), other.digest())


def test_the_digest_survives_another_type_of_numbers_it_can_hold(config: dict, checkpoint: str) -> None:
    teacher = FrozenTeacher(config, checkpoint)
    teacher._apply(lambda tensor: tensor.bfloat16() if tensor.is_floating_point() else tensor)
    assert len(teacher.digest()) == 64  # NumPy has no bfloat16


def test_the_class_names_are_the_checkpoints(config: dict, checkpoint: str, tmp_path: Path) -> None:
    assert FrozenTeacher(config, checkpoint).classes == ('cat', 'dog', 'cow')
    loaded = torch.load(checkpoint, weights_only=False)
    for meta, classes in [(dict(CLASSES=['a', 'b', 'c']), ('a', 'b', 'c')), ({}, None)]:
        torch.save(dict(meta=meta, state_dict=loaded['state_dict']), tmp_path / 'other.pth')
        assert FrozenTeacher(config, tmp_path / 'other.pth').classes == classes
    named = dict(model=config, train_dataloader=dict(dataset=dict(metainfo=dict(classes=('x', 'y', 'z')))))
    assert FrozenTeacher(named, tmp_path / 'other.pth').classes == ('x', 'y', 'z')


def test_a_checkpoint_with_code_teaches_only_where_it_is_trusted(config: dict, checkpoint: str, tmp_path: Path) -> None:
    loaded = torch.load(checkpoint, weights_only=False)
    torch.save({**loaded, 'author': torch.nn.Linear(1, 1)}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='`teacher.checkpoint` needs a checkpoint without code.*`trusted=True`'):
        FrozenTeacher(config, tmp_path / 'x.pth')
    assert FrozenTeacher(config, tmp_path / 'x.pth', trusted=True).classes == ('cat', 'dog', 'cow')


def test_bare_weights_and_those_of_a_parallel_model_load(config: dict, checkpoint: str, tmp_path: Path) -> None:
    weights = torch.load(checkpoint, weights_only=False)['state_dict']
    expected = FrozenTeacher(config, checkpoint).digest()
    torch.save(weights, tmp_path / 'bare.pth')
    torch.save(dict(state_dict={f'module.{key}': value for key, value in weights.items()}), tmp_path / 'parallel.pth')
    assert FrozenTeacher(config, tmp_path / 'bare.pth').digest() == expected
    assert FrozenTeacher(config, tmp_path / 'parallel.pth').digest() == expected


def test_a_second_name_of_a_weight_is_no_misfit(config: dict, checkpoint: str, tmp_path: Path) -> None:
    """As in DDQ, which writes some weights of its head under its decoder's name too."""
    weights = torch.load(checkpoint, weights_only=False)['state_dict']
    key = 'roi_head.bbox_head.fc_cls.weight'
    torch.save(dict(state_dict={**weights, 'decoder.alias': weights[key]}), tmp_path / 'alias.pth')
    assert FrozenTeacher(config, tmp_path / 'alias.pth').digest() == FrozenTeacher(config, checkpoint).digest()
    torch.save(dict(state_dict={**weights, 'decoder.alias': weights[key].clone()}), tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r'no key missing, 1 key \(decoder.alias\) unexpected'):
        FrozenTeacher(config, tmp_path / 'other.pth')


def test_a_config_outside_the_model_scope_still_builds_mmdets_models(config: dict, checkpoint: str) -> None:
    whole = dict(model={key: value for key, value in config.items() if key != 'data_preprocessor'},
                 data_preprocessor=config['data_preprocessor'], default_scope='mmdet')
    assert FrozenTeacher(whole, checkpoint).model.data_preprocessor.mean.flatten()[0] == pytest.approx(123.675)


def test_a_distilled_student_teaches_in_its_turn(config: dict, checkpoint: str, tmp_path: Path) -> None:
    first = distilled(config, dict(config=config, checkpoint=checkpoint))
    student = toy_model(first, seed=5)
    weights = {**student.state_dict(), 'distiller.roi.projector.weight': torch.zeros(2)}  # a method's own
    torch.save(dict(state_dict=weights), tmp_path / 'epoch_1.pth')
    second = FrozenTeacher(first, tmp_path / 'epoch_1.pth')
    assert type(second.model).__name__ == 'FasterRCNN'
    assert second.digest() == FrozenTeacher(config, tmp_path / 'epoch_1.pth').digest()
    assert torch.equal(second.model.backbone.conv1.weight, student.backbone.conv1.weight)


def test_a_batchnorm_of_several_processes_is_built_by_one(config: dict) -> None:
    several = copy.deepcopy(config)
    several.backbone.norm_cfg = dict(type='MMSyncBN', requires_grad=True)
    model = build_model(Config(dict(model=several)))
    assert model.state_dict().keys() == toy_model(config).state_dict().keys()
    assert type(model.backbone.bn1) is torch.nn.BatchNorm2d
    assert several.backbone.norm_cfg.type == 'MMSyncBN'  # as the Runner builds the student
