"""When the operators are put in place, when not, and what is said where they cannot help."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from ckd_mmdet.compat import activate, require_openmmlab
from ckd_mmdet.compat.extension import TorchvisionExtension

ROOT = Path(__file__).parents[2]
served = pytest.mark.skipif(not activate(), reason='mmcv has its own operators')

# Puts one finder before all others: it hides a package, or gives `mmcv._ext` a source of our own.
FINDER = """
import sys
from importlib.machinery import PathFinder
from importlib.util import spec_from_loader

class Finder(PathFinder):  # which lists the distributions' metadata
    def __init__(self, hidden='', extension=None):
        self.hidden, self.extension, self.finders = hidden, extension, sys.meta_path[:]
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == self.hidden:
            return None
        if name == 'mmcv._ext' and self.extension is not None:
            return spec_from_loader(name, self, origin='compiled')
        specs = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in specs if spec is not None), None)
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        exec(self.extension, module.__dict__)
"""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env=os.environ | {'OMP_NUM_THREADS': '1'})


def test_importing_the_package_imports_no_mm_package_and_no_torch() -> None:
    done = run_python('import sys, ckd_mmdet\n'
                      'print([n for n in sys.modules if n.startswith(("mm", "torch"))])')
    assert done.stdout.strip() == '[]', done.stderr


@served
def test_mmdets_models_import_after_this_one_import() -> None:
    done = run_python('import ckd_mmdet.compat, mmdet.models\nprint(ckd_mmdet.compat.activate())')
    assert done.stdout.strip() == 'True', done.stderr


def test_compiled_operators_are_left_alone() -> None:
    done = run_python(FINDER + (
        'sys.meta_path[:] = [Finder(extension="nms = 7")]\n'
        'import ckd_mmdet.compat\n'
        'import mmcv._ext\n'
        'assert not ckd_mmdet.compat.activate()\n'
        'print(vars(mmcv._ext).get("nms"), hasattr(mmcv._ext, "softnms"))\n'
        'print("ckd_mmdet.compat.ops" in sys.modules)'))
    assert done.stdout.split() == ['7', 'False', 'False'], done.stderr


def test_compiled_operators_that_do_not_load_are_replaced_with_a_warning() -> None:
    done = run_python(FINDER + (
        'broken = "raise ImportError(\'undefined symbol: _ZN3c10\')"\n'
        'sys.meta_path[:] = [Finder(extension=broken)]\n'
        'import ckd_mmdet.compat\n'
        'print(ckd_mmdet.compat.activate())'))
    assert done.stdout.strip() == 'True', done.stderr
    assert done.stderr.count('RuntimeWarning') == 1
    assert 'do not load (undefined symbol: _ZN3c10)' in done.stderr


@pytest.mark.parametrize('package', ['mmcv', 'mmdet'])
def test_a_missing_package_is_named_with_both_ways_to_install_it(package: str) -> None:
    done = run_python(FINDER + (
        f'sys.meta_path[:] = [Finder(hidden="{package}")]\nimport ckd_mmdet.compat'))
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f'ImportError: ckd_mmdet needs mmengine, mmcv, mmdet, but {package} ')
    assert 'pip install ckd_mmdet[onedl]' in last
    assert 'official `mmengine`, `mmcv` (or `mmcv-lite`) and `mmdet`. Never both' in last


def test_what_breaks_in_mmcv_itself_is_not_taken_for_its_operators() -> None:
    done = run_python(FINDER + (
        'sys.meta_path[:] = [Finder(hidden="addict")]\nimport ckd_mmdet.compat'))
    assert 'RuntimeWarning' not in done.stderr
    assert done.stderr.strip().endswith("ModuleNotFoundError: No module named 'addict'")


def test_a_folder_left_by_an_uninstall_counts_as_missing(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'mmleftover').mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match='but mmleftover cannot be found') as caught:
        require_openmmlab(('mmengine', 'mmleftover'))
    assert caught.value.name == 'mmleftover'


def installed(name: str, version: str, folder: Path) -> None:
    """Write the metadata of a distribution."""
    (folder / f'{name}-{version}.dist-info').mkdir()
    (folder / f'{name}-{version}.dist-info/METADATA').write_text(
        f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')


@pytest.mark.parametrize(('onedl', 'official', 'package'), [
    ('onedl_mmengine', 'mmengine', 'mmengine'), ('onedl_mmcv', 'mmcv_lite', 'mmcv'),
    ('onedl_mmdetection', 'mmdet', 'mmdet'), ('onedl_mmpretrain', 'mmpretrain', 'mmpretrain')])
def test_a_package_of_both_lines_is_refused_with_what_to_remove(
        onedl: str, official: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (onedl, official):
        installed(name, '1.0', tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    onedl, official = onedl.replace('_', '-'), official.replace('_', '-')
    with pytest.raises(ImportError, match=f'one `{package}`.*`pip uninstall {onedl} {official}`'):
        require_openmmlab()


@pytest.mark.parametrize(('version', 'refused'), [('2.1.0', True), ('2.2.2+cu121', True), ('2.3.0', False),
                                                  ('2.11.0+cpu', False)])
def test_a_torch_that_is_too_old_for_the_onedl_line_is_refused_with_both_ways_out(
        version: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ckd_mmdet.compat import extension
    installed('torch', version, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(extension, '_is_installed', lambda name: name in ('torch', 'onedl-mmengine'))
    if not refused:
        require_openmmlab()
        return
    with pytest.raises(ImportError, match=f'torch {re.escape(version)} is installed. Either .*"torch>=2.4"'):
        require_openmmlab()


def test_an_mmengine_that_needs_pkg_resources_says_where_they_are_from(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ckd_mmdet.config import of_package, read_config
    from mmengine import hub
    from mmengine.config import config

    for kept in (of_package, config.Config._get_cfg_path):  # another test of this process may have read these
        kept.cache_clear()

    def old_mmengine(package: str) -> None:
        raise ModuleNotFoundError("No module named 'pkg_resources'", name='pkg_resources')

    monkeypatch.setattr(hub.hub, 'get_installed_path', old_mmengine)
    monkeypatch.setattr(config, 'get_installed_path', old_mmengine)
    (tmp_path / 'users.py').write_text("_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py']\n")
    for read, name in ((read_config, 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'),
                       (config.Config.fromfile, tmp_path / 'users.py')):
        with pytest.raises(ModuleNotFoundError, match='pip install "setuptools<82"'):
            read(name)


@pytest.mark.parametrize('missing', ['torch', 'torchvision'])
def test_a_tool_without_torch_ends_with_a_sentence(missing: str) -> None:
    done = run_python(f'import sys; sys.modules["{missing}"] = None\n'
                      'import runpy; sys.argv = ["ckd_mmdet", "train", "config.py"]\n'
                      'runpy.run_module("ckd_mmdet", run_name="__main__")')
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    assert done.stderr.strip().startswith(f'python -m ckd_mmdet train needs torch and torchvision, and {missing} ')


def test_mmdets_own_train_tool_distils_and_needs_no_compiled_operators(
        digits: Path, digit_teacher: dict, tmp_path: Path) -> None:
    from ckd_mmdet.teacher import build_model
    from mmengine.config import Config

    from tests.small_runs import distilled, run_config, student_config
    tool = Path(importlib.util.find_spec('mmdet').origin).parent / '.mim/tools/train.py'
    cfg = run_config(distilled(student_config(), digit_teacher), digits, tmp_path, epochs=1)
    cfg.merge_from_dict(dict(
        val_dataloader=None, val_cfg=None, val_evaluator=None, test_dataloader=None, test_cfg=None,
        test_evaluator=None, train_cfg=dict(_delete_=True, type='IterBasedTrainLoop', max_iters=2),
        default_hooks=dict(checkpoint=dict(_delete_=True, type='CheckpointHook', by_epoch=False)),
        custom_imports=dict(imports=['ckd_mmdet.compat'], allow_failed_imports=False),
        custom_hooks=[dict(type='ckd_mmdet.DistillHook')]))
    (tmp_path / 'users.py').write_text('\n'.join(f'{key} = {value!r}' for key, value in cfg.to_dict().items()))
    done = run_python('import sys, runpy\n'
                      f'sys.argv = ["train.py", {str(tmp_path / "users.py")!r}]\n'
                      f'runpy.run_path({str(tool)!r}, run_name="__main__")')
    assert (tmp_path / 'iter_2.pth').is_file(), done.stderr
    student = torch.load(tmp_path / 'student.pth', weights_only=True)['state_dict']
    assert student.keys() == build_model(Config(dict(model=student_config()))).state_dict().keys()
    assert 'roi.loss_ckd' in next(tmp_path.glob('*/vis_data/scalars.json')).read_text()


@served
def test_activating_twice_keeps_the_same_module() -> None:
    before = sys.modules['mmcv._ext']
    assert activate()
    assert sys.modules['mmcv._ext'] is before


@served
def test_an_operator_not_served_says_so_and_how_to_get_it_only_when_called() -> None:
    from mmcv.ops import box_iou_rotated
    with pytest.raises(RuntimeError, match='`box_iou_rotated` .* does not serve') as caught:
        box_iou_rotated(torch.rand(2, 5), torch.rand(2, 5))
    assert '--no-build-isolation' in str(caught.value)
    assert '"mmcv<2.2"' in str(caught.value)  # mmdet 3.3 refuses 2.2, which a bare `mmcv` would be
    assert 'setuptools<82' in str(caught.value)


def test_every_name_resolves_but_those_that_python_itself_asks_for() -> None:
    operators = ModuleType('operators')
    operators.__all__ = []
    extension = TorchvisionExtension(operators)
    assert callable(extension.a_name_of_tomorrow)
    assert not hasattr(extension, '__path__')


@served
def test_mmcv_can_print_its_environment() -> None:
    from mmcv.utils.env import collect_env
    assert 'ckd_mmdet.compat' in collect_env()['MMCV Compiler']
