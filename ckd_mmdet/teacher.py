"""The teacher's keeping: built, loaded, checked, frozen, fed with what it was trained on, never copied."""

from __future__ import annotations

import copy
import hashlib
import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ckd_mmdet.aligners import extract_maps
from ckd_mmdet.classification.published import translate
from ckd_mmdet.config import DISTILLER, class_names, read_config, student_of
from ckd_mmdet.loading import compared, pipeline_of
from ckd_mmdet.preprocessing import Renormalize, renormalization
from ckd_mmdet.samples import Side
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader
from mmengine.structures import BaseDataElement
from torch import Tensor, nn


class FrozenTeacher:
    """A trained model that answers without gradient.

    It is no ``nn.Module``, and therefore in no ``parameters()``, ``state_dict()``, EMA copy, DDP bucket, SyncBN
    conversion or ``init_weights()``; the Distiller moves it to its device.

    Args:
        config: The teacher's own config: a path, ``'mmdet::...'``, or a dict (a whole config, or its ``model``).
        checkpoint: Path or address of its weights; with an ``mmdet::`` config the model zoo's by default.
        class_map: Where its classes are not the student's: ``'name'`` pairs equal names, a dict names the teacher's
            class for each of the student's; see :func:`ckd_mmdet.classes.match_classes`.
        check_accuracy: Whether ``DistillHook`` stops a run whose teacher classifies at chance level.
        check_preprocessing: Whether both models' preprocessing is compared on a sample. If not, what the teacher is
            fed with follows from the settings of both data preprocessors alone.

    Raises:
        ValueError: If config or checkpoint are missing, unreadable or do not fit each other.
    """

    def __init__(self, config: str | Path | dict, checkpoint: str | Path | None = None,
                 class_map: str | dict[str, str] | None = None, check_accuracy: bool = True,
                 check_preprocessing: bool = True) -> None:
        self.config = read_teacher_config(config)
        self.name = str(config) if isinstance(config, str | Path) else 'the given config'
        self.checkpoint = str(checkpoint or zoo_address(config))
        self.class_map = class_map
        self.check_accuracy = check_accuracy
        self.check_preprocessing = check_preprocessing
        loaded, weights = read_checkpoint(self.checkpoint, 'teacher.checkpoint')
        self.model = build_model(self.config)
        load_weights(self.model, weights, self.checkpoint, self.name, 'teacher.checkpoint')
        self.model.eval()  # LAD and LD, teachers with a teacher of their own, give nothing back here
        self.model.requires_grad_(False)
        self.classes = _class_names(loaded, self.config)
        self.renormalize: nn.Module = nn.Identity()

    def match_preprocessing(self, data_preprocessor: BaseDataPreprocessor,
                            student_config: Config | None = None) -> None:
        """Take inputs that the student's ``data_preprocessor`` made; renormalise them where the teacher's own differs.

        Args:
            data_preprocessor: The student's.
            student_config: Of its run, once it is known: its pipeline is then compared with the teacher's, too.

        Raises:
            ValueError: If the teacher cannot be fed from such inputs.
        """
        loadings = None
        if student_config is not None and self.check_preprocessing:
            configs = (student_config, self.config)
            loadings = compared(*map(pipeline_of, configs),
                                tuple(config.get('default_scope') or 'mmdet' for config in configs))
        renormalize = renormalization(data_preprocessor, self.model.data_preprocessor, self.name, loadings,
                                      self.check_preprocessing)
        device = next((weight.device for weight in self.model.parameters()), torch.device('cpu'))
        self.renormalize = nn.Identity() if renormalize is None else renormalize.to(device)

    @torch.no_grad()
    def extract_feat(self, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> Sequence[Tensor]:
        """Features of the student's batch ``(N, 3, h, w)``, one ``(N, d, h', w')`` a level, without gradient."""
        if isinstance(self.renormalize, Renormalize):
            views = len(inputs) // len(data_samples)  # of an image, one batch of all images after another
            sizes = [sample.get('img_shape', inputs.shape[-2:]) for sample in data_samples]
            inputs = self.renormalize(inputs, sizes * views)
        return extract_maps(self.model, inputs)

    def faults(self, answer: Side | Sequence[Tensor]) -> dict[str, Tensor]:
        """Whether its logits or maps have NaN or infinite values, a scalar by the error's text."""
        levels = answer.tensors()[:2] if isinstance(answer, Side) else list(answer)
        finite = torch.stack([level.isfinite().all() for level in levels]).all()
        what = 'logits or features' if isinstance(answer, Side) else 'feature maps'
        return {f'the teacher ({self.name}, {self.checkpoint}) gave NaN or infinite {what}; its weights or its inputs '
                'are broken, or half precision is too narrow for it: train without `--amp`, or check the checkpoint.':
                ~finite}

    def digest(self) -> str:
        """SHA-256 of the weights' names and values."""
        sha = hashlib.sha256()
        for name, value in self.model.state_dict().items():
            sha.update(name.encode())
            sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return sha.hexdigest()

    def _apply(self, fn: Any) -> None:
        """Follow the Distiller to another device or type."""
        self.model._apply(fn)
        self.renormalize._apply(fn)

    def __deepcopy__(self, memo: dict) -> FrozenTeacher:
        return self  # EMAHook copies the model: a frozen teacher needs no second copy


def read_teacher_config(config: str | Path | dict) -> Config:
    """Read a whole config from a path, an ``mmdet::...`` name, or a dict (a whole config, or its ``model``)."""
    if isinstance(config, dict):
        return Config(config if 'model' in config else dict(model=config))
    try:
        read = read_config(config)
    except (OSError, ValueError, AssertionError) as error:  # the last is mmengine's answer to an unknown package
        raise ValueError(f'`teacher.config` needs a readable config, got {str(config)!r}: {error}') from error
    if 'model' not in read:
        raise ValueError(f'`teacher.config` needs a config with a `model`, {str(config)!r} has none.')
    return read


def zoo_address(config: str | Path | dict) -> str:
    """Address of the model zoo's checkpoint for an ``mmdet::`` config.

    Raises:
        ValueError: If none is known.
    """
    name = str(config) if isinstance(config, str | Path) else 'a dict'
    address = None
    if '::' in name:
        try:
            address = get_config(name, pretrained=True).get('model_path')
        except AssertionError:  # mmengine's answer to a metafile without weights
            address = None
    if not address:
        raise ValueError(f'`teacher.checkpoint` is missing, and no address of a checkpoint is known for {name}; '
                         'give the path or address of the weights (to tools/train.py, with `--teacher-checkpoint`).')
    return address


def read_checkpoint(checkpoint: str, argument: str) -> tuple[dict, dict[str, Tensor]]:
    """The whole of it, and the weights in it.

    Args:
        checkpoint: Path or address.
        argument: By which the user gives it, for errors.

    Raises:
        ValueError: If it cannot be read, or holds no weights.
    """
    try:
        loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = ': '.join(filter(None, [type(error).__name__, str(error).split('\n')[0].rstrip('. ')]))
        option = ' (to tools/train.py, with `--teacher-checkpoint`)' if argument == 'teacher.checkpoint' else ''
        raise ValueError(f'`{argument}` needs a readable checkpoint, {checkpoint!r} is not ({reason}). Give a path '
                         f'that exists{option}, or download it again.') from error
    weights = _weights(loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(weights, dict):
        raise ValueError(f'`{argument}` needs a checkpoint with a state dict, {checkpoint!r} holds a '
                         f'{type(weights).__name__}.')
    return loaded, weights


def _weights(loaded: dict) -> dict[str, Tensor]:
    if 'state_dict' not in loaded and isinstance(loaded.get('model'), dict):
        return translate(loaded['model'])  # as RepDistiller and mdistiller publish theirs
    return loaded.get('state_dict', loaded)


def build_model(config: Config) -> nn.Module:
    """Build the config's model, of a distilled one the student, with untrained weights."""
    model = copy.deepcopy(config.model)
    if model.get('type') == DISTILLER:  # a distilled student teaches in its turn
        model = student_of(model)
    if 'data_preprocessor' in config:
        model.setdefault('data_preprocessor', config.data_preprocessor)
    # the teacher draws nothing from the student's generator: with one seed, the student's initial weights are those
    # of the student alone
    with torch.random.fork_rng(devices=[]):
        return MODELS.build({'_scope_': config.get('default_scope') or 'mmdet', **model})


def load_weights(model: nn.Module, weights: dict[str, Tensor], checkpoint: str, name: str, argument: str) -> None:
    """Load a model's weights, all of them; what distillation learned beside a student is left out.

    Args:
        model: A plain detector or classifier.
        weights: Its state dict, of a plain or a distilled training.
        checkpoint: Where they are from, for errors.
        name: Of the model, for errors.
        argument: By which the user gives the checkpoint, for errors.

    Raises:
        ValueError: If they do not fit.
    """
    weights = {re.sub(r'^module\.', '', key): value for key, value in weights.items()}
    weights = {key: value for key, value in weights.items() if not key.startswith('distiller.')}
    misfit = f'`{argument}` needs the weights of {name}, {checkpoint!r} does not fit it'
    way_out = 'Give the checkpoint that was trained with this config.'
    try:
        keys = model.load_state_dict(weights, strict=False)
    except (RuntimeError, AttributeError) as error:  # other shapes; values that are no tensors
        lines = [line.strip() for line in str(error).splitlines()]
        raise ValueError(f'{misfit}: {" ".join(lines[:4])}{" ..." if len(lines) > 4 else ""} {way_out}') from error
    missing = [key for key in keys.missing_keys if not key.endswith('num_batches_tracked')]
    # DDQ gives some of its weights a second name when it starts to train
    known = {value.data_ptr() for key, value in weights.items() if key not in keys.unexpected_keys}
    unexpected = [key for key in keys.unexpected_keys
                  if not isinstance(weights[key], Tensor) or weights[key].data_ptr() not in known]
    if missing or unexpected:
        raise ValueError(f'{misfit}: {_few(missing)} missing, {_few(unexpected)} unexpected. {way_out}')


def _few(keys: Sequence[str]) -> str:
    shown = ', '.join(keys[:3]) + (', ...' if len(keys) > 3 else '')
    return f'{len(keys)} key{"s" if len(keys) > 1 else ""} ({shown})' if keys else 'no key'


def _class_names(loaded: dict, config: Config) -> tuple[str, ...] | None:
    """From the checkpoint (mmdet 3.x, then 2.x), else from the config; ``None`` where neither knows."""
    meta = loaded.get('meta') or {}
    classes = (meta.get('dataset_meta') or {}).get('classes') or meta.get('CLASSES') or class_names(config)
    if not classes:
        return None
    return (classes,) if isinstance(classes, str) else tuple(classes)
