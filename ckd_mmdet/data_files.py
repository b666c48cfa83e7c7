"""The data that a config names are there, and are what they seem; looked at before anything expensive is built."""

from __future__ import annotations

import difflib
import json
import mmap
import os

from ckd_mmdet.config import dataset_type, inner_datasets
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch.utils.data import Dataset

DOWNLOADED = ('CIFAR10', 'CIFAR100', 'FashionMNIST', 'MNIST')
"""Data sets that MMPretrain fetches itself where they are missing."""


def check_data(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Check that the data of the named dataloaders are there, before anything expensive is built.

    Raises:
        ValueError: If a data root, image folder or annotation file does not exist, or an annotation file of a COCO
            data set is no COCO JSON.
    """
    for loader in loaders:
        given = cfg.get(loader)
        if given is None:
            continue
        if not isinstance(given, dict) or not isinstance(given.get('dataset'), dict | Dataset):
            raise ValueError(f'`{loader}` needs a dict with the config of a `dataset`, a dict with a `type`, got '
                             f'{given!r:.200}.')
        for dataset in inner_datasets(given['dataset']):
            _check_type(dataset, cfg, f'{loader}.dataset')
            _check_dataset(dataset, f'{loader}.dataset')


def _check_type(dataset: dict, cfg: Config, where: str) -> None:
    kind = dataset.get('type')
    if isinstance(kind, str) and dataset_type(dataset, cfg) is None:
        with DATASETS.switch_scope_and_registry(cfg.get('default_scope') or 'mmdet') as registry:
            near = ' or '.join(difflib.get_close_matches(kind, registry.module_dict, n=3))
        raise ValueError(f'`{where}.type` needs the name of a registered data set, got {kind!r}'
                         f'{f" (did you mean {near}?)" if near else ""}; if it is your own, name its module '
                         'in `custom_imports`.')
    wrong = {'type': kind} if not isinstance(kind, str | type) else {
        key: dataset[key] for key in ('data_root', 'ann_file') if not isinstance(dataset.get(key) or '', str)}
    for key, value in wrong.items():
        raise ValueError(f'`{where}.{key}` needs text, got {value!r}.')


def _check_dataset(dataset: dict, where: str) -> None:
    root, ann_file = dataset.get('data_root') or '', dataset.get('ann_file') or ''
    if str(dataset.get('type')).rpartition('.')[2] in DOWNLOADED and dataset.get('download', True):
        return
    if '://' in root or '://' in ann_file or dataset.get('backend_args'):
        return  # not on this disk
    if root and not os.path.isdir(root):
        raise ValueError(f'`{where}.data_root` needs a folder that exists, {root!r} does not (from {os.getcwd()}); '
                         'put the data there, or give its place with `--cfg-options '
                         f'{where}.data_root=...`.')
    path = os.path.join(root, ann_file)
    if ann_file and not os.path.isfile(path):
        raise ValueError(f'`{where}.ann_file` needs a file that exists, {path!r} does not.')
    prefixes = dataset.get('data_prefix') or {}
    for name, folder in (prefixes if isinstance(prefixes, dict) else dict(img_path=prefixes)).items():
        if isinstance(folder, str) and not os.path.isdir(os.path.join(root, folder)):
            raise ValueError(f'`{where}.data_prefix.{name}` needs a folder that exists, '
                             f'{os.path.join(root, folder)!r} does not.')
    if ann_file and 'Coco' in str(dataset.get('type')):
        keys = ('images', 'categories') if dataset.get('test_mode') else ('images', 'annotations', 'categories')
        lacking = _lacking_keys(path, keys)
        if lacking:
            raise ValueError(f'`{where}.ann_file` needs a COCO JSON, {path!r} is none: {lacking}.')


def _lacking_keys(path: str, keys: tuple[str, ...]) -> str:
    """Why the file cannot be a COCO JSON, else ''. Looked at, not parsed: COCO's own file has half a gigabyte."""
    if not os.path.getsize(path):
        return 'it is empty'
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        if text[:3] in (b'\xef\xbb\xbf', b'\xff\xfe{', b'\xfe\xff\x00'):
            return 'it starts with a byte order mark; save it as UTF-8 without one'
        if not text[:64].lstrip().startswith(b'{') or not text[-64:].rstrip().endswith(b'}'):
            return 'it is no JSON object, or it is cut off'
        absent = [key for key in keys if text.find(f'"{key}"'.encode()) < 0]
        if absent:
            return f'it has no {" and no ".join(absent)}'
    return '' if _closes(path) else 'it is cut off'


def _closes(path: str) -> bool:
    """Whether each brace of a JSON file is closed; it is parsed only where their numbers differ."""
    opened = closed = 0
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 24):
            opened, closed = opened + chunk.count(b'{'), closed + chunk.count(b'}')
        if opened == closed:
            return True
        file.seek(0)
        try:
            json.load(file)  # braces in names count, but close nothing
        except ValueError:
            return False
    return True
