# EfficientNet under a RetinaNet.
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', './_base_/small_data.py']
model = dict(
    backbone=dict(_delete_=True, type='EfficientNet', arch='b0', out_indices=(3, 4, 5), frozen_stages=0,
                  norm_cfg=dict(type='BN', requires_grad=True, eps=1e-3, momentum=0.01), norm_eval=False),
    neck=dict(in_channels=[40, 112, 320], start_level=0), bbox_head=dict(num_classes=2))
metainfo = dict(classes=('car', 'person'))
train_dataloader = dict(dataset=dict(metainfo=metainfo, ann_file='two_train.json'))
val_dataloader = dict(dataset=dict(metainfo=metainfo, ann_file='two_val.json'))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/two_val.json')
test_evaluator = val_evaluator
