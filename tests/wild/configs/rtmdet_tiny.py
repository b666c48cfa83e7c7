# RTMDet: its switch of pipelines, data of two files joined, AdamW.
_base_ = ['mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', './_base_/small_data.py']
model = dict(backbone=dict(init_cfg=None), bbox_head=dict(num_classes=5))
metainfo = dict(classes=('car', 'person', 'sign', 'light', 'dog'))
part = dict(type='CocoDataset', data_root='data/', data_prefix=dict(img='images/'), metainfo=metainfo,
            pipeline=_base_.train_pipeline)
train_dataloader = dict(batch_size=2, num_workers=0, batch_sampler=None, dataset=dict(
    _delete_=True, type='ConcatDataset', datasets=[dict(ann_file='train.json', **part),
                                                   dict(ann_file='val.json', **part)]))
val_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(metainfo=metainfo))
test_dataloader = val_dataloader
val_evaluator = dict(proposal_nums=(100, 1, 10))
test_evaluator = val_evaluator
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002, update_buffers=True, priority=49),
                dict(type='PipelineSwitchHook', switch_epoch=0, switch_pipeline=_base_.train_pipeline)]
