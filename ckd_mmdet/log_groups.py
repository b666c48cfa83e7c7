"""One group per alignment in TensorBoard, WandB and MLflow, which group by the slashes in a name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ckd_mmdet.distilled import Distilled
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.visualization.vis_backend import BaseVisBackend, LocalVisBackend


class LogGroups(Hook):
    """Gives every backend of the visualizer ``distill/roi/loss_ckd`` where the log has ``roi.loss_ckd``.

    The text log and the files of ``LocalVisBackend`` keep the names with a dot, which tools/compare.py reads.
    """

    def before_run(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not isinstance(model, Distilled):
            return
        for backend in runner.visualizer._vis_backends.values():
            # a visualizer outlives its run: one of the same name was given grouped names already
            if not isinstance(backend, LocalVisBackend) and 'add_scalars' not in vars(backend):
                group_scalars(backend, model.distillation.alignments)


def group_scalars(backend: BaseVisBackend, alignments: Iterable[str]) -> None:
    """Let a backend's ``add_scalars`` take names with a dot, and write grouped ones.

    Args:
        backend: One of MMEngine's, or of the same interface.
        alignments: Names of the alignments.
    """
    known, write = frozenset(alignments), backend.add_scalars

    def add_scalars(scalar_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        write({grouped(key, known): value for key, value in scalar_dict.items()}, *args, **kwargs)

    written: Callable[..., None] = add_scalars
    backend.add_scalars = written


def grouped(key: str, alignments: frozenset[str]) -> str:
    """``'distill/roi/loss_ckd'`` for ``'roi.loss_ckd'``, if ``roi`` is an alignment; any other name as it is."""
    alignment, dot, name = key.partition('.')
    return f'distill/{alignment}/{name}' if dot and alignment in alignments else key
