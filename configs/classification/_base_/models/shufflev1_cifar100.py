_base_ = ['./cifar100.py']
model = dict(backbone=dict(type='ckd_mmdet.CifarShuffleNetV1'), head=dict(in_channels=960))
