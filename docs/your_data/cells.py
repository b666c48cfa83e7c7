# The data, the schedule, and what both detectors share: a Faster R-CNN of mmdet's with 64 channels in neck and heads.
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py']
root, names = 'BCCD/JPEGImages/', dict(classes=('RBC', 'WBC', 'Platelets'))
size = dict(type='Resize', scale=(320, 240), keep_ratio=True)
train = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), size,
         dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]
test = [dict(type='LoadImageFromFile'), size, dict(type='LoadAnnotations', with_bbox=True), dict(
    type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
common = dict(data_root='', data_prefix=dict(img=root), metainfo=names)
train_dataloader = dict(batch_size=4, dataset=dict(ann_file='data/train.json', pipeline=train, **common))
val_dataloader = dict(batch_size=4, dataset=dict(ann_file='data/val.json', pipeline=test, **common))
test_dataloader = dict(batch_size=4, dataset=dict(ann_file='data/test.json', pipeline=test, **common))
val_evaluator = dict(ann_file='data/val.json')
test_evaluator = dict(ann_file='data/test.json')
model = dict(neck=dict(out_channels=64), rpn_head=dict(in_channels=64, feat_channels=64), roi_head=dict(
    bbox_roi_extractor=dict(out_channels=64), bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=3)),
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=300), rcnn=dict(sampler=dict(num=128))))  # half the time
train_cfg = dict(max_epochs=8, val_interval=8)
param_scheduler = [dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
                   dict(type='CosineAnnealingLR', begin=0, end=8, by_epoch=True, convert_to_iter_based=True)]
optim_wrapper = dict(optimizer=dict(lr=0.01), clip_grad=dict(max_norm=10))
