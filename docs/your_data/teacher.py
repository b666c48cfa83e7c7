# A MobileNetV2 that starts from ImageNet weights.
_base_ = ['./cells.py']
model = dict(
    backbone=dict(_delete_=True, type='MobileNetV2', out_indices=(1, 2, 4, 6), frozen_stages=1,
                  init_cfg=dict(type='Pretrained', checkpoint='mobilenetv2_imagenet.pth')),
    neck=dict(in_channels=[24, 32, 96, 320]))
