# The usual teacher of a one-class data set.
_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py', './_base_/small_data.py']
model = dict(backbone=dict(init_cfg=None), roi_head=dict(bbox_head=dict(num_classes=1)))
metainfo = dict(classes=('sign', ), palette=[(220, 20, 60)])
train_dataloader = dict(dataset=dict(metainfo=metainfo, ann_file='one_train.json'))
val_dataloader = dict(dataset=dict(metainfo=metainfo, ann_file='one_val.json'))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/one_val.json')
test_evaluator = val_evaluator
