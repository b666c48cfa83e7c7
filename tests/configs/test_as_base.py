"""Every shipped config serves as the `_base_` of a user's, by its name `ckd_mmdet::...`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import ckd_mmdet.compat  # noqa: F401
import pytest
from ckd_mmdet.config import read_config
from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS, DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS, Registry

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'
HAS_MMPRETRAIN = find_spec('mmpretrain') is not None


def names(folder: str) -> list[str]:
    return sorted(str(path.relative_to(CONFIGS)) for path in (CONFIGS / folder).rglob('*.py'))


def parts(cfg: Config) -> Iterator[tuple[Registry, dict]]:
    """The parts of a config that a Runner builds by name, each with its registry."""
    model = cfg.get('model') or {}
    for one in (model, model.get('student') or {}):
        yield MODELS, one
    for key in ('train', 'val', 'test'):
        loader = cfg.get(f'{key}_dataloader') or {}
        yield from _data_parts(loader.get('dataset') or {})
        yield DATA_SAMPLERS, loader.get('sampler') or {}
        evaluators = cfg.get(f'{key}_evaluator') or []
        yield from ((METRICS, one) for one in (evaluators if isinstance(evaluators, list) else [evaluators]))
    for hook in [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]:
        yield HOOKS, hook


def _data_parts(dataset: dict) -> Iterator[tuple[Registry, dict]]:
    yield DATASETS, dataset
    yield from ((TRANSFORMS, transform) for transform in dataset.get('pipeline') or [])
    for inner in [dataset.get('dataset'), *(dataset.get('datasets') or [])]:
        yield from _data_parts(inner) if inner else ()


@lru_cache
def exists(registry: Registry, scope: str, name: str) -> bool:
    with registry.switch_scope_and_registry(scope) as found:  # as `registry.build` does
        return found.get(name) is not None


def unknown_parts(cfg: Config, scope: str) -> list[str]:
    """Parts of a config that mmengine does not find where the config tells it to look."""
    scope = cfg.get('default_scope') or scope
    return [f'{part["type"]} in {part.get("_scope_") or scope}' for registry, part in parts(cfg)
            if isinstance(part.get('type'), str)
            and not exists(registry, part.get('_scope_') or scope, part['type'])]


def read_as_base(name: str, folder: Path) -> Config:
    """What plain mmengine makes of a user's config that has ours as its base."""
    file = folder / f'of_{name.replace("/", "_")}'  # of its own name, since each file is read once
    file.write_text(f"_base_ = ['ckd_mmdet::{name}']\n")
    return Config.fromfile(file)


@pytest.mark.parametrize(('folder', 'scope'), [
    ('_base_', 'mmdet'), ('baselines', 'mmdet'), ('ckd', 'mmdet'), ('pckd', 'mmdet'),
    pytest.param('classification', 'mmpretrain', marks=pytest.mark.skipif(
        not HAS_MMPRETRAIN, reason='configs of classifiers need mmpretrain'))])
def test_every_config_is_a_base_whose_parts_are_found(folder: str, scope: str, tmp_path: Path) -> None:
    assert names(folder)
    assert {name: unknown for name in names(folder)
            if (unknown := unknown_parts(read_as_base(name, tmp_path), scope))} == {}


def test_every_folder_of_configs_is_in_that_test() -> None:
    assert {path.name for path in CONFIGS.iterdir() if path.is_dir()} == {
        '_base_', 'baselines', 'ckd', 'pckd', 'classification'}


@pytest.mark.parametrize('name', ['baselines/faster_rcnn_r18_fpn_9e_digit_scenes.py',
                                  'ckd/ckd_mask_rcnn_r18-r18w16_fpn_9e_digit_scenes.py'])
def test_a_config_as_a_base_is_that_config(name: str, tmp_path: Path) -> None:
    as_base = read_as_base(name, tmp_path)
    assert as_base.to_dict() == Config.fromfile(CONFIGS / name).to_dict()
    assert read_config(tmp_path / f'of_{name.replace("/", "_")}').to_dict() == as_base.to_dict()


def test_a_base_changed_by_its_user_keeps_its_scopes(tmp_path: Path) -> None:
    file = tmp_path / 'users.py'
    file.write_text("_base_ = ['ckd_mmdet::baselines/faster_rcnn_r18_fpn_9e_digit_scenes.py',\n"
                    "          'ckd_mmdet::_base_/alignments/roi_ckd.py']\n"
                    "model = dict(type='ckd_mmdet.Distiller', _delete_=True, student=_base_.model,\n"
                    '             alignments=_base_.roi_ckd)\n')
    assert 'ckd_mmdet' not in {part.get('_scope_') for _, part in parts(Config.fromfile(file))}
    assert 'ckd_mmdet' not in {Config.fromfile(file).model.alignments.get('_scope_')}


def test_a_detectors_base_needs_no_mmpretrain(tmp_path: Path) -> None:
    tried = [name for folder in ('baselines', 'ckd') for name in names(folder) if name.endswith('_9e_digit_scenes.py')]
    assert len(tried) > 5
    code = ("import sys; sys.modules['mmpretrain'] = None\n"
            'from pathlib import Path\n'
            'from tests.configs.test_as_base import *\n'
            'from tests.configs.read_once import cache_files\n'
            'cache_files(pytest.MonkeyPatch())\n'
            'assert not HAS_MMPRETRAIN\n'
            f'print([unknown_parts(read_as_base(name, Path({str(tmp_path)!r})), "mmdet") for name in {tried}])\n'
            'print(read_config("ckd_mmdet::" + names("baselines")[0]).default_scope)\n')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env=os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'})
    assert done.stdout.splitlines()[-2:] == [str([[]] * len(tried)), 'mmdet'], done.stderr
