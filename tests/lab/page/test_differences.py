"""What a method's config sets otherwise than the student's."""

from pathlib import Path

from ckd_mmdet.lab.page.differences import common, flat, read_differences
from mmengine.config import Config

STUDENT = dict(type='RetinaNet', neck=dict(num_outs=5))


def distilled(alignment: str, **changes: object) -> dict:
    return dict(model=dict(type='ckd_mmdet.Distiller', student=STUDENT, teacher=dict(config='t.py'),
                           alignments={alignment: dict(losses=dict(loss=dict(type='CKDLoss')))}), **changes)


def test_the_leaves_of_dicts_and_of_lists_of_dicts_have_keys() -> None:
    assert dict(flat(dict(a=dict(b=1, c={}), d=[dict(e='x'), dict(e=[1, 2])], f=(3,)))) == {
        'a.b': '1', 'a.c': '{}', 'd.0.e': "'x'", 'd.1.e': '[1, 2]', 'f': '(3,)'}


def test_only_what_differs_from_the_student_alone_is_named(tmp_path: Path) -> None:
    configs = dict(none=dict(model=STUDENT, lr=1, old=2), ckd=distilled('roi', lr=1, distillation=dict(why='so')),
                   map=distilled('neck', lr=3, old=2))
    for name, cfg in configs.items():
        Config(cfg).dump(tmp_path / f'{name}.py')
    found = read_differences({name: tmp_path / f'{name}.py' for name in [*configs, 'gone']}, 'none')
    teacher = {'model.type': "'ckd_mmdet.Distiller'", 'model.teacher.config': "'t.py'"}
    assert found == {
        'ckd': {**teacher, 'model.alignments.roi.losses.loss.type': "'CKDLoss'", 'old': '(left out)'},
        'map': {**teacher, 'model.alignments.neck.losses.loss.type': "'CKDLoss'", 'lr': '3'}}
    assert common(found) == teacher and common({'ckd': found['ckd']}) == {}


def test_without_the_student_s_config_nothing_is_compared(tmp_path: Path) -> None:
    Config(distilled('roi')).dump(tmp_path / 'ckd.py')
    assert read_differences(dict(none=tmp_path / 'none.py', ckd=tmp_path / 'ckd.py'), 'none') == {}
