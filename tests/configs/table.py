"""The rows of ``configs/README.md``: commands, and the config that each makes."""

from __future__ import annotations

import inspect
import re
import runpy
import shlex
import sys
from dataclasses import dataclass
from functools import lru_cache

import pytest
from ckd_mmdet import auto
from ckd_mmdet.aligners import neck
from ckd_mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config
from mmengine.registry import Registry
from torch import Tensor, nn

from tests.configs.shrunken import shapes_alone
from tests.small_runs import ROOT

TRAIN = runpy.run_path(str(ROOT / 'tools/train.py'), run_name='train')
ROW = re.compile(r'\| `tools/train.py (?P<arguments>.+?)` \| (?P<source>.+?) \| (?P<result>.+?) \| '
                 r'(?P<also>also )?`(?P<name>.+?)` \|')


@dataclass(frozen=True)
class Row:
    """A pair and a method."""

    name: str
    """The file that the command stands for, below ``configs``."""
    has_file: bool
    """Whether that file is there, too."""
    arguments: tuple[str, ...]
    source: str
    result: str


@lru_cache
def rows() -> dict[str, Row]:
    """By name."""
    lines = (ROOT / 'configs/README.md').read_text().splitlines()
    found = [ROW.fullmatch(line) for line in lines if line.startswith('| `tools/train.py')]
    made = [Row(row['name'], bool(row['also']), tuple(shlex.split(row['arguments'])), row['source'], row['result'])
            for row in found]
    assert len({row.name for row in made}) == len(made) > 150
    return {row.name: row for row in made}


@lru_cache
def config_of(name: str) -> Config:
    """What the row's command trains."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['tools/train.py', *rows()[name].arguments])
        return made_by_train()


def made_by_train() -> Config:
    """What ``tools/train.py`` makes of ``sys.argv``; models are built without memory, and once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv('LOCAL_RANK', '0')
        patch.setattr(auto, 'build_model', build_once)
        patch.setattr(neck, '_probe', probe_once)
        return TRAIN['read_config'](TRAIN['parse_args']())


BUILD, BUILT = auto.build_model, {}


def build_once(cfg: Config) -> nn.Module:
    key = repr((cfg.model, cfg.get('data_preprocessor')))
    if key not in BUILT:
        with shapes_alone():
            BUILT[key] = BUILD(cfg)
    return BUILT[key]


PROBE, PROBED = neck._probe, {}


def probe_once(model: nn.Module, aligner: neck.NeckAligner | None = None) -> list[Tensor]:
    key = id(model), aligner is None  # the models stay in BUILT
    if key not in PROBED:
        PROBED[key] = PROBE(model, aligner)
    return PROBED[key]


def settings(cfg: Config) -> dict:
    """Aligners, selectors and losses with their defaults, whatever the losses are called."""
    return {name: (whole(one['aligner'], TASK_UTILS), whole(one.get('selector') or dict(type='All'), TASK_UTILS),
                   sorted((whole(loss, MODELS) for loss in one.losses.values()), key=repr))
            for name, one in cfg.model.alignments.items()}


def whole(part: dict, registry: Registry) -> dict:
    part = bare(part)
    name = part.pop('type').removeprefix('ckd_mmdet.')
    signature = inspect.signature(registry.get(name))
    defaults = {key: value.default for key, value in signature.parameters.items() if value.default is not value.empty}
    return {'type': name, **defaults, **part}


def bare(part: object) -> object:
    """Without what MMEngine notes of the package that a part came from."""
    if isinstance(part, dict):
        return {key: bare(value) for key, value in part.items() if key != '_scope_'}
    return [bare(value) for value in part] if isinstance(part, list | tuple) else part
