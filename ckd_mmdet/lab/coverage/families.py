"""The config families of the installed mmdet, and which config speaks for each."""

from __future__ import annotations

import re
from pathlib import Path

import mmdet
from ckd_mmdet.config import read_config
from mmengine.config import ConfigDict

CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'

TRACKS = 'tracks objects through videos; the detector inside is a family of its own'
WORDS = 'scores the words of a text, not classes'
MASKS = 'finds masks, not boxes'

# Folders that hold no detector at all.
NO_DETECTOR = ('_base_', 'albu_example', 'common')

OUT_OF_SCOPE = {
    **dict.fromkeys(('bytetrack', 'deepsort', 'mask2former_vis', 'masktrack_rcnn', 'ocsort', 'qdtrack', 'sort',
                     'strongsort'), TRACKS),
    **dict.fromkeys(('glip', 'grounding_dino', 'mm_grounding_dino'), WORDS),
    **dict.fromkeys(('mask2former', 'maskformer', 'solo', 'solov2'), MASKS),
    'clrnet': 'finds lanes, not boxes',
    'dsdl': 'data sets for a Faster R-CNN; needs the package dsdl',
    'misc': 'wraps models of the package detectron2',
    'reid': 'recognises people, finds no boxes',
    'soft_teacher': 'semi-supervised: it has a teacher of its own, and three views of each batch',
    'timm_example': 'backbones from the package timm, which mmdet does not require',
}

# Where the rule of `smallest_config` takes another: the smallest backbone of a family whose configs are named by it.
BY_HAND = {
    # the detector rather than the RPN of the same family
    'cascade_rpn': 'cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py',
    'guided_anchoring': 'ga-retinanet_r50_fpn_1x_coco.py',
    'libra_rcnn': 'libra-faster-rcnn_r50_fpn_1x_coco.py',  # Fast R-CNN is a family of its own
    # what the folder is named after, not what stands beside it
    'dcn': 'faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py',
    'dcnv2': 'faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py',
    'gcnet': 'mask-rcnn_r50-gcb-r4-c3-c5_fpn_1x_coco.py',
    'fpg': 'faster-rcnn_r50_fpg-chn128_crop640-50e_coco.py',
    'nas_fpn': 'retinanet_r50_nasfpn_crop640-50e_coco.py',
    'detectors': 'detectors_cascade-rcnn_r50_1x_coco.py',
    'ddq': 'ddq-detr-4scale_r50_8xb2-12e_coco.py',
    # the smallest backbone
    'convnext': 'mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
    'hrnet': 'faster-rcnn_hrnetv2p-w18-1x_coco.py',
    'ld': 'ld_r18-gflv1-r101_fpn_1x_coco.py',
    'pvt': 'retinanet_pvtv2-b0_fpn_1x_coco.py',
    'res2net': 'faster-rcnn_res2net-101_fpn_2x_coco.py',
    'regnet': 'faster-rcnn_regnetx-400MF_fpn_ms-3x_coco.py',
    'rtmdet': 'rtmdet_tiny_8xb32-300e_coco.py',
    'seesaw_loss': 'mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1.py',
    'ssd': 'ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
    'yolo': 'yolov3_mobilenetv2_8xb24-320-300e_coco.py',
    'yolox': 'yolox_tiny_8xb8-300e_coco.py',
}


def families() -> list[str]:
    """Names of the folders of mmdet's configs that hold detectors, in scope or not."""
    return sorted(path.name for path in CONFIGS.iterdir() if path.is_dir() and path.name not in NO_DETECTOR)


def smallest_config(family: str) -> str:
    """The config that speaks for a family, as ``'<family>/<file>'``.

    Of its configs for COCO, or of all where it has none, the first by: a ResNet-50, a 1x schedule, the shortest name,
    the alphabet; :data:`BY_HAND` has the exceptions.

    Raises:
        ValueError: If there is no such family.
    """
    if family not in families():
        raise ValueError(f"`family` needs a folder of mmdet's configs, got {family!r}; known: "
                         f'{", ".join(families())}.')
    if family in BY_HAND:
        return f'{family}/{BY_HAND[family]}'
    names = [path.name for path in (CONFIGS / family).glob('*.py') if not path.stem.endswith('_tta')]
    of_coco = [name for name in names if re.search(r'coco\b|coco_', name)]

    def rank(name: str) -> tuple[bool, bool, int, str]:
        return 'r50' not in name, '1x' not in name, len(name), name

    return f'{family}/{min(of_coco or names, key=rank)}'


def model_of(config: str) -> ConfigDict:
    """The ``model`` of a config ``'<family>/<file>'``, with its data preprocessor, where that stands outside, in it."""
    cfg = read_config(CONFIGS / config)
    model = cfg.model
    if cfg.get('data_preprocessor'):
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return model
