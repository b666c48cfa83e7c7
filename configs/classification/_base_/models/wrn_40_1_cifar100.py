_base_ = ['./cifar100.py']
model = dict(backbone=dict(type='ckd_mmdet.CifarWideResNet', depth=40, widen_factor=1), head=dict(in_channels=64))
