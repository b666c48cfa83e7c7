# A microscope: images of one channel.
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', './_base_/small_data.py']
model = dict(
    data_preprocessor=dict(mean=[120.0], std=[50.0], bgr_to_rgb=False),
    backbone=dict(depth=18, in_channels=1, init_cfg=None), neck=dict(in_channels=[64, 128, 256, 512]),
    bbox_head=dict(num_classes=1))
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(96, 96), keep_ratio=True), dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='Resize', scale=(96, 96), keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
train_dataloader = dict(dataset=dict(metainfo=dict(classes='sign'), ann_file='one_train.json', pipeline=train_pipeline,
                                     data_prefix=dict(img='gray/')))
val_dataloader = dict(dataset=dict(metainfo=dict(classes='sign'), ann_file='one_val.json', pipeline=test_pipeline,
                                   data_prefix=dict(img='gray/')))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/one_val.json')
test_evaluator = val_evaluator
