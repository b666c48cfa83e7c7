"""Feature maps of two detectors, level by level."""

import copy
from typing import Any

import pytest
import torch
from ckd_mmdet.aligners import NeckAligner, input_channels
from ckd_mmdet.aligners.neck import features_of
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedMaps, Widths
from mmdet.structures.bbox import HorizontalBoxes
from torch import nn

from tests.aligners.scenes import copied, hear, prepared, task_loss, training
from tests.aligners.test_contract import hooks
from tests.toys import toy_batch, toy_config, toy_model

DETECTORS = ['faster_rcnn', 'cascade_mask_rcnn', 'retinanet', 'fcos', 'gfl', 'yolof', 'detr', 'dino']


def asked(aligner: NeckAligner, student: nn.Module, teacher: nn.Module, batch: dict | None = None) -> AlignedMaps:
    heard = hear(aligner, student, batch)
    feats = teacher.extract_feat(heard.inputs)  # with gradient: the aligner itself must stop it
    return aligner.ask(teacher, feats, heard.tape, heard.data_samples)


@pytest.fixture(params=DETECTORS)
def student(request: pytest.FixtureRequest) -> nn.Module:
    return training(toy_model(toy_config(request.param)))


def test_a_teacher_that_is_the_student_gives_the_same_maps(student: nn.Module) -> None:
    aligner, teacher = NeckAligner(), copied(student)
    widths = aligner.widths(student, teacher)
    aligned = asked(aligner, student, teacher)
    assert len(aligned) == 2 and len(aligned.student) == len(aligned.teacher)
    for ours, theirs in zip(aligned.student, aligned.teacher, strict=True):
        assert torch.equal(ours, theirs)
        assert ours.requires_grad and not theirs.requires_grad
    assert widths == Widths(*[tuple(level.shape[1] for level in aligned.student)] * 2)


def test_another_teacher_gives_other_maps() -> None:
    student, teacher = training(toy_model(toy_config('retinanet'))), toy_model(toy_config('retinanet'), seed=1).eval()
    aligned = asked(NeckAligner(), student, teacher)
    assert not any(torch.equal(*pair) for pair in zip(aligned.student, aligned.teacher, strict=True))


def test_the_maps_know_the_objects_in_pixels_of_the_padded_batch() -> None:
    student = training(toy_model(toy_config('retinanet')))
    heard = hear(NeckAligner(), student, toy_batch(num_items=[3, 0]))
    aligned = NeckAligner().ask(student, student.extract_feat(heard.inputs), heard.tape, heard.data_samples)
    assert aligned.image_size == tuple(heard.inputs.shape[2:])
    assert [len(boxes) for boxes in aligned.boxes] == [3, 0]
    assert all(torch.equal(boxes, sample.gt_instances.bboxes)
               for boxes, sample in zip(aligned.boxes, heard.data_samples, strict=True))
    for sample in heard.data_samples:
        sample.gt_instances.bboxes = HorizontalBoxes(sample.gt_instances.bboxes)
    again = NeckAligner().ask(student, student.extract_feat(heard.inputs), heard.tape, heard.data_samples)
    assert torch.equal(again.boxes[0], aligned.boxes[0])


@pytest.mark.parametrize('kind', ['CWDLoss', 'FGDLoss', 'MGDLoss'])
def test_a_batch_without_objects_still_teaches(kind: str) -> None:
    student, teacher = training(toy_model(toy_config('retinanet'))), toy_model(toy_config('retinanet'), seed=1).eval()
    loss = MODELS.build(dict(type=f'ckd_mmdet.{kind}'))
    loss.build_parts(NeckAligner().widths(student, teacher))
    aligned = asked(NeckAligner(), student, teacher, toy_batch(num_items=[0, 0]))
    value = loss(aligned)
    value.backward()
    assert value.isfinite() and value > 0
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in loss.parameters())


def test_swapped_images_swap_their_maps() -> None:
    student, teacher = training(toy_model(toy_config('fcos'))), toy_model(toy_config('fcos'), seed=1).eval()
    batch = toy_batch(num_items=[3, 5])
    straight = asked(NeckAligner(), student, teacher, batch)
    crossed = asked(NeckAligner(), student, teacher, {key: value[::-1] for key, value in batch.items()})
    for one, other in zip((*straight.student, *straight.teacher), (*crossed.student, *crossed.teacher), strict=True):
        torch.testing.assert_close(one, other.flip(0), rtol=1e-4, atol=1e-5)


def test_the_student_trains_as_if_alone(student: nn.Module) -> None:
    aligner, alone = NeckAligner(), copy.deepcopy(student)
    modes = {name: module.training for name, module in student.named_modules()}
    state = torch.get_rng_state()
    aligner.widths(student, copied(student))
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: module.training for name, module in student.named_modules()} == modes
    assert all(torch.equal(value, alone.state_dict()[key]) for key, value in student.state_dict().items())
    heard = hear(aligner, student)
    torch.manual_seed(0)
    losses = alone(*prepared(alone), mode='loss')
    task_loss(heard.losses).backward()
    task_loss(losses).backward()
    for one, other in zip(student.parameters(), alone.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.equal(one.grad, other.grad)
    assert not list(hooks(student))


def test_a_backbone_without_a_neck_is_heard() -> None:
    config = toy_config('retinanet')
    config.backbone.out_indices = (1, 2)
    model = toy_model(config)
    model.neck, model.extract_feat = None, model.backbone.forward
    with features_of(model) as tape:
        model.backbone(torch.zeros(1, 3, 64, 64))
    assert tape.name == 'backbone' and [level.shape[1] for level in tape.only().output] == [16, 32]


def test_levels_of_one_stride_are_paired_by_choice() -> None:
    student, teacher = training(toy_model(toy_config('retinanet'))), toy_model(toy_config('faster_rcnn')).eval()
    with pytest.raises(ValueError, match=r'the strides that the student has, \[8, 16, 32, 64, 128\], got '
                                         r'\[4, 8, 16, 32, 64\]; pair others with `--cfg-options model.alignments.'
                                         r'neck.aligner.levels=\[0,1,2,3\] .*teacher_levels=\[1,2,3,4\]`'):
        NeckAligner().widths(student, teacher)
    aligner = NeckAligner(levels=[0, 1, 2, 3], teacher_levels=[1, 2, 3, 4])
    assert aligner.widths(student, teacher) == Widths((16,) * 4, (16,) * 4)
    aligned = asked(aligner, student, teacher)
    feats = teacher.extract_feat(prepared(student)[0])
    assert all(torch.equal(level, feats[i + 1]) for i, level in enumerate(aligned.teacher))
    assert [level.shape[2] for level in aligned.student] == [8, 4, 2, 1]


def test_other_strides_are_resized_on_request() -> None:
    student, teacher = training(toy_model(toy_config('retinanet'))), toy_model(toy_config('faster_rcnn')).eval()
    aligner = NeckAligner(levels=[0, 1], teacher_levels=[0, 2], resize=True)
    aligner.widths(student, teacher)
    aligned = asked(aligner, student, teacher)
    feats = teacher.extract_feat(prepared(student)[0])
    finer = feats[0].unflatten(2, (8, 2)).unflatten(4, (8, 2)).mean((3, 5))  # 16x16 to 8x8
    torch.testing.assert_close(aligned.teacher[0], finer.detach())
    assert torch.equal(aligned.teacher[1], feats[2])  # stride 16 on both sides
    coarser = NeckAligner(levels=[0], teacher_levels=[2], resize=True)
    assert asked(coarser, student, teacher).teacher[0].shape[2:] == (8, 8)


def test_other_widths_are_told() -> None:
    wide = toy_config('retinanet')
    wide.neck.out_channels = wide.bbox_head.in_channels = 24
    assert NeckAligner(levels=[1]).widths(toy_model(toy_config('retinanet')), toy_model(wide)) == Widths((16,), (24,))


@pytest.mark.parametrize(('arguments', 'text'), [
    (dict(levels=[]), 'needs at least one of `levels`, got none'),
    (dict(teacher_levels=[0]), r'as many `levels` as `teacher_levels` \(\[0\]\), got None'),
    (dict(levels=[0, 1], teacher_levels=[0]), r'as many `levels` as `teacher_levels` \(\[0\]\), got \[0, 1\]')])
def test_levels_that_do_not_match_are_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        NeckAligner(**arguments)


def test_a_level_that_is_not_there_is_refused() -> None:
    model = toy_model(toy_config('retinanet'))
    with pytest.raises(ValueError, match=r"levels of the student's RetinaNet from 0 to 4, got \[0, 5\]"):
        NeckAligner(levels=[0, 5]).widths(model, model)


def test_another_number_of_levels_is_refused() -> None:
    with pytest.raises(ValueError, match=r'the strides that the student has, \[8, 16, 32, 64, 128\], got '
                                         r'\[32\]; pair others with .*levels=\[2\] .*teacher_levels=\[0\]`'):
        NeckAligner().widths(toy_model(toy_config('retinanet')), toy_model(toy_config('yolof')))


def test_a_detector_whose_train_returns_nothing_is_paired(monkeypatch: pytest.MonkeyPatch) -> None:
    models = toy_model(toy_config('retinanet')), toy_model(toy_config('retinanet'))
    for model in models:  # as mmdet's LAD and LD
        monkeypatch.setattr(model, 'train', lambda mode=True, train=model.train: (train(mode), None)[1])
    assert len(NeckAligner().widths(*models).student) == 5


def test_a_detector_that_does_not_take_the_image_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_model(toy_config('retinanet'))
    monkeypatch.setattr(model, 'extract_feat', lambda image: torch.zeros(1, 2) @ image)
    with pytest.raises(ValueError, match=r'`NeckAligner` needs models that take images of 512x512.*RetinaNet'):
        NeckAligner().widths(model, model)


def test_features_that_do_not_leave_the_neck_are_refused() -> None:
    model = toy_model(toy_config('retinanet'))
    model.extract_feat = lambda images: [level + 1 for level in model.neck(model.backbone(images))]
    with pytest.raises(ValueError, match='needs a student whose features leave its neck, called once; those of the '
                                         'RetinaNet do not'):
        NeckAligner().widths(model, toy_model(toy_config('retinanet')))


class StemLast(nn.Module):
    """Registers its blocks before the convolution that sees the image, as the zoo's ShuffleNets do."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Conv2d(24, 24, 3)
        self.stem = nn.Conv2d(channels, 24, 3)


@pytest.mark.parametrize('channels', [1, 3])
def test_the_image_s_channels_are_those_of_the_convolution_that_sees_it(channels: int) -> None:
    model = nn.Module()
    model.backbone = StemLast(channels)
    assert input_channels(model) == channels
