import copy
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ckd_mmdet.alignment import build_alignment
from ckd_mmdet.classes import Scoring, SharedClasses
from ckd_mmdet.compat import activate
from ckd_mmdet.distilled import Distilled
from ckd_mmdet.pairing import RowPairing, check_counts
from ckd_mmdet.rows import SIGMOID, SOFTMAX, TableRows
from ckd_mmdet.samples import Answer
from mmdet.engine.hooks import YOLOXModeSwitchHook
from mmdet.models import FasterRCNN
from mmengine.hub import get_config
from mmengine.logging import MessageHub
from mmengine.model import convert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from torch import nn

from tests.small_runs import distilled
from tests.toys import paired, saved_teacher, toy_batch, toy_config, toy_model

METRICS = {'roi.rows', 'roi.cosine', 'roi.retrieval', 'roi.teacher_accuracy', 'roi.gradient_ratio_ckd'}


@pytest.fixture(scope='module')
def taught(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Config and random weights of a teacher."""
    config = toy_config('faster_rcnn')
    return dict(config=config, checkpoint=saved_teacher(tmp_path_factory.mktemp('teacher'), config))


@pytest.fixture
def distiller(taught: dict) -> Distilled:
    return paired(distilled(toy_config('faster_rcnn'), taught))


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


# one object: the student itself

@pytest.mark.parametrize('config', [partial(toy_config, 'faster_rcnn'), partial(toy_config, 'cascade_rcnn'),
                                    partial(toy_config, 'retinanet'), deformable_detr, yolox])
@pytest.mark.parametrize('parts', [dict(), dict(teacher=None), dict(alignments={})])
def test_without_a_teacher_the_plain_student_is_built(config: partial, parts: dict) -> None:
    student, built = toy_model(config()), toy_model(dict(type='ckd_mmdet.Distiller', student=config(), **parts))
    assert type(built) is type(student)
    assert list(built.state_dict()) == list(student.state_dict())


def learning(taught: dict, student: dict | None = None, alignments: dict | None = None) -> dict:
    """CKD, and two methods that learn parts of their own, on rows and on maps."""
    model = distilled(student or toy_config('faster_rcnn'), taught, dict(
        loss_ckd=dict(type='CKDLoss'), loss_features=dict(type='FeatureAlignmentLoss', expansion=1),
        loss_kd=dict(type='KDLoss', loss_weight='balance:0.5')))
    model['alignments']['neck'] = dict(aligner=dict(type='NeckAligner'),
                                       losses=dict(loss_review=dict(type='ReviewKDLoss', mid_channels=4)))
    return model


def test_the_student_is_itself_with_its_own_names(taught: dict, plain: nn.Module) -> None:
    student = toy_model(learning(taught))
    assert isinstance(student, FasterRCNN) and isinstance(student, Distilled)
    assert type(student).__name__ == 'Distilled[FasterRCNN]'
    own = [name for name, _ in student.named_parameters() if not name.startswith('ckd_mmdet.')]
    assert own == [name for name, _ in plain.named_parameters()]
    assert student.with_roi_head and student.extract_feat.__self__ is student
    with pytest.raises(AttributeError, match='no attribute'):
        student.unheard_of  # noqa: B018


@pytest.mark.parametrize('save', [lambda model: model.state_dict(), get_state_dict,
                                  lambda model: nn.Sequential(model).state_dict(prefix='')])
def test_what_is_learned_is_in_no_state_dict(taught: dict, plain: nn.Module, save: Callable) -> None:
    student = toy_model(learning(taught))
    state = {key.removeprefix('0.'): value for key, value in save(student).items()}
    assert list(state) == list(plain.state_dict())
    plain.load_state_dict(state, strict=True)
    assert [name for name, _ in student.named_parameters() if name.startswith('ckd_mmdet.')]


@pytest.mark.parametrize('load', [lambda model, state: model.load_state_dict(state, strict=True),
                                  lambda model, state: load_state_dict(model, state, strict=True)])
def test_a_plain_students_weights_load_strictly(taught: dict, load: Callable) -> None:
    student, other = toy_model(learning(taught)), toy_model(toy_config('faster_rcnn'), seed=5)
    before = copy.deepcopy(student.distillation.state())
    load(student, other.state_dict())
    assert torch.equal(student.backbone.conv1.weight, other.backbone.conv1.weight)
    for name, state in student.distillation.state().items():
        assert all(same(value, before[name][key]) for key, value in state.items())
    with pytest.raises(RuntimeError, match='backbone.conv1.weight'):
        load(student, {key: value for key, value in other.state_dict().items() if key != 'backbone.conv1.weight'})


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))  # NaN: a ratio that is not measured yet


def test_names_of_learned_parameters_hold_no_word(taught: dict) -> None:
    names = [name for name, _ in toy_model(learning(taught)).named_parameters() if name.startswith('ckd_mmdet.')]
    assert names and all(re.fullmatch(r'ckd_mmdet\.(\d+\.)+(weight|bias)', name) for name in names)


def test_a_users_custom_keys_freeze_nothing_of_ours(taught: dict) -> None:
    keys = dict.fromkeys(['neck', 'roi', 'loss', 'attention', 'student', 'teacher', 'features', 'distill'],
                         dict(lr_mult=0.0))
    rates = groups(toy_model(learning(taught)), dict(optimizer=ADAM, paramwise_cfg=dict(custom_keys=keys)))
    ours = {rate for name, (rate, _) in rates.items() if name.startswith('ckd_mmdet.')}
    assert ours == {ADAM['lr']} and rates['neck.lateral_convs.0.conv.weight'][0] == 0


def test_the_teacher_is_in_no_part_of_the_tree(distiller: Distilled) -> None:
    teacher = distiller.distillation.teachers[None].model
    assert not set(map(id, teacher.parameters())) & set(map(id, distiller.parameters()))
    assert not set(map(id, teacher.modules())) & set(map(id, distiller.modules()))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    distiller.train()
    assert not any(module.training for module in teacher.modules())


INITIALISED = [dict(type='Normal', layer=['Conv2d', 'Linear'], std=0.5)]


def test_a_top_level_init_cfg_gives_the_weights_of_the_student_alone(taught: dict) -> None:
    config = {**toy_config('faster_rcnn'), 'init_cfg': INITIALISED}
    models = [toy_model(config), toy_model(learning(taught, config))]
    learned = copy.deepcopy(models[1].distillation.state())
    for model in models:
        torch.manual_seed(0)
        model.init_weights()
    alone, ours = (model.state_dict() for model in models)
    assert all(torch.equal(value, ours[key]) for key, value in alone.items())
    assert 'ckd_mmdet' in dict(models[1].named_children())
    for name, state in models[1].distillation.state().items():  # made once, when built
        assert all(same(value, learned[name][key]) for key, value in state.items())


def test_making_learned_parts_draws_nothing(taught: dict) -> None:
    drawn = []
    for config in (toy_config('faster_rcnn'), learning(taught)):
        torch.manual_seed(3)
        MODELS.build(config)
        drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[1]


def test_older_keys_are_renamed_by_the_detector_itself(distiller: Distilled) -> None:
    single_stage = {key.replace('rpn_head', 'bbox_head'): torch.full_like(value, 2.)
                    for key, value in distiller.state_dict().items() if key.startswith(('backbone', 'rpn_head'))}
    for load in (distiller.load_state_dict, partial(load_state_dict, distiller)):
        nn.init.zeros_(distiller.rpn_head.rpn_cls.weight)
        load(dict(single_stage), strict=False)
        assert (distiller.rpn_head.rpn_cls.weight == 2.).all()


def test_a_copy_has_parts_of_its_own_and_the_very_same_teacher(taught: dict) -> None:
    student = paired(learning(taught))
    copied = copy.deepcopy(student)
    assert copied.distillation.teachers[None] is student.distillation.teachers[None]
    assert copied.backbone is not student.backbone
    ours, theirs = (dict(model.named_parameters()) for model in (student, copied))
    assert list(ours) == list(theirs) and not {id(one) for one in ours.values()} & {id(one) for one in theirs.values()}
    parts = {id(part) for part in copied.ckd_mmdet.parameters()}
    assert {id(part) for loss in copied.distillation.losses.values() for part in loss.parameters()} == parts
    assert flat(losses_of(copied)) == flat(losses_of(student))


def test_a_pickled_student_comes_back_whole(taught: dict) -> None:
    student = paired(learning(taught))
    back = pickle.loads(pickle.dumps(student))
    assert type(back) is type(student)
    assert back.distillation.teachers[None].digest() == student.distillation.teachers[None].digest()
    assert flat(losses_of(back)) == flat(losses_of(student))


@pytest.mark.parametrize('move', [
    lambda model: model.to(torch.float64), lambda model: model.double(), lambda model: model.half(),
    lambda model: nn.Sequential(model).to(torch.float64), lambda model: model.to(torch.zeros(1, dtype=torch.float64)),
    lambda model: model.to('meta')])
def test_teacher_and_learned_parts_move_with_the_student(taught: dict, move: callable) -> None:
    student = toy_model(learning(taught))
    move(student)
    kinds = {(p.dtype, p.device.type) for p in student.parameters()}
    assert len(kinds) == 1 and kinds != {(torch.float32, 'cpu')}
    assert {(p.dtype, p.device.type) for p in student.distillation.teachers[None].model.parameters()} == kinds
    assert {(p.dtype, p.device.type) for loss in student.distillation.losses.values()
            for p in loss.parameters()} == kinds


def test_a_moved_renormalisation_moves_too(taught: dict) -> None:
    student = toy_config('faster_rcnn')
    student.data_preprocessor.mean = [1., 2., 3.]
    wrapped = toy_model(distilled(student, taught)).double()
    assert wrapped.distillation.teachers[None].renormalize.factor.dtype == torch.float64


def test_train_and_eval_reach_what_is_learned(taught: dict) -> None:
    student = toy_model(learning(taught))
    assert student.train() is student and student.training and student.roi_head.training
    assert not student.backbone.bn1.training  # norm_eval is the backbone's own wish
    assert all(part.training for part in student.ckd_mmdet.modules())
    assert not any(part.training for part in student.eval().modules())


@MODELS.register_module()
class FreezesInTrain(FasterRCNN):
    """A detector with a ``train`` of its own."""

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self.rpn_head.eval()
        return self


def test_a_detectors_own_train_is_obeyed(taught: dict) -> None:
    wrapped = toy_model(distilled({**toy_config('faster_rcnn'), 'type': 'FreezesInTrain'}, taught))
    wrapped.train()
    assert wrapped.roi_head.training and not wrapped.rpn_head.training


def test_a_top_level_data_preprocessor_becomes_the_students(taught: dict) -> None:
    student = toy_config('faster_rcnn')
    preprocessor = student.pop('data_preprocessor')
    wrapped = toy_model(dict(**distilled(student, taught), data_preprocessor=preprocessor))
    assert wrapped.data_preprocessor.mean.flatten().tolist() == pytest.approx(preprocessor.mean)


@pytest.mark.parametrize('convert', [nn.SyncBatchNorm.convert_sync_batchnorm,
                                     partial(convert_sync_batchnorm, implementation='torch')])
def test_syncbn_conversion_is_of_the_student_alone(taught: dict, convert: Callable) -> None:
    student = paired(learning(taught))
    learned = [type(part) for part in student.ckd_mmdet.modules()]
    converted = convert(student)
    assert converted is student and isinstance(converted.backbone.bn1, nn.SyncBatchNorm)
    # a rank without rows would never meet the others in a collective call of ours
    assert [type(part) for part in student.ckd_mmdet.modules()] == learned
    assert nn.SyncBatchNorm not in learned
    teacher = student.distillation.teachers[None].model
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in teacher.modules())


AVERAGES = [dict(type='ExponentialMovingAverage', momentum=0.5), dict(type='StochasticWeightAverage'),
            dict(type='MomentumAnnealingEMA', momentum=0.01), dict(type='mmdet.ExpMomentumEMA', momentum=0.01)]


@pytest.mark.parametrize('average', AVERAGES, ids=[average['type'] for average in AVERAGES])
@pytest.mark.parametrize('update_buffers', [False, True])
def test_an_averaged_copy_is_an_ordinary_students(taught: dict, plain: nn.Module, average: dict, update_buffers: bool
                                                  ) -> None:
    student = paired(learning(taught))
    averaged = MODELS.build(dict(**average, model=student, update_buffers=update_buffers))
    for _ in range(2):
        with torch.no_grad():
            student.backbone.layer4[0].conv1.weight.add_(1)
        averaged.update_parameters(student)
    assert list(averaged.module.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(averaged.module.state_dict(), strict=True)
    averaged.load_state_dict(averaged.state_dict(), strict=True)
    assert len(list(averaged.module.parameters())) == len(list(student.parameters()))  # EMAHook swaps them in pairs
    assert len(list(averaged.module.buffers())) == len(list(student.buffers()))


# the losses

def test_the_task_losses_are_the_plain_students_to_the_last_bit(distiller: Distilled, plain: nn.Module) -> None:
    ours, theirs = flat(losses_of(distiller)), flat(losses_of(plain))
    assert set(ours) - set(theirs) == {'roi.loss_ckd', *METRICS}
    assert {key: ours[key] for key in theirs} == theirs


def test_what_is_logged_beside_the_losses_is_not_added_to_them(distiller: Distilled) -> None:
    losses = losses_of(distiller)
    total, logged = distiller.parse_losses(losses)
    assert set(logged) >= METRICS and not any('loss' in key for key in METRICS)
    added = sum(sum(value) for key, value in flat(losses).items() if 'loss' in key)
    assert float(total.detach()) == pytest.approx(added)
    assert float(logged['roi.rows']) == 32
    assert all(0 <= float(logged[f'roi.{key}']) <= 1 for key in ('retrieval', 'teacher_accuracy'))


def test_the_student_learns_and_the_teacher_does_not(distiller: Distilled) -> None:
    losses_of(distiller)['roi.loss_ckd'].backward()
    assert distiller.roi_head.bbox_head.fc_cls.weight.grad.abs().sum() > 0
    assert distiller.backbone.layer4[0].conv1.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in distiller.distillation.teachers[None].model.parameters())


def test_no_hook_stays_behind(distiller: Distilled) -> None:
    losses_of(distiller)
    assert not any(module._forward_hooks for module in distiller.modules())


@pytest.mark.parametrize('mode', ['predict', 'tensor'])
def test_any_other_mode_is_the_students_alone(distiller: Distilled, plain: nn.Module, mode: str,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError('listened or asked')

    monkeypatch.setattr(distiller.distillation.alignments['roi'].aligner, 'listen', refuse)
    monkeypatch.setattr(distiller.distillation.teachers[None], 'extract_feat', refuse)
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


def test_two_alignments_ask_the_teacher_once(taught: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    config = distilled(toy_config('cascade_rcnn'), taught)
    config['alignments'] = {f's{k}': dict(aligner=dict(type='RoIAligner', stage=k),
                                          losses=dict(loss_ckd=dict(type='CKDLoss'), loss_kd=dict(type='KDLoss')))
                            for k in (0, 2)}
    wrapped, calls = paired(config), []
    backbone = wrapped.distillation.teachers[None].model.backbone
    backbone.register_forward_hook(lambda *_: calls.append(1))
    assert {'s0.loss_ckd', 's0.loss_kd', 's2.loss_ckd', 's2.loss_kd'} <= set(losses_of(wrapped))
    assert len(calls) == 1


def test_a_training_step_without_the_hook_is_refused(taught: dict) -> None:
    student = toy_model(distilled(toy_config('faster_rcnn'), taught))
    optimizer = build_optim_wrapper(student, dict(optimizer=dict(type='SGD', lr=0.1)))
    with pytest.raises(RuntimeError, match=r'needs `DistillHook` to train.*custom_hooks'):
        student.train_step(toy_batch(num_items=[3, 2]), optimizer)
    student.distillation.pair(student, None)
    assert student.train_step(toy_batch(num_items=[3, 2]), optimizer)['loss'] > 0


def test_a_batch_without_objects_trains_on(distiller: Distilled) -> None:
    losses = losses_of(distiller, toy_batch(num_items=[0, 0]))
    assert losses['roi.teacher_accuracy'] == 0
    total, _ = distiller.parse_losses(losses)
    total.backward()
    assert total.isfinite() and distiller.backbone.layer4[0].conv1.weight.grad.isfinite().all()


def test_a_batch_without_proposals_trains_on(distiller: Distilled) -> None:
    distiller.train_cfg.rpn_proposal.update(min_bbox_size=1000)  # wider than the images
    distiller.roi_head.bbox_sampler.add_gt_as_proposals = False
    losses = losses_of(distiller)
    assert losses['roi.rows'] == 0 and losses['roi.loss_ckd'] == 0
    total, _ = distiller.parse_losses(losses)
    total.backward()
    assert total.isfinite()


@pytest.mark.skipif(not activate(), reason="mmcv's own nms takes float32 alone on CPU")
def test_bfloat16_autocast_gives_finite_losses(distiller: Distilled) -> None:
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
    assert ours == groups(toy_model(config()), optimizer)  # CKD learns nothing of its own
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
    assert wrapped.bbox_head.use_l1


# the rows that are chosen, and the classes that are shared


def test_with_one_seed_the_student_starts_from_the_plain_students_weights(taught: dict) -> None:
    weights = []
    for cfg in (toy_config('faster_rcnn'), distilled(toy_config('faster_rcnn'), taught)):
        torch.manual_seed(0)
        model = MODELS.build(cfg)
        model.init_weights()
        weights.append(model.state_dict())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def pairing(selector: dict | list | None = None, loss: str = 'CKDLoss', classes: SharedClasses | None = None,
            teachers: int = 3) -> RowPairing:
    """Of a student of three classes."""
    alignment = build_alignment('roi', dict(aligner=dict(type='RoIAligner'), losses=dict(loss_it=dict(type=loss)),
                                            selector=selector))
    return RowPairing(alignment, (Scoring(3, True), Scoring(teachers, True)), classes or SharedClasses.all(3))


def answer(labels: list[int] | None, teachers: int = 3) -> Answer:
    """Rows of a student of three classes; its labels, 3 is background."""
    torch.manual_seed(0)
    n = 6
    student = TableRows(torch.randn(n, 4, requires_grad=True), SOFTMAX)
    teacher = TableRows(torch.randn(n, teachers + 1), SOFTMAX)
    return Answer(student, teacher, None if labels is None else torch.tensor(labels), torch.tensor([0, 0, 0, 1, 1, 1]),
                  no_labels='its head gives none')


def test_chosen_rows_are_the_selectors() -> None:
    asked = answer([0, 3, 2, 3, -1, 1])
    aligned = pairing(dict(type='Foreground')).choose(asked)
    rows = torch.tensor([0, 2, 5])
    assert torch.equal(aligned.student.logits, asked.student.scores[rows])
    assert torch.equal(aligned.teacher.logits, asked.teacher.scores[rows])
    assert aligned.labels.tolist() == [0, 2, 1]
    assert aligned.image_ids.tolist() == [0, 0, 1]
    assert (aligned.num_classes, aligned.scoring) == (3, 'softmax')


def test_selectors_in_a_list_are_applied_in_turn() -> None:
    asked = answer([0, 3, 2, 3, -1, 1])
    aligned = pairing([dict(type='Foreground'), dict(type='PerImageCap', k=1)]).choose(asked)
    confidence = asked.teacher.scores.softmax(1)[:, :3].amax(1)
    best = 0 if confidence[0] > confidence[2] else 2
    assert torch.equal(aligned.student.logits, asked.student.scores[[best, 5]])


def test_of_other_classes_the_shared_ones_are_distilled_and_unknown_objects_left_out() -> None:
    asked = answer([0, 1, 2, 3, -1, 1], teachers=5)  # the student's class 1 is nobody's
    aligned = pairing(classes=SharedClasses((2, 0), (4, 1)), teachers=5).choose(asked)
    rows, student, teacher = [0, 2, 3], asked.student.scores, asked.teacher.scores
    assert aligned.labels.tolist() == [1, 0, 2]
    torch.testing.assert_close(aligned.student.logits[:, :2], student[rows][:, [2, 0]])
    torch.testing.assert_close(aligned.student.logits[:, 2], student[rows][:, [1, 3]].logsumexp(1))
    torch.testing.assert_close(aligned.teacher.logits[:, :2], teacher[rows][:, [4, 1]])
    torch.testing.assert_close(aligned.teacher.logits[:, 2], teacher[rows][:, [0, 2, 3, 5]].logsumexp(1))
    assert aligned.student.logits.requires_grad


@pytest.mark.parametrize('selector', [dict(type='TeacherTopK', k=3), dict(type='Random', k=3), dict(type='All'),
                                      dict(type='ForegroundPlus', k=1), dict(type='PerImageCap', k=2),
                                      [dict(type='TeacherTopK', k=4), dict(type='PerImageCap', k=3)]])
def test_what_must_not_count_is_out_before_a_selector_counts(selector: dict | list) -> None:
    asked = answer([1, 1, -1, 0, 2, 1], teachers=5)
    asked.teacher.scores[[0, 1, 2, 5], 1] += 100.0  # of these the teacher is surest, and none of them may be chosen
    aligned = pairing(selector, classes=SharedClasses((2, 0), (4, 1)), teachers=5).choose(asked)
    assert aligned.labels.tolist() == [1, 0] and aligned.filtered


def test_a_mixed_image_counts_where_the_teacher_knows_all_of_it() -> None:
    mixed = torch.tensor([[0.7, 0.3, 0.0], [0.7, 0.0, 0.3], [0.999, 0.001, 0.0], [0.0, 0.0, 1.0], [1, 0, 0], [0, 1, 0]])
    aligned = pairing(classes=SharedClasses((2, 0), (4, 1)), teachers=5).choose(
        replace(answer([0] * 6, teachers=5), labels=mixed))
    assert torch.equal(aligned.labels, mixed[[1, 3, 4]][:, [2, 0]])  # 0.999 is not all of it


def test_other_classes_without_a_map_are_refused() -> None:
    with pytest.raises(ValueError, match=r'`here` needs as many classes in the teacher \(5\) as in the student \(3\); '
                                         r"pair them with `teacher.class_map='name'`"):
        check_counts('`here`', (Scoring(3, True), Scoring(5, True)))


def test_a_student_without_labels_is_refused_where_they_are_needed() -> None:
    with pytest.raises(RuntimeError, match='`alignments.roi` needs labels for Foreground, and this student gives none: '
                                           'its head gives none. Take a selector and losses that need only logits'):
        pairing(dict(type='Foreground')).choose(answer(None))
    assert pairing(dict(type='TeacherTopK', k=4)).choose(answer(None)).labels is None


def mixed(loss: str) -> RowPairing:
    """A sigmoid head that learns from a softmax head."""
    student, teacher = toy_model(toy_config('fcos')), toy_model(toy_config('fcos'))
    teacher.bbox_head.use_sigmoid_cls, teacher.bbox_head.cls_out_channels = False, 4
    alignment = build_alignment('dense', dict(aligner=dict(type='DenseAligner'), losses=dict(loss_it=dict(type=loss)),
                                              selector=dict(type='TeacherTopK', k=4)))
    return RowPairing(alignment, alignment.check(student, teacher), SharedClasses.all(3))


def test_between_a_sigmoid_and_a_softmax_head_only_the_classes_are_compared() -> None:
    student, teacher = TableRows(torch.randn(6, 3), SIGMOID), TableRows(torch.randn(6, 4), SOFTMAX)
    aligned = mixed('CKDLoss').choose(Answer(student, teacher, image_ids=torch.zeros(6, dtype=torch.long)))
    assert aligned.scoring == 'mixed'
    rows = teacher.scores.softmax(1)[:, :3].amax(1).topk(4).indices.sort().values
    assert torch.equal(aligned.student.logits, student.scores[rows])
    assert torch.equal(aligned.teacher.logits, teacher.scores[rows, :3])


def test_dkd_between_a_sigmoid_and_a_softmax_head_is_refused() -> None:
    text = (r'`alignments.dense.losses.loss_it` is a DKDLoss, which makes no sense between a student with 3 classes '
            r'\(sigmoid\) and a teacher with 3 classes and background \(softmax\); '
            'take `--method ckd` or `--method kd`')
    with pytest.raises(ValueError, match=text):
        mixed('DKDLoss')


def test_a_direction_of_one_score_is_refused() -> None:
    alignment = build_alignment('rpn', dict(aligner=dict(type='DenseAligner', head='rpn_head'),
                                            losses=dict(loss_ckd=dict(type='CKDLoss')),
                                            selector=dict(type='TeacherTopK', k=4)))
    model = toy_model(toy_config('faster_rcnn'))
    with pytest.raises(ValueError, match=r'is a CKDLoss, which needs rows of at least 2 scores \(one score has no '
                                         r'direction\), and student and teacher share 1 only; take `--method kd`'):
        RowPairing(alignment, alignment.check(model, model), SharedClasses.all(1))


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
    student = paired(two_teachers(taught, tmp_path))
    both = losses_of(student)
    alone = losses_of(paired(distilled(toy_config('faster_rcnn'), taught)))
    assert float(both['roi.loss_ckd']) == float(alone['roi.loss_ckd'])
    data = student.data_preprocessor(toy_batch(num_items=[3, 2]), True)
    maps = [model.extract_feat(data['inputs']) for model in (student, student.distillation.teachers['big'].model)]
    expected = sum((ours - theirs).square().mean() for ours, theirs in zip(*maps, strict=True))
    assert float(both['neck.loss_l2']) == pytest.approx(float(expected), rel=1e-5)


def test_every_teacher_follows_and_is_kept_out_of_the_tree(taught: dict, tmp_path: Path) -> None:
    distiller = toy_model(two_teachers(taught, tmp_path))
    assert distiller.state_dict().keys() == toy_model(toy_config('faster_rcnn')).state_dict().keys()
    distiller.double()
    assert all(part.dtype == torch.float64 for teacher in distiller.distillation.teachers.values()
               for part in teacher.model.parameters())
    assert copy.deepcopy(distiller).distillation.teachers == distiller.distillation.teachers


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
    student = paired(two_teachers(taught, tmp_path, project=True, loss_weight=dict(value=1.0, stop=2)))
    asked = []
    for name, teacher in student.distillation.teachers.items():
        monkeypatch.setattr(teacher, 'extract_feat', lambda *args, _name=name, _ask=teacher.extract_feat:
                            asked.append(_name) or _ask(*args))
    for epoch, expected in ((1, ['twin', 'big']), (2, ['twin'])):
        at_epoch(monkeypatch, epoch)
        asked.clear()
        losses = losses_of(student)
        assert sorted(asked) == sorted(expected)
    assert losses['neck.loss_l2'] == 0
    losses['neck.loss_l2'].backward()  # its graph reaches what was learned, or DDP would wait for it
    learned = list(student.distillation.losses['neck.loss_l2'].parameters())
    assert learned and all(part.grad is not None and not part.grad.any() for part in learned)


def at_epoch(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """What the Runner says, counted from 0."""
    monkeypatch.setitem(MessageHub.get_current_instance().runtime_info, 'epoch', epoch)


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
                                         r"provides \['boxes', 'maps'\] only"):
        toy_model(model)


def test_a_teacher_with_broken_features_stops_the_run(taught: dict) -> None:
    model = distilled(toy_config('faster_rcnn'), taught)
    model['alignments']['roi'] = dict(aligner=dict(type='NeckAligner'), losses=dict(loss_l2=dict(type='L2Loss')))
    student = paired(model)
    nn.init.constant_(student.distillation.teachers[None].model.neck.fpn_convs[1].conv.weight, float('nan'))
    with pytest.raises(RuntimeError, match='gave NaN or infinite feature maps'):
        losses_of(student)
