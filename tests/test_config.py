from pathlib import Path

import pytest
from ckd_mmdet.config import HOOK, add_hook, plain_student, read_config
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[1]
DISTILLED = dict(type='ckd_mmdet.Distiller', student=dict(type='FasterRCNN'), teacher=dict(config='net.py'))


def test_a_config_of_an_installed_package_is_read() -> None:
    assert read_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py').model.type == 'RetinaNet'


def test_a_package_s_config_is_read_once_and_changes_stay_with_who_made_them(monkeypatch: pytest.MonkeyPatch) -> None:
    name = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
    read_config(name).model.bbox_head.num_classes = 3
    monkeypatch.setattr('ckd_mmdet.config.get_config', lambda *unused: pytest.fail('it was read again'))
    assert read_config(name).model.bbox_head.num_classes == 80


@pytest.mark.parametrize('hooks', [None, [], [dict(type='EMAHook')]])
def test_the_hook_is_added_once_beside_the_users_own(hooks: list | None) -> None:
    cfg = Config(dict(custom_hooks=hooks))
    add_hook(cfg)
    add_hook(cfg)
    assert [hook['type'] for hook in cfg.custom_hooks] == [*(hook['type'] for hook in hooks or []), HOOK]


def test_a_hook_that_is_there_stays_as_it_is() -> None:
    cfg = Config(dict(custom_hooks=[dict(type=HOOK, priority=90)]))
    add_hook(cfg)
    assert cfg.custom_hooks == [dict(type=HOOK, priority=90)]


def test_the_student_takes_the_distillers_place() -> None:
    cfg = Config(dict(model=DISTILLED))
    plain_student(cfg)
    assert cfg.model == dict(type='FasterRCNN')
    plain_student(cfg)
    assert cfg.model == dict(type='FasterRCNN')


def test_the_student_keeps_the_preprocessing_that_the_distiller_gave_it() -> None:
    cfg = Config(dict(model=dict(**DISTILLED, data_preprocessor=dict(type='DetDataPreprocessor', mean=[1., 2., 3.]))))
    plain_student(cfg)
    assert cfg.model.data_preprocessor.mean == [1., 2., 3.]


def test_a_packages_metafiles_are_not_read_for_each_config_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    name = 'configs/baselines/faster_rcnn_r18w16_fpn_9e_digit_scenes.py'  # has bases of mmdet's
    before = read_config(ROOT / name).to_dict()
    monkeypatch.setattr('mmengine.config.utils.load', lambda *args, **kwargs: pytest.fail('a metafile is read'))
    assert read_config(ROOT / name).to_dict() == before
