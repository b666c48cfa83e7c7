# The released run (arXiv 2404.14109), not run here: 360k iterations of 8 images, CKD on all RoIs with weight 0.1,
# ReviewKD with the weight released for this pair.
_base_ = ['../baselines/faster_rcnn_r50_fpn_180k_coco.py', '../_base_/alignments/roi_ckd.py']
train_cfg = dict(max_iters=360_000)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=360_000, milestones=[240_000, 320_000], gamma=0.1),
]
model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py'),  # weights from the model zoo
    alignments=dict(
        neck=dict(aligner=dict(type='NeckAligner'),
                  losses=dict(loss_review=dict(type='ReviewKDLoss', mid_channels=256, loss_weight=1.0))),
        **_base_.roi_ckd))
