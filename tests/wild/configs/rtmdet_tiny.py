# RTMDet: its switch of pipelines, data of two files joined, AdamW.
_base_ = ['./_base_/small_data.py']
norm = dict(type='SyncBN')
act = dict(type='SiLU', inplace=True)
model = dict(
    type='RTMDet',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395],
                           bgr_to_rgb=False),
    backbone=dict(type='CSPNeXt', arch='P5', expand_ratio=0.5, deepen_factor=0.167, widen_factor=0.375,
                  channel_attention=True, norm_cfg=norm, act_cfg=act),
    neck=dict(type='CSPNeXtPAFPN', in_channels=[96, 192, 384], out_channels=96, num_csp_blocks=1, expand_ratio=0.5,
              norm_cfg=norm, act_cfg=act),
    bbox_head=dict(type='RTMDetSepBNHead', num_classes=5, in_channels=96, stacked_convs=2, feat_channels=96,
                   anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
                   bbox_coder=dict(type='DistancePointBBoxCoder'),
                   loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
                   loss_bbox=dict(type='GIoULoss', loss_weight=2.0), with_objectness=False, exp_on_reg=False,
                   share_conv=True, pred_kernel_size=1, norm_cfg=norm, act_cfg=act),
    train_cfg=dict(assigner=dict(type='DynamicSoftLabelAssigner', topk=13), allowed_border=-1, pos_weight=-1,
                   debug=False),
    test_cfg=dict(nms_pre=30000, min_bbox_size=0, score_thr=0.001, nms=dict(type='nms', iou_threshold=0.65),
                  max_per_img=300))
pad = dict(type='Pad', size=(96, 96), pad_val=dict(img=(114, 114, 114)))
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(96, 96), keep_ratio=True), pad, dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 96), keep_ratio=True), pad,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
metainfo = dict(classes=('car', 'person', 'sign', 'light', 'dog'))
part = dict(type='CocoDataset', data_root='data/', data_prefix=dict(img='images/'), metainfo=metainfo,
            pipeline=train_pipeline)
train_dataloader = dict(batch_size=2, num_workers=0, batch_sampler=None, dataset=dict(
    _delete_=True, type='ConcatDataset', datasets=[dict(ann_file='train.json', **part),
                                                   dict(ann_file='val.json', **part)]))
val_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(metainfo=metainfo, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(proposal_nums=(100, 1, 10))
test_evaluator = val_evaluator
custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002, update_buffers=True, priority=49),
                dict(type='PipelineSwitchHook', switch_epoch=0, switch_pipeline=train_pipeline)]
