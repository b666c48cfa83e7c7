"""Detectors of mmdet's own configs, small enough to train a step in a fraction of a second."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import ckd_mmdet.compat  # noqa: F401
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from torch import nn

TWO_STAGE = {
    'faster_rcnn': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'mask_rcnn': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'cascade_rcnn': 'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'cascade_mask_rcnn': 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'dynamic_rcnn': 'mmdet::dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py',
    'double_head_rcnn': 'mmdet::double_heads/dh-faster-rcnn_r50_fpn_1x_coco.py',
}
ONE_STAGE = {
    'retinanet': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'fcos': 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'atss': 'mmdet::atss/atss_r50_fpn_1x_coco.py',
    'gfl': 'mmdet::gfl/gfl_r50_fpn_1x_coco.py',
    'paa': 'mmdet::paa/paa_r50_fpn_1x_coco.py',
    'tood': 'mmdet::tood/tood_r50_fpn_1x_coco.py',
    'yolof': 'mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py',
    'vfnet': 'mmdet::vfnet/vfnet_r50_fpn_1x_coco.py',
    'reppoints': 'mmdet::reppoints/reppoints-moment_r50_fpn_1x_coco.py',
    'fcos_in_strides': 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py',
}
OTHER_MASKS = {  # detectors that make masks in ways of their own
    'htc': 'mmdet::htc/htc-without-semantic_r50_fpn_1x_coco.py',
    'scnet': 'mmdet::scnet/scnet_r50_fpn_1x_coco.py',
    'condinst': 'mmdet::condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py',
}
QUERIES = {
    'detr': 'mmdet::detr/detr_r50_8xb2-150e_coco.py',
    'conditional_detr': 'mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
    'dab_detr': 'mmdet::dab_detr/dab-detr_r50_8xb2-50e_coco.py',
    'deformable_detr': 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'dino': 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    'ddq': 'mmdet::ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py',
}

# The keys by which a config says how wide something is, and what they are in a toy.
WIDTHS = dict(in_channels=16, feat_channels=32, out_channels=16, conv_out_channels=16, fc_out_channels=32,
              stacked_convs=1, num_convs=1, init_cfg=None, pretrained=None)
# Some of these heads want 256 channels, whatever their config says.
QUERY_WIDTHS = dict(feedforward_channels=32, num_queries=12,
                    dropout=0.0, ffn_drop=0.0, attn_drop=0.0, proj_drop=0.0, init_cfg=None, pretrained=None)


register_all_modules(init_default_scope=True)


def toy_config(name: str, num_classes: int = 3) -> ConfigDict:
    """The ``model`` of mmdet's own config, narrow, shallow, with random weights and 16 RoIs an image.

    Its BatchNorm keeps ``norm_eval=True`` of the original, so that train and eval mode give equal features.
    """
    if name in QUERIES:
        return toy_query_config(name, num_classes)
    model = copy.deepcopy(_model({**TWO_STAGE, **ONE_STAGE, **OTHER_MASKS}[name]))
    _shrink(model, {**WIDTHS, 'num_classes': num_classes})
    model.backbone.update(depth=18, base_channels=8)
    model.neck.in_channels = [8, 16, 32, 64] if model.neck.type == 'FPN' else 64
    if 'rpn_proposal' in model.get('train_cfg', {}):
        model.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=32)
        model.test_cfg.rpn.update(nms_pre=100, max_per_img=32)
        for stage in model.train_cfg.rcnn if isinstance(model.train_cfg.rcnn, list) else [model.train_cfg.rcnn]:
            stage.sampler.num = 16
    return model


def toy_query_config(name: str, num_classes: int = 3, layers: int = 2) -> ConfigDict:
    """The same of a DETR-like detector, with ``layers`` decoder layers, 12 queries and no dropout."""
    model = copy.deepcopy(_model(QUERIES[name]))
    _shrink(model, {**QUERY_WIDTHS, 'num_classes': num_classes})
    model.backbone.update(depth=18, base_channels=8)
    model.neck.in_channels = [[8, 16, 32, 64][i] for i in model.backbone.out_indices]
    model.encoder.num_layers, model.decoder.num_layers = 1, layers
    return model


def toy_model(config: dict, seed: int = 0) -> nn.Module:
    """Build a detector; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS.build(copy.deepcopy(config))
        if hasattr(model, 'level_embed'):  # as the memory was until init_weights(): now and then NaN, unequal to itself
            nn.init.normal_(model.level_embed)
        return model


def paired(config: dict, seed: int = 0) -> nn.Module:
    """A distilled student that may take a step, its classes without names."""
    model = toy_model(config, seed)
    model.distillation.pair(model, None)
    return model


def toy_batch(n: int = 2, size: int = 64, num_items: list[int] | None = None, num_classes: int = 3,
              with_mask: bool = False) -> dict[str, Any]:
    """A batch as a dataloader gives it: noise images with random boxes (``num_items`` an image; always the same).

    What a detector takes is ``model.data_preprocessor(batch, training=True)``.
    """
    return demo_mm_inputs(n, (3, size, size), num_items=num_items, num_classes=num_classes, with_mask=with_mask)


def saved_teacher(folder: Path, config: dict, seed: int = 1, classes: tuple[str, ...] | None = None) -> str:
    """Save random weights of a detector, with mmdet's meta where ``classes`` are given; gives the path."""
    path = Path(folder) / f'teacher_{seed}.pth'
    meta = {} if classes is None else dict(dataset_meta=dict(classes=classes))
    torch.save(dict(meta=meta, state_dict=toy_model(config, seed).state_dict()), path)
    return str(path)


@lru_cache
def _model(config: str) -> ConfigDict:
    return get_config(config).model


def _shrink(config: Any, values: dict[str, Any]) -> None:
    """Set each of ``values`` wherever the config has its key, in place."""
    if isinstance(config, dict):
        for key in config:
            if key in values:
                config[key] = values[key]
            else:
                _shrink(config[key], values)
    elif isinstance(config, list | tuple):
        for part in config:
            _shrink(part, values)
