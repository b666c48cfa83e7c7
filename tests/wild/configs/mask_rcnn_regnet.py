# A RegNet under Mask R-CNN; classes balanced.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', './_base_/small_data.py']
model = dict(
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], bgr_to_rgb=False),
    backbone=dict(_delete_=True, type='RegNet', arch='regnetx_400mf', out_indices=(0, 1, 2, 3), frozen_stages=1,
                  norm_cfg=dict(type='BN', requires_grad=True), norm_eval=True, style='pytorch'),
    neck=dict(in_channels=[32, 64, 160, 384]),
    roi_head=dict(bbox_head=dict(num_classes=5), mask_head=dict(num_classes=5)))
metainfo = dict(classes=('car', 'person', 'sign', 'light', 'dog'))
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(96, 96), keep_ratio=True), dict(type='PackDetInputs')]
train_dataloader = dict(dataset=dict(
    _delete_=True, type='ClassBalancedDataset', oversample_thr=1e-3, dataset=dict(
        type='CocoDataset', data_root='data/', ann_file='train.json', data_prefix=dict(img='images/'),
        metainfo=metainfo, filter_cfg=dict(filter_empty_gt=True, min_size=1), pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(metainfo=metainfo))
test_dataloader = val_dataloader
