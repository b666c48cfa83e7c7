_base_ = ['./cifar100.py']
model = dict(backbone=dict(type='ckd_mmdet.CifarResNet', arch='resnet50'), head=dict(in_channels=2048))
