"""What only a GPU shows: CUDA paths against the CPU's numbers, half precision, and how often the host really waits."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from ckd_mmdet.auto import distill_config
from ckd_mmdet.distillation import LOGGED
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch import Tensor, nn

from tests.compat.operators import BOXES, CHOOSING, TRAINED
from tests.toys import saved_teacher, toy_batch, toy_config, toy_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')

PAIRS = {'rois': ('faster_rcnn', 'faster_rcnn', 'ckd+features+l2'), 'anchors': ('retinanet', 'retinanet', 'kd+l2'),
         'points': ('fcos', 'fcos', 'ckd'), 'cascade': ('cascade_rcnn', 'cascade_rcnn', 'pckd'),
         'queries': ('dino', 'deformable_detr', 'ckd'), 'objects': ('retinanet', 'faster_rcnn', 'ckd')}


@pytest.mark.parametrize('name', TRAINED)
def test_an_operator_on_cuda_gives_the_cpus_values_and_gradients(name: str) -> None:
    function, shapes = TRAINED[name]
    torch.manual_seed(0)
    inputs = [torch.rand(shape, requires_grad=True) for shape in shapes]
    there = [tensor.detach().cuda().requires_grad_() for tensor in inputs]
    weight = torch.rand_like(function(*inputs).detach())
    for one, other in zip(torch.autograd.grad((function(*inputs) * weight).sum(), inputs),
                          torch.autograd.grad((function(*there) * weight.cuda()).sum(), there), strict=True):
        torch.testing.assert_close(other.cpu(), one, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(function(*there).cpu(), function(*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', CHOOSING)
def test_an_operator_on_cuda_chooses_as_on_the_cpu(name: str) -> None:
    for one, other in zip(CHOOSING[name](BOXES), CHOOSING[name](BOXES.cuda()), strict=True):
        torch.testing.assert_close(other.cpu(), one)


def student_of(pair: str, folder: Path, **speed: object) -> nn.Module:
    ours, theirs, method = PAIRS[pair]
    student, teacher = (Config(dict(model=toy_config(name), default_scope='mmdet')) for name in (ours, theirs))
    cfg = distill_config(student, teacher, method, teacher_checkpoint=saved_teacher(folder, teacher.model))
    cfg.model.teacher.update(speed)
    model = MODELS.build(cfg.model)
    model.load_state_dict(toy_model(student.model).state_dict(), strict=False)
    model.distillation.pair(model, None)
    return model.train()


def distillation_losses(model: nn.Module) -> dict[str, Tensor]:
    torch.manual_seed(0)
    losses = model(**model.data_preprocessor(toy_batch(num_items=[3, 5]), True), mode='loss')
    return {key: value for key, value in losses.items() if '.loss' in key}


@pytest.mark.parametrize('pair', ['anchors', 'points', 'queries', 'objects'])
def test_a_step_on_cuda_gives_the_cpus_losses(pair: str, tmp_path: Path) -> None:
    model = student_of(pair, tmp_path)
    here = {key: float(value.detach()) for key, value in distillation_losses(copy.deepcopy(model)).items()}
    there = {key: float(value.detach()) for key, value in distillation_losses(model.cuda()).items()}
    assert here and there == pytest.approx(here, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('pair', PAIRS)
def test_a_step_in_half_precision_is_finite_and_trains(pair: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = student_of(pair, tmp_path).cuda()
    optimizer = build_optim_wrapper(model, dict(type='AmpOptimWrapper', dtype=str(dtype).removeprefix('torch.'),
                                                loss_scale='dynamic' if dtype == torch.float16 else 1.0,
                                                optimizer=dict(type='SGD', lr=1e-3)))
    before = model.backbone.layer4[0].conv1.weight.detach().clone()
    for _ in range(12):  # a dynamic scale starts too high for some
        logged = model.train_step(toy_batch(num_items=[3, 5]), optimizer)
    assert all(value.isfinite() for key, value in logged.items() if '.loss' in key)
    assert (model.backbone.layer4[0].conv1.weight - before).abs().max() > 0


@pytest.mark.parametrize('speed', [dict(precision='bf16'), dict(precision='fp16'), dict(channels_last=True),
                                   dict(fuse=True), dict(precision='bf16', channels_last=True, fuse=True)], ids=str)
@pytest.mark.parametrize('pair', PAIRS)
def test_a_faster_teacher_on_cuda_says_what_the_slow_one_says(pair: str, speed: dict, tmp_path: Path) -> None:
    slow, fast = (student_of(pair, tmp_path, **chosen).cuda() for chosen in ({}, speed))
    torch.manual_seed(0)
    data = slow.data_preprocessor(toy_batch(num_items=[3, 5]), True)
    feats = [one.distillation.teachers[None].extract_feat(data['inputs'], data['data_samples']) for one in (slow, fast)]
    for ours, theirs in zip(*feats, strict=True):
        assert theirs.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.999
    losses = distillation_losses(fast)
    assert losses and all(value.isfinite() for value in losses.values())


@pytest.mark.parametrize(('pair', 'most'), [('anchors', 5), ('rois', 3)])
def test_the_host_waits_seldom(pair: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PAIRS, pair, (*PAIRS[pair][:2], 'ckd'))
    model = student_of(pair, tmp_path).cuda()
    alone = toy_model(toy_config(PAIRS[pair][0])).cuda().train()
    monkeypatch.setitem(MessageHub.get_current_instance().runtime_info, LOGGED, False)

    def waits(one: nn.Module) -> int:
        torch.manual_seed(0)
        data = one.data_preprocessor(toy_batch(num_items=[3, 5]), True)
        torch.cuda.set_sync_debug_mode('warn')
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter('always')
                one.parse_losses(one(**data, mode='loss'))
        finally:
            torch.cuda.set_sync_debug_mode('default')
        return sum('synchroniz' in str(warning.message) for warning in caught)

    for _ in range(21):
        distillation_losses(model)
    ours, theirs = waits(model), waits(alone)
    print(f'{pair}: {ours} waits distilled, {theirs} alone')
    assert ours - theirs <= most
