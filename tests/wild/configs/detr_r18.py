# DETR: padded to 1, unlike its teachers.
_base_ = ['./_base_/small_data.py']
attention = dict(embed_dims=64, num_heads=8, dropout=0.1, batch_first=True)
ffn = dict(embed_dims=64, feedforward_channels=128, num_fcs=2, ffn_drop=0.1, act_cfg=dict(type='ReLU', inplace=True))
model = dict(
    type='DETR', num_queries=20,
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                           bgr_to_rgb=True, pad_size_divisor=1),
    backbone=dict(type='ResNet', depth=18, num_stages=4, out_indices=(3, ), frozen_stages=1, norm_eval=True),
    neck=dict(type='ChannelMapper', in_channels=[512], kernel_size=1, out_channels=64, act_cfg=None, norm_cfg=None,
              num_outs=1),
    encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
    decoder=dict(num_layers=2, return_intermediate=True,
                 layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn)),
    positional_encoding=dict(num_feats=32, normalize=True),
    bbox_head=dict(type='DETRHead', num_classes=5, embed_dims=64,
                   loss_cls=dict(type='CrossEntropyLoss', bg_cls_weight=0.1, use_sigmoid=False, class_weight=1.0),
                   loss_bbox=dict(type='L1Loss', loss_weight=5.0), loss_iou=dict(type='GIoULoss', loss_weight=2.0)),
    train_cfg=dict(assigner=dict(type='HungarianAssigner', match_costs=[
        dict(type='ClassificationCost', weight=1.), dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
        dict(type='IoUCost', iou_mode='giou', weight=2.0)])),
    test_cfg=dict(max_per_img=20))
del attention, ffn
metainfo = dict(classes=('car', 'person', 'sign', 'light', 'dog'))
train_dataloader = dict(dataset=dict(metainfo=metainfo))
val_dataloader = dict(dataset=dict(metainfo=metainfo))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.0001, weight_decay=0.0001))
