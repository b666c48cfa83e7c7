"""MobileNetV1 against the published sizes."""

from __future__ import annotations

import ckd_mmdet.compat  # noqa: F401  first: mmpretrain's modules need its operators
import torch
from ckd_mmdet.classification.backbones import MobileNetV1
from ckd_mmdet.config import read_config
from mmengine.registry import MODELS

from tests.small_runs import ROOT


def test_it_has_the_published_number_of_parameters():
    model = read_config(ROOT / 'configs/classification/baselines/mobilenetv1_200e_imagenet.py').model
    classifier = MODELS.build({'_scope_': 'mmpretrain', **model})
    assert sum(weight.numel() for weight in classifier.parameters()) == 4_231_976
    assert sum(weight.numel() for weight in classifier.backbone.parameters()) == 3_206_976


@torch.no_grad()
def test_its_maps_halve_from_112_to_7():
    maps = MobileNetV1(out_indices=range(5)).eval()(torch.zeros(1, 3, 224, 224))
    assert [tuple(level.shape[1:]) for level in maps] == [
        (64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (1024, 7, 7)]
