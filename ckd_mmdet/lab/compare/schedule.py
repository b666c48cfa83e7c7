"""What every run of a matrix has in common: as many epochs, the logs and checkpoints that the comparison reads."""

from __future__ import annotations

from collections.abc import Set
from itertools import accumulate, pairwise

from mmengine.config import Config, ConfigDict

LOG_INTERVAL = 50
"""Steps between two lines of the log at most: what the progress is read from. Not fewer: a logged step costs time."""
LENGTHS = ('T_max', 'step_size', 'total_steps')
"""Keys of mmengine's parameter schedulers that count epochs, beside those that need more than a product."""


def check_loop(cfg: Config) -> None:
    """Raise ``ValueError`` for a training that does not count epochs, or that is never validated."""
    loop = cfg.get('train_cfg') or {}
    if not loop.get('max_epochs'):
        raise ValueError('`student` needs a config that trains by epochs, with `train_cfg.max_epochs`, '
                         f'`train_cfg` is {dict(loop)}. Give it an EpochBasedTrainLoop and schedulers that count '
                         'epochs, or train each method with tools/train.py.')
    if not cfg.get('val_dataloader') or not cfg.get('val_evaluator'):
        raise ValueError('`student` needs a config with `val_dataloader` and `val_evaluator`: without a validation '
                         'there is nothing to compare.')
    evaluators = cfg.val_evaluator if isinstance(cfg.val_evaluator, list | tuple) else [cfg.val_evaluator]
    if any(evaluator.get('format_only') for evaluator in evaluators):
        raise ValueError('`val_evaluator` has `format_only=True`, and that measures nothing; set it to `False`.')


def scale_epochs(cfg: Config, epochs: int) -> None:
    """Train ``epochs`` instead of the config's own, with its learning rates at the same share of the way.

    Every parameter scheduler that counts epochs keeps its proportions, rounded to whole epochs: with 3 instead of 12,
    milestones 8 and 11 become 2 and 3. One for which less than an epoch is left goes. So does every loss weight that
    changes by epochs. What counts iterations, as most warm-ups do, stays, and so do the growth of a ``preview`` and
    hooks that name an epoch, such as YOLOX's switch of its pipeline.
    """
    loop = cfg.train_cfg
    if epochs == loop.max_epochs:
        return
    before, loop.max_epochs = loop.max_epochs, epochs
    share = epochs / before
    loop.val_begin = min(loop.get('val_begin', 1), epochs)  # the last epoch is validated if any is
    if loop.get('dynamic_intervals'):
        loop.dynamic_intervals = [(_scaled(epoch, share), interval) for epoch, interval in loop.dynamic_intervals]
    given = cfg.get('param_scheduler') or []
    schedulers = [given] if isinstance(given, dict) else given
    ends = {scheduler.get('end') for scheduler in schedulers if scheduler.get('by_epoch', True)}
    left = [scheduler for scheduler in schedulers
            if not scheduler.get('by_epoch', True) or _is_left(scheduler, before, share, ends)]
    if len(left) < len(schedulers):
        cfg.param_scheduler = left
    for alignment in cfg.get('model', {}).get('alignments', {}).values():
        for loss in alignment.get('losses', {}).values():
            if isinstance(loss.get('loss_weight'), dict):
                _scale_weight(loss.loss_weight, share)


def _scale_weight(weight: ConfigDict, share: float) -> None:
    """Scale, in place, the epochs of a loss's weight, see :class:`ckd_mmdet.losses.Weight`."""
    for key in ('warm_up', 'stop'):
        if weight.get(key):
            weight[key] = _scaled(weight[key], share)
    if weight.get('decay'):
        first, last = (round(epoch * share) for epoch in weight.decay)
        weight.decay = (first, max(first + 1, last))


def _is_left(scheduler: ConfigDict, before: int, share: float, ends: Set[int | None]) -> bool:
    """Scale one that counts epochs; ``False`` if no epoch of it is left, which mmengine refuses.

    Args:
        scheduler: Changed in place.
        before: The config's own epochs.
        share: Of them are trained.
        ends: Where schedulers end: what begins there goes on doing so.
    """
    begin, end = scheduler.get('begin', 0), scheduler.get('end', before)
    first, last = _scaled(begin, share) if begin in ends else round(begin * share), _scaled(end, share)
    if last <= first:
        return False
    if begin:
        scheduler.begin = first
    if 'end' in scheduler:
        scheduler.end = last
    for key in LENGTHS:
        if scheduler.get(key) is not None:
            # rounded on its own, a cosine might end before its scheduler does, and rise again
            scheduler[key] = last - first if scheduler[key] == end - begin else _scaled(scheduler[key], share)
    if 'milestones' in scheduler:
        scheduler.milestones = [_scaled(epoch, share) for epoch in scheduler.milestones]
    if 'periods' in scheduler:
        edges = [first, *(max(first, round((begin + past) * share)) for past in accumulate(scheduler.periods))]
        weights = scheduler.get('restart_weights', [1])
        left = [(stop - start, weight) for (start, stop), weight in zip(pairwise(edges), weights, strict=True)
                if stop > start]
        scheduler.periods = [period for period, _ in left]
        scheduler.restart_weights = [weight for _, weight in left]
    return True


def keep_records(cfg: Config) -> None:
    """Save each epoch whole, keep two, log to a file, whatever the config says; a run counts by its last epoch."""
    hooks = dict(cfg.get('default_hooks') or {})
    # mmengine removes the old checkpoint before it writes the new one: with one alone, a kill could lose both
    checkpoint = dict(type='CheckpointHook', by_epoch=True, interval=1, max_keep_ckpts=2)
    if '_scope_' in (hooks.get('checkpoint') or {}):
        checkpoint['_scope_'] = hooks['checkpoint']['_scope_']
    logger = {'type': 'LoggerHook', **(hooks.get('logger') or {})}
    logger.pop('log_metric_by_epoch', None)
    logger['interval'] = min(logger.get('interval', LOG_INTERVAL), LOG_INTERVAL)
    cfg.default_hooks = {**hooks, 'checkpoint': checkpoint, 'logger': logger}
    cfg.log_level = 'INFO'
    visualizer = cfg.get('visualizer')
    if visualizer is not None:
        backends = list(visualizer.get('vis_backends') or [])
        if not any(backend.get('type') == 'LocalVisBackend' for backend in backends):
            visualizer.vis_backends = [*backends, dict(type='LocalVisBackend')]


def is_validated(cfg: Config, epoch: int) -> bool:
    """Whether the training validates after this epoch, as mmengine decides it."""
    loop = cfg.train_cfg
    interval = loop.get('val_interval', 1)
    for start, later in loop.get('dynamic_intervals') or []:
        interval = later if epoch + 1 >= start else interval  # mmengine decides when the epoch has been counted
    return epoch >= loop.get('val_begin', 1) and (epoch == loop.max_epochs or epoch % interval == 0)


def _scaled(length: int, share: float) -> int:
    return max(1, round(length * share))
