# Masks too; its head predicts boxes and masks in one.
_base_ = './rtmdet_tiny.py'
model = dict(
    data_preprocessor=dict(pad_mask=True, mask_pad_value=0),
    bbox_head=dict(_delete_=True, type='RTMDetInsSepBNHead', num_classes=5, in_channels=96, stacked_convs=2,
                   feat_channels=96, share_conv=True, pred_kernel_size=1, act_cfg=dict(type='SiLU', inplace=True),
                   norm_cfg=dict(type='BN', requires_grad=True),
                   anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
                   bbox_coder=dict(type='DistancePointBBoxCoder'),
                   loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
                   loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
                   loss_mask=dict(type='DiceLoss', loss_weight=2.0, eps=5e-6, reduction='mean')),
    test_cfg=dict(mask_thr_binary=0.5))
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(type='Resize', scale=(96, 96), keep_ratio=True),
    dict(type='Pad', size=(96, 96), pad_val=dict(img=(114, 114, 114))), dict(type='PackDetInputs')]
train_dataloader = dict(dataset=dict(
    _delete_=True, type='CocoDataset', data_root='data/', ann_file='train.json', data_prefix=dict(img='images/'),
    metainfo=dict(classes=('car', 'person', 'sign', 'light', 'dog')), filter_cfg=dict(filter_empty_gt=True, min_size=1),
    pipeline=train_pipeline))
custom_hooks = []
