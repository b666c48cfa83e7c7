"""What two processes do together, for torchrun; process 0 prints it as one line of JSON."""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import ckd_mmdet.compat  # noqa: F401
import torch
import yapf.yapflib.yapf_api
from ckd_mmdet.joining import join_ranks
from ckd_mmdet.losses import CKDLoss, DistillLoss, KDLoss
from ckd_mmdet.samples import AlignedSamples, Side
from mmdet.datasets.transforms import FilterAnnotations
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TRANSFORMS
from mmengine.runner import Runner
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

TRAIN = Path(__file__).parents[1] / 'tools/train.py'
runs: list[dict[str, Any]] = []
yapf.yapflib.yapf_api.FormatCode = lambda text, **options: (text, False)  # as in conftest.py


@HOOKS.register_module()
class Tell(Hook):
    """Keeps how the model was wrapped, what each step logged, and a weight of the end."""

    def before_train(self, runner: Runner) -> None:
        runs.append(dict(wrapper=type(runner.model).__name__, find_unused=runner.model.find_unused_parameters,
                         losses=[]))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        runs[-1]['losses'].append({key: float(value) for key, value in outputs.items()})

    def after_train(self, runner: Runner) -> None:
        runs[-1]['weight'] = float(runner.model.module.roi_head.bbox_head.fc_cls.weight.double().norm())
        runs[-1]['learned'] = [float(part.double().sum()) for part in runner.model.module.ckd_mmdet.parameters()]


@HOOKS.register_module()
class BreakTheSecondsTeacher(Hook):
    """From its second step on, the second process has a teacher that gives NaN."""

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if batch_idx and get_rank():
            teacher = runner.model.module.distillation.teachers[None].model
            nn.init.constant_(teacher.roi_head.bbox_head.fc_cls.bias, float('nan'))


@TRANSFORMS.register_module()
class EmptyOnTheSecond(FilterAnnotations):
    """The second process sees images without objects."""

    def transform(self, results: dict) -> dict:
        return super().transform(results) if get_rank() else results


class Scored(nn.Module):
    """A classifier layer under a loss, as a model that DDP can wrap."""

    def __init__(self, loss: DistillLoss, joining: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.classify, self.loss, self.joining = nn.Linear(6, 5), loss, joining

    def forward(self, features: Tensor, teacher: Tensor) -> Tensor:
        rows = AlignedSamples(Side(self.classify(features)), Side(teacher), 4)
        return self.loss(join_ranks(rows) if self.joining else rows)


def spread(loss: DistillLoss) -> dict[str, list[float]]:
    """Loss and gradient of the layer: mean over ranks, one process on all rows, and mean of each rank's rows alone."""
    torch.manual_seed(1)
    features, teacher = torch.randn(2, 8, 6), torch.randn(2, 8, 5)  # 8 rows a rank
    rank = distributed.get_rank()
    parallel = DistributedDataParallel(Scored(loss, joining=True))
    value = parallel(features[rank], teacher[rank])
    value.backward()
    mean = value.detach().clone()
    distributed.all_reduce(mean)
    apart = [alone(loss, features[k], teacher[k]) for k in (0, 1)]
    return dict(ranks=[float(mean) / 2, *parallel.module.classify.weight.grad.flatten().tolist()],
                joined=alone(loss, features.flatten(0, 1), teacher.flatten(0, 1)),
                mean=[sum(pair) / 2 for pair in zip(*apart, strict=True)])


def alone(loss: DistillLoss, features: Tensor, teacher: Tensor) -> list[float]:
    model = Scored(loss)
    value = model(features, teacher)
    value.backward()
    return [float(value.detach()), *model.classify.weight.grad.flatten().tolist()]


def main(config: str, learning: str, cached: str, broken: str, work_dir: str) -> None:
    for name, path, options in (('as_is', config, []), ('learned', learning, []),
                                  ('find_unused', config, ['--cfg-options', 'find_unused_parameters=True']),
                                  ('cached', cached, [])):
        sys.argv = [str(TRAIN), path, '--work-dir', f'{work_dir}/{name}', '--launcher', 'pytorch', *options]
        runpy.run_path(str(TRAIN), run_name='__main__')
    sys.argv = [str(TRAIN), broken, '--work-dir', f'{work_dir}/broken', '--launcher', 'pytorch']
    try:
        runpy.run_path(str(TRAIN), run_name='__main__')
    except RuntimeError as error:
        runs[-1]['error'] = str(error)
    told = [None, None]
    distributed.all_gather_object(told, runs)
    rows = dict(kd=spread(KDLoss(temperature=2.0)), ckd=spread(CKDLoss()),
                all_ranks=spread(CKDLoss(negatives_of='all')))
    if distributed.get_rank() == 0:
        print('TOLD', json.dumps(dict(runs=told, **rows)), flush=True)
    distributed.destroy_process_group()


if __name__ == '__main__':
    main(*sys.argv[1:])
    sys.stderr.flush()
    os._exit(0)  # all is told: once, gloo's threads ended the interpreter's own end by SIGABRT
