_base_ = ['./cifar100.py']
model = dict(backbone=dict(type='ckd_mmdet.CifarResNet', arch='resnet32'), head=dict(in_channels=64))
