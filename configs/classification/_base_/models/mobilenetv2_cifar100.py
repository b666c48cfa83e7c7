_base_ = ['./cifar100.py']
model = dict(backbone=dict(type='ckd_mmdet.CifarMobileNetV2'), head=dict(in_channels=1280))
