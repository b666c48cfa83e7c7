"""Pure Python, classes as types."""
from mmdet.models import FPN, DetDataPreprocessor, ResNet, RetinaHead, RetinaNet
from mmengine.config import read_base

with read_base():
    from ._base_.small_data import *  # noqa: F403

model = dict(
    type=RetinaNet,
    data_preprocessor=dict(type=DetDataPreprocessor, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                           bgr_to_rgb=True, pad_size_divisor=32),
    backbone=dict(type=ResNet, depth=18, num_stages=4, out_indices=(0, 1, 2, 3), norm_eval=True),
    neck=dict(type=FPN, in_channels=[64, 128, 256, 512], out_channels=64, start_level=1, add_extra_convs='on_input',
              num_outs=5),
    bbox_head=dict(type=RetinaHead, num_classes=5, in_channels=64, stacked_convs=1, feat_channels=64),
    train_cfg=dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0,
                                 ignore_iof_thr=-1),
                   sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5),
                  max_per_img=100))
metainfo = dict(classes=('car', 'person', 'sign', 'light', 'dog'))
train_dataloader.update(dict(dataset=dict(train_dataloader['dataset'], metainfo=metainfo)))  # noqa: F405
val_dataloader.update(dict(dataset=dict(val_dataloader['dataset'], metainfo=metainfo)))  # noqa: F405
test_dataloader = val_dataloader  # noqa: F405
