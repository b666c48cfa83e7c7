"""The teacher's keeping: built, loaded, checked, frozen, fed with what it was trained on, never copied."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ckd_mmdet.aligners import extract_maps
from ckd_mmdet.checkpoints import checkpoint_classes, load_weights, read_checkpoint
from ckd_mmdet.config import DISTILLER, class_names, of_package, read_config, stated_class_names, student_of
from ckd_mmdet.loading import compared, pipeline_of
from ckd_mmdet.preprocessing import Renormalize, renormalization
from ckd_mmdet.samples import Side
from ckd_mmdet.speed import TeacherSpeed
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS
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
            class for each of the student's, also as a list of pairs; see
            :func:`ckd_mmdet.classes.match_classes`.
        check_accuracy: Whether ``DistillHook`` stops a run whose teacher classifies at chance level.
        check_preprocessing: Whether both models' preprocessing is compared on a sample. If not, what the teacher is
            fed with follows from the settings of both data preprocessors alone.
        trusted: Whether the checkpoint may hold what could run code.
        precision: ``None`` as the student's step, ``'fp32'``, ``'bf16'``, ``'fp16'`` or ``'auto'``; for this and the
            next three see :class:`ckd_mmdet.speed.TeacherSpeed`.
        channels_last: Whether its weights and inputs lie in memory channels last.
        fuse: Whether BatchNorm of its backbone and neck is folded into the convolutions.
        compile: Whether its backbone and neck are compiled.

    Raises:
        ValueError: If config or checkpoint are missing, unreadable or do not fit each other, or the device cannot
            compute in that precision.
    """

    def __init__(self, config: str | Path | dict, checkpoint: str | Path | None = None,
                 class_map: str | dict[str, str] | list | None = None, check_accuracy: bool = True,
                 check_preprocessing: bool = True, trusted: bool = False, precision: str | None = None,
                 channels_last: bool = False, fuse: bool = False, compile: bool = False) -> None:
        self.speed = TeacherSpeed(precision, channels_last, fuse, compile)
        self.config = read_teacher_config(config)
        self.name = str(config) if isinstance(config, str | Path) else 'the given config'
        self.checkpoint = str(checkpoint or zoo_address(config))
        self.class_map = dict(class_map) if isinstance(class_map, list | tuple) else class_map
        self.check_accuracy = check_accuracy
        self.check_preprocessing = check_preprocessing
        loaded, weights = read_checkpoint(self.checkpoint, 'teacher.checkpoint', trusted=trusted)
        self.model = build_model(self.config)
        load_weights(self.model, weights, self.checkpoint, self.name, 'teacher.checkpoint')
        self.model.eval()  # LAD and LD, teachers with a teacher of their own, give nothing back here
        self.model.requires_grad_(False)
        self.classes = names_of_teacher(self.config, checkpoint_classes(loaded, self.checkpoint, 'teacher.checkpoint'))
        self.renormalize: nn.Module = nn.Identity()
        # of the weights as they were trained: a run may be resumed at another speed
        self._trained_digest = digest_of(self.model) if fuse else None
        self.speed.prepare(self.model)
        self._body: Callable[[Tensor], Sequence[Tensor]] | None = None

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
            ours, theirs = (config.get('default_scope') or 'mmdet' for config in (student_config, self.config))
            loadings = compared(pipeline_of(student_config), pipeline_of(self.config), (ours, theirs))
        renormalize = renormalization(data_preprocessor, self.model.data_preprocessor, self.name, loadings,
                                      self.check_preprocessing)
        device = next((weight.device for weight in self.model.parameters()), torch.device('cpu'))
        self.renormalize = nn.Identity() if renormalize is None else renormalize.to(device)

    @torch.no_grad()
    def extract_feat(self, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> Sequence[Tensor]:
        """Features of the student's batch ``(N, 3, h, w)``, one ``(N, d, h', w')`` a level, without gradient."""
        if self._body is None:
            self._body = self.speed.body(self.model)
        return self.speed.features(self._body, self._renormalized(inputs, data_samples))

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> Sequence[BaseDataElement]:
        """What it finds in a student's batch ``(N, 3, h, w)``; the samples come back with predictions of the teacher's
        own classes."""
        return self.model(self._renormalized(inputs, data_samples), data_samples, mode='predict')

    def _renormalized(self, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> Tensor:
        if not isinstance(self.renormalize, Renormalize):
            return inputs
        views = len(inputs) // len(data_samples)  # of an image, one batch of all images after another
        sizes = [sample.get('img_shape', inputs.shape[-2:]) for sample in data_samples]
        return self.renormalize(inputs, sizes * views)

    def faults(self, answer: Side | Sequence[Tensor]) -> dict[str, Tensor]:
        """Whether its logits or maps have NaN or infinite values, a scalar by the error's text."""
        levels = answer.tensors()[:2] if isinstance(answer, Side) else list(answer)
        finite = torch.stack([level.isfinite().all() for level in levels]).all()
        what = 'logits or features' if isinstance(answer, Side) else 'feature maps'
        return {f'{self.complaint} {what}; its weights or its inputs are broken, or half precision is too narrow for '
                "it: set `teacher.precision='fp32'`, or check the checkpoint.": ~finite}

    @property
    def complaint(self) -> str:
        """How the errors of :meth:`faults` start."""
        return f'the teacher ({self.name}, {self.checkpoint}) gave NaN or infinite'

    @torch.no_grad()
    def first_broken(self, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> str:
        """Which layer is the first to give NaN or infinite values for a batch, as a sentence; it runs once more."""
        broken: list[str] = []

        def look(name: str, module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                broken.append(name)

        hooks = [module.register_forward_hook(partial(look, name)) for name, module in self.model.named_modules()
                 if not any(True for _ in module.children())]
        try:
            self.speed.features(partial(extract_maps, self.model), self._renormalized(inputs, data_samples))
        finally:
            for hook in hooks:
                hook.remove()
        return (f'The first to do so is its layer `{broken[0]}`.' if broken else
                'Its backbone and neck give finite features: it is its head.')

    def digest(self) -> str:
        """SHA-256 of the names and values of the weights that were trained."""
        return self._trained_digest or digest_of(self.model)

    def _apply(self, fn: Any) -> None:
        """Follow the Distiller to another device or type."""
        self.model._apply(fn)
        self.renormalize._apply(fn)

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_body': None}  # what was compiled cannot be pickled, and is made again when called

    def __deepcopy__(self, memo: dict) -> FrozenTeacher:
        return self  # EMAHook copies the model: a frozen teacher needs no second copy


def digest_of(model: nn.Module) -> str:
    """SHA-256 of the weights' names and values."""
    sha = hashlib.sha256()
    for name, value in model.state_dict().items():
        sha.update(name.encode())
        sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def names_of_teacher(config: Config, saved: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Names of a teacher's classes in the order of its scores.

    What its config states goes before what its checkpoint has, where that has fewer names or others. The order of the
    same names is the checkpoint's: a data set numbers labels by its annotations, whatever the config's order.

    Args:
        config: The teacher's.
        saved: Names in its checkpoint.
    """
    stated = stated_class_names(config)
    if stated and saved and len(stated) >= len(saved) and set(stated) != set(saved):
        return stated
    return saved or class_names(config)


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
            address = of_package(name, pretrained=True).get('model_path')
        except AssertionError:  # mmengine's answer to a metafile without weights
            address = None
    if not address:
        raise ValueError(f'`teacher.checkpoint` is missing, and no address of a checkpoint is known for {name}; '
                         'give the path or address of the weights (to tools/train.py, with `--teacher-checkpoint`).')
    return address


def build_model(config: Config) -> nn.Module:
    """Build the config's model, of a distilled one the student, with untrained weights."""
    model = copy.deepcopy(config.model)
    if model.get('type') == DISTILLER:  # a distilled student teaches in its turn
        model = student_of(model)
    if 'data_preprocessor' in config:
        model.setdefault('data_preprocessor', config.data_preprocessor)
    if 'teacher_ckpt' in model:  # LAD and LD download the weights of their own teacher, which only their training needs
        model['teacher_ckpt'] = None
    model = _of_one_process(model)
    # the teacher draws nothing from the student's generator: with one seed, the student's initial weights are those
    # of the student alone
    with torch.random.fork_rng(devices=[]):
        return MODELS.build({'_scope_': config.get('default_scope') or 'mmdet', **model})


def _of_one_process(part: Any) -> Any:
    """A config with BatchNorm in place of MMSyncBN: the same at rest, and it is built without a process group."""
    if isinstance(part, dict):
        return type(part)({key: 'BN' if key == 'type' and value == 'MMSyncBN' else _of_one_process(value)
                           for key, value in part.items()})
    return type(part)(map(_of_one_process, part)) if isinstance(part, list | tuple) else part
