"""mmdet's own models, narrow enough that a training step takes less than a second."""

from __future__ import annotations

import copy
import re
from typing import Any

import mmdet
import torch
from mmdet.models.backbones.trident_resnet import TridentConv
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from mmengine.utils import digit_version
from torch import nn

from .families import model_of

NARROWER = 8
"""Every width is divided by this: what fitted before fits after, sums and concatenations too."""
NUM_CLASSES = 3
SIZE = 128
"""Height and width of the images."""
LEAST_WIDTH = 17
"""Smaller numbers are counts of coordinates, or the filters that BoxInst's head writes."""
IS_WIDTH = re.compile(r'(channels?|embed_dims|num_feats|inplanes|num_groups|base_width)$')

# What says how wide a part is, where its config may leave it out.
WIDTHS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(('ResNet', 'ResNetV1d', 'DetectoRS_ResNet', 'Res2Net', 'ResNeSt'), dict(base_channels=64)),
    'HRNet': {},
    'SwinTransformer': dict(embed_dims=96),
    'PyramidVisionTransformerV2': dict(embed_dims=64),
    'HourglassNet': dict(feat_channel=256),
    'mmpretrain.ConvNeXt': dict(arch=dict(depths=[3, 3, 9, 3], channels=[96, 192, 384, 768])),
    **dict.fromkeys(('CSPDarknet', 'CSPNeXt'), dict(widen_factor=1)),
    **dict.fromkeys(('DeformableDETRHead', 'DINOHead', 'DDQDETRHead'), dict(embed_dims=256)),
}
OLD = digit_version(mmdet.__version__) < digit_version('3.4')
FULL_SIZE = {
    'SingleStageDetector': 'the widths of SSD are those of its backbone',
    'TridentFasterRCNN': 'its shared head is a stage of ResNet-50, as wide as that',
    'ConditionalDETR': 'its encoding of coordinates has 256 numbers',
    **(dict.fromkeys(('DINO', 'DDQDETR'), 'as of Conditional DETR, before mmdet 3.4') if OLD else {}),
}
"""Detectors with widths that no config can change."""
FULL_SIZE_ROIS = 4
"""RoIs an image of those."""

# Counts of proposals and queries; a smaller number stays.
COUNTS = dict(nms_pre=200, max_per_img=50, num=16, num_queries=20, num_dn_queries=10, num_proposals=20,
              num_stuff_classes=NUM_CLASSES, num_things_classes=NUM_CLASSES, num_classes=NUM_CLASSES)
LAYERS = 2
"""Layers of a transformer's encoder and decoder."""
REPLACED = {
    # a single process has no one to synchronise with
    ('type', 'SyncBN'): 'BN',
    ('type', 'MMSyncBN'): 'BN',
    # NAS-FCOS's; torch 2.11 wants it to be positive
    ('eps', 0): 1e-5,
}
LEFT_OUT = ('init_cfg', 'pretrained', 'teacher_ckpt',  # would be downloaded
            'batch_augments')  # change the size of a batch, at random


def shrunk(model: ConfigDict) -> ConfigDict:
    """The same detector, backbone, neck and heads with an eighth of their widths, few queries and three classes.

    Weights are random (each ``init_cfg`` and ``pretrained`` is left out), and a batch keeps its size (so are
    ``batch_augments``). A backbone that has no narrower version stays as wide as it is, and so do :data:`FULL_SIZE`.

    Args:
        model: The ``model`` of a config; it is left alone.
    """
    model = _limited(model)
    if model.type in FULL_SIZE:
        if 'rcnn' in (model.train_cfg or {}):
            model.train_cfg.rcnn.sampler.num = FULL_SIZE_ROIS
        return model
    neck = model.get('neck')
    entry = neck[0] if isinstance(neck, list) else neck
    if entry and model.backbone.type not in WIDTHS:
        from_backbone = entry.in_channels
        model = _narrowed(model)
        (model.neck[0] if isinstance(neck, list) else model.neck).in_channels = from_backbone
        return model
    return _narrowed(model)


def toy_model(model: ConfigDict, seed: int = 0) -> nn.Module:
    """Build a detector as the Runner would, in training mode; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = MODELS.build(copy.deepcopy(model))
        built.init_weights()
        for part in built.modules():
            if isinstance(part, TridentConv):  # mmdet leaves its weights to the checkpoint: uninitialised memory
                nn.init.kaiming_normal_(part.weight)
        _spread(built)
        _settle(built)
    built.train()  # gives nothing back where a detector, LAD, has a `train` of its own
    return built


def made_up_batch(model: nn.Module) -> dict[str, Any]:
    """A batch of two noise images with boxes and whatever else the detector trains on; always the same.

    Args:
        model: The detector; what it takes is ``model.data_preprocessor(batch, training=True)``.
    """
    has_masks = any('mask' in name for name, _ in model.named_modules())
    classes = num_classes(model)
    # its labels start from 1
    batch = demo_mm_inputs(2, (3, SIZE, SIZE), num_items=[4, 3], num_classes=classes + 1, with_mask=has_masks,
                           with_semantic=True)
    generator = torch.Generator().manual_seed(0)
    for sample in batch['data_samples']:
        sample.gt_instances.labels -= 1
        shape = sample.gt_sem_seg.sem_seg.shape
        sample.gt_sem_seg.sem_seg = torch.randint(classes, shape, generator=generator, dtype=torch.uint8)
        corners = torch.rand(20, 2, 2, generator=generator).mul(SIZE).sort(1).values
        sample.proposals = InstanceData(bboxes=torch.cat([sample.gt_instances.bboxes, corners.flatten(1)]))
    return batch


def num_classes(model: nn.Module) -> int:
    """Number of classes of the ground truth that a detector takes."""
    head = getattr(getattr(model, 'roi_head', None), 'bbox_head', None) or getattr(model, 'bbox_head', None)
    return getattr(head[-1] if isinstance(head, nn.ModuleList) else head, 'num_classes', 1)


@torch.no_grad()
def _settle(model: nn.Module) -> None:
    """Give BatchNorm the statistics of a batch, as training would: at rest, it would let random features explode."""
    norms = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    model.train()
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # this batch's
    if norms:
        model(**model.data_preprocessor(made_up_batch(model), True), mode='loss')
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def _spread(model: nn.Module) -> None:
    """Scale up a head's small convolutions: meant for wide features, on narrow ones they would score all alike."""
    for name, part in model.named_modules():
        if isinstance(part, nn.Conv2d) and not name.startswith('backbone'):
            wanted = part.weight[0].numel() ** -0.5
            if 0 < part.weight.std() < wanted / 2:
                part.weight *= wanted / part.weight.std()


def _limited(config: Any, key: str = '') -> Any:
    """A copy with random weights, few classes, proposals and layers."""
    if isinstance(config, dict):
        if key in ('encoder', 'decoder') and isinstance(config.get('num_layers'), int):
            config = {**config, 'num_layers': min(config['num_layers'], LAYERS)}
        return ConfigDict({name: _limited(part, name) for name, part in config.items() if name not in LEFT_OUT})
    if isinstance(config, list | tuple):
        return type(config)(_limited(part) for part in config)
    if type(config) is int and key in COUNTS:
        return min(config, COUNTS[key])
    if (key, config) in REPLACED:
        return REPLACED[key, config]
    return config


def _narrowed(config: Any, key: str = '') -> Any:
    """A copy with every width divided."""
    if isinstance(config, dict):
        if key == 'data_preprocessor':
            return config
        widths = WIDTHS.get(config.get('type'), {})
        config = {**config, **{name: config.get(name, width) for name, width in widths.items() if name != 'arch'}}
        if 'arch' in widths:
            config['arch'] = widths['arch']
        return ConfigDict({name: _narrowed(part, name) for name, part in config.items()})
    if isinstance(config, list | tuple):
        return type(config)(_narrowed(part, key) for part in config)
    if key == 'widen_factor':
        return config / NARROWER
    if key == 'teacher_config':  # a path from the root of mmdet's sources
        return dict(model=shrunk(model_of(config.removeprefix('configs/'))))
    return config // NARROWER if IS_WIDTH.search(key) and type(config) is int and config >= LEAST_WIDTH else config
