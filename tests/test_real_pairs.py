"""Pairs as users write them: each attaches, or is refused with a way out that works when it is followed."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ckd_mmdet.aligners import NeckAligner, equal_strides
from ckd_mmdet.auto import distill_config
from ckd_mmdet.config import read_config
from ckd_mmdet.method_options import read_class_map, student_options
from ckd_mmdet.registry import MODELS
from ckd_mmdet.teacher import names_of_teacher
from mmdet.registry import MODELS as MMDET
from mmengine.config import Config, DictAction
from torch import nn

from tests.toys import saved_teacher, toy_batch, toy_config, toy_model

NAMES = ('cat', 'dog', 'cow')


def plain(detector: str | dict, classes: Any = NAMES, num_classes: int | None = None, **dataset: Any) -> Config:
    """A user's config of a toy detector, as far as it says what is trained."""
    model = toy_config(detector, num_classes or len(classes)) if isinstance(detector, str) else detector
    metainfo = dict(metainfo=dict(classes=classes)) if classes else {}
    return Config(dict(default_scope='mmdet', model=model,
                       train_dataloader=dict(dataset=dict(type='CocoDataset', **metainfo, **dataset))))


def attached(student: Config, teacher: Config, method: str = 'ckd', **arguments: Any) -> Config:
    return distill_config(student, teacher, method, **{'teacher_checkpoint': 'weights.pth', **arguments})


def step(student: Config, teacher: Config, method: str, folder: Path, channels: int = 3, **arguments: Any) -> dict:
    """What a step of the distilled student logs."""
    weights = saved_teacher(folder, teacher.model)
    model = MODELS.build(attached(student, teacher, method, teacher_checkpoint=weights, **arguments).model)
    model.distillation.pair(model, student.train_dataloader.dataset.metainfo.classes)
    batch = toy_batch(num_items=[3, 3], num_classes=len(student.train_dataloader.dataset.metainfo.classes) + 1)
    for sample in batch['data_samples']:  # from 1
        sample.gt_instances.labels -= 1
    batch['inputs'] = [image[:channels] for image in batch['inputs']]
    return {key: value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value
            for key, value in model(**model.data_preprocessor(batch, True), mode='loss').items()}


def refusal(*pair: Any, **arguments: Any) -> str:
    with pytest.raises(ValueError) as refused:
        attached(*pair, **arguments)
    return str(refused.value)


def options_in(text: str) -> dict[str, Any]:
    """What a message tells to write after ``--cfg-options``, read as the command reads it."""
    found = re.search(r'`--cfg-options ([^`]+)`', text)
    words = shlex.split(found[1])
    return {key: DictAction._parse_iterable(value) for key, value in (word.split('=', 1) for word in words)}


# one class, softmax against sigmoid

@pytest.mark.parametrize(('student', 'teacher', 'kind'), [('retinanet', 'faster_rcnn', 'object'),
                                                          ('faster_rcnn', 'retinanet', 'object'),
                                                          ('retinanet', 'retinanet', 'dense')])
def test_one_class_is_distilled_by_kd_and_logs_no_number_without_a_meaning(student: str, teacher: str, kind: str,
                                                                           tmp_path: Path) -> None:
    found = step(plain(student, ('cat',)), plain(teacher, ('cat',)), 'kd', tmp_path)
    assert 0 < found[f'{kind}.loss_kd'] < 100 and found[f'{kind}.rows'] > 0
    assert not {f'{kind}.{name}' for name in ('cosine', 'retrieval', 'teacher_accuracy')} & set(found)


def test_ckd_of_one_class_says_why_not_and_what_works() -> None:
    pair = plain('retinanet', ('cat',)), plain('faster_rcnn', ('cat',))
    text = refusal(*pair)
    assert ('a student with 1 class (sigmoid) and a teacher with 1 class and background (softmax)' in text
            or 'one score has no direction' in text)
    assert 'take `--method kd`' in text
    attached(*pair, method='kd')


# maps

def test_levels_of_equal_stride_are_paired_and_said(capsys: pytest.CaptureFixture) -> None:
    cfg = attached(plain('retinanet'), plain('faster_rcnn'), 'l2')
    assert cfg.model.alignments.neck.aligner == dict(type='NeckAligner', levels=[0, 1, 2, 3],
                                                     teacher_levels=[1, 2, 3, 4])
    assert 'of equal stride: 8, 16, 32, 64 (levels 0, 1, 2, 3 of the student, 1, 2, 3, 4 of the teacher)' in (
        capsys.readouterr().out)


def test_a_neck_that_gives_its_coarsest_level_first_is_paired_by_stride() -> None:
    student, teacher = toy_model(toy_config('retinanet')), toy_model(toy_config('retinanet'))

    class Reversed(nn.Module):
        def __init__(self, neck: nn.Module) -> None:
            super().__init__()
            self.neck = neck

        def forward(self, feats: Sequence[torch.Tensor]) -> tuple:
            return tuple(reversed(self.neck(feats)))

    student.neck = Reversed(student.neck)
    found = equal_strides(student, teacher)
    assert (found.student, found.teacher) == ([4, 3, 2, 1, 0], [0, 1, 2, 3, 4]) and not found.all_in_order
    NeckAligner(found.student, found.teacher).widths(student, teacher)


def test_options_are_merged_before_anything_is_checked() -> None:
    options = {'model.alignments.neck.aligner.levels': [0, 1], 'model.alignments.neck.aligner.teacher_levels': [0, 1],
               'model.alignments.neck.aligner.resize': True}
    cfg = attached(plain('retinanet'), plain('faster_rcnn'), 'l2', options=options)
    assert cfg.model.alignments.neck.aligner == dict(type='NeckAligner', levels=[0, 1], teacher_levels=[0, 1],
                                                     resize=True)


def test_maps_without_an_equal_stride_are_refused_with_options_that_work() -> None:
    coarse = plain('yolof')  # one level, of stride 32
    fine = plain('faster_rcnn')
    fine.model.backbone.out_indices, fine.model.neck = (0, 1), dict(type='FPN', in_channels=[8, 16], out_channels=16,
                                                                    num_outs=2)
    text = refusal(coarse, fine, method='l2')
    assert 'those of the student have the strides [32], the teacher\'s [4, 8]' in text
    attached(coarse, fine, 'l2', options=options_in(text))


# names

def test_scores_of_the_teacher_that_have_no_name_stay_out(tmp_path: Path) -> None:
    student, teacher = plain('retinanet'), plain('retinanet', NAMES, num_classes=80)
    cfg = attached(student, teacher)
    assert cfg.model.teacher.class_map == 'name'
    assert cfg.distillation.classes == ('the teacher knows 3, the student 3; 3 paired by name: cat, dog, cow; 77 more '
                                        'scores of the teacher have no name and stay out')
    assert step(student, teacher, 'kd', tmp_path)['dense.loss_kd'] > 0


@pytest.mark.parametrize(('stated', 'saved', 'names'), [
    (NAMES, ('cell',), NAMES),  # what a user states goes before fewer names, or others
    (NAMES, ('bee', 'ant', 'fly'), NAMES),
    (NAMES, ('cow', 'cat', 'dog'), ('cow', 'cat', 'dog')),  # the order of the same names is the checkpoint's
    (NAMES, None, NAMES), (None, ('cell',), ('cell',)),
    (NAMES, tuple('abcdefgh'), tuple('abcdefgh'))])  # a config of other data with the weights of more classes
def test_names_that_are_stated_go_before_those_of_a_checkpoint(stated: tuple | None, saved: tuple | None,
                                                               names: tuple) -> None:
    assert names_of_teacher(plain('retinanet', stated, num_classes=3), saved) == names


@pytest.mark.parametrize('name', ['sign', ['sign'], ('sign',)])
def test_a_single_class_may_be_a_string(name: Any) -> None:
    for cfg in (attached(plain('faster_rcnn', name, 1), plain('faster_rcnn', name, 1)),
                attached(plain('faster_rcnn', name, 1), plain('faster_rcnn', ('sign',)))):
        assert cfg.model.teacher.get('class_map') is None and cfg.distillation.classes == 'the same one'


def test_boxes_of_a_panoptic_data_set_are_of_its_things() -> None:
    panoptic = plain('faster_rcnn', None, num_classes=80)
    panoptic.train_dataloader.dataset.type = 'CocoPanopticDataset'
    assert attached(panoptic, panoptic).distillation.classes == 'the same 80'


# --class-map

def test_a_class_map_is_read_word_by_word() -> None:
    assert read_class_map(['light=traffic light', '3=three', 'v1.5=old', 'a=b=c']) == {
        'light': 'traffic light', '3': 'three', 'v1.5': 'old', 'a': 'b=c'}
    assert read_class_map(['name']) == 'name'


@pytest.mark.parametrize(('file', 'text'), [('map.json', '{"light": "traffic light", "3": "three"}'),
                                            ('map.yaml', 'light: traffic light\n3: three\n')])
def test_a_class_map_may_be_a_file(file: str, text: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    assert read_class_map([str(tmp_path / file)]) == {'light': 'traffic light', '3': 'three'}


@pytest.mark.parametrize(('words', 'message'), [
    (['light'], "`--class-map` needs OURS=THEIRS, .* got 'light'"), (['=x'], 'needs OURS=THEIRS'),
    (['a=b', 'a=c'], "needs each of your classes once, 'a' is there twice"),
    (['gone.json'], 'needs a file that can be read, gone.json cannot')])
def test_a_class_map_that_is_none_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_class_map(words)


@pytest.mark.parametrize('text', ['[1, 2]', 'a: [', 'a: b: c'])
def test_a_file_without_a_class_map_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / 'map.yaml').write_text(text)
    with pytest.raises(ValueError, match=r'`--class-map` needs a file .*map\.yaml'):
        read_class_map([str(tmp_path / 'map.yaml')])


def test_names_written_as_options_are_refused_with_the_way_that_keeps_them() -> None:
    with pytest.raises(ValueError, match=r'would lose spaces and dots .*write `--class-map light=\.\.\.`'):
        student_options({'model.teacher.class_map.light': 'trafficlight'})


def test_a_class_map_from_the_command_reaches_the_teacher() -> None:
    cfg = attached(plain('retinanet', ('light', '3')), plain('retinanet', ('traffic light', 'three', 'v1.5')),
                   options={'model.teacher.class_map': {'light': 'traffic light', '3': 'three'}})
    assert cfg.distillation.classes.endswith('2 paired by `class_map`: light (as traffic light), 3 (as three)')
    assert Config.fromstring(cfg.pretty_text, '.py').model.teacher.class_map == {'light': 'traffic light', '3': 'three'}


# inputs

def gray(detector: str) -> Config:
    cfg = plain(detector)
    cfg.model.backbone.in_channels = 1
    cfg.model.data_preprocessor.update(mean=[128.0], std=[50.0], bgr_to_rgb=False)
    return cfg


@pytest.mark.parametrize('method', ['l2', 'ckd'])
def test_gray_images_are_distilled(method: str, tmp_path: Path) -> None:
    found = step(gray('retinanet'), gray('retinanet'), method, tmp_path, channels=1)
    assert any(key.endswith(f'loss_{method}') and value > 0 for key, value in found.items())


def test_a_teacher_of_other_channels_is_refused() -> None:
    assert "sees the student's images, of 1 channel, and takes 3" in refusal(gray('retinanet'), plain('retinanet'))


@pytest.mark.parametrize('outside', [False, True])
def test_padding_that_the_teacher_cannot_take_is_refused_with_the_option_that_mends_it(outside: bool) -> None:
    student, teacher = plain('retinanet'), plain('retinanet')
    student.model.data_preprocessor.pad_size_divisor = 24
    if outside:
        student.data_preprocessor = student.model.pop('data_preprocessor')
    text = refusal(student, teacher)
    assert 'needs inputs padded to a multiple of 32' in text and 'pad_size_divisor=96`' in text
    attached(student, teacher, options=options_in(text))


# what cannot be read or paired

def test_a_semi_supervised_student_is_named_with_the_detector_inside_it() -> None:
    detector = toy_config('faster_rcnn')
    student = plain(dict(type='SoftTeacher', detector=detector, semi_train_cfg=dict(freeze_teacher=True),
                         data_preprocessor=dict(type='MultiBranchDataPreprocessor',
                                                data_preprocessor=detector.data_preprocessor)), NAMES)
    for method in ('l2', 'ckd'):
        text = refusal(student, plain('faster_rcnn'), method=method)
        assert 'a SoftTeacher has none; distil the detector inside it (`student`)' in text


@pytest.mark.parametrize(('text', 'message'), [
    ('oops = 1https', r'broken\.py needs to be Python that runs: SyntaxError \(line 1\)'),
    ('a = gone', r'broken\.py needs to be Python that runs: NameError'),
    ("custom_imports = dict(imports=['not_there_at_all'])",
     r'broken\.py imports what is not there .*not_there_at_all')])
def test_a_broken_config_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / 'broken.py').write_text(text + '\n')
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path / 'broken.py')
    with pytest.raises(ValueError, match=message):
        distill_config(plain('retinanet'), tmp_path / 'broken.py')


@MMDET.register_module(force=True)
class HeadOfAnotherKind(nn.Module):
    """As YOLOv5's and v8's: it says nothing of how it scores classes."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.scores = nn.Conv2d(16, 3, 1)


@pytest.mark.parametrize(('ours', 'theirs', 'whose'), [
    (True, False, "the student's head is one that none of them reads"),
    (False, True, "the teacher's head is one that none of them reads"), (True, True, 'neither head is one')])
def test_a_head_that_no_aligner_reads_is_named_and_maps_work(ours: bool, theirs: bool, whose: str) -> None:
    pair = [plain('retinanet'), plain('retinanet')]
    for cfg, other in zip(pair, (ours, theirs), strict=True):
        if other:
            cfg.model.bbox_head = dict(type='HeadOfAnotherKind')
    text = refusal(*pair)
    assert whose in text and 'take `--method l2` or `--method pkd`' in text
    assert 'take an ObjectAligner' not in text and 'take a DenseAligner' not in text  # tried already
    for method in re.findall(r'`--method (\w+)`', text):
        attached(*pair, method)


def test_a_pair_is_refused_within_three_seconds() -> None:
    name = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
    pair = read_config(name), read_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    attached(plain('retinanet'), plain('retinanet'))  # mmdet is imported
    start = time.perf_counter()
    refusal(*pair, method='dkd')
    assert time.perf_counter() - start < 3


def test_one_class_is_not_called_classes() -> None:
    cfg = attached(plain('faster_rcnn', ('cat',)), plain('faster_rcnn', ('cat',)))
    assert 'student FasterRCNN, 1 class and background (softmax)' in cfg.distillation.aligner[0]
    assert json.dumps(cfg.distillation.to_dict()).count('1 classes') == 0
