# A cascade, `num_classes` set stage by stage, and the data preprocessor at the top of the config.
_base_ = ['mmdet::_base_/models/cascade-rcnn_r50_fpn.py', './_base_/small_data.py']
stage = dict(type='Shared2FCBBoxHead', in_channels=256, fc_out_channels=1024, roi_feat_size=7, num_classes=5,
             reg_class_agnostic=True, loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
             loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0))
data_preprocessor = dict(type='DetDataPreprocessor', mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0],
                         bgr_to_rgb=False, pad_size_divisor=32)
model = dict(data_preprocessor=data_preprocessor, backbone=dict(init_cfg=None, frozen_stages=4),
             roi_head=dict(bbox_head=[
    dict(bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0., 0., 0., 0.], target_stds=stds), **stage)
    for stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])]))
del stage
metainfo = dict(classes=('car', 'person', 'sign', 'light', 'dog'))
train_dataloader = dict(dataset=dict(metainfo=metainfo))
val_dataloader = dict(dataset=dict(metainfo=metainfo))
test_dataloader = val_dataloader
