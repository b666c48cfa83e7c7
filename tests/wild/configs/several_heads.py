# Heads of queries, proposals, regions and anchors over one neck, as in Co-DETR.
_base_ = ['./_base_/small_data.py']
custom_imports = dict(imports=['tests.wild.several_heads'], allow_failed_imports=False)
coder = dict(type='DeltaXYWHBBoxCoder', target_means=[0., 0., 0., 0.], target_stds=[0.1, 0.1, 0.2, 0.2])
anchors = dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=[8, 16, 32, 64])
model = dict(
    type='SeveralHeads',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                           bgr_to_rgb=True, pad_size_divisor=32),
    backbone=dict(type='ResNet', depth=18, num_stages=4, out_indices=(1, 2, 3), norm_eval=True),
    neck=dict(type='FPN', in_channels=[128, 256, 512], out_channels=32, num_outs=4),
    query_head=dict(
        type='HeadWithTransformer', num_classes=5, num_query=20, embed_dims=32, num_pred_layer=2,
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        train_cfg=dict(assigner=dict(type='HungarianAssigner', match_costs=[
            dict(type='FocalLossCost', weight=2.0), dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
            dict(type='IoUCost', iou_mode='giou', weight=2.0)]))),
    rpn_head=dict(type='RPNHead', in_channels=32, feat_channels=32, anchor_generator=anchors, bbox_coder=coder),
    roi_head=[dict(
        type='StandardRoIHead',
        bbox_roi_extractor=dict(type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', output_size=7),
                                out_channels=32, featmap_strides=[8, 16, 32, 64]),
        bbox_head=dict(type='Shared2FCBBoxHead', in_channels=32, fc_out_channels=64, num_classes=5, bbox_coder=coder))],
    bbox_head=[dict(type='ATSSHead', num_classes=5, in_channels=32, feat_channels=32, stacked_convs=1,
                    anchor_generator=anchors)])
del coder, anchors
metainfo = dict(classes=('car', 'person', 'sign', 'light', 'dog'))
train_dataloader = dict(dataset=dict(metainfo=metainfo))
val_dataloader = dict(dataset=dict(metainfo=metainfo))
test_dataloader = val_dataloader
