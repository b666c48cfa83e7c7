"""A faster teacher says what the slow one says."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from ckd_mmdet import speed as subject
from ckd_mmdet.folding import fold_batch_norms
from ckd_mmdet.samples import AlignedSamples
from ckd_mmdet.speed import TeacherSpeed, computes_bf16
from ckd_mmdet.teacher import FrozenTeacher
from torch import nn

from tests.small_runs import distilled
from tests.toys import paired, toy_batch, toy_config, toy_model

ALIGNERS = dict(faster_rcnn='RoIAligner', cascade_rcnn='ObjectAligner', retinanet='DenseAligner', gfl='DenseAligner',
                deformable_detr='QueryAligner', dino='QueryAligner')
LOSSLESS = [dict(channels_last=True), dict(fuse=True), dict(precision='fp32'), dict(fuse=True, channels_last=True)]


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Teachers by their detector's name; their BatchNorm does something, as a trained one's does."""
    folder, made = tmp_path_factory.mktemp('teachers'), {}
    for name in ALIGNERS:
        config = toy_config(name)
        model = toy_model(config, seed=1)
        torch.manual_seed(2)
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(std=0.1)
                part.running_var.uniform_(0.5, 2)
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, std=0.1)
        path = folder / f'{name}.pth'
        torch.save(dict(state_dict=model.state_dict()), path)
        made[name] = dict(config=config, checkpoint=str(path))
    return made


def student_of(weights: dict, name: str, **speed: object) -> nn.Module:
    model = distilled(toy_config(name), {**weights[name], **speed}, dict(loss=dict(type='KDLoss')))
    model['alignments']['roi'].update(aligner=dict(type=ALIGNERS[name]), selector=dict(type='Foreground'))
    return paired(model).train()


def rows_of(student: nn.Module) -> AlignedSamples:
    torch.manual_seed(0)
    data = student.data_preprocessor(toy_batch(num_items=[3, 2]), True)
    return student.distillation.align(student, student.forward_alone, **data)['roi']


@pytest.mark.parametrize('name', ALIGNERS)
def test_by_default_the_teacher_says_bit_for_bit_what_the_model_says(weights: dict, name: str) -> None:
    teacher = FrozenTeacher(**weights[name])
    plain = toy_model(weights[name]['config'])
    plain.load_state_dict(torch.load(weights[name]['checkpoint'])['state_dict'])
    inputs = torch.randn(2, 3, 64, 64)
    for ours, theirs in zip(teacher.extract_feat(inputs, []), plain.eval().extract_feat(inputs), strict=True):
        assert torch.equal(ours, theirs)
    assert not any('forward' in vars(part) for part in teacher.model.modules())


@pytest.mark.parametrize('speed', LOSSLESS, ids=str)
@pytest.mark.parametrize('name', ['faster_rcnn', 'retinanet'])
def test_without_half_precision_the_rows_are_those_of_the_slow_teacher(weights: dict, name: str, speed: dict) -> None:
    slow, fast = (rows_of(student_of(weights, name, **chosen)) for chosen in ({}, speed))
    assert torch.equal(slow.student.logits, fast.student.logits)
    torch.testing.assert_close(fast.teacher.logits, slow.teacher.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', ALIGNERS)
def test_rows_in_bfloat16_agree_with_the_slow_teachers(weights: dict, name: str) -> None:
    slow, fast = (rows_of(student_of(weights, name, precision=chosen)) for chosen in (None, 'bf16'))
    assert torch.equal(slow.student.logits, fast.student.logits)  # the student is as ever
    ours, theirs = fast.teacher.logits, slow.teacher.logits
    assert ours.dtype == torch.float32 and not torch.equal(ours, theirs)
    same = F.cosine_similarity(ours, theirs) > 0.99
    # of two close scores another may win, so that another query stands for an object
    assert same.all() or name == 'dino' and same.float().mean() > 0.7
    ours, theirs = ours[same], theirs[same]
    # the same class is the best wherever it is so by more than bfloat16 can blur
    best, second = theirs.topk(2).values.unbind(1)
    clear = best - second > 0.02 * theirs.abs().max()
    assert torch.equal(ours.argmax(1)[clear], theirs.argmax(1)[clear])


def test_under_autocast_of_the_step_a_float32_teacher_stays_one(weights: dict) -> None:
    slow = rows_of(student_of(weights, 'faster_rcnn')).teacher.logits
    students = {chosen: student_of(weights, 'faster_rcnn', precision=chosen) for chosen in (None, 'fp32')}
    feats = {}
    for chosen, student in students.items():
        torch.manual_seed(0)
        data = student.data_preprocessor(toy_batch(num_items=[3, 2]), True)
        with torch.autocast('cpu', torch.bfloat16):
            feats[chosen] = student.distillation.teachers[None].extract_feat(data['inputs'], data['data_samples'])
            logits = student.distillation.align(student, student.forward_alone, **data)['roi'].teacher.logits
        assert logits.dtype == (torch.bfloat16 if chosen is None else torch.float32)
    assert slow.dtype == torch.float32
    expected = students['fp32'].distillation.teachers[None].extract_feat(data['inputs'], data['data_samples'])
    assert all(torch.equal(one, other) for one, other in zip(feats['fp32'], expected, strict=True))


def test_features_in_half_precision_leave_as_float32(weights: dict) -> None:
    teacher = FrozenTeacher(**weights['faster_rcnn'], precision='bf16')
    feats = teacher.extract_feat(torch.randn(2, 3, 64, 64), [])
    assert {level.dtype for level in feats} == {torch.float32}


def test_every_part_stays_out_of_the_students_way_and_can_be_pickled(weights: dict) -> None:
    student = student_of(weights, 'faster_rcnn', precision='bf16', fuse=True, channels_last=True)
    again = pickle.loads(pickle.dumps(student))
    assert torch.equal(rows_of(again).teacher.logits, rows_of(student).teacher.logits)


def test_the_digest_is_of_the_trained_weights_at_any_speed(weights: dict) -> None:
    """So a run is resumed at another speed."""
    digests = {FrozenTeacher(**weights['faster_rcnn'], **speed).digest() for speed in ({}, *LOSSLESS)}
    assert len(digests) == 1


def test_folding_leaves_no_batch_norm_in_backbone_and_neck(weights: dict) -> None:
    teacher = FrozenTeacher(**weights['faster_rcnn'], fuse=True)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in teacher.model.backbone.modules())


class Strange(nn.Module):
    """A backbone that uses what its convolution gives twice, or whose convolution two BatchNorms share."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.backbone, self.norm, self.other = nn.Sequential(nn.Conv2d(3, 4, 1)), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.norm.running_mean += 1
        self.other.running_mean -= 1

    def extract_feat(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        if self.kind == 'used twice':
            given = self.backbone[0](inputs)
            return [self.norm(given) + given]
        return [self.norm(self.backbone(inputs)), self.other(self.backbone(inputs))]


def test_a_convolution_that_is_used_elsewhere_too_is_not_folded() -> None:
    with pytest.raises(ValueError, match='gives other features once its BatchNorm is folded.*leave `fuse` out'):
        fold_batch_norms(Strange('used twice').eval())
    with pytest.raises(ValueError, match='has none in its backbone and neck; leave `fuse` out'):
        fold_batch_norms(Strange('shared').eval())


def test_the_compiled_body_gives_the_features_at_any_size(weights: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = torch.compile
    asked: list[dict] = []

    def eagerly(body: object, **options: object) -> object:
        asked.append(options)
        return compiled(body, backend='eager', **options)  # what Inductor makes of it is PyTorch's own matter

    monkeypatch.setattr(subject.torch, 'compile', eagerly)
    slow, fast = (FrozenTeacher(**weights['faster_rcnn'], compile=chosen) for chosen in (False, True))
    for size in (64, 96):
        inputs = torch.randn(1, 3, size, size)
        for ours, theirs in zip(fast.extract_feat(inputs, []), slow.extract_feat(inputs, []), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert asked == [dict(dynamic=True)]


def test_each_of_several_teachers_has_its_own_speed(weights: dict) -> None:
    alone = {chosen: rows_of(student_of(weights, 'faster_rcnn', precision=chosen)) for chosen in (None, 'bf16')}
    model = distilled(toy_config('faster_rcnn'), weights['faster_rcnn'], dict(loss=dict(type='KDLoss')))
    model['teacher'] = {name: dict(weights['faster_rcnn'], precision=chosen, check_accuracy=False)
                        for name, chosen in (('slow', None), ('fast', 'bf16'))}
    one = model['alignments'].pop('roi') | dict(selector=dict(type='Foreground'))
    model['alignments'] = {name: dict(one, teacher=name) for name in ('slow', 'fast')}
    student = paired(model).train()
    torch.manual_seed(0)
    data = student.data_preprocessor(toy_batch(num_items=[3, 2]), True)
    both = student.distillation.align(student, student.forward_alone, **data)
    assert torch.equal(both['slow'].teacher.logits, alone[None].teacher.logits)
    assert torch.equal(both['fast'].teacher.logits, alone['bf16'].teacher.logits)


def test_what_is_learned_from_its_features_gets_a_finite_gradient(weights: dict) -> None:
    model = distilled(toy_config('faster_rcnn'), {**weights['faster_rcnn'], 'precision': 'bf16', 'channels_last': True},
                      dict(loss_features=dict(type='FeatureAlignmentLoss', expansion=1)))
    model['alignments']['neck'] = dict(aligner=dict(type='NeckAligner'),
                                       losses=dict(loss_review=dict(type='ReviewKDLoss', mid_channels=4),
                                                   loss_pkd=dict(type='PKDLoss'), loss_cwd=dict(type='CWDLoss')))
    student = paired(model).train()
    losses = student(**student.data_preprocessor(toy_batch(num_items=[3, 2]), True), mode='loss')
    sum(value for key, value in losses.items() if '.loss_' in key).backward()
    gradients = [part.grad for part in student.ckd_mmdet.parameters()]
    assert gradients and all(grad.dtype == torch.float32 and grad.isfinite().all() for grad in gradients)


def test_the_layer_that_half_precision_overflows_is_named(weights: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    # float16 as on a GPU; PyTorch has it on CPUs too, only slow
    monkeypatch.setattr(TeacherSpeed, 'dtype', lambda speed, device: torch.float16 if speed.precision else None)
    fast, slow = (student_of(weights, 'faster_rcnn', precision=chosen) for chosen in ('fp16', None))
    for student in (fast, slow):
        teacher = student.distillation.teachers[None].model
        with torch.no_grad():
            teacher.backbone.layer2[0].bn2.weight *= 1e6
            teacher.backbone.layer2[0].bn2.bias *= 1e6
    data = slow.data_preprocessor(toy_batch(num_items=[3, 2]), True)
    slow(**data, mode='loss')
    with pytest.raises(RuntimeError, match=r"`teacher.precision='fp32'`.*first to do so is its layer "
                                           r'`backbone.layer2.0.bn2`'):
        fast(**data, mode='loss')


def test_a_head_that_is_broken_is_told_from_the_body(weights: dict) -> None:
    student = student_of(weights, 'faster_rcnn')
    nn.init.constant_(student.distillation.teachers[None].model.roi_head.bbox_head.fc_cls.bias, float('nan'))
    with pytest.raises(RuntimeError, match='give finite features: it is its head'):
        student(**student.data_preprocessor(toy_batch(num_items=[3, 2]), True), mode='loss')


@pytest.mark.parametrize(('speed', 'words'), [
    (dict(precision='int8'), r"`teacher.precision` needs one of .*, got 'int8'"),
    (dict(precision='fp16'), "`teacher.precision='fp16'` needs a GPU.*take 'bf16', 'auto' or 'fp32'"),
    (dict(fuse='yes'), "`teacher.fuse` needs True or False, got 'yes'")])
def test_what_cannot_be_is_refused(speed: dict, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, 'get_device', lambda: 'cpu')
    with pytest.raises(ValueError, match=words):
        TeacherSpeed(**speed)


@pytest.mark.parametrize(('native', 'words'), [
    (True, 'in bfloat16'), (False, 'in float32 (this cpu does not compute bfloat16 natively)')])
def test_auto_takes_bfloat16_where_it_is_native_and_says_so(native: bool, words: str,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, 'computes_bf16', lambda device: native)
    assert TeacherSpeed('auto').told(torch.device('cpu')) == words
    assert TeacherSpeed().told(torch.device('cpu')) == ''
    told = TeacherSpeed(fuse=True, channels_last=True).told(torch.device('cpu'))
    assert told == 'with channels last, with BatchNorm folded'


def test_a_processor_is_asked_by_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, native in (('flags : fpu avx512_bf16 la57', True), ('flags : fpu avx512f', False)):
        monkeypatch.setattr(Path, 'read_text', lambda self, text=text: text)
        assert computes_bf16.__wrapped__('cpu') is native
    assert computes_bf16.__wrapped__('mps') is False
