# MobileNet under an SSD, softmax on a dense head.
_base_ = ['./_base_/small_data.py']
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                           bgr_to_rgb=True, pad_size_divisor=1),
    backbone=dict(type='MobileNetV2', out_indices=(4, 7), norm_cfg=dict(type='BN', eps=0.001, momentum=0.03)),
    neck=dict(type='SSDNeck', in_channels=(96, 1280), out_channels=(96, 1280, 512), level_strides=(2, ),
              level_paddings=(1, ), l2_norm_scale=None, use_depthwise=True, norm_cfg=dict(type='BN'),
              act_cfg=dict(type='ReLU6')),
    bbox_head=dict(type='SSDHead', in_channels=(96, 1280, 512), num_classes=2, use_depthwise=True,
                   norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU6'),
                   anchor_generator=dict(type='SSDAnchorGenerator', scale_major=False, strides=[16, 32, 64],
                                         ratios=[[2, 3], [2, 3], [2, 3]], min_sizes=[24, 48, 72],
                                         max_sizes=[48, 72, 96]),
                   bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[.0, .0, .0, .0],
                                   target_stds=[0.1, 0.1, 0.2, 0.2])),
    train_cfg=dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.,
                                 ignore_iof_thr=-1, gt_max_assign_all=False),
                   sampler=dict(type='PseudoSampler'), smoothl1_beta=1., allowed_border=-1, pos_weight=-1,
                   neg_pos_ratio=3, debug=False),
    test_cfg=dict(nms_pre=1000, nms=dict(type='nms', iou_threshold=0.45), min_bbox_size=0, score_thr=0.02,
                  max_per_img=200))
metainfo = dict(classes=('car', 'person'))
train_dataloader = dict(batch_size=2, num_workers=0, batch_sampler=None, dataset=dict(
    _delete_=True, type='CocoDataset', data_root='data/', ann_file='two_train.json', data_prefix=dict(img='images/'),
    metainfo=metainfo, pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(metainfo=metainfo, ann_file='two_val.json', pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/two_val.json')
test_evaluator = val_evaluator
custom_hooks = [dict(type='NumClassCheckHook')]
