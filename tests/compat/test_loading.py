"""Checkpoints that could run code do not, and whatever MMEngine writes is read."""

import argparse
import collections
import datetime
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ckd_mmdet.compat import unpickling
from ckd_mmdet.compat.loading import TRUST, UnreadableCheckpoint, UntrustedCheckpoint, load_url, trusting
from mmengine.config import ConfigDict
from mmengine.fileio import LocalBackend
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import OptimWrapper
from mmengine.optim import scheduler as schedulers
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn


def read(path: Path) -> Any:
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')


class Runs:
    """Its pickle calls a function."""

    def __init__(self, function: Callable, *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call


ATTACKS: dict[str, tuple[Callable[[Path], object], str]] = {
    'a shell': (lambda marker: Runs(os.system, f'touch {marker}'), r'(posix|nt)\.system'),
    'a process': (lambda marker: Runs(subprocess.call, ['touch', str(marker)]), r'subprocess\.call'),
    'eval': (lambda marker: Runs(eval, f'open({str(marker)!r}, "w")'), r'builtins\.eval'),
    'open': (lambda marker: Runs(open, str(marker), 'w'), r'io\.open'),
    'another checkpoint': (lambda marker: Runs(torch.load, str(marker)), r'torch\.serialization\.load'),
    'a storage that is a pickle': (lambda marker: Runs(torch.storage._load_from_bytes, b''), r'_load_from_bytes'),
    'any attribute': (lambda marker: Runs(getattr, HistoryBuffer, '__init__'), r'builtins\.getattr'),
    'an attribute of another class': (lambda marker: Runs(getattr, dict, 'get'), r'builtins\.getattr'),
    'a codec': (lambda marker: Runs(__import__('_codecs').encode, 'x', 'rot13'), r'_codecs\.encode'),
    'a whole model': (lambda marker: nn.Linear(1, 1), r'torch\.nn\.modules\.linear\.Linear'),
}


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'before 1.6'])
@pytest.mark.parametrize('name', ATTACKS)
def test_a_checkpoint_runs_no_code(name: str, zipped: bool, tmp_path: Path) -> None:
    attack, wanted = ATTACKS[name]
    marker = tmp_path / 'marker'
    torch.save(dict(meta=dict(x=attack(marker)), state_dict={}), tmp_path / 'x.pth',
               _use_new_zipfile_serialization=zipped)
    with pytest.raises(UntrustedCheckpoint, match=rf'x\.pth asks for `.*{wanted}.*could run code.*--trust-checkpoint'):
        read(tmp_path / 'x.pth')
    assert not marker.exists()


def test_a_trusted_checkpoint_is_read_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(dict(meta=Runs(os.system, f'touch {tmp_path / "marker"}')), tmp_path / 'x.pth')
    with trusting(False), pytest.raises(UntrustedCheckpoint):
        read(tmp_path / 'x.pth')
    with trusting():
        assert os.environ[TRUST] == '1'  # a started process knows it too
        read(tmp_path / 'x.pth')
    assert (tmp_path / 'marker').exists() and TRUST not in os.environ
    monkeypatch.setenv(TRUST, '1')
    read(tmp_path / 'x.pth')


def test_no_function_of_this_process_is_given_another_state(tmp_path: Path) -> None:
    # (None, {name: value}) as a state sets attributes of what lies on the stack, here of a function of torch's
    pickled = b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x06\x00\x00\x00markerK\x01s\x86b.'
    function = pickle.loads(pickled)
    assert function.marker == 1
    del function.marker
    torch.save({}, tmp_path / 'x.pth', _use_new_zipfile_serialization=False)
    header, _, end = (tmp_path / 'x.pth').read_bytes().rpartition(b'\x80\x02}q\x00.')
    (tmp_path / 'x.pth').write_bytes(header + pickled + end)
    with pytest.raises(UntrustedCheckpoint, match='the state of function'):
        read(tmp_path / 'x.pth')
    assert not hasattr(function, 'marker')


def scheduler_states() -> list[dict]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1, momentum=0.9)
    made = [schedulers.LinearLR(optimizer), schedulers.MultiStepLR(optimizer, [2, 3]), schedulers.StepLR(optimizer, 2),
            schedulers.CosineAnnealingLR(optimizer, 5, eta_min=0.), schedulers.PolyLR(optimizer),
            *(schedulers.OneCycleLR(optimizer, eta_max=1.0, total_steps=9, anneal_strategy=how)
              for how in ('cos', 'linear')),
            schedulers.ConstantLR(optimizer), schedulers.ExponentialLR(optimizer, 0.9),
            schedulers.CosineRestartLR(optimizer, [2, 3], [1, 1], eta_min=0.),
            schedulers.ReduceOnPlateauLR(optimizer, monitor='loss'), schedulers.MultiStepMomentum(optimizer, [2])]
    return [each.state_dict() for each in made]


def message_hub() -> dict:
    hub = MessageHub.get_instance('test_loading')
    hub.update_scalar('train/loss', 0.5)
    hub.update_scalar('train/loss', np.float64(0.25))
    hub.update_info('best_score', np.float32(0.5))
    hub.update_info('dataset_meta', dict(classes=('a', 'b'), palette=[(1, 2, 3)]))
    return hub.state_dict()


def optimizer() -> dict:
    model = nn.Linear(2, 2)
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters()))
    wrapper.update_params(model(torch.ones(1, 2)).sum())
    return wrapper.state_dict()


CONTENTS: dict[str, Callable[[], Any]] = {
    'weights with versions': lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).state_dict(),
    'half, integer, complex and boolean tensors': lambda: [torch.zeros(2, dtype=kind) for kind in (
        torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64)],
    'views, parameters, sparse and empty tensors': lambda: [
        torch.arange(6.).view(2, 3).t()[1:], nn.Parameter(torch.ones(2)), torch.eye(2).to_sparse(), torch.zeros(0)],
    'the schedulers': scheduler_states,
    'the message hub': message_hub,
    'the optimizer': optimizer,
    'NumPy': lambda: [np.arange(3), np.float64(1.5), np.array(['a', 'b']), np.bool_(True), np.arange(2.)[::-1],
                      np.dtype('int32'), np.float32],
    'plain values': lambda: [1, 2.5, 'text', None, True, b'bytes', {1, 2}, (3,), 1j, slice(1, 2), range(3)],
    'a config': lambda: ConfigDict(a=ConfigDict(b=[1, ConfigDict(c=2)])),
    'containers': lambda: [collections.OrderedDict(a=1), collections.Counter('aab'), collections.deque([1]),
                           collections.defaultdict(list, a=[1])],
    "others' metadata": lambda: [argparse.Namespace(lr=0.1), Path('runs/x.pth'), datetime.datetime(2024, 1, 2)],
    "torch's own": lambda: [torch.Size([1, 2]), torch.device('cpu'), torch.float16, torch.sparse_coo],
}


def plain(value: Any) -> Any:
    """Comparable by ``==``."""
    if isinstance(value, torch.Tensor):
        return type(value).__name__, value.dtype, value.to_dense().tolist()
    if isinstance(value, np.ndarray):
        return value.dtype, value.tolist()
    if isinstance(value, HistoryBuffer):
        return [plain(part) for part in value.data], sorted(value._statistics_methods)
    if isinstance(value, dict):
        return type(value).__name__, {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | collections.deque):
        return [plain(each) for each in value]
    return vars(value) if isinstance(value, argparse.Namespace) else value


@pytest.mark.parametrize('protocol', [2, 4, 5])
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'before 1.6'])
@pytest.mark.parametrize('name', CONTENTS)
def test_what_a_checkpoint_holds_is_read(name: str, zipped: bool, protocol: int, tmp_path: Path) -> None:
    content = CONTENTS[name]()
    torch.save(dict(content=content), tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped,
               pickle_protocol=protocol)
    found = read(tmp_path / 'x.pth')['content']
    assert plain(found) == plain(content)
    if name == 'weights with versions':
        assert found._metadata == content._metadata


@pytest.mark.parametrize('core', ['numpy.core', 'numpy._core'])
def test_numpys_names_of_both_lines_are_read(core: str, tmp_path: Path) -> None:
    torch.save(dict(score=np.float64(0.5), history=np.arange(3.)), tmp_path / 'x.pth',
               _use_new_zipfile_serialization=False)
    content = (tmp_path / 'x.pth').read_bytes()
    for name in (b'numpy.core.multiarray', b'numpy._core.multiarray'):
        content = content.replace(b'c' + name + b'\n', f'c{core}.multiarray\n'.encode())
    (tmp_path / 'x.pth').write_bytes(content)
    found = read(tmp_path / 'x.pth')
    assert found['score'] == 0.5 and found['history'].tolist() == [0, 1, 2]


# every way in

def test_numpy_1_26_is_not_taken_for_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    core = np.core if np.__version__.startswith('1.') else np._core
    has = {name: getattr(np, name) for name in ('ndarray', 'dtype', 'sctypeDict', 'object_', 'void')}
    numpy = SimpleNamespace(**has, __version__='1.26.4', core=core, _core=ModuleType('numpy._core'))
    monkeypatch.setattr(unpickling, 'np', numpy)
    assert unpickling._numpys()['numpy._core.multiarray.scalar'] is core.multiarray.scalar


def test_init_cfg_and_load_checkpoint_pass_the_same_door(tmp_path: Path) -> None:
    torch.save(Runs(os.system, f'touch {tmp_path / "marker"}'), tmp_path / 'x.pth')
    with pytest.raises(UntrustedCheckpoint):
        load_checkpoint(nn.Linear(1, 1), str(tmp_path / 'x.pth'))
    assert not (tmp_path / 'marker').exists()


@pytest.mark.parametrize('address', ['https://example.org/x.pth', 'torchvision://resnet18', 'open-mmlab://resnet18_v1c',
                                     'mmcls://vgg11'])
def test_a_downloaded_checkpoint_runs_no_code(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(url: str, path: str, **options: object) -> None:
        assert url.startswith('https://')
        torch.save(Runs(os.system, f'touch {tmp_path / "marker"}'), path)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    with pytest.raises(UntrustedCheckpoint):
        read(address)
    assert not (tmp_path / 'marker').exists()


def test_what_was_downloaded_is_not_downloaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(torch.hub, 'download_url_to_file',
                        lambda url, path, **options: (calls.append(url), torch.save(dict(a=1), path)))
    for _ in range(2):
        assert load_url('https://example.org/a/x.pth?b=1', model_dir=str(tmp_path)) == dict(a=1)
    assert calls == ['https://example.org/a/x.pth?b=1'] and [path.name for path in tmp_path.iterdir()] == ['x.pth']


def test_an_object_store_is_read_by_the_same_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Store(LocalBackend):
        def get(self, filepath: str) -> bytes:
            return super().get(tmp_path / filepath.rpartition('/')[2])

    monkeypatch.setitem(sys.modules['mmengine.fileio.backends.registry_utils'].backends, 'petrel', Store)
    torch.save(dict(a=torch.ones(1)), tmp_path / 'good.pth')
    torch.save(Runs(os.system, 'true'), tmp_path / 'bad.pth')
    assert read('s3://bucket/good.pth')['a'] == 1
    with pytest.raises(UntrustedCheckpoint):
        read('s3://bucket/bad.pth')


def test_a_torchscript_archive_is_no_checkpoint(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.zeros(1, 1)), tmp_path / 'x.pth')
    with pytest.raises(UnreadableCheckpoint, match='TorchScript'):
        read(tmp_path / 'x.pth')
