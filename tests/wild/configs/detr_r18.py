# DETR: padded to 1, unlike its teachers.
_base_ = ['mmdet::detr/detr_r50_8xb2-150e_coco.py', './_base_/small_data.py']
model = dict(backbone=dict(depth=18, init_cfg=None), neck=dict(in_channels=[512]),
             bbox_head=dict(num_classes=5), num_queries=20)
metainfo = dict(classes=('car', 'person', 'sign', 'light', 'dog'))
train_dataloader = dict(dataset=dict(metainfo=metainfo))
val_dataloader = dict(dataset=dict(metainfo=metainfo))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.0001, weight_decay=0.0001))
