_base_ = ['./cifar100.py']
model = dict(backbone=dict(type='ckd_mmdet.CifarResNet', arch='resnet32x4'), head=dict(in_channels=256))
