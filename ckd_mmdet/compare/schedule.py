"""What every run of a matrix has in common: as many epochs, the logs and checkpoints that the comparison reads."""

from __future__ import annotations

from mmengine.config import Config

LOG_INTERVAL = 50
"""Steps between two lines of the log at most: what the progress is read from. Not fewer: a logged step costs time."""
LENGTHS = ('end', 'milestones', 'T_max', 'step_size', 'total_steps')
"""Keys of mmengine's parameter schedulers that count epochs, beside ``begin``, which may be 0."""


def check_loop(cfg: Config) -> None:
    """Raise ``ValueError`` for a training that does not count epochs, or that is never validated."""
    loop = cfg.get('train_cfg') or {}
    if not loop.get('max_epochs'):
        raise ValueError('`student` needs a config that trains by epochs, with `train_cfg.max_epochs`, '
                         f'`train_cfg` is {dict(loop)}.')
    if not cfg.get('val_dataloader') or not cfg.get('val_evaluator'):
        raise ValueError('`student` needs a config with `val_dataloader` and `val_evaluator`: without a validation '
                         'there is nothing to compare.')


def scale_epochs(cfg: Config, epochs: int) -> None:
    """Train ``epochs`` instead of the config's own, with its learning rates at the same share of the way.

    Every parameter scheduler that counts epochs keeps its proportions, rounded to whole epochs: with 3 instead of 12,
    milestones 8 and 11 become 2 and 3. What counts iterations, as most warm-ups do, stays, and so do hooks that name an
    epoch, such as YOLOX's switch of its pipeline.
    """
    loop = cfg.train_cfg
    share = epochs / loop.max_epochs
    loop.max_epochs = epochs
    loop.val_begin = min(loop.get('val_begin', 1), epochs)  # the last epoch is validated if any is
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in [schedulers] if isinstance(schedulers, dict) else schedulers:
        if not scheduler.get('by_epoch', True):
            continue
        if scheduler.get('begin'):
            scheduler.begin = round(scheduler.begin * share)
        for key in LENGTHS:
            if scheduler.get(key) is None:
                continue
            if key == 'milestones':
                scheduler.milestones = [_scaled(epoch, share) for epoch in scheduler.milestones]
            else:
                scheduler[key] = _scaled(scheduler[key], share)


def keep_records(cfg: Config) -> None:
    """Save each epoch, keep two, log to a file; ``save_best`` goes, a run counts by its last epoch."""
    hooks = dict(cfg.get('default_hooks') or {})
    # mmengine removes the old checkpoint before it writes the new one: with one alone, a kill could lose both
    checkpoint = {'type': 'CheckpointHook', **(hooks.get('checkpoint') or {}), 'by_epoch': True, 'interval': 1,
                  'max_keep_ckpts': 2}
    checkpoint.pop('save_best', None)
    logger = {'type': 'LoggerHook', **(hooks.get('logger') or {})}
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
    return epoch >= loop.get('val_begin', 1) and (epoch == loop.max_epochs or epoch % loop.get('val_interval', 1) == 0)


def _scaled(length: int, share: float) -> int:
    return max(1, round(length * share))
