# One class, given as a string; a RetinaNet of an edge device.
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', './_base_/small_data.py']
model = dict(backbone=dict(depth=18, init_cfg=None), neck=dict(in_channels=[64, 128, 256, 512]),
             bbox_head=dict(num_classes=1))
classes = ('sign')
train_dataloader = dict(dataset=dict(metainfo=dict(classes=classes), ann_file='one_train.json'))
val_dataloader = dict(dataset=dict(metainfo=dict(classes=classes), ann_file='one_val.json'))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/one_val.json')
test_evaluator = val_evaluator
