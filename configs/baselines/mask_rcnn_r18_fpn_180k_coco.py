# The student alone: 180k iterations of 8 images. Not run: nobody here has COCO.
_base_ = ['./mask_rcnn_r50_fpn_180k_coco.py']
model = dict(
    backbone=dict(depth=18, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512]))
