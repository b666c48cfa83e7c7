# Five classes, a data set repeated, EMA and early stopping.
_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py', './_base_/small_data.py']
model = dict(backbone=dict(depth=18, init_cfg=None), neck=dict(in_channels=[64, 128, 256, 512]),
             roi_head=dict(bbox_head=dict(num_classes=5)))
metainfo = dict(classes=['car', 'person', 'sign', 'light', 'dog'])
train_dataloader = dict(dataset=dict(
    _delete_=True, type='RepeatDataset', times=1, dataset=dict(
        type='CocoDataset', data_root='data/', ann_file='train.json', data_prefix=dict(img='images/'),
        metainfo=metainfo, filter_cfg=dict(filter_empty_gt=False), pipeline=_base_.train_pipeline)))
val_dataloader = dict(dataset=dict(metainfo=metainfo))
test_dataloader = val_dataloader
custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002, update_buffers=True, priority=49),
                dict(type='EarlyStoppingHook', monitor='coco/bbox_mAP', patience=3)]
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP', rule='greater', max_keep_ckpts=1))
