"""What RoIAligner refuses, and how it pairs a head with stages with one that has none."""

import copy
from pathlib import Path

import pytest
import torch
from ckd_mmdet.aligners import RoIAligner
from ckd_mmdet.aligners.roi import extracting_level_by_level
from ckd_mmdet.alignment import build_alignment
from ckd_mmdet.auto import distill_config
from ckd_mmdet.samples import Widths
from ckd_mmdet.taps import ModuleTap
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from tests.aligners.scenes import CASES, answered, ask, copied, hear, task_loss
from tests.toys import saved_teacher, toy_batch, toy_config, toy_model

ROI_CASES = [name for name, (kind, _, _) in CASES.items() if kind == 'RoIAligner']


def built(name: str, num_classes: int = 3, seed: int = 0) -> nn.Module:
    return toy_model(toy_config(name, num_classes), seed).train()


# A contrast of features that leaves out what overlaps


def test_a_contrast_of_features_knows_the_rois(tmp_path: Path) -> None:
    model = Config(dict(default_scope='mmdet', model=toy_config('faster_rcnn')))
    made = distill_config(model, model, 'ckd_features', teacher_checkpoint=saved_teacher(tmp_path, model.model))
    student = MODELS.build(made.model).train()
    student.distillation.pair(student, None)
    batch = student.data_preprocessor(toy_batch(num_items=[3, 3]), True)
    losses = student(**batch, mode='loss')
    assert losses['roi.loss_ckd_features'] > 0 and losses['roi.gradient_ratio_ckd_features'] > 0
    with ModuleTap(student.roi_head.bbox_roi_extractor, 'extractor') as tap:
        rows = student.distillation.align(student, student.forward_alone, **batch)['roi']
    rois = tap.only().arg(1, 'rois')
    own = torch.cat([rows.image_ids[:, None], rows.regions], 1)
    assert (own[:, None] == rois).all(2).any(1).all() and len(own.unique(dim=0)) > 3
    dense = Config(dict(default_scope='mmdet', model=toy_config('retinanet')))
    with pytest.raises(ValueError, match='`alignments.dense` pairs a CKDLoss, which requires .*many are at one object'):
        build_alignment('dense', dict(aligner=dict(type='DenseAligner'),
                                      losses=dict(loss_ckd=dict(type='CKDLoss', overlap=0.5))))
    with pytest.raises(ValueError, match="`method='ckd_features'` has no recipe for the rows of a DenseAligner"):
        distill_config(dense, dense, 'ckd_features', teacher_checkpoint='weights.pth')


# Before training


@pytest.mark.parametrize('sides', [('retinanet', 'faster_rcnn'), ('faster_rcnn', 'retinanet')])
def test_a_detector_without_roi_head_is_refused(sides: tuple[str, str]) -> None:
    side = ('student', 'teacher')[sides.index('retinanet')]
    message = (f'`RoIAligner` needs a {side} with `roi_head.bbox_head`, got a RetinaNet; it serves two-stage detectors '
               'such as Faster, Mask and Cascade R-CNN')
    with pytest.raises(ValueError, match=message):
        RoIAligner().scorings(*map(built, sides))


@pytest.mark.parametrize('stage', [None, 3, -1])
@pytest.mark.parametrize('sides', [('cascade_rcnn', 'faster_rcnn'), ('faster_rcnn', 'cascade_rcnn')])
def test_a_head_with_stages_needs_one_of_them(sides: tuple[str, str], stage: int | None) -> None:
    side = ('student', 'teacher')[sides.index('cascade_rcnn')]
    message = f"`RoIAligner` needs a `stage` from 0 to 2 for the stages of the {side}'s CascadeRoIHead, got {stage}"
    with pytest.raises(ValueError, match=message):
        RoIAligner(stage).scorings(*map(built, sides))


def test_a_stage_where_neither_head_has_any_is_refused() -> None:
    with pytest.raises(ValueError, match='got `stage=0`, but neither model has a RoI head with stages; leave'):
        RoIAligner(stage=0).scorings(built('faster_rcnn'), built('mask_rcnn'))


def test_a_head_with_other_scores_than_one_a_class_and_background_is_refused() -> None:
    teacher = built('faster_rcnn')
    teacher.roi_head.bbox_head.fc_cls = nn.Linear(32, 6)
    message = "one score a class and one for background; the teacher's Shared2FCBBoxHead gives 6 for 3 classes"
    with pytest.raises(ValueError, match=message):
        RoIAligner().scorings(built('faster_rcnn'), teacher)


def test_a_head_that_scores_elsewhere_is_refused() -> None:
    student = built('faster_rcnn')
    del student.roi_head.bbox_head.fc_cls
    with pytest.raises(ValueError, match='needs a student whose RoI head scores classes in a layer `fc_cls`; '
                                         'Shared2FCBBoxHead has none'):
        RoIAligner().scorings(student, built('faster_rcnn'))


def test_features_are_refused_where_the_last_layer_is_not_linear() -> None:
    student, teacher = built('faster_rcnn'), built('faster_rcnn')
    assert RoIAligner().widths(student, teacher) == Widths((32,), (32,))
    teacher.roi_head.bbox_head.fc_cls = nn.utils.parametrizations.weight_norm(nn.Linear(32, 4))
    with pytest.raises(ValueError, match="centres in a linear `fc_cls`, and the teacher's is a ParametrizedLinear"):
        RoIAligner().widths(student, teacher)


# In the first step


@pytest.mark.parametrize('name', ROI_CASES)
def test_features_centers_and_logits_belong_together(name: str) -> None:
    _, detector, options = CASES[name]
    student, aligner = built(detector), RoIAligner(**options)
    answer = answered(aligner, copied(student), hear(aligner, student))
    assert len(answer.student) >= 1
    rows = torch.arange(len(answer.student))
    for layer, scores in zip(answer.layers, (answer.student, answer.teacher), strict=True):
        again = nn.functional.linear(layer.features, layer.weight, layer.bias)
        assert torch.allclose(again, scores.take(rows), atol=1e-5)
    ours, theirs = answer.layers
    assert ours.features.requires_grad
    assert ours.weight.requires_grad
    assert not any(part.requires_grad for part in (theirs.features, theirs.weight, theirs.bias))


def test_a_loss_over_other_rows_than_the_heads_gives_no_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    student = built('faster_rcnn')
    head, own = student.roi_head.bbox_head, student.roi_head.bbox_head.loss
    monkeypatch.setattr(head, 'loss', lambda scores, *args, **kwargs: own(scores.flip(0), *args, **kwargs))
    answer = answered(RoIAligner(), copied(student), hear(RoIAligner(), student))
    assert answer.labels is None
    assert answer.no_labels == 'its RoI head gives `loss_cls` other rows than those that `bbox_head` gave'


def test_a_loss_without_one_label_a_row_gives_no_labels() -> None:
    student = built('faster_rcnn')
    student.roi_head.bbox_head.loss_cls.register_forward_pre_hook(
        lambda loss, args: (args[0], nn.functional.one_hot(args[1], 4).float(), *args[2:]))
    heard = hear(RoIAligner(), student)
    n = len(heard.tape.scores.only().output[0])
    answer = answered(RoIAligner(), copied(student), heard)
    assert answer.labels is None
    assert answer.no_labels == f'its RoI head gives `loss_cls` labels of shape ({n}, 4)'


def test_of_several_calls_that_one_counts_whose_rows_the_loss_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in PISA, which calls its head for sampling too."""
    student = built('faster_rcnn')
    plain = ask(RoIAligner(), copied(student), hear(RoIAligner(), student))
    roi_head, own = student.roi_head, student.roi_head._bbox_forward
    monkeypatch.setattr(roi_head, '_bbox_forward', lambda x, rois: own(x, rois[:5]) and own(x, rois))
    aligned = ask(RoIAligner(), copied(student), hear(RoIAligner(), student))
    assert torch.equal(aligned.student.logits, plain.student.logits)
    assert torch.equal(aligned.teacher.logits, plain.teacher.logits)
    assert torch.equal(aligned.labels, plain.labels)


def test_of_several_calls_of_the_loss_over_the_same_rows_the_last_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in PISA's ISR-P, which weighs the rows by a first loss, and learns by the second."""
    student = built('faster_rcnn')
    plain = ask(RoIAligner(), copied(student), hear(RoIAligner(), student))
    head, own = student.roi_head.bbox_head, student.roi_head.bbox_head.loss

    def twice(scores: torch.Tensor, boxes: torch.Tensor, rois: torch.Tensor, labels: torch.Tensor, *rest: object,
              **options: object) -> dict:
        head.loss_cls(scores, (labels + 1) % 4, reduction_override='none')
        return own(scores, boxes, rois, labels, *rest, **options)

    monkeypatch.setattr(head, 'loss', twice)
    assert torch.equal(ask(RoIAligner(), copied(student), hear(RoIAligner(), student)).labels, plain.labels)


def test_a_stage_that_is_left_out_although_there_are_rows_is_refused() -> None:
    student = built('cascade_rcnn')
    student.roi_head.num_stages = 1
    heard = hear(RoIAligner(stage=1), student)
    with pytest.raises(RuntimeError, match='expected one call of roi_head.bbox_head, saw 0'):
        ask(RoIAligner(stage=1), copied(student), heard)


def test_a_student_that_was_not_heard_is_refused() -> None:
    student = built('faster_rcnn')
    heard = hear(RoIAligner(), student)
    with RoIAligner().listen(student) as heard.tape:
        pass
    with pytest.raises(RuntimeError, match='expected a call of roi_head.bbox_head, saw none'):
        ask(RoIAligner(), copied(student), heard)


# Labels, images and proposals


@pytest.fixture(params=ROI_CASES)
def case(request: pytest.FixtureRequest) -> tuple[RoIAligner, dict]:
    _, detector, arguments = CASES[request.param]
    return RoIAligner(**arguments), toy_config(detector)


@pytest.fixture
def aligner(case: tuple[RoIAligner, dict]) -> RoIAligner:
    return case[0]


@pytest.fixture
def student(case: tuple[RoIAligner, dict]) -> nn.Module:
    return toy_model(case[1]).train()


def test_labels_and_images_are_those_of_the_heads_own_sampling(
        aligner: RoIAligner, student: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    targets, sampled = [], []
    head, samplers = student.roi_head.bbox_head, student.roi_head.bbox_sampler
    if aligner.stage is not None:
        head, samplers = head[aligner.stage], samplers[aligner.stage]
    own_targets, own_sample = head.get_targets, samplers.sample
    monkeypatch.setattr(head, 'get_targets', lambda *a, **k: targets.append(own_targets(*a, **k)) or targets[-1])
    monkeypatch.setattr(samplers, 'sample', lambda *a, **k: sampled.append(own_sample(*a, **k)) or sampled[-1])

    aligned = ask(aligner, copied(student), hear(aligner, student))

    (labels, _, _, _), = targets
    assert torch.equal(aligned.labels, labels)
    assert {3} < set(labels.tolist())  # background, and not only
    rows = [len(result.priors) for result in sampled]
    assert aligned.image_ids.tolist() == [0] * rows[0] + [1] * rows[1]
    assert aligned.image_ids.dtype == aligned.labels.dtype == torch.int64


def test_rows_whose_label_has_no_weight_are_to_be_ignored(
        aligner: RoIAligner, student: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    head = student.roi_head.bbox_head
    head = head if aligner.stage is None else head[aligner.stage]
    own = head.get_targets

    def every_third_without_weight(*args: object, **kwargs: object) -> tuple:
        labels, weights, *boxes = own(*args, **kwargs)
        weights[::3] = 0
        return labels, weights, *boxes

    expected = ask(aligner, copied(student), hear(aligner, student)).labels.clone()
    expected[::3] = -1
    monkeypatch.setattr(head, 'get_targets', every_third_without_weight)
    assert torch.equal(ask(aligner, copied(student), hear(aligner, student)).labels, expected)


def test_a_batch_without_proposals_trains_on_its_ground_truth(case: tuple[RoIAligner, dict]) -> None:
    aligner, student = case[0], toy_model(proposing_nothing(case[1])).train()
    heard = hear(aligner, student, toy_batch(num_items=[1, 3], with_mask=student.with_mask))
    aligned = ask(aligner, copied(student), heard)
    assert torch.equal(aligned.student.logits, aligned.teacher.logits)
    assert aligned.image_ids.tolist() == [0, 1, 1, 1]
    (task_loss(heard.losses) + aligned.student.logits.sum()).backward()


@pytest.mark.parametrize('case', [name for name in ROI_CASES if name not in ('dynamic_rcnn', 'double_head_rcnn')],
                         # mmdet's own heads fail there
                         indirect=True)
def test_a_batch_without_proposals_and_ground_truth_trains_on_without_rows(case: tuple[RoIAligner, dict]) -> None:
    aligner, student = case[0], toy_model(proposing_nothing(case[1])).train()
    heard = hear(aligner, student, toy_batch(num_items=[0, 0], with_mask=student.with_mask))
    aligned = ask(aligner, copied(student), heard)
    assert aligned.student.logits.shape == aligned.teacher.logits.shape == (0, 4)
    assert aligned.labels.shape == aligned.image_ids.shape == (0,)
    (task_loss(heard.losses) + aligned.student.logits.sum()).backward()


def proposing_nothing(config: dict) -> dict:
    """No proposal is as large as it must be."""
    config = copy.deepcopy(config)
    config.train_cfg.rpn_proposal.min_bbox_size = 10_000
    return config


# One side with stages, the other without


def same_classifier(cascade: nn.Module, stage: int, faster: nn.Module) -> None:
    """Give one stage of ``cascade``, and all that comes before it, the weights of ``faster``."""
    for part in ('backbone', 'neck'):
        getattr(cascade, part).load_state_dict(getattr(faster, part).state_dict())
    head = cascade.roi_head.bbox_head[stage]
    for part in ('shared_fcs', 'fc_cls'):
        getattr(head, part).load_state_dict(getattr(faster.roi_head.bbox_head, part).state_dict())


@pytest.mark.parametrize('stage', [0, 1, 2])
def test_a_cascade_teaches_a_plain_student_from_the_given_stage(stage: int) -> None:
    student, teacher, aligner = built('faster_rcnn'), built('cascade_rcnn', seed=1).eval(), RoIAligner(stage)
    same_classifier(teacher, stage, student)
    aligner.scorings(student, teacher)
    aligned = ask(aligner, teacher, hear(aligner, student))
    assert torch.equal(aligned.student.logits, aligned.teacher.logits)


@pytest.mark.parametrize('stage', [0, 1, 2])
def test_a_plain_teacher_teaches_the_given_stage_of_a_cascade(stage: int) -> None:
    student, teacher, aligner = built('cascade_rcnn'), built('faster_rcnn', seed=1).eval(), RoIAligner(stage)
    same_classifier(student, stage, teacher)
    aligner.scorings(student, teacher)
    aligned = ask(aligner, teacher, hear(aligner, student))
    assert torch.equal(aligned.student.logits, aligned.teacher.logits)


def test_the_teacher_looks_at_its_own_features() -> None:
    student = built('faster_rcnn')
    teacher = copy.deepcopy(student).eval()
    with torch.no_grad():
        teacher.neck.fpn_convs[0].conv.weight.mul_(2)
    aligned = ask(RoIAligner(), teacher, hear(RoIAligner(), student))
    assert (aligned.student.logits != aligned.teacher.logits).any()


@pytest.mark.parametrize('name', ['faster_rcnn', 'double_head_rcnn', 'cascade_rcnn'])
@pytest.mark.parametrize('boxes', [64, 0])
def test_features_with_one_wait_are_mmdets_own_to_the_last_bit(name: str, boxes: int) -> None:
    model = toy_model(toy_config(name)).eval()
    extractor = model.roi_head.bbox_roi_extractor
    extractor = extractor[1] if isinstance(extractor, nn.ModuleList) else extractor
    draw = torch.Generator().manual_seed(0)
    feats = [torch.randn(2, 16, 64 // 2**i, 64 // 2**i, generator=draw, requires_grad=True) for i in range(4)]
    corner, side = torch.rand(boxes, 2, generator=draw) * 100, 2 ** (3 + torch.rand(boxes, 1, generator=draw) * 7)
    rois = torch.cat([torch.randint(2, (boxes, 1), generator=draw).float(), corner, corner + side], 1)
    factors = (None, 1.3) if name == 'double_head_rcnn' else (None,)
    for factor in factors:
        expected = extractor(feats, rois, factor)
        with extracting_level_by_level(extractor):
            found = extractor(feats, rois, factor)
        assert torch.equal(found, expected)
        if boxes:
            assert len(extractor.map_roi_levels(rois, 4).unique()) == 4
            weights = torch.randn(expected.shape, generator=draw)
            ours, theirs = (torch.autograd.grad((out * weights).sum(), feats) for out in (found, expected))
            assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(ours, theirs, strict=True))
    assert 'forward' not in vars(extractor)
