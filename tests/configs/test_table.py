"""What ``configs/README.md`` promises: every row builds and trains, and is the settings of the file it stands for."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
from ckd_mmdet.config import DISTILLER, read_config
from ckd_mmdet.losses import MapLoss
from ckd_mmdet.registry import MODELS

from tests.configs.shrunken import RandomTeachers, two_steps
from tests.configs.table import bare, config_of, made_by_train, rows, settings
from tests.small_runs import ROOT, train

pytest.importorskip('mmpretrain', reason='the table has rows of classifiers')
MEASURED = ('0.', '88.02')


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # DigitScenes' teachers are named from here


@pytest.fixture(scope='module')
def random_teacher(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict], dict]:
    return RandomTeachers(tmp_path_factory.mktemp('teachers'), narrowed=True)


@pytest.mark.parametrize('name', rows())
def test_a_row_is_a_command_whose_models_and_alignments_build(name: str) -> None:
    made = config_of(name)
    assert made.model.type == DISTILLER and made.model.alignments
    assert set(made.distillation.rows) == set(made.model.alignments)
    assert kind_and_method(name) in kinds_that_step()


@pytest.mark.parametrize('name', [name for name, row in rows().items() if row.has_file])
def test_a_row_with_a_file_is_that_file(name: str) -> None:
    ours, file = config_of(name), read_config(ROOT / 'configs' / name)
    assert settings(ours) == settings(file)
    assert bare(ours.model.student) == bare(file.model.student)
    assert {'config': ours.model.teacher.config} == {'config': file.model.teacher.config}
    for key in ('train_cfg', 'optim_wrapper', 'param_scheduler', 'train_dataloader', 'auto_scale_lr'):
        assert bare(ours.get(key)) == bare(file.get(key)), key


def test_a_row_has_a_file_just_where_it_says_so() -> None:
    assert {name for name, row in rows().items() if row.has_file} == {
        name for name in rows() if (ROOT / 'configs' / name).exists()}


def test_a_row_says_whose_its_settings_are_and_what_they_gave() -> None:
    for row in rows().values():
        assert row.source and (row.result == 'not run' or row.result.startswith(MEASURED)), row


def kind_and_method(name: str) -> tuple[str, str]:
    """Of the heads of a row, and what compares them."""
    *_, last = config_of(name).model.alignments.values()
    return last['aligner']['type'], Path(name).stem.partition('_')[0]


QUICKEST = ['9e_digit_scenes', '12e_digit_scenes', '30e_digits', 'cifar100', 'r50-mobilenetv2', '50e_coco']


def stepped() -> list[str]:
    """With ALL=1 every row; else of each kind of heads and method one, and of those the quickest."""
    if os.environ.get('ALL') == '1':
        return list(rows())
    chosen: dict[tuple[str, str], str] = {}
    for part in QUICKEST:
        for name in rows():
            if part in name:
                kind = 'classification' if 'classification' in name else Path(name).stem.split('_')[1]
                kind = {'mask': 'faster'}.get(kind, kind)
                chosen.setdefault((kind, Path(name).stem.partition('_')[0]), name)
    return list(chosen.values())


@lru_cache
def kinds_that_step() -> set[tuple[str, str]]:
    return {kind_and_method(name) for name in stepped()}


@pytest.mark.parametrize('name', stepped())
def test_a_row_takes_two_optimizer_steps(name: str, random_teacher: Callable, digits: Path, tmp_path: Path) -> None:
    cfg = two_steps(config_of(name), tmp_path, digits)
    cfg.model.teacher = random_teacher(cfg.model.teacher)

    steps = train(cfg)

    assert len(steps) == 2 and steps[0]['loss'] != steps[1]['loss']
    for part, alignment in cfg.model.alignments.items():
        for key, loss in alignment.losses.items():
            assert all(0 < step[f'{part}.{key}'] < step['loss'] < float('inf') for step in steps), key
            if not issubclass(MODELS.get(loss.type.removeprefix('ckd_mmdet.')), MapLoss):  # maps have no rows
                assert all(0 < step[f'{part}.rows'] <= 1024 for step in steps)


def variants() -> dict[str, list[str]]:
    """Options of the study's variants, by what they are called."""
    table = (ROOT / 'docs/study.md').read_text().partition('| variant | options |')[2].partition('\n\n')[0]
    found = [[part.strip() for part in line.split('|')[1:3]] for line in table.splitlines()[2:]]
    return {name: shlex.split(options.strip('`').replace('L.', 'model.alignments.roi.losses.'))
            for name, options in found}


@pytest.mark.parametrize('name', variants())
def test_a_variant_of_the_study_builds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = 'pckd' if name.startswith('PCKD') else 'ckd'
    row = rows()[f'{method}/{method}_faster_rcnn_r18-r18w16_fpn_9e_digit_scenes.py']
    monkeypatch.setattr(sys, 'argv', ['tools/train.py', *row.arguments, *variants()[name]])
    assert made_by_train().model.alignments.roi
    assert bool(variants()[name]) == (settings(made_by_train()) != settings(config_of(row.name)))
