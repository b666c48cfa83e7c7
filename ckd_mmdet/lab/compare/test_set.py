"""The sets that are measured on: whether the test set is one of its own, and the teacher on either."""

from __future__ import annotations

import copy
import os
from typing import Any

from ckd_mmdet.config import class_names, inner_datasets
from ckd_mmdet.lab.compare.metric import evaluators
from ckd_mmdet.lab.jobs.files import digest
from mmengine.config import Config

SPLITS = ('val', 'test')
"""What a report may be on."""
PART = 'test'
"""Folder of a test, in that of the run or of the teacher."""
NOT_THE_IMAGES = ('pipeline', 'metainfo', 'test_mode', 'filter_cfg', 'backend_args', 'lazy_init', 'serialize_data',
                  'max_refetch')
"""Keys of a data set that do not say which images it holds."""


def is_of_tests(option: str) -> bool:
    """Whether a ``--cfg-options`` key says how to test, and nothing of how to train."""
    return option.startswith(('test_dataloader.', 'test_evaluator.'))


def why_no_test_set(cfg: Config) -> str | None:
    """Why a student's config gives no test set of its own; ``None`` where it gives one."""
    for key in ('test_dataloader', 'test_evaluator'):
        if not cfg.get(key):
            return (f"`--report-on test` needs a `{key}` in the student's config, which has none; add it there, or "
                    'report on val.')
    tested = _sources(cfg, 'test')
    for split in ('val', 'train'):
        same = [where for name, where in _sources(cfg, split).items() if name in tested]
        if same:
            return (f"`--report-on test` needs a `test_dataloader` of other images than {split}'s; both read "
                    f'{same[0]}; give the test set, by `--cfg-options test_dataloader.dataset.ann_file=... '
                    'test_evaluator.ann_file=...` for example, or report on val.')
    validated = {_path(dict(ann_file=one['ann_file'])) for one in evaluators(cfg) if one.get('ann_file')}
    for evaluator in evaluators(cfg, 'test_evaluator'):
        if evaluator.get('format_only'):
            return ('`--report-on test` needs a `test_evaluator` that measures, with `format_only` it writes files '
                    'only; leave that out, or report on val.')
        if evaluator.get('ann_file') and _path(dict(ann_file=evaluator['ann_file'])) in validated:
            return (f"`--report-on test` needs the test set's file in `test_evaluator.ann_file`; "
                    f"{evaluator['ann_file']} is val's; give that of `test_dataloader`.")
    return None


def teacher_on(student: Config, teacher: Config, split: str = 'val') -> tuple[Config | None, str | None]:
    """The teacher's config on what the student is validated or tested on, by the teacher's own pipeline.

    Args:
        split: Of the student, one of :data:`SPLITS`.

    Returns:
        The config, to be tested; or ``None``, and why its score would say nothing.
    """
    ours, theirs = class_names(student), class_names(teacher) if 'train_dataloader' in teacher else None
    if ours and theirs and ours != theirs:
        return None, (f'the teacher knows other classes ({len(theirs)}) than the student ({len(ours)}), so its score '
                      'would not be of the same task')
    made = Config(teacher.to_dict(), filename=teacher.filename)
    loader = copy.deepcopy(student[f'{split}_dataloader'])
    own = ((teacher.get('test_dataloader') or {}).get('dataset') or {}).get('pipeline')
    if own and 'pipeline' in loader.dataset:
        loader.dataset.pipeline = own
    made.merge_from_dict(dict(default_scope=teacher.get('default_scope') or student.get('default_scope') or 'mmdet'))
    made.test_dataloader, made.test_cfg = loader, {}
    made.test_evaluator = copy.deepcopy(student[f'{split}_evaluator'])
    made.pop('work_dir', None)
    return made, None


def _sources(cfg: Config, split: str) -> dict[str, str]:
    """What each inner data set reads: a key to compare by, and how to name it."""
    found = {}
    for dataset in inner_datasets((cfg.get(f'{split}_dataloader') or {}).get('dataset')):
        kept: dict[str, Any] = {key: value for key, value in dataset.items() if key not in NOT_THE_IMAGES}
        if dataset.get('ann_file'):
            kept = dict(ann_file=_path(dataset), indices=dataset.get('indices'))
        named = _path(dataset, short=True) or dataset.get('data_prefix') or dataset.get('type')
        found[digest(kept)] = str(named)
    return found


def _path(dataset: dict[str, Any], short: bool = False) -> str:
    path = os.path.join(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    return path if short or '://' in path else os.path.abspath(path)
