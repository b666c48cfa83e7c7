_base_ = ['./cifar100.py']
model = dict(backbone=dict(type='ckd_mmdet.CifarResNet', arch='resnet110'), head=dict(in_channels=64))
