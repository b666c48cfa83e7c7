# YOLOX with its mosaic, its switch of modes, a batch augment; two classes.
_base_ = ['./_base_/small_data.py']
img_scale = (96, 96)
model = dict(
    type='YOLOX',
    data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32, batch_augments=[
        dict(type='BatchSyncRandomResize', random_size_range=(64, 96), size_divisor=32, interval=1)]),
    backbone=dict(type='CSPDarknet', deepen_factor=0.33, widen_factor=0.5, out_indices=(2, 3, 4)),
    neck=dict(type='YOLOXPAFPN', in_channels=[128, 256, 512], out_channels=128, num_csp_blocks=1),
    bbox_head=dict(type='YOLOXHead', num_classes=2, in_channels=128, feat_channels=128),
    train_cfg=dict(assigner=dict(type='SimOTAAssigner', center_radius=2.5)),
    test_cfg=dict(score_thr=0.01, nms=dict(type='nms', iou_threshold=0.65)))
metainfo = dict(classes=('car', 'person'))
train_pipeline = [
    dict(type='Mosaic', img_scale=img_scale, pad_val=114.0),
    dict(type='RandomAffine', scaling_ratio_range=(0.5, 1.5), border=(-48, -48)),
    dict(type='MixUp', img_scale=img_scale, ratio_range=(0.8, 1.6), pad_val=114.0),
    dict(type='YOLOXHSVRandomAug'), dict(type='RandomFlip', prob=0.5),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), keep_empty=False), dict(type='PackDetInputs')]
train_dataloader = dict(
    _delete_=True, batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='MultiImageMixDataset', pipeline=train_pipeline, dataset=dict(
        type='CocoDataset', data_root='data/', ann_file='two_train.json', data_prefix=dict(img='images/'),
        metainfo=metainfo, pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)])))
val_dataloader = dict(dataset=dict(metainfo=metainfo, ann_file='two_val.json'))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/two_val.json')
test_evaluator = val_evaluator
max_epochs = 1
custom_hooks = [dict(type='YOLOXModeSwitchHook', num_last_epochs=1, priority=48),
                dict(type='SyncNormHook', priority=48)]
