"""Classifiers small enough to train a step in a hundredth of a second."""

from __future__ import annotations

from typing import Any

import ckd_mmdet.compat  # noqa: F401  first: mmpretrain's modules need its operators
import torch
from ckd_mmdet.aligners import extract_maps
from ckd_mmdet.alignment import build_alignment
from ckd_mmdet.classes import SharedClasses
from ckd_mmdet.pairing import RowPairing
from ckd_mmdet.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

PREPROCESSOR = dict(type='mmpretrain.ClsDataPreprocessor', mean=[127.5] * 3, std=[64.0] * 3)


def classifier_config(arch: str = 'resnet8', classes: int = 4, width: int = 64, **head: Any) -> dict:
    """An ``ImageClassifier`` with one of the CIFAR backbones."""
    return dict(type='mmpretrain.ImageClassifier', data_preprocessor=dict(PREPROCESSOR),
                backbone=dict(type='ckd_mmdet.CifarResNet', arch=arch),
                neck=dict(type='mmpretrain.GlobalAveragePooling'),
                head=dict(type='mmpretrain.LinearClsHead', num_classes=classes, in_channels=width, **head))


def distiller_config(student: dict, teacher: dict, checkpoint: str, losses: dict, **alignment: Any) -> dict:
    """The same in a Distiller, with one alignment ``image``."""
    return dict(type='ckd_mmdet.Distiller', student=student,
                teacher=dict(config=dict(default_scope='mmpretrain', model=teacher), checkpoint=checkpoint),
                alignments=dict(image=dict(aligner=dict(type='ckd_mmdet.ImageAligner'), losses=losses,
                                           **alignment)))


def built(config: dict) -> nn.Module:
    model = MODELS.build(config)
    model.init_weights()
    return model


def paired(config: dict) -> nn.Module:
    """A distilled student that may take a step, its classes without names."""
    model = built(config)
    model.distillation.pair(model, None)
    return model


def saved(model: nn.Module, path: Any) -> str:
    torch.save(dict(state_dict=model.state_dict()), path)
    return str(path)


def batch(images: int = 6, classes: int = 4, views: int = 1, seed: int = 0) -> tuple[Tensor, list[DataSample]]:
    """Normalised inputs ``(views * images, 3, 32, 32)``, view by view, and a sample for each image."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(views * images, 3, 32, 32, generator=generator)
    labels = torch.randint(classes, (images,), generator=generator)
    return inputs, [DataSample(metainfo=dict(img_shape=(32, 32))).set_gt_label(label) for label in labels]


def aligned(student: nn.Module, teacher: nn.Module, inputs: Tensor, samples: list[DataSample], **cfg: Any) -> Any:
    """What the alignment passes to its losses, and the student's own losses."""
    alignment = build_alignment('image', dict(aligner=dict(type='ckd_mmdet.ImageAligner'),
                                              losses=dict(loss_kd=dict(type='ckd_mmdet.KDLoss')), **cfg))
    scorings = alignment.check(student, teacher)
    pairing = RowPairing(alignment, scorings, SharedClasses.all(scorings[0].num_classes))
    with pairing.listen(student) as tape:
        losses = student(inputs, samples, mode='loss')
    with torch.no_grad():
        feats = extract_maps(teacher, inputs)
    return pairing.ask(teacher, feats, tape, samples)[0], losses
