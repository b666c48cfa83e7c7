# COCO's eighty classes, for students of a few of them: the data set's own names.
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', './_base_/small_data.py']
model = dict(backbone=dict(init_cfg=None))
