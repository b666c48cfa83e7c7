"""The built package: what it carries, and how somebody who installed it names our configs and tools."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ckd_mmdet import __version__
from ckd_mmdet.alignment import build_alignment
from ckd_mmdet.config import read_config

from tests.small_runs import ROOT

USER_CONFIG = """
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'ckd_mmdet::_base_/alignments/roi_ckd.py']
model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py'),
    alignments=_base_.roi_ckd)
"""
# The import of the one line that a notebook needs, then MMEngine's own way of reading a config.
READ_USER_CONFIG = """
import ckd_mmdet.compat
from mmengine.config import Config
model = Config.fromfile('my_config.py').model
print(ckd_mmdet.__file__, model.student.type, model.alignments.roi.losses.loss_ckd.type, sep='\\n')
"""


def python(*arguments: str | Path, folder: Path, path: Path | None = None) -> str:
    """What Python printed, run in ``folder`` with ``path`` before all installed packages."""
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    if path is not None:
        env['PYTHONPATH'] = str(path)
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wheel(source: Path, folder: Path) -> Path:
    python('-m', 'pip', '--quiet', '--disable-pip-version-check', 'wheel', '--no-deps', '--no-build-isolation',
           '--wheel-dir', folder, source, folder=folder.parent)
    built, = folder.glob('*.whl')
    return built


@pytest.fixture(scope='module')
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel(ROOT, tmp_path_factory.mktemp('wheel'))


@pytest.fixture(scope='module')
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is installed in."""
    target = tmp_path_factory.mktemp('installed')
    python('-m', 'pip', '--quiet', '--disable-pip-version-check', 'install', '--no-deps', '--target', target, built,
           folder=target)
    return target


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*')
            if path.is_file() and '__pycache__' not in path.parts}


def test_the_installed_package_carries_all_configs_and_tools_and_no_weights(installed):
    for folder in ('configs', 'tools'):
        ours = {path: content for path, content in files(ROOT / folder).items() if not path.endswith('.pth')}
        assert files(installed / 'ckd_mmdet/.mim' / folder) == ours
    with pytest.raises(AssertionError, match='its teacher, .*, which only the repository has'):
        python('-m', 'ckd_mmdet', 'demo', folder=installed, path=installed)


def test_the_wheel_holds_the_package_alone_typed_and_small(built):
    names = set(contents(built))
    assert {name.partition('/')[0] for name in names} == {'ckd_mmdet', f'ckd_mmdet-{__version__}.dist-info'}
    assert 'ckd_mmdet/py.typed' in names  # whoever checks their types reads ours
    page = {str(path.relative_to(ROOT)) for path in (ROOT / 'ckd_mmdet/lab/page').iterdir() if path.is_file()}
    assert {Path(name).suffix for name in page} == {'.py', '.html', '.css', '.js'} and page <= names
    assert built.stat().st_size < 1_000_000


def test_a_config_outside_the_repository_names_our_parts(installed, tmp_path):
    (tmp_path / 'my_config.py').write_text(USER_CONFIG)
    origin, student, loss = python('-c', READ_USER_CONFIG, folder=tmp_path, path=installed).splitlines()[-3:]
    assert Path(origin) == installed / 'ckd_mmdet/__init__.py'
    assert (student, loss) == ('FasterRCNN', 'CKDLoss')


def test_a_part_named_through_the_package_builds(tmp_path):
    (tmp_path / 'my_config.py').write_text(USER_CONFIG)
    roi = read_config(tmp_path / 'my_config.py').model.alignments.roi
    assert build_alignment('roi', roi).losses['loss_ckd'].weight.base == 0.1


def test_an_installed_tool_runs_by_name_outside_the_repository(installed, tmp_path):
    python('-m', 'ckd_mmdet', 'make_digit_scenes', '--out', 'scenes', '--train', '2', '--val', '1', folder=tmp_path,
           path=installed)
    assert len(list((tmp_path / 'scenes/train').iterdir())) == 2


def test_the_source_distribution_builds_the_same_wheel(built, tmp_path):
    source = python('-c', f'import hatchling.build; print(hatchling.build.build_sdist({str(tmp_path)!r}))',
                    folder=ROOT).splitlines()[-1]
    again = wheel(tmp_path / source, tmp_path / 'wheel')
    assert contents(again) == contents(built)


def contents(path: Path) -> dict[str, int]:
    """Checksum of each file in a wheel."""
    with zipfile.ZipFile(path) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist()}


def test_an_editable_install_names_the_repository_s_own_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    part = read_config('ckd_mmdet::_base_/alignments/roi_kd.py')
    assert Path(part.filename).resolve() == ROOT / 'configs/_base_/alignments/roi_kd.py'
    assert (ROOT / 'ckd_mmdet/.mim/tools').resolve() == ROOT / 'tools'


def test_a_part_that_we_do_not_have_is_refused_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match='alignments/nowhere.py'):
        read_config('ckd_mmdet::_base_/alignments/nowhere.py')
