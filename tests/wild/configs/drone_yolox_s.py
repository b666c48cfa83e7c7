# YOLOX with its mosaic, its switch of modes, a batch augment; two classes.
_base_ = ['mmdet::yolox/yolox_s_8xb8-300e_coco.py', './_base_/small_data.py']
img_scale = (96, 96)
model = dict(bbox_head=dict(num_classes=2), data_preprocessor=dict(batch_augments=[
    dict(type='BatchSyncRandomResize', random_size_range=(64, 96), size_divisor=32, interval=1)]))
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
custom_hooks = [dict(type='YOLOXModeSwitchHook', num_last_epochs=1, priority=48), dict(type='SyncNormHook', priority=48)]
