_base_ = ['./cifar100.py']
model = dict(backbone=dict(type='ckd_mmdet.CifarShuffleNetV2'), head=dict(in_channels=1024))
