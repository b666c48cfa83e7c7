# Trained on two classes with `num_classes=80` left as it was.
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', './_base_/small_data.py']
model = dict(backbone=dict(init_cfg=None))
train_dataloader = dict(dataset=dict(metainfo=dict(classes=('car', 'person')), ann_file='two_train.json'))
