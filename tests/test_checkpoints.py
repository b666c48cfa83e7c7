"""Reading what users give as a checkpoint, and fitting it to a model."""

import functools
import io
import os
import pickle
import pickletools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ckd_mmdet.checkpoints import (
    checkpoint_classes,
    load_weights,
    own_names,
    read_checkpoint,
    report_fit,
)
from torch import nn

OPCODES = bytes(code.code.encode('latin1')[0] for code in pickletools.opcodes) + b'\n'


class Net(nn.Module):
    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, width, 1), nn.BatchNorm2d(width)


def load(model: nn.Module, weights: dict) -> None:
    load_weights(model, weights, 'x.pth', 'net.py', 'checkpoint')


# broken files

@functools.cache
def whole(zipped: bool) -> bytes:
    content = io.BytesIO()
    torch.save(dict(meta=dict(epoch=1), state_dict=Net().state_dict()), content, _use_new_zipfile_serialization=zipped)
    return content.getvalue()


def text(draw: random.Random) -> bytes:
    """Of signs that mean something in a pickle."""
    return bytes(draw.choice(OPCODES) for _ in range(draw.randrange(80)))


def noise(draw: random.Random) -> bytes:
    return draw.randbytes(draw.randrange(200))


def cut(zipped: bool) -> Callable[[random.Random], bytes]:
    def make(draw: random.Random) -> bytes:
        content = whole(zipped)
        return content[:draw.randrange(len(content))]
    return make


def changed(zipped: bool) -> Callable[[random.Random], bytes]:
    def make(draw: random.Random) -> bytes:
        content = bytearray(whole(zipped))
        for _ in range(draw.choice([1, 3, 20])):
            content[draw.randrange(20 if zipped else 0, len(content))] = draw.randrange(256)
        return bytes(content)
    return make


def header_and_text(draw: random.Random) -> bytes:
    """What begins as torch's files before 1.6 did."""
    return whole(False)[:15] + text(draw)


@pytest.mark.parametrize('make, count', [(text, 100), (noise, 50), (cut(True), 40), (cut(False), 40),
                                         (changed(True), 60), (changed(False), 100), (header_and_text, 200)],
                         ids=['text', 'noise', 'cut', 'cut before 1.6', 'changed', 'changed before 1.6', 'header'])
def test_a_broken_file_is_a_value_error_that_names_it(make: Callable, count: int, tmp_path: Path) -> None:
    path, read = tmp_path / 'x.pth', 0
    for seed in range(count):
        path.write_bytes(make(random.Random(seed)))
        try:
            read_checkpoint(path, 'teacher.checkpoint')
            read += 1  # where no byte that counts was changed
        except ValueError as error:
            assert str(error).startswith('`teacher.checkpoint` needs a') and 'x.pth' in str(error), seed
    assert read == 0 or 'changed' in make.__qualname__


@pytest.mark.parametrize('content, reason', [
    (b'', 'it is empty'), (b'<html>not found</html>', 'it is no file that torch.save wrote'),
    (b'PK\x03\x04 and half of it', 'it is cut off'), (pickle.dumps(dict(a=1)), 'it is no file that torch.save wrote')])
def test_the_reason_is_said(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / 'x.pth').write_bytes(content)
    with pytest.raises(ValueError, match=rf'`checkpoint` needs a readable checkpoint, .*x.pth. is not \(ValueError: '
                                         rf'{reason}\)\. Give a path that exists, or download it again\.'):
        read_checkpoint(tmp_path / 'x.pth', 'checkpoint')


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'needs a readable checkpoint, .*gone.pth. is not \(FileNotFoundError'):
        read_checkpoint(tmp_path / 'gone.pth', 'checkpoint')
    with pytest.raises(ValueError, match=r"needs a readable checkpoint, 'torchvision://nonsense' is not \(KeyError"):
        read_checkpoint('torchvision://nonsense', 'checkpoint')


class Runs:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f'touch {self.marker}',)


def test_code_is_refused_unless_it_is_trusted(tmp_path: Path) -> None:
    torch.save(dict(meta=Runs(tmp_path / 'ran'), state_dict=Net().state_dict()), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='`teacher.checkpoint` needs a checkpoint without code.*`posix.system`.*'
                                         '`trusted=True`') as caught:
        read_checkpoint(tmp_path / 'x.pth', 'teacher.checkpoint')
    assert 'download' not in str(caught.value) and not (tmp_path / 'ran').exists()
    read_checkpoint(tmp_path / 'x.pth', 'teacher.checkpoint', trusted=True)
    assert (tmp_path / 'ran').exists()


@pytest.mark.parametrize('content, words', [
    ([1], 'holds a list'), (3, 'holds a int'), (dict(state_dict=[1]), 'holds a list'), ({}, 'holds no weights'),
    (dict(state_dict={}), 'holds no weights'), (dict(state_dict={0: torch.ones(1)}), 'whose keys are names.* key 0'),
    ({1: torch.ones(1)}, 'whose keys are names.* key 1'), (dict(model={2: torch.ones(1)}), 'keys are names.* key 2'),
    (dict(state_dict=dict(a=1.0)), "whose values are tensors.* has float under 'a'"),
    (nn.Linear(1, 1).state_dict, 'could run code|torch.nn'),
], ids=str)
def test_what_are_no_weights_is_said(content: Any, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=f'`checkpoint` needs a checkpoint .*x.pth.*{words}|{words}'):
        read_checkpoint(tmp_path / 'x.pth', 'checkpoint')


@pytest.mark.parametrize('loaded, classes', [
    (dict(meta=dict(dataset_meta=dict(classes=('a', 'b')))), ('a', 'b')), (dict(meta=dict(CLASSES=['a'])), ('a',)),
    (dict(meta=dict(dataset_meta=dict(classes='one'))), ('one',)), (dict(meta=None), None), ({}, None),
    (dict(meta=dict(dataset_meta=None)), None), (dict(meta=dict(dataset_meta=dict(classes=()), CLASSES=['a'])), ('a',)),
])
def test_class_names_are_those_of_mmdet_3_or_2(loaded: dict, classes: tuple | None) -> None:
    assert checkpoint_classes(loaded, 'x.pth', 'checkpoint') == classes


@pytest.mark.parametrize('meta, words', [
    ([1], '`meta` is a dict, .* has a list'), ('text', 'has a str'), (dict(CLASSES=10), 'texts, .* has 10'),
    (dict(dataset_meta=dict(classes=10)), 'texts, .* has 10'), (dict(dataset_meta=dict(classes=[1, 2])), r'has \[1, 2'),
    (dict(dataset_meta=dict(classes={'a': 1})), 'texts'), (dict(dataset_meta=10), 'has 10')])
def test_odd_metadata_is_said(meta: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        checkpoint_classes(dict(meta=meta), 'x.pth', 'teacher.checkpoint')
    assert str(caught.value).startswith('`teacher.checkpoint` needs a checkpoint whose ') and "'x.pth'" in str(caught)


# the fit

@pytest.mark.parametrize('prefix', ['', 'module.', 'model.', '_orig_mod.', 'student.', 'module._orig_mod.',
                                    'model.student.', 'module.module.'])
def test_wrappers_names_are_taken_off(prefix: str) -> None:
    ours, theirs = Net(), Net().state_dict()
    load(ours, {f'{prefix}{key}': value for key, value in theirs.items()})
    assert all(torch.equal(value, theirs[key]) for key, value in ours.state_dict().items())


def test_a_compiled_part_has_its_plain_name() -> None:
    ours, theirs = Net(), Net().state_dict()
    load(ours, {key.replace('conv.', 'conv._orig_mod.'): value for key, value in theirs.items()})
    assert torch.equal(ours.conv.weight, theirs['conv.weight'])


def test_a_models_own_part_of_that_name_keeps_it() -> None:
    model = nn.ModuleDict(dict(student=Net(), module=Net()))
    weights = model.state_dict()
    assert list(own_names(weights, model)) == list(weights)


def test_of_other_distillers_checkpoints_the_student_is_taken_and_of_ours_the_students_weights() -> None:
    ours, theirs, teacher = Net(), Net().state_dict(), Net().state_dict()
    load(ours, {**{f'teacher.{key}': value for key, value in teacher.items()},
                **{f'student.{key}': value for key, value in theirs.items()}})
    assert torch.equal(ours.conv.weight, theirs['conv.weight'])
    load(ours, {**theirs, 'distiller.roi.projector.weight': torch.ones(1)})
    load(ours, {f'module.{key}': value for key, value in {**theirs, 'distiller.x': torch.ones(1)}.items()})


def test_the_versions_of_modules_stay_with_the_weights() -> None:
    """By them, modules know which names of an older version to change."""
    weights = Net().state_dict()
    assert own_names(weights, Net())._metadata == weights._metadata
    wrapped = nn.ModuleDict(dict(module=Net())).state_dict()
    assert own_names(wrapped, Net())._metadata['bn'] == dict(version=2)


@pytest.mark.parametrize('weights, words', [
    (Net(3).state_dict(), 'size mismatch for conv.weight'),
    ({f'other.{key}': value for key, value in Net().state_dict().items()},
     r'6 keys \(conv.weight, .*\) missing, 7 keys \(other.conv.weight'),
    ({key: value for key, value in Net().state_dict().items() if 'bias' not in key},
     r'2 keys \(conv.bias, bn.bias\) missing, no key unexpected'),
    ({**Net().state_dict(), 'more': torch.ones(1)}, r'no key missing, 1 key \(more\) unexpected')])
def test_other_weights_are_refused(weights: dict, words: str) -> None:
    with pytest.raises(ValueError, match=f"`checkpoint` needs the weights of net.py, 'x.pth' does not fit.*{words}"):
        load(Net(), weights)


def test_the_fit_of_a_part_is_told_in_numbers_and_no_fit_is_refused() -> None:
    weights = {key: value for key, value in Net().state_dict().items() if key.startswith('bn')}
    assert report_fit(Net(), {**weights, 'head.weight': torch.ones(1)}) == (
        '5 of the 7 weights of the model (71%) are in the checkpoint; 2 keys (conv.weight, conv.bias) missing, no key '
        'of another shape, 1 key (head.weight) unused')
    assert report_fit(Net(), {f'module.{key}': value for key, value in Net().state_dict().items()}).startswith(
        '7 of the 7 weights of the model (100%)')
    assert '6 keys (conv.weight, conv.bias, bn.weight, ...) of another shape' in report_fit(Net(), Net(3).state_dict())
    with pytest.raises(ValueError, match='`load_from` needs weights of this model: 0 of the 7 weights'):
        report_fit(Net(), {'head.weight': torch.ones(1)})
