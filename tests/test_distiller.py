import copy
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ckd_mmdet.alignment import RowAlignment, build_alignment
from ckd_mmdet.classes import SharedClasses
from ckd_mmdet.compat import activate
from ckd_mmdet.distiller import Distiller
from ckd_mmdet.rows import TableRows
from ckd_mmdet.samples import Answer
from mmdet.engine.hooks import YOLOXModeSwitchHook
from mmdet.models import FasterRCNN
from mmengine.hub import get_config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from tests.small_runs import distilled
from tests.toys import saved_teacher, toy_batch, toy_config, toy_model

METRICS = {'roi.rows', 'roi.cosine', 'roi.retrieval', 'roi.teacher_accuracy'}


@pytest.fixture(scope='module')
def taught(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Config and random weights of a teacher."""
    config = toy_config('faster_rcnn')
    return dict(config=config, checkpoint=saved_teacher(tmp_path_factory.mktemp('teacher'), config))


@pytest.fixture
def distiller(taught: dict) -> Distiller:
    return toy_model(distilled(toy_config('faster_rcnn'), taught))


@pytest.fixture
def plain() -> nn.Module:
    """The same student, with the same weights, alone."""
    return toy_model(toy_config('faster_rcnn'))


def losses_of(model: nn.Module, batch: dict | None = None) -> dict:
    torch.manual_seed(0)  # the samplers draw
    return model(**model.data_preprocessor(batch or toy_batch(num_items=[3, 2]), True), mode='loss')


def flat(losses: dict) -> dict[str, list[float]]:
    return {key: [float(v.detach()) for v in (value if isinstance(value, list) else [value])]
            for key, value in losses.items()}


def deformable_detr() -> dict:
    """Its ``level_embed`` is a parameter of the detector itself."""
    model = get_config('mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py').model
    model.backbone.update(depth=18, init_cfg=None)
    model.neck.in_channels = [128, 256, 512]
    model.encoder.num_layers = model.decoder.num_layers = 1
    return model


def yolox() -> dict:
    return get_config('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py').model


def convnext() -> dict:
    model = toy_config('faster_rcnn')
    model.backbone = dict(type='mmpretrain.ConvNeXt', arch=dict(depths=[1, 1, 3, 1], channels=[8, 16, 32, 64]),
                          out_indices=[0, 1, 2, 3], layer_scale_init_value=1.0, gap_before_final_norm=False)
    return model


# the tree

@pytest.mark.parametrize('config', [partial(toy_config, 'faster_rcnn'), partial(toy_config, 'cascade_rcnn'),
                                    partial(toy_config, 'retinanet'), deformable_detr, yolox])
def test_the_tree_is_the_students_own(config: partial) -> None:
    student = toy_model(config())
    wrapped = toy_model(dict(type='ckd_mmdet.Distiller', student=config()))
    assert list(wrapped.state_dict()) == list(student.state_dict())
    for names in ('named_parameters', 'named_buffers', 'named_modules'):
        assert [name for name, _ in getattr(wrapped, names)()] == [name for name, _ in getattr(student, names)()]
    assert wrapped.load_state_dict(student.state_dict(), strict=True)


def test_the_tree_with_a_teacher_is_the_plain_students(distiller: Distiller, plain: nn.Module) -> None:
    assert list(distiller.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in distiller.named_parameters()] == [name for name, _ in plain.named_parameters()]
    plain.load_state_dict(distiller.state_dict(), strict=True)
    for ours, theirs in zip(distiller.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_students_own_parameter_is_in_the_tree() -> None:
    wrapped = toy_model(dict(type='ckd_mmdet.Distiller', student=deformable_detr()))
    assert wrapped.level_embed is wrapped.student.level_embed
    assert 'level_embed' in dict(wrapped.named_parameters())
    wrapped.double()
    assert wrapped.student.level_embed.dtype == wrapped.level_embed.dtype == torch.float64


def test_the_teacher_is_in_no_part_of_the_tree(distiller: Distiller) -> None:
    teacher = distiller.teacher.model
    assert not set(map(id, teacher.parameters())) & set(map(id, distiller.parameters()))
    assert not set(map(id, teacher.modules())) & set(map(id, distiller.modules()))
    assert not any('teacher' in name for name, _ in distiller.named_modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    distiller.train()
    assert not any(module.training for module in teacher.modules())


def test_init_weights_reaches_the_student_and_leaves_the_teacher(distiller: Distiller) -> None:
    digest, before = distiller.teacher.digest(), distiller.backbone.conv1.weight.clone()
    distiller.student.init_weights = lambda: nn.init.constant_(distiller.backbone.conv1.weight, 7.)
    distiller.init_weights()
    assert distiller.teacher.digest() == digest
    assert not torch.equal(distiller.backbone.conv1.weight, before)


def test_older_keys_are_renamed_by_the_detector_itself(distiller: Distiller) -> None:
    single_stage = {key.replace('rpn_head', 'bbox_head'): torch.full_like(value, 2.)
                    for key, value in distiller.state_dict().items() if key.startswith(('backbone', 'rpn_head'))}
    for load in (distiller.load_state_dict, partial(load_state_dict, distiller)):
        nn.init.zeros_(distiller.rpn_head.rpn_cls.weight)
        load(dict(single_stage), strict=False)
        assert (distiller.rpn_head.rpn_cls.weight == 2.).all()


def test_a_copy_shares_its_own_tree_and_the_very_same_teacher(distiller: Distiller) -> None:
    copied = copy.deepcopy(distiller)
    assert copied.student.backbone is copied.backbone
    assert copied.student._parameters is copied._parameters and copied.student._buffers is copied._buffers
    assert copied.backbone is not distiller.backbone
    assert copied.teacher is distiller.teacher
    nn.init.zeros_(copied.backbone.conv1.weight)
    assert distiller.backbone.conv1.weight.abs().sum() > 0
    assert flat(losses_of(copied.eval())) != flat(losses_of(distiller.eval()))


def test_a_pickled_distiller_comes_back_whole(distiller: Distiller) -> None:
    back = pickle.loads(pickle.dumps(distiller))
    assert back.student.backbone is back.backbone
    assert back.teacher.digest() == distiller.teacher.digest()
    assert flat(losses_of(back)) == flat(losses_of(distiller))


@pytest.mark.parametrize('move', [
    lambda model: model.to(torch.float64), lambda model: model.double(), lambda model: model.half(),
    lambda model: nn.Sequential(model).to(torch.float64), lambda model: model.to(torch.zeros(1, dtype=torch.float64)),
    lambda model: model.to('meta')])
def test_the_teacher_moves_with_the_model(distiller: Distiller, move: callable) -> None:
    move(distiller)
    kinds = {(p.dtype, p.device.type) for p in distiller.parameters()}
    assert len(kinds) == 1 and kinds != {(torch.float32, 'cpu')}
    assert {(p.dtype, p.device.type) for p in distiller.teacher.model.parameters()} == kinds


def test_a_moved_renormalisation_moves_too(taught: dict) -> None:
    student = toy_config('faster_rcnn')
    student.data_preprocessor.mean = [1., 2., 3.]
    wrapped = toy_model(distilled(student, taught)).double()
    assert wrapped.teacher.renormalize.factor.dtype == torch.float64


def test_train_and_eval_reach_the_student(distiller: Distiller) -> None:
    assert distiller.train() is distiller
    assert distiller.training and distiller.student.training and distiller.roi_head.training
    assert not distiller.backbone.bn1.training  # norm_eval is the backbone's own wish
    assert distiller.eval() is distiller
    assert not (distiller.training or distiller.student.training or distiller.roi_head.training)


@MODELS.register_module()
class FreezesInTrain(FasterRCNN):
    """A detector with a ``train`` of its own."""

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self.rpn_head.eval()
        return self


def test_a_detectors_own_train_is_obeyed() -> None:
    wrapped = toy_model(dict(type='ckd_mmdet.Distiller', student={**toy_config('faster_rcnn'),
                                                                 'type': 'FreezesInTrain'}))
    wrapped.train()
    assert wrapped.roi_head.training and not wrapped.rpn_head.training


def test_unknown_attributes_are_the_students(distiller: Distiller) -> None:
    assert distiller.with_roi_head and distiller.roi_head is distiller.student.roi_head
    assert distiller.extract_feat.__self__ is distiller.student
    with pytest.raises(AttributeError, match='no attribute'):
        distiller.unheard_of  # noqa: B018


def test_a_top_level_data_preprocessor_becomes_the_students() -> None:
    student = toy_config('faster_rcnn')
    preprocessor = student.pop('data_preprocessor')
    wrapped = toy_model(dict(type='ckd_mmdet.Distiller', student=student, data_preprocessor=preprocessor))
    assert wrapped.data_preprocessor is wrapped.student.data_preprocessor
    assert wrapped.data_preprocessor.mean.flatten().tolist() == pytest.approx(preprocessor.mean)


def test_syncbn_conversion_leaves_the_teacher_alone(distiller: Distiller) -> None:
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(distiller)
    assert isinstance(converted.backbone.bn1, nn.SyncBatchNorm)
    assert converted.student.backbone.bn1 is converted.backbone.bn1
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in distiller.teacher.model.modules())


# the losses

def test_the_task_losses_are_the_plain_students_to_the_last_bit(distiller: Distiller, plain: nn.Module) -> None:
    ours, theirs = flat(losses_of(distiller)), flat(losses_of(plain))
    assert set(ours) - set(theirs) == {'roi.loss_ckd', *METRICS}
    assert {key: ours[key] for key in theirs} == theirs


def test_what_is_logged_beside_the_losses_is_not_added_to_them(distiller: Distiller) -> None:
    distiller.has_hook = True
    losses = losses_of(distiller)
    total, logged = distiller.parse_losses(losses)
    assert set(logged) >= METRICS and not any('loss' in key for key in METRICS)
    added = sum(sum(value) for key, value in flat(losses).items() if 'loss' in key)
    assert float(total.detach()) == pytest.approx(added)
    assert float(logged['roi.rows']) == 32
    assert all(0 <= float(logged[f'roi.{key}']) <= 1 for key in ('retrieval', 'teacher_accuracy'))


def test_the_student_learns_and_the_teacher_does_not(distiller: Distiller) -> None:
    losses_of(distiller)['roi.loss_ckd'].backward()
    assert distiller.roi_head.bbox_head.fc_cls.weight.grad.abs().sum() > 0
    assert distiller.backbone.layer4[0].conv1.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in distiller.teacher.model.parameters())


def test_no_hook_stays_behind(distiller: Distiller) -> None:
    losses_of(distiller)
    assert not any(module._forward_hooks for module in distiller.modules())


@pytest.mark.parametrize('mode', ['predict', 'tensor'])
def test_any_other_mode_is_the_students_alone(distiller: Distiller, plain: nn.Module, mode: str,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError('listened or asked')

    monkeypatch.setattr(distiller.distiller['roi'].aligner, 'listen', refuse)
    monkeypatch.setattr(distiller.teacher, 'extract_feat', refuse)
    answers = []
    for model in (distiller, plain):
        batch = model.eval().data_preprocessor(toy_batch(num_items=[3, 2]), False)
        with torch.no_grad():
            answers.append(model(**batch, mode=mode))
    tensors, expected = (list(tensors_in(answer)) for answer in answers)
    assert expected and all(torch.equal(a, b) for a, b in zip(tensors, expected, strict=True))


def tensors_in(answer: object) -> Iterator[torch.Tensor]:
    if isinstance(answer, torch.Tensor):
        yield answer
    elif isinstance(answer, list | tuple):
        for part in answer:
            yield from tensors_in(part)
    elif hasattr(answer, 'pred_instances'):
        yield from (answer.pred_instances.bboxes, answer.pred_instances.scores, answer.pred_instances.labels)


@pytest.mark.parametrize('parts', [dict(alignments={}), dict(teacher=None), dict(teacher=None, alignments=None)])
def test_without_teacher_or_alignments_it_is_the_plain_student(taught: dict, plain: nn.Module, parts: dict) -> None:
    wrapped = toy_model({**distilled(toy_config('faster_rcnn'), taught), **parts})
    assert wrapped.teacher is None and list(wrapped.state_dict()) == list(plain.state_dict())
    assert flat(losses_of(wrapped)) == flat(losses_of(plain))
    assert wrapped.parse_losses(losses_of(wrapped))[0] > 0  # and needs no hook


def test_two_alignments_ask_the_teacher_once(taught: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    config = distilled(toy_config('cascade_rcnn'), taught)
    config['alignments'] = {f's{k}': dict(aligner=dict(type='RoIAligner', stage=k),
                                          losses=dict(loss_ckd=dict(type='CKDLoss'), loss_kd=dict(type='KDLoss')))
                            for k in (0, 2)}
    wrapped, calls = toy_model(config), []
    backbone = wrapped.teacher.model.backbone
    backbone.register_forward_hook(lambda *_: calls.append(1))
    assert {'s0.loss_ckd', 's0.loss_kd', 's2.loss_ckd', 's2.loss_kd'} <= set(losses_of(wrapped))
    assert len(calls) == 1


def test_a_training_step_without_the_hook_is_refused(distiller: Distiller) -> None:
    optimizer = build_optim_wrapper(distiller, dict(optimizer=dict(type='SGD', lr=0.1)))
    with pytest.raises(RuntimeError, match=r'needs `DistillHook` to train.*custom_hooks'):
        distiller.train_step(toy_batch(num_items=[3, 2]), optimizer)
    assert 'roi.loss_ckd' in losses_of(distiller)  # a bare forward is not
    distiller.has_hook = True
    assert distiller.train_step(toy_batch(num_items=[3, 2]), optimizer)['loss'] > 0


def test_a_batch_without_objects_trains_on(distiller: Distiller) -> None:
    distiller.has_hook = True
    losses = losses_of(distiller, toy_batch(num_items=[0, 0]))
    assert losses['roi.teacher_accuracy'] == 0
    total, _ = distiller.parse_losses(losses)
    total.backward()
    assert total.isfinite() and distiller.backbone.layer4[0].conv1.weight.grad.isfinite().all()


def test_a_batch_without_proposals_trains_on(distiller: Distiller) -> None:
    distiller.has_hook = True
    distiller.student.train_cfg.rpn_proposal.update(min_bbox_size=1000)  # wider than the images
    distiller.roi_head.bbox_sampler.add_gt_as_proposals = False
    losses = losses_of(distiller)
    assert losses['roi.rows'] == 0 and losses['roi.loss_ckd'] == 0
    total, _ = distiller.parse_losses(losses)
    total.backward()
    assert total.isfinite()


@pytest.mark.skipif(not activate(), reason="mmcv's own nms takes float32 alone on CPU")
def test_bfloat16_autocast_gives_finite_losses(distiller: Distiller) -> None:
    distiller.has_hook = True
    with torch.autocast('cpu', dtype=torch.bfloat16):
        total, logged = distiller.parse_losses(losses_of(distiller))
    total.backward()
    assert all(value.isfinite() for value in logged.values())
    assert logged['roi.loss_ckd'].dtype == torch.float32
    gradients = [p.grad for p in distiller.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)


# whoever reads the model by name

def groups(model: nn.Module, cfg: dict) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    wrapper = build_optim_wrapper(model, copy.deepcopy(cfg))
    return {names[id(parameter)]: (group['lr'], group['weight_decay'])
            for group in wrapper.optimizer.param_groups for parameter in group['params']}


ADAM = dict(type='AdamW', lr=1e-3, weight_decay=0.05)
LAYER_DECAY = dict(optimizer=ADAM, constructor='mmdet.LearningRateDecayOptimizerConstructor',
                   paramwise_cfg=dict(decay_rate=0.9, decay_type='layer_wise', num_layers=6))
DETR = dict(optimizer=ADAM, paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1, decay_mult=1.0)}))
DEFORMABLE = dict(optimizer=ADAM, paramwise_cfg=dict(norm_decay_mult=0., custom_keys={
    'backbone': dict(lr_mult=0.1), 'sampling_offsets': dict(lr_mult=0.1), 'reference_points': dict(lr_mult=0.1)}))


@pytest.mark.parametrize(('config', 'optimizer', 'rates'), [
    pytest.param(convnext, LAYER_DECAY, 5, marks=pytest.mark.skipif(
        find_spec('mmpretrain') is None, reason='ConvNeXt is a backbone of mmpretrain')),
    (partial(toy_config, 'faster_rcnn'), DETR, 2)])
def test_optimizer_groups_are_the_plain_students(taught: dict, config: partial, optimizer: dict, rates: int) -> None:
    ours = groups(toy_model(distilled(config(), taught)), optimizer)
    assert ours == groups(toy_model(config()), optimizer)
    assert len({rate for rate, _ in ours.values()}) >= rates


def test_optimizer_groups_of_a_detr_are_the_plain_students() -> None:
    ours = groups(toy_model(dict(type='ckd_mmdet.Distiller', student=deformable_detr())), DEFORMABLE)
    assert ours == groups(toy_model(deformable_detr()), DEFORMABLE)
    assert ours['backbone.layer4.0.conv1.weight'][0] == pytest.approx(1e-4)


def test_the_yolox_hook_finds_its_head() -> None:
    wrapped = toy_model(dict(type='ckd_mmdet.Distiller', student=yolox()))
    loader = SimpleNamespace(dataset=SimpleNamespace(update_skip_type_keys=lambda keys: None))
    logger = SimpleNamespace(info=lambda text: None)
    YOLOXModeSwitchHook(num_last_epochs=15).before_train_epoch(
        SimpleNamespace(epoch=14, max_epochs=20, model=wrapped, train_dataloader=loader, logger=logger))
    assert wrapped.student.bbox_head.use_l1


# the rows that are chosen, and the classes that are shared


def test_with_one_seed_the_student_starts_from_the_plain_students_weights(taught: dict) -> None:
    weights = []
    for cfg in (toy_config('faster_rcnn'), distilled(toy_config('faster_rcnn'), taught)):
        torch.manual_seed(0)
        model = MODELS.build(cfg)
        model.init_weights()
        weights.append(model.state_dict())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def meeting(selector: dict | list | None = None, loss: str = 'CKDLoss', students: int = 3, teachers: int = 3,
            class_map: bool = False) -> RowAlignment:
    """An alignment of two toy Faster R-CNNs with so many classes."""
    alignment = build_alignment('roi', dict(aligner=dict(type='RoIAligner'), losses=dict(loss_it=dict(type=loss)),
                                            selector=selector))
    student, teacher = (toy_model(toy_config('faster_rcnn', classes)) for classes in (students, teachers))
    alignment.meet(student, teacher, class_map)
    return alignment


def answer(labels: list[int] | None, teachers: int = 3) -> Answer:
    """Rows of a student of three classes; its labels, 3 is background."""
    torch.manual_seed(0)
    n = 6
    student, teacher = TableRows(torch.randn(n, 4, requires_grad=True)), TableRows(torch.randn(n, teachers + 1))
    return Answer(student, teacher, None if labels is None else torch.tensor(labels), torch.tensor([0, 0, 0, 1, 1, 1]),
                  no_labels='its head gives none')


def test_chosen_rows_are_the_selectors() -> None:
    asked = answer([0, 3, 2, 3, -1, 1])
    aligned = meeting(dict(type='Foreground')).choose(asked)
    rows = torch.tensor([0, 2, 5])
    assert torch.equal(aligned.student.logits, asked.student.scores[rows])
    assert torch.equal(aligned.teacher.logits, asked.teacher.scores[rows])
    assert aligned.labels.tolist() == [0, 2, 1]
    assert aligned.image_ids.tolist() == [0, 0, 1]
    assert (aligned.num_classes, aligned.scoring) == (3, 'softmax')


def test_selectors_in_a_list_are_applied_in_turn() -> None:
    asked = answer([0, 3, 2, 3, -1, 1])
    aligned = meeting([dict(type='Foreground'), dict(type='PerImageCap', k=1)]).choose(asked)
    confidence = asked.teacher.scores[:, :3].amax(1)
    best = 0 if confidence[0] > confidence[2] else 2
    assert torch.equal(aligned.student.logits, asked.student.scores[[best, 5]])


def test_of_other_classes_the_shared_ones_are_distilled_and_unknown_objects_left_out() -> None:
    alignment = meeting(students=3, teachers=5, class_map=True)
    alignment.share(SharedClasses((2, 0), (4, 1)))  # the student's class 1 is nobody's
    asked = answer([0, 1, 2, 3, -1, 1], teachers=5)
    aligned = alignment.choose(asked)
    rows, student, teacher = [0, 2, 3, 4], asked.student.scores, asked.teacher.scores
    assert aligned.labels.tolist() == [1, 0, 2, -1]
    torch.testing.assert_close(aligned.student.logits[:, :2], student[rows][:, [2, 0]])
    torch.testing.assert_close(aligned.student.logits[:, 2], student[rows][:, [1, 3]].logsumexp(1))
    torch.testing.assert_close(aligned.teacher.logits[:, :2], teacher[rows][:, [4, 1]])
    torch.testing.assert_close(aligned.teacher.logits[:, 2], teacher[rows][:, [0, 2, 3, 5]].logsumexp(1))
    assert aligned.student.logits.requires_grad


def test_without_shared_classes_no_row_is_chosen() -> None:
    with pytest.raises(RuntimeError, match="the data set's names are not known yet: train through the Runner with"):
        meeting(teachers=5, class_map=True).choose(answer([0] * 6, teachers=5))


def test_other_classes_without_a_map_are_refused() -> None:
    with pytest.raises(ValueError, match=r'as many classes in the teacher \(5\) as in the student \(3\); pair them '
                                         r"with `teacher.class_map='name'`"):
        meeting(teachers=5)


def test_a_student_without_labels_is_refused_where_they_are_needed() -> None:
    with pytest.raises(RuntimeError, match='`alignments.roi` needs labels for Foreground, and this student gives none: '
                                           'its head gives none. Take a selector and losses that need only logits'):
        meeting(dict(type='Foreground')).choose(answer(None))
    assert meeting(dict(type='TeacherTopK', k=4)).choose(answer(None)).labels is None


def mixed(loss: str) -> RowAlignment:
    """A sigmoid head that learns from a softmax head."""
    student, teacher = toy_model(toy_config('fcos')), toy_model(toy_config('fcos'))
    teacher.bbox_head.use_sigmoid_cls, teacher.bbox_head.cls_out_channels = False, 4
    alignment = build_alignment('dense', dict(aligner=dict(type='DenseAligner'), losses=dict(loss_it=dict(type=loss)),
                                              selector=dict(type='TeacherTopK', k=4)))
    alignment.meet(student, teacher, False)
    return alignment


def test_between_a_sigmoid_and_a_softmax_head_only_the_classes_are_compared() -> None:
    alignment = mixed('CKDLoss')
    student, teacher = TableRows(torch.randn(6, 3)), TableRows(torch.randn(6, 4))
    aligned = alignment.choose(Answer(student, teacher))
    assert aligned.scoring == 'mixed'
    rows = teacher.scores[:, :3].amax(1).topk(4).indices.sort().values
    assert torch.equal(aligned.student.logits, student.scores[rows])
    assert torch.equal(aligned.teacher.logits, teacher.scores[rows, :3])


def test_kd_between_a_sigmoid_and_a_softmax_head_is_refused() -> None:
    with pytest.raises(ValueError, match=r'`alignments.dense.losses.loss_it` is a KDLoss, which makes no sense between '
                                         r'a student with 3 classes \(sigmoid\) and a teacher with 3 classes and '
                                         r'background \(softmax\); take a loss that compares directions only'):
        mixed('KDLoss')


def test_a_direction_of_one_score_is_refused() -> None:
    alignment = build_alignment('rpn', dict(aligner=dict(type='DenseAligner', head='rpn_head'),
                                            losses=dict(loss_ckd=dict(type='CKDLoss')),
                                            selector=dict(type='TeacherTopK', k=4)))
    model = toy_model(toy_config('faster_rcnn'))
    with pytest.raises(ValueError, match='is a CKDLoss, which needs rows of at least 2 scores, and student and teacher '
                                         'share 1 only; take a KDLoss here'):
        alignment.meet(model, model, False)


# rests and several teachers

def two_teachers(taught: dict, folder: Path, **options: object) -> dict:
    """A Faster R-CNN that learns rows from one of its kind and maps from a Cascade R-CNN."""
    cascade = toy_config('cascade_rcnn')
    other = dict(config=cascade, checkpoint=saved_teacher(folder, cascade, seed=3))
    model = distilled(toy_config('faster_rcnn'), {})
    model['teacher'] = dict(twin=taught, big=other)
    model['alignments']['roi']['teacher'] = 'twin'
    model['alignments']['neck'] = dict(aligner=dict(type='NeckAligner'), teacher='big',
                                       losses=dict(loss_l2=dict(type='L2Loss', **options)))
    return model


def test_each_alignment_asks_its_own_teacher(taught: dict, tmp_path: Path) -> None:
    distiller = toy_model(two_teachers(taught, tmp_path))
    both = losses_of(distiller)
    alone = losses_of(toy_model(distilled(toy_config('faster_rcnn'), taught)))
    assert float(both['roi.loss_ckd']) == float(alone['roi.loss_ckd'])
    data = distiller.data_preprocessor(toy_batch(num_items=[3, 2]), True)
    maps = [model.extract_feat(data['inputs']) for model in (distiller.student, distiller.teachers['big'].model)]
    expected = sum((ours - theirs).square().mean() for ours, theirs in zip(*maps, strict=True))
    assert float(both['neck.loss_l2']) == pytest.approx(float(expected), rel=1e-5)
    assert distiller.teacher is distiller.teachers['twin'] and distiller.teacher is not distiller.teachers['big']


def test_every_teacher_follows_and_is_kept_out_of_the_tree(taught: dict, tmp_path: Path) -> None:
    distiller = toy_model(two_teachers(taught, tmp_path))
    assert distiller.state_dict().keys() == toy_model(toy_config('faster_rcnn')).state_dict().keys()
    distiller.double()
    assert all(part.dtype == torch.float64 for teacher in distiller.teachers.values()
               for part in teacher.model.parameters())
    assert copy.deepcopy(distiller).teachers == distiller.teachers


@pytest.mark.parametrize(('change', 'text'), [
    (lambda model: model['alignments']['roi'].pop('teacher'),
     r"`alignments.roi` needs the key `teacher` with one of \['big', 'twin'\], got None"),
    (lambda model: model['alignments']['roi'].update(teacher='small'), r"with one of \['big', 'twin'\], got 'small'"),
    (lambda model: model['alignments'].pop('neck'), '`teacher` has big, which no alignment asks'),
    (lambda model: model.update(teacher=model['teacher']['twin']),
     "`alignments.roi.teacher` is 'twin', but `teacher` is a single one"),
    (lambda model: model['teacher']['big'].update(weights=1), "`teacher.big`: `FrozenTeacher` got an unexpected")])
def test_teachers_and_alignments_that_do_not_fit_are_refused(taught: dict, tmp_path: Path, change: Callable, text: str
                                                            ) -> None:
    model = copy.deepcopy(two_teachers(taught, tmp_path))
    change(model)
    with pytest.raises(ValueError, match=text):
        toy_model(model)


def test_a_teacher_whose_losses_are_over_is_not_asked(taught: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                      ) -> None:
    distiller = toy_model(two_teachers(taught, tmp_path, project=True, loss_weight=dict(value=1.0, stop=2)))
    asked = []
    for name, teacher in distiller.teachers.items():
        monkeypatch.setattr(teacher, 'extract_feat', lambda *args, _name=name, _ask=teacher.extract_feat:
                            asked.append(_name) or _ask(*args))
    for epoch, expected in ((1, ['twin', 'big']), (2, ['twin'])):
        monkeypatch.setattr('ckd_mmdet.distiller._epoch', lambda _epoch=epoch: _epoch)
        asked.clear()
        losses = losses_of(distiller)
        assert sorted(asked) == sorted(expected)
    assert losses['neck.loss_l2'] == 0
    losses['neck.loss_l2'].backward()  # its graph reaches what was learned, or DDP would wait for it
    assert all(part.grad is not None and not part.grad.any() for part in distiller.distiller['neck'].parameters())
    assert list(distiller.distiller['neck'].parameters())


def test_a_selector_of_maps_is_refused(taught: dict) -> None:
    model = distilled(toy_config('faster_rcnn'), taught)
    model['alignments']['roi'] = dict(aligner=dict(type='NeckAligner'), losses=dict(loss_l2=dict(type='L2Loss')),
                                      selector=dict(type='All'))
    with pytest.raises(ValueError, match='pairs whole maps by a NeckAligner, which a `selector` cannot choose from'):
        toy_model(model)


def test_a_loss_of_rows_over_maps_is_refused(taught: dict) -> None:
    model = distilled(toy_config('faster_rcnn'), taught)
    model['alignments']['roi']['aligner'] = dict(type='NeckAligner')
    with pytest.raises(ValueError, match=r"pairs a CKDLoss, which requires \['logits'\], with a NeckAligner, which "
                                         r"provides \['maps'\] only"):
        toy_model(model)


def test_a_teacher_with_broken_features_stops_the_run(taught: dict) -> None:
    model = distilled(toy_config('faster_rcnn'), taught)
    model['alignments']['roi'] = dict(aligner=dict(type='NeckAligner'), losses=dict(loss_l2=dict(type='L2Loss')))
    distiller = toy_model(model)
    torch.nn.init.constant_(distiller.teacher.model.neck.fpn_convs[1].conv.weight, float('nan'))
    with pytest.raises(RuntimeError, match='gave NaN or infinite features on 1 of 5 levels'):
        losses_of(distiller)
