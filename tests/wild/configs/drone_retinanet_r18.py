# By iterations, a frozen backbone with a learning rate of its own, SyncBN.
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', './_base_/small_data.py']
model = dict(backbone=dict(depth=18, init_cfg=None, frozen_stages=2, norm_cfg=dict(type='SyncBN', requires_grad=True)),
             neck=dict(in_channels=[64, 128, 256, 512]), bbox_head=dict(num_classes=2))
metainfo = dict(classes=('car', 'person'))
train_dataloader = dict(sampler=dict(type='InfiniteSampler'), batch_sampler=None,
                        dataset=dict(metainfo=metainfo, ann_file='two_train.json'))
val_dataloader = dict(dataset=dict(metainfo=metainfo, ann_file='two_val.json'))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/two_val.json')
test_evaluator = val_evaluator
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=2, val_interval=2)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2))
log_processor = dict(by_epoch=False)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.0001, weight_decay=0.05),
                     paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1), 'norm': dict(decay_mult=0.)}),
                     clip_grad=dict(max_norm=35, norm_type=2))
