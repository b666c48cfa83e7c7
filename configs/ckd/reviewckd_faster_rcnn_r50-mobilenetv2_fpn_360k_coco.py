# Not run: nobody here has COCO. The released run: 360k iterations of 8 images. Compare methods by their 180k
# configs: no baseline has this budget.
_base_ = ['./reviewckd_faster_rcnn_r50-mobilenetv2_fpn_180k_coco.py']
train_cfg = dict(max_iters=360_000)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=360_000, milestones=[240_000, 320_000], gamma=0.1),
]
